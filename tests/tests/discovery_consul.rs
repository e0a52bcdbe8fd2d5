//! Services from a real Consul: a real proxy calls them, within moments of their change.

mod patient {
    use std::time::Duration;

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        consul::Consul,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        wait::until,
    };
    use serde_json::{Value, json};

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long it may take until a proxy calls where Consul says.
    const SOON: Duration = Duration::from_secs(2);

    fn instance(id: &str, port: u16, tags: &[&str]) -> Value {
        let check = json!({"CheckID": format!("{id}-own"), "TTL": "10m", "Status": "passing"});
        json!({"Name": "old-orders", "ID": id, "Address": "127.0.0.1", "Port": port, "Tags": tags,
               "Meta": {"version": "v1"}, "Check": check})
    }

    #[tokio::test]
    async fn what_consul_has_is_called_within_two_seconds_and_outlives_it() {
        let scratch = Scratch::new("consul");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let mut consul = Consul::start(scratch.path(), cluster.network.address(20)).await.expect("Consul");
        let (first, second) = (Backend::start("first").await, Backend::start("second").await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let register = "/v1/agent/service/register";
        consul.put(register, &instance("one", first.port, &["mesh"])).await.expect("registered");
        consul.put(register, &instance("other", second.port, &["not"])).await.expect("registered");
        let web = LocalService::new("web", 1, 80, "http").calling("old-orders", 9_001);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let address = consul.url();
        let manifest = format!(
            "{{kind: DiscoverySource, metadata: {{name: old-consul}}, spec: {{type: Consul, consul: {{address: {address:?}, datacenter: dc1}}, filter: {{tags: [mesh]}}, stalePolicy: {{after: 6s}}}}}}"
        );
        let file = scratch.write("source.yaml", manifest).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
        let client = Plain::new((front.address, 9_001).into(), "old-orders.default.mesh");
        let answers = async |want: &str, within: Duration| {
            until(&format!("{want} answers"), within, || async {
                let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
                let said = String::from_utf8_lossy(answer.body()).into_owned();
                if said.starts_with(want) { Ok(()) } else { Err(said) }
            })
            .await
            .expect("in time");
        };
        answers("first for nobody", PATIENCE).await;

        consul.put(register, &instance("two", second.port, &["mesh"])).await.expect("registered");
        consul.put("/v1/agent/check/fail/one-own", &json!(null)).await.expect("it fails");
        answers("second for nobody", SOON).await;
        consul.put("/v1/agent/check/pass/one-own", &json!(null)).await.expect("it passes");
        consul.put("/v1/agent/service/deregister/two", &json!(null)).await.expect("gone");
        until("what is gone, and what has no tag, is left out", SOON, || async {
            let endpoints = cluster.said(&["get", "endpoints", "-o", "json"]).await.fine();
            let endpoints: Value = serde_json::from_str(&endpoints).expect("JSON");
            let own = endpoints["items"].as_array().into_iter().flatten();
            let own = own.filter(|one| one["spec"]["service"] == "old-orders");
            let labels: Vec<_> = own.map(|one| one["metadata"]["labels"].clone()).collect();
            if labels == [json!({"mesh": "true", "version": "v1"})] {
                Ok(())
            } else {
                Err(format!("{labels:?}"))
            }
        })
        .await
        .expect("in time");
        answers("first for nobody", SOON).await;

        // Without it what it said last is called.
        consul.kill();
        until("it is stale", PATIENCE, || async {
            let table = cluster.said(&["get", "discoverysources"]).await.fine();
            if table.contains("Stale") { Ok(()) } else { Err(table) }
        })
        .await
        .expect("in time");
        answers("first for nobody", SOON).await;
        // It comes back with nothing: its indexes begin anew.
        consul.run().await.expect("Consul");
        consul.put(register, &instance("three", second.port, &["mesh"])).await.expect("registered");
        answers("second for nobody", PATIENCE).await;
    }
}
