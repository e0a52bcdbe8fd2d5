//! How a service is called, through the registry: a TrafficPolicy that an operator applies is what callers see, between
//! real hosts, and a second one for the same service is refused.

mod heavy {
    use std::time::Duration;

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        wait::until,
    };

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Where the caller's host has its listener for orders.
    const ORDERS: u16 = 9_001;

    fn policy(name: &str, spec: &str) -> String {
        format!(
            "{{kind: TrafficPolicy, metadata: {{namespace: default, name: {name}}}, spec: {{targetRefs: [{{name: orders}}], {spec}}}}}"
        )
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_operator_sees_which_endpoints_are_left_alone_and_why() {
        let scratch = Scratch::new("left-alone");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let backends = [Backend::start("one").await.expect("one"), Backend::start("two").await.expect("two")];
        let mut hosts = Vec::new();
        for (n, backend) in (12..).zip(&backends) {
            let orders = LocalService::new("orders", backend.port, 80, "http");
            let name = format!("back-{n}");
            let host = Host::start(&cluster, scratch.path(), &name, n, &[orders], |_| {}).await;
            hosts.push(host.expect("a host"));
        }
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let manifest = policy(
            "orders",
            "outlierDetection: {consecutiveErrors: 3}, rateLimits: [{name: few, matches: [{path: {value: /few}}], requests: 1, per: 1h}]",
        );
        let file = scratch.write("manifest.yaml", &manifest).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
        let caller = Plain::new((front.address, ORDERS).into(), "orders.default.mesh");
        until("one endpoint is left alone", PATIENCE, || async {
            caller.get("/fail/two").await.map_err(|error| error.to_string())?;
            let table = cluster.said(&["proxies"]).await.fine();
            let line = table.lines().find(|line| line.starts_with("front")).unwrap_or_default().to_owned();
            let told = line.contains("default/orders-back-13") && line.contains("3 failures in a row");
            if told { Ok(()) } else { Err(line) }
        })
        .await
        .expect("in time");
        for n in 0..20 {
            assert_eq!(caller.get("/fail/two").await.expect("an answer").status(), 200, "call {n}");
        }
        let config = front.admin("/config").await.expect("an answer");
        assert!(config.contains("\"reason\": \"3 failures in a row\""), "{config}");
        let metrics = front.admin("/metrics").await.expect("an answer");
        for line in [
            "mesh_ejections_total{destination=\"default/orders\",cause=\"errors\"} 1",
            "mesh_endpoints_left_alone{destination=\"default/orders\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        // Of two hosts one is left: it gives its one token, and then says when the next one comes.
        assert_eq!(caller.get("/few").await.expect("an answer").status(), 200);
        let refused = caller.get("/few").await.expect("an answer");
        assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_traffic_policy_holds_at_the_callers_and_there_is_one_for_a_service() {
        let scratch = Scratch::new("conduct");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let backend = Backend::start("orders").await.expect("an application");
        let orders = LocalService::new("orders", backend.port, 80, "http").checked();
        let _back =
            Host::start(&cluster, scratch.path(), "back", 12, &[orders], |_| {}).await.expect("a host");
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let apply = async |manifest: String| {
            let file = scratch.write("manifest.yaml", &manifest).display().to_string();
            cluster.said(&["apply", "-f", &file]).await
        };
        let wait = async |path: &str, want: &str| {
            until(want, PATIENCE, || async {
                let caller = Plain::new((front.address, ORDERS).into(), "orders.default.mesh");
                let answer = caller.get(path).await.map_err(|error| error.to_string())?;
                let got = answer.status().as_u16().to_string();
                if got == want { Ok(()) } else { Err(got) }
            })
            .await
            .expect("in time");
        };
        wait("/slow", "200").await;
        apply(policy("orders", "timeouts: {request: 50ms}")).await.fine();
        wait("/slow", "504").await;
        let refused = apply(policy("other", "timeouts: {request: 1s}")).await.failed(1);
        let why = "TrafficPolicy default/orders is for Service orders already; change that one";
        assert!(refused.contains(why), "{refused}");
        let wrong = apply(policy("orders", "retry: {attempts: 99}")).await.failed(1);
        let why = "spec.retry.attempts: must be a whole number from 0 to 10";
        assert!(wrong.contains(why), "{wrong}");
        let table = cluster.said(&["get", "trafficpolicies"]).await.fine();
        assert!(table.contains("timeouts"), "{table}");
        cluster.said(&["delete", "trafficpolicies", "orders"]).await.fine();
        wait("/slow", "200").await;
    }
}
