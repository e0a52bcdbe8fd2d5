//! `?wait=applied` with real proxies at three servers: a write is answered when those whom it concerns run it, and says who
//! does not where they do not.

mod heavy {
    use std::time::Duration;

    use mesh_tests::{
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        terraform::{Terraform, words},
        wait::until,
    };
    use rustix::process::Signal;
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Two hosts that call `orders`, and one that calls nobody.
    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        callers: [Host; 2],
        _other: Host,
    }

    impl Mesh {
        async fn open() -> Self {
            let scratch = Scratch::new("rollout");
            let cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
            let file = scratch.write(
                "orders.yaml",
                "kind: Service\nmetadata: {namespace: default, name: orders}\nspec: {ports: [{port: 80, protocol: http}]}\n",
            );
            cluster.said(&["apply", "-f", &file.display().to_string()]).await.fine();
            let mut hosts = Vec::new();
            for (name, number, calls) in [("a", 11, true), ("b", 12, true), ("c", 13, false)] {
                let service = LocalService::new(&format!("web-{name}"), 1, 80, "http");
                let service = if calls { service.calling("orders", 9_001) } else { service };
                let host = Host::start(&cluster, scratch.path(), name, number, &[service], |_| {}).await;
                hosts.push(host.expect("a host"));
            }
            let other = hosts.pop().expect("the third");
            let callers = hosts.try_into().unwrap_or_else(|_| panic!("two hosts"));
            Self { scratch, cluster, callers, _other: other }
        }

        /// Writes the route anew, by one of the servers; the status, and the rollout.
        async fn put(&self, server: usize, status: u16, query: &str) -> (u16, Value) {
            let body = format!(
                r#"{{"spec":{{"parentRefs":[{{"name":"orders","port":80}}],"rules":[{{"filters":[{{"type":"DirectResponse","directResponse":{{"status":{status}}}}}]}}]}}}}"#
            );
            let path = format!("/v1/namespaces/default/httproutes/all?{query}");
            self.send(reqwest::Method::PUT, server, &path, body).await
        }

        async fn send(
            &self,
            method: reqwest::Method,
            server: usize,
            path: &str,
            body: String,
        ) -> (u16, Value) {
            let roots = std::fs::read(&self.cluster.cacert).expect("roots");
            let root = reqwest::Certificate::from_pem(&roots).expect("a certificate");
            let client = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
            let url = format!("{}{path}", self.cluster.members[server].url());
            let request = client.request(method, url).bearer_auth(&self.cluster.token);
            let request = request.header("content-type", "application/json").body(body);
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            (status, answer.json().await.expect("JSON"))
        }

        /// Waits until both callers are told of: before, they count as those who may be told later.
        async fn steady(&self) {
            until("two proxies are concerned, and run it", PATIENCE, || async {
                let (status, answer) = self.put(0, 204, "wait=applied&timeout=1s").await;
                let rollout = &answer["status"]["rollout"];
                let both = rollout["concerned"] == 2 && rollout["acked"] == 2;
                if both { Ok(()) } else { Err(format!("{status}: {answer}")) }
            })
            .await
            .expect("in time");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_waits_for_the_proxies_that_it_concerns_and_names_those_that_lag() {
        let mut mesh = Mesh::open().await;
        mesh.steady().await;
        for server in 0..3 {
            let (status, answer) = mesh.put(server, 410 + server as u16, "wait=applied&timeout=20s").await;
            let rollout = &answer["status"]["rollout"];
            assert_eq!(
                (status, &rollout["concerned"], &rollout["acked"]),
                (200, &2.into(), &2.into()),
                "{answer}"
            );
            assert_eq!(rollout["revision"], answer["metadata"]["revision"]);
        }
        let stopped = mesh.callers[1].proxy.take().expect("it runs");
        stopped.signal(Signal::STOP);
        let (status, answer) = mesh.put(1, 451, "wait=applied&quorum=50&timeout=20s").await;
        assert_eq!(status, 200, "one of two is enough: {answer}");
        let (status, answer) = mesh.put(2, 452, "wait=applied&timeout=300ms").await;
        assert_eq!(status, 202, "{answer}");
        let rollout = &answer["status"]["rollout"];
        assert_eq!((&rollout["concerned"], &rollout["lagging"][0]), (&2.into(), &"b".into()), "{answer}");
        let file = mesh.scratch.write(
            "note.yaml",
            "kind: HTTPRoute\nmetadata: {namespace: default, name: all, labels: {a: b}}\nspec: {parentRefs: [{name: orders, port: 80}], rules: [{filters: [{type: DirectResponse, directResponse: {status: 204}}]}]}\n",
        );
        let file = file.display().to_string();
        let said = mesh.cluster.said(&["apply", "-f", &file, "--wait", "--timeout", "300ms"]).await;
        assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
        assert!(said.err.contains("it was written, and stands, but 1 of 2 proxies"), "{}", said.err);
        assert!(said.err.contains("not yet: b"), "{}", said.err);
        stopped.signal(Signal::CONT);
        let said = mesh.cluster.said(&["apply", "-f", &file, "--wait"]).await;
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        assert!(said.err.contains("2 of 2 proxies run revision"), "{}", said.err);
        let path = "/v1/namespaces/default/httproutes/all?wait=applied&timeout=20s";
        let (status, answer) = mesh.send(reqwest::Method::DELETE, 1, path, String::new()).await;
        let rollout = &answer["status"]["rollout"];
        assert_eq!((status, &rollout["acked"]), (200, &2.into()), "{answer}");
        assert!(rollout["revision"].as_u64() > answer["metadata"]["revision"].as_u64(), "the deletion's own");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_that_waits_needs_no_server_that_is_gone() {
        let mut mesh = Mesh::open().await;
        mesh.steady().await;
        let leader = mesh.cluster.leader().await.expect("a leader");
        mesh.cluster.members[(leader + 1) % 3].kill();
        // Proxies that talked to it count until another server knows what they ask for, and then run it.
        let (status, answer) = mesh.put(leader, 410, "wait=applied&timeout=25s").await;
        let rollout = &answer["status"]["rollout"];
        assert_eq!((status, &rollout["acked"]), (200, &rollout["concerned"]), "{answer}");
        assert!(rollout["acked"].as_u64() >= Some(2), "{answer}");
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_before_anything_is_written() {
        let scratch = Scratch::new("rollout-wrong");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let client = cluster.client(0).expect("a client");
        for (query, field) in [
            ("wait=acked", "wait"),
            ("quorum=50", "quorum"),
            ("wait=applied&quorum=101", "quorum"),
            ("wait=applied&timeout=6m", "timeout"),
            ("wait=applied&dryRun=true", "wait"),
        ] {
            let path = format!("/v1/namespaces/none?{query}");
            let refused =
                client.json::<Value>(reqwest::Method::PUT, &path, Some(&serde_json::json!({}))).await;
            let refused = refused.expect_err("a wrong query").to_string();
            assert!(refused.contains(&format!("{field}: ")), "{query}: {refused}");
        }
        client.json::<Value>(reqwest::Method::GET, "/v1/namespaces/none", None).await.expect_err("not made");
        let path = "/v1/namespaces/alone?wait=applied";
        let made = client.json::<Value>(reqwest::Method::PUT, path, Some(&serde_json::json!({}))).await;
        assert_eq!(made.expect("nobody to wait for")["status"]["rollout"]["concerned"], 0);
    }

    const ROUTE: &str = "\
resource \"mesh_http_route\" \"all\" {
  namespace = \"default\"
  name      = \"all\"
  spec = {
    parent_refs = [{ name = \"orders\", port = 80 }]
    rules       = [{ filters = [{ type = \"DirectResponse\", direct_response = { status = 451 } }] }]
  }
  wait_for_applied = { timeout = \"20s\" }
}
";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn terraform_waits_for_the_proxies_and_names_those_that_lag() {
        let mut mesh = Mesh::open().await;
        mesh.steady().await;
        let (status, _) = mesh
            .send(reqwest::Method::DELETE, 0, "/v1/namespaces/default/httproutes/all", String::new())
            .await;
        assert_eq!(status, 200);
        let urls: Vec<_> = mesh.cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
        let (token, cacert) = (&mesh.cluster.token, &mesh.cluster.cacert);
        let terraform = Terraform::new(mesh.scratch.path(), &urls.join(","), token, cacert);
        let workspace = terraform.workspace("rollout", ROUTE);
        let said = workspace.apply();
        assert!(!said.contains("Warning"), "{said}");
        for caller in &mesh.callers {
            let answer = Plain::new((caller.address, 9_001).into(), "orders.default.mesh").get("/").await;
            assert_eq!(answer.expect("an answer").status(), 451, "apply ended when {} ran it", caller.name);
        }
        assert_eq!(workspace.changes(), None);

        let stopped = mesh.callers[1].proxy.take().expect("it runs");
        stopped.signal(Signal::STOP);
        let another = ROUTE.replace("451", "452").replace("20s", "500ms");
        workspace.write("main.tf", &another);
        let told = words(&workspace.refused(&["apply", "-auto-approve"]));
        for wanted in ["HTTPRoute default/all was changed, and not enough proxies run it", "not yet: b"] {
            assert!(told.contains(wanted), "no {wanted:?} in {told}");
        }
        assert_eq!(workspace.changes(), None, "it was written, and stands");
        stopped.signal(Signal::CONT);
        workspace.write("main.tf", ROUTE);
        workspace.apply();
        workspace.run(&["destroy", "-auto-approve"]).fine();

        // An error would have Terraform make it anew.
        stopped.signal(Signal::STOP);
        workspace.write("main.tf", &another);
        let said = words(&workspace.apply());
        stopped.signal(Signal::CONT);
        for wanted in ["Warning: HTTPRoute default/all was made, and not enough proxies run it", "not yet: b"]
        {
            assert!(said.contains(wanted), "no {wanted:?} in {said}");
        }
        assert_eq!(workspace.changes(), None);
    }
}
