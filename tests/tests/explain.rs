//! `meshctl explain` against what real proxies do: the same rule of the route, the same verdict by the same rule; and what
//! it says of a change that nobody applied yet.

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
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Policies look at what the route makes of a path.
    const SHOP: &str = "
kind: Service
metadata: {namespace: default, name: orders}
spec: {ports: [{port: 80, protocol: http}]}
---
kind: HTTPRoute
metadata: {namespace: default, name: edges}
spec:
  parentRefs: [{name: orders, port: 80}]
  rules:
  - name: seven
    matches: [{path: {type: PathPrefix, value: /api}, headers: [{name: x-user, value: '7'}]}]
    backendRefs: [{name: orders, port: 80}]
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: orders, port: 80}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
  - name: gone
    matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: DirectResponse, directResponse: {status: 410}}]
  - name: bots
    matches: [{path: {type: PathPrefix, value: /}, sources: [default/bot]}]
    backendRefs: [{name: orders, port: 80}]
---
kind: AuthorizationPolicy
metadata: {namespace: default, name: no-admin}
spec: {action: Deny, rules: [{name: admin, to: [{paths: [{type: PathPrefix, value: /admin}]}]}]}
---
kind: AuthorizationPolicy
metadata: {namespace: default, name: readers}
spec: {targetRefs: [{name: orders}], rules: [{name: web, from: [{services: [default/web]}]}, {name: health, to: [{paths: [{type: Exact, value: /health}]}]}]}
";
    const CLOSED: &str = "{kind: AuthorizationPolicy, metadata: {namespace: default, name: closed}, spec: {action: Deny, rules: [{name: all}]}}";

    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        back: Host,
        front: Host,
        _backend: Backend,
    }

    impl Mesh {
        async fn open() -> Self {
            let scratch = Scratch::new("explain");
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

        /// What becomes of a call: its status.
        async fn call(&self, caller: &str, path: &str, user: &str) -> Result<u16, String> {
            let port = if caller == "web" { 9_001 } else { 9_002 };
            let client = Plain::new((self.front.address, port).into(), "orders.default.mesh");
            let answer = client.with_fields(path, &[("x-user", user)]).await;
            answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:#}"))
        }

        async fn explained(&self, caller: &str, path: &str, user: &str) -> Value {
            let header = format!("x-user: {user}");
            let call =
                ["explain", "--from", caller, "--to", "orders:80", "GET", path, "-H", &header, "-o", "json"];
            let text = self.cluster.said(&call).await.fine();
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        }

        /// A host's line about the call with this mark in its path.
        async fn line(&self, host: &Host, mark: &str) -> Value {
            let what = format!("{mark} stands in the log");
            let line = until(&what, PATIENCE, || async {
                let log = host.access_log();
                log.lines().find(|line| line.contains(mark)).map(str::to_owned).ok_or(log)
            });
            serde_json::from_str(&line.await.expect("in time")).expect("JSON")
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_explanation_says_what_proxies_do() {
        let mesh = Mesh::open().await;
        let file = mesh.scratch.write("shop.yaml", SHOP).display().to_string();
        mesh.cluster.said(&["apply", "-f", &file]).await.fine();
        for (caller, path, status) in
            [("web", "/old", 410), ("bot", "/api/x", 403), ("web", "/api/admin", 403)]
        {
            until("the proxies have it", PATIENCE, || async {
                let got = mesh.call(caller, path, "0").await?;
                if got == status { Ok(()) } else { Err(got.to_string()) }
            })
            .await
            .expect("in time");
        }
        for (nth, (caller, path, user)) in [
            ("web", "/api/x", "7"),
            ("web", "/api/x", "8"),
            ("web", "/api/admin", "8"),
            ("web", "/api/admin", "7"),
            ("web", "/api/./%61dmin", "8"),
            ("bot", "/api/x", "8"),
            ("bot", "/api/health", "8"),
            ("bot", "/health", "8"),
            ("web", "/old", "8"),
            ("web", "/nowhere", "8"),
            ("web", "/api/a;b", "8"),
        ]
        .into_iter()
        .enumerate()
        {
            let mark = format!("mark={nth}-");
            let path = format!("{path}?{mark}");
            let status = mesh.call(caller, &path, user).await.expect("an answer");
            holds(&mesh, &mesh.explained(caller, &path, user).await, status, &mark).await;
        }
        told_and_foretold(&mesh).await;
    }

    /// What was explained is what was done.
    async fn holds(mesh: &Mesh, explained: &Value, status: u16, mark: &str) {
        let said = mesh.line(&mesh.front, mark).await;
        let rule = explained["route"]["rule"].as_str().unwrap_or("default");
        assert_eq!(said["route"], rule, "{mark}: {said}\n{explained}");
        if let Some(own) = explained["answer"]["status"].as_u64() {
            return assert_eq!(u64::from(status), own, "{mark}: {explained}");
        }
        if explained["refused"].is_string() {
            return assert_eq!(status, 404, "{mark}: {explained}");
        }
        let verdict = &explained["backends"][0]["verdict"];
        if verdict["allowed"] == true {
            return assert_eq!(status, 200, "{mark}: {explained}");
        }
        // Without a rule it is the path that is refused.
        assert_eq!(status, if verdict["rule"].is_null() { 400 } else { 403 }, "{mark}: {explained}");
        let told = mesh.line(&mesh.back, mark).await;
        assert_eq!(told["rule"], verdict["rule"], "{mark}: {told}\n{explained}");
    }

    /// In words, and after a change that is not applied.
    async fn told_and_foretold(mesh: &Mesh) {
        let call = ["explain", "--from", "web", "--to", "default/orders", "GET", "/api/x"];
        let words = mesh.cluster.said(&call).await.fine();
        for wanted in [
            "default/web calls default/orders at port 80 (http)",
            "rule       default/edges/api",
            "because  path below /api",
            "not      default/edges/seven: header x-user 7",
            "filter   rewrites the path or the host",
            "back end   default/orders:80 (weight 1, 100%)",
            " on back ",
            "Healthy, weight 1: 100%",
            "let in by rule default/readers/web",
            "Strict by mesh-peers",
        ] {
            assert!(words.contains(wanted), "no {wanted:?} in:\n{words}");
        }
        let file = mesh.scratch.write("closed.yaml", CLOSED).display().to_string();
        let after = [&call[..], &["-f", &file]].concat();
        let words = mesh.cluster.said(&after).await.fine();
        assert!(
            words.contains("after the change") && words.contains("denied by rule default/closed/all"),
            "{words}"
        );
        assert_eq!(mesh.call("web", "/api/x", "8").await, Ok(200), "nothing was applied");
        let lost = mesh.cluster.said(&["explain", "--from", "web", "--to", "lost"]).await.failed(1);
        assert!(lost.contains("to: there is no Service default/lost"), "{lost}");
    }
}
