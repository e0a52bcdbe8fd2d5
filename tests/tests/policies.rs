//! Who may call whom, through the registry: the examples of docs/authorization.md, as they are written there, between
//! real hosts; and what they say holds on without a control plane.

mod heavy {
    use std::{collections::BTreeMap, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        wait::until,
    };
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    const MANUAL: &str = include_str!("../../docs/authorization.md");
    const SHOP: &str = "{kind: Namespace, metadata: {name: shop}}\n---\n{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}\n";
    const BY_CLAIM: &str = "{kind: AuthorizationPolicy, metadata: {namespace: default, name: p}, spec: {rules: [{when: [{claim: role, values: [admin]}]}]}}";

    /// The manual's manifests by the names of their policies.
    fn examples() -> BTreeMap<&'static str, &'static str> {
        let blocks = MANUAL.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
        let named = blocks.map(|(block, _)| {
            let name = block.split("name: ").nth(1).and_then(|rest| rest.split(['}', ',']).next());
            (name.expect("it has a name"), block)
        });
        named.collect()
    }

    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        back: Host,
        front: Host,
        _backend: Backend,
    }

    impl Mesh {
        async fn open() -> Self {
            let scratch = Scratch::new("policies");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let backend = Backend::start("orders").await.expect("an application");
            let orders = LocalService::new("orders", backend.port, 80, "http").checked();
            let back = Host::start(&cluster, scratch.path(), "back", 12, &[orders], |_| {}).await;
            let callers = [("web", 9_001), ("bot", 9_002)]
                .map(|(name, port)| LocalService::new(name, 1, 80, "http").calling("orders", port));
            let front = Host::start(&cluster, scratch.path(), "front", 11, &callers, |_| {}).await;
            let (back, front) = (back.expect("a host"), front.expect("a host"));
            Self { scratch, cluster, back, front, _backend: backend }
        }

        async fn apply(&self, manifest: &str) -> mesh_tests::scratch::Said {
            let file = self.scratch.write("manifest.yaml", manifest).display().to_string();
            self.cluster.said(&["apply", "-f", &file]).await
        }

        async fn get(&self, caller: &str, path: &str) -> Result<http::Response<bytes::Bytes>, String> {
            let port = if caller == "web" { 9_001 } else { 9_002 };
            let client = Plain::new((self.front.address, port).into(), "orders.default.mesh");
            client.get(path).await.map_err(|error| error.to_string())
        }

        /// Each call is `<caller> <path> <status>`; all come true, and then hold together.
        async fn comes_true(&self, calls: &[&str]) {
            for call in calls {
                let words: Vec<&str> = call.split_whitespace().collect();
                until(call, PATIENCE, || async {
                    let status = self.get(words[0], words[1]).await?.status();
                    if status.as_str() == words[2] { Ok(()) } else { Err(status.to_string()) }
                })
                .await
                .expect("in time");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn policies_hold_by_what_the_manual_says_and_without_a_control_plane() {
        let mut mesh = Mesh::open().await;
        mesh.apply(SHOP).await.fine();
        mesh.comes_true(&["web / 200", "bot / 200"]).await;
        let refused = mesh.apply(BY_CLAIM).await.failed(1);
        assert!(refused.contains("spec.rules[0].when[0].claim"), "{refused}");
        let mut examples = examples();
        for (name, calls) in [
            ("orders-next", &["bot / 200", "web / 200"][..]),
            ("no-admin", &["web /x/../admin 403", "web /v2/admin/x 403", "web / 200", "bot / 200"]),
            ("orders-from-web", &["bot / 403", "web / 200", "web //admin 403"]),
            ("closed", &["web / 200"]),
            ("tenants", &["bot / 403", "web / 200"]),
        ] {
            mesh.apply(examples.remove(name).expect(name)).await.fine();
            mesh.comes_true(calls).await;
        }
        assert!(examples.is_empty(), "{examples:?} are not tried");
        let table = mesh.cluster.said(&["get", "authorizationpolicies", "-A"]).await.fine();
        let row = table.lines().find(|line| line.contains("orders-next")).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[..6], ["default", "orders-next", "Allow", "orders", "1", "yes"], "{table}");
        told(&mesh).await;
        // The policies are on the host's disk.
        mesh.cluster.members[0].kill();
        mesh.back.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
        mesh.back.run().await.expect("it starts without a server");
        mesh.comes_true(&["web / 200", "bot / 403", "web /admin 403"]).await;
    }

    /// A refusal leads from the caller's answer to the rule, and stands in the metrics; so does what was rehearsed.
    async fn told(mesh: &Mesh) {
        let answer = mesh.get("bot", "/").await.expect("an answer");
        let problem: Value = serde_json::from_slice(answer.body()).expect("a problem");
        let id = problem["id"].as_str().expect("an id").to_owned();
        let line = until("the refusal stands in the log", PATIENCE, || async {
            let log = mesh.back.access_log();
            let line = log.lines().find(|line| line.contains(&id));
            line.map(str::to_owned).ok_or(log.clone())
        })
        .await
        .expect("in time");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&line["rule"], &line["source"]),
            (&"only-allowed".into(), &"default/bot".into()),
            "{line}"
        );
        let metrics = mesh.back.admin("/metrics").await.expect("metrics");
        for series in [
            r#"{destination="default/orders",rule="only-allowed",decision="denied"}"#,
            r#"{destination="default/orders",rule="mesh-system/no-admin/0",decision="denied"}"#,
            r#"{destination="default/orders",rule="only-allowed",decision="would-deny"}"#,
        ] {
            assert!(
                metrics.contains(&format!("mesh_policy_decisions_total{series} ")),
                "{series}\n{metrics}"
            );
        }
    }
}
