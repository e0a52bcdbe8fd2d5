//! Services from a real Consul: a real proxy calls them, within moments of their change.

mod patient {
    use mesh_tests::{
        backend::Backend,
        consul::{Consul, READER},
        elsewhere::{Elsewhere, PATIENCE, SOON},
        wait::until,
    };
    use serde_json::{Value, json};

    fn instance(id: &str, port: u16, tags: &[&str]) -> Value {
        let check = json!({"CheckID": format!("{id}-own"), "TTL": "10m", "Status": "passing"});
        json!({"Name": "old-orders", "ID": id, "Address": "127.0.0.1", "Port": port, "Tags": tags,
               "Meta": {"version": "v1"}, "Check": check})
    }

    #[tokio::test]
    async fn what_consul_has_is_called_within_two_seconds_and_outlives_it() {
        let mesh = Elsewhere::open("consul", 1).await;
        let at = mesh.cluster.network.address(20);
        let mut consul = Consul::start(mesh.scratch.path(), at).await.expect("Consul");
        let (first, second) = (Backend::start("first").await, Backend::start("second").await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let register = "/v1/agent/service/register";
        consul.put(register, &instance("one", first.port, &["mesh"])).await.expect("registered");
        consul.put(register, &instance("other", second.port, &["not"])).await.expect("registered");
        let caller = mesh.caller(&[("old-orders", 9_001)]).await;
        let address = consul.url();
        let spec = format!(
            "{{type: Consul, consul: {{address: {address:?}, datacenter: dc1}}, filter: {{tags: [mesh]}}, stalePolicy: {{after: 6s}}}}"
        );
        mesh.follow("old-consul", &spec).await;
        let answers = async |want: &str, within| caller.answers("old-orders", want, within).await;
        answers("first for nobody", PATIENCE).await;

        consul.put(register, &instance("two", second.port, &["mesh"])).await.expect("registered");
        consul.put("/v1/agent/check/fail/one-own", &json!(null)).await.expect("it fails");
        answers("second for nobody", SOON).await;
        consul.put("/v1/agent/check/pass/one-own", &json!(null)).await.expect("it passes");
        consul.put("/v1/agent/service/deregister/two", &json!(null)).await.expect("gone");
        until("what is gone, and what has no tag, is left out", SOON, || async {
            let endpoints = mesh.get(&["endpoints"]).await;
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
        mesh.stands("old-consul", "Stale", "cannot be reached").await;
        answers("first for nobody", SOON).await;
        // It comes back with nothing: its indexes begin anew.
        consul.run().await.expect("Consul");
        consul.put(register, &instance("three", second.port, &["mesh"])).await.expect("registered");
        answers("second for nobody", PATIENCE).await;
    }

    /// With a wrong token, or whom a certificate must come from left out, the status says which field to mend.
    #[tokio::test]
    async fn a_consul_with_access_control_and_tls_is_followed_and_what_is_wrong_is_named() {
        let mesh = Elsewhere::open("closed", 1).await;
        let at = mesh.cluster.network.address(20);
        let consul = Consul::start_closed(mesh.scratch.path(), at).await.expect("Consul");
        let register = "/v1/agent/service/register";
        consul.put(register, &instance("one", 8_080, &["mesh"])).await.expect("registered");
        let (address, ca) = (consul.https(), consul.ca().to_owned());
        let token = mesh.scratch.write("consul.token", format!("{READER}\n"));
        let source = |ca: String| {
            format!(
                "{{type: Consul, consul: {{address: {address:?}, tokenFile: {token:?}{ca}}}, stalePolicy: {{after: 6s}}}}"
            )
        };
        let trusted = source(format!(", caFile: {ca:?}"));
        mesh.follow("closed", &trusted).await;
        let here = "old-orders 127.0.0.1 8080 Healthy";
        mesh.has("closed", &[here]).await;

        mesh.scratch.write("consul.token", "99999999-2222-3333-4444-555555555555\n");
        mesh.stands("closed", "Stale", "answers 403 Forbidden: show it by spec.consul.tokenFile who asks")
            .await;
        mesh.scratch.write("consul.token", format!("{READER}\n"));
        mesh.stands("closed", "Synced", "").await;
        mesh.follow("closed", &source(String::new())).await;
        mesh.stands("closed", "Stale", "UnknownIssuer: say by spec.consul.caFile whom it must come from")
            .await;
        mesh.has("closed", &[here]).await;
        // This edition of it has no namespaces, and says so.
        mesh.follow("closed", &source(format!(", caFile: {ca:?}, namespace: shop"))).await;
        mesh.stands("closed", "Stale", "answers 400 Bad Request: only Consul Enterprise has namespaces")
            .await;
        mesh.follow("closed", &trusted).await;
        mesh.stands("closed", "Synced", "").await;
    }
}
