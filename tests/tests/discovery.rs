//! Services from a file, by docs/discovery.md: a real proxy calls them without anybody registering them, within moments of
//! their change, and goes on through the death of the leader that follows the file.

use std::path::{Path, PathBuf};

use mesh_tests::{backend::Backend, foreign, loopback::free_port, wait::until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

#[test]
fn the_manual_s_examples_are_what_it_says() {
    const MANUAL: &str = include_str!("../../docs/discovery.md");
    let blocks = MANUAL.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let (mut sources, mut listings) = (0, 0);
    for (block, _) in blocks {
        if block.starts_with("services:") {
            model::discovery::listing(block).expect("a file as it should be");
            listings += 1;
        } else {
            model::manifest::parse(block).expect("a manifest");
            sources += 1;
        }
    }
    assert!(sources > 0 && listings > 0, "{sources} {listings}");
}

mod patient {
    use std::{
        net::Ipv4Addr,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::{Said, Scratch},
        wait::until,
    };
    use model::client::{Client, Settings};
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    pub(super) const PATIENCE: Duration = Duration::from_secs(30);
    /// How long it may take until a proxy calls where the file says.
    const SOON: Duration = Duration::from_secs(2);

    pub(super) struct Mesh {
        pub(super) scratch: Scratch,
        pub(super) cluster: Cluster,
        pub(super) front: Host,
        pub(super) file: PathBuf,
    }

    impl Mesh {
        /// A host whose service web calls `old-orders`, and a file that lists it.
        pub(super) async fn open(members: u8, first: &Backend) -> Self {
            let scratch = Scratch::new("discovery");
            let cluster = Cluster::start(scratch.path(), members, |_| {}).await.expect("servers");
            let web = LocalService::new("web", 1, 80, "http").calling("old-orders", 9_001);
            let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await;
            let file = scratch.path().join("old-hosts.yaml");
            let mesh = Self { cluster, front: front.expect("a host"), file, scratch };
            mesh.list(&[first]);
            mesh.apply(&mesh.source("")).await.fine();
            mesh
        }

        /// Writes the file anew, as a whole.
        fn list(&self, backends: &[&Backend]) {
            self.list_at(&backends.iter().map(|one| one.port).collect::<Vec<_>>());
        }

        /// The same with applications at these ports.
        pub(super) fn list_at(&self, ports: &[u16]) {
            let endpoints: String = ports
                .iter()
                .map(|port| format!("  - {{address: 127.0.0.1, targetPort: {port}}}\n"))
                .collect();
            let text = format!(
                "services:\n- name: Old_Orders\n  tags: [mesh]\n  ports: [{{port: 80, protocol: http}}]\n  endpoints:\n{endpoints}"
            );
            let next = self.scratch.write("next.yaml", text);
            std::fs::rename(next, &self.file).expect("renamed");
        }

        pub(super) fn source(&self, more: &str) -> String {
            format!(
                "{{kind: DiscoverySource, metadata: {{name: old-hosts}}, spec: {{type: File, file: {{path: {:?}}}, filter: {{tags: [mesh]}}{more}}}}}",
                self.file
            )
        }

        pub(super) async fn apply(&self, manifest: &str) -> Said {
            let file = self.scratch.write("manifest.yaml", manifest).display().to_string();
            self.cluster.said(&["apply", "-f", &file]).await
        }

        fn client(&self) -> Plain {
            Plain::new((self.front.address, 9_001).into(), "old-orders.default.mesh")
        }

        pub(super) async fn call(&self) -> Result<String, String> {
            let answer = self.client().get("/").await.map_err(|error| format!("{error:#}"))?;
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            if answer.status().is_success() { Ok(body) } else { Err(format!("{} {body}", answer.status())) }
        }

        pub(super) async fn answers(&self, want: &str, within: Duration) {
            until(&format!("{want} answers"), within, || async {
                let said = self.call().await?;
                if said.starts_with(want) { Ok(()) } else { Err(said) }
            })
            .await
            .expect("in time");
        }

        async fn get(&self, what: &[&str]) -> Value {
            let said = self.cluster.said(&[&["get"][..], what, &["-o", "json"]].concat()).await.fine();
            serde_json::from_str(&said).expect("JSON")
        }

        /// The status of the source becomes so.
        async fn stands(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
            until(what, PATIENCE, || async {
                let status = self.get(&["discoverysource", "old-hosts"]).await["status"].clone();
                if holds(&status) { Ok(status) } else { Err(status.to_string()) }
            })
            .await
            .expect("in time")
        }
    }

    #[tokio::test]
    async fn what_a_file_lists_is_called_within_two_seconds_and_shown_as_what_it_is() {
        let (first, second) = (Backend::start("first").await, Backend::start("second").await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let mesh = Mesh::open(1, &first).await;
        mesh.answers("first for nobody", PATIENCE).await;

        mesh.list(&[&second]);
        mesh.answers("second for nobody", SOON).await;
        let status = mesh.stands("it is in step", |status| status["endpoints"] == 1).await;
        assert_eq!(status["state"], "Synced");
        assert_eq!(status["services"], 1);
        assert_eq!(status["error"], "");
        let table = mesh.cluster.said(&["get", "endpoints"]).await.fine();
        assert!(table.contains("discovery/old-hosts"), "{table}");
        let service = mesh.get(&["service", "old-orders"]).await;
        assert_eq!(service["metadata"]["annotations"]["mesh/managed-by"], "discovery/old-hosts");
        let log = mesh.front.access_log();
        let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        assert_eq!(line["mtls"], false);
        assert_eq!(line["destination"], "default/old-orders");
        let explained = mesh
            .cluster
            .said(&["explain", "--from", "default/web", "--to", "default/old-orders", "GET", "/"])
            .await;
        let explained = explained.fine();
        assert!(explained.contains("without a proxy") && explained.contains("no-proxy"), "{explained}");

        owned(&mesh).await;
        hosts_come_first(&mesh).await;

        let deleted = mesh.cluster.said(&["delete", "discoverysource", "old-hosts"]).await;
        deleted.fine();
        let left = mesh.cluster.said(&["get", "endpoints"]).await.fine();
        assert!(!left.contains("discovery/"), "{left}");
    }

    /// A Service that an operator wrote stays as it is.
    async fn owned(mesh: &Mesh) {
        let own = "{kind: Service, metadata: {namespace: default, name: old-orders}, spec: {ports: [{port: 8080, protocol: http}]}}";
        mesh.apply(own).await.fine();
        until("endpoints serve its port", SOON, || async {
            let endpoints = mesh.get(&["endpoints"]).await;
            let ports = endpoints["items"].as_array().into_iter().flatten();
            let ports: Vec<_> = ports
                .filter(|one| one["spec"]["service"] == "old-orders")
                .map(|one| one["spec"]["ports"][0]["port"].clone())
                .collect();
            if ports == [8_080] { Ok(()) } else { Err(endpoints.to_string()) }
        })
        .await
        .expect("in time");
        let service = mesh.get(&["service", "old-orders"]).await;
        assert_eq!(service["spec"]["ports"][0]["port"], 8_080);
        assert_eq!(service["metadata"].get("annotations"), None);
        mesh.answers("second for nobody", PATIENCE).await;
    }

    /// While proxies serve it, they alone are called, over mTLS.
    async fn hosts_come_first(mesh: &Mesh) {
        let third = Backend::start("third").await.expect("an application");
        let own = LocalService::new("old-orders", third.port, 8_080, "http");
        let host = Host::start(&mesh.cluster, mesh.scratch.path(), "back", 12, &[own], |_| {}).await;
        let mut host = host.expect("a host");
        mesh.answers("third for URI=spiffe://mesh.internal/ns/default/svc/web", PATIENCE).await;
        for _ in 0..20 {
            assert!(mesh.call().await.expect("an answer").starts_with("third"));
        }
        host.proxy = None;
        mesh.answers("second for nobody", PATIENCE).await;
    }

    #[tokio::test]
    async fn no_call_fails_when_the_leader_that_follows_a_file_is_killed() {
        let (first, second) = (Backend::start("first").await, Backend::start("second").await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let mut mesh = Mesh::open(3, &first).await;
        mesh.answers("first", PATIENCE).await;
        let before = mesh.get(&["endpoints"]).await["items"].clone();

        let over = Arc::new(AtomicBool::new(false));
        let (ends, client) = (over.clone(), mesh.client());
        let calls = tokio::spawn(async move {
            let (mut count, mut failed) = (0_u32, Vec::new());
            while !ends.load(Ordering::Relaxed) {
                match client.get("/").await {
                    Ok(answer) if answer.status().is_success() => count += 1,
                    Ok(answer) => failed.push(answer.status().to_string()),
                    Err(error) => failed.push(format!("{error:#}")),
                }
                // Pace: some hundred calls a second.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (count, failed)
        });
        let leader = mesh.cluster.leader().await.expect("a leader");
        mesh.cluster.members[leader].kill();
        let other = (leader + 1) % 3;
        until("another leads", PATIENCE, || async {
            match mesh.cluster.leader().await {
                Ok(next) if next != leader => Ok(()),
                Ok(_) => Err("the killed one".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .expect("in time");
        let stands = || async {
            let said = mesh.cluster.said_at(other, &["get", "endpoints", "-o", "json"]).await.fine();
            serde_json::from_str::<Value>(&said).expect("JSON")["items"].clone()
        };
        assert_eq!(stands().await, before, "nothing of it was written again");
        mesh.list(&[&first, &second]);
        until("the next leader follows the file", PATIENCE, || async {
            let now = stands().await;
            if now.as_array().is_some_and(|now| now.len() == 2) { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .expect("in time");
        mesh.list(&[&second]);
        mesh.answers("second", PATIENCE).await;
        over.store(true, Ordering::Relaxed);
        let (count, failed) = calls.await.expect("it ends");
        assert!(count > 0 && failed.is_empty(), "{count} calls, of which failed: {failed:?}");
    }

    #[tokio::test]
    async fn a_source_that_falls_silent_is_kept_marked_and_then_lost() {
        let first = Backend::start_at("first", Ipv4Addr::LOCALHOST).await.expect("an application");
        let mesh = Mesh::open(1, &first).await;
        mesh.apply(&mesh.source(", stalePolicy: {after: 3s, keep: 12s}")).await.fine();
        mesh.answers("first", PATIENCE).await;
        let text = std::fs::read_to_string(&mesh.file).expect("read");
        std::fs::remove_file(&mesh.file).expect("removed");
        let status = mesh.stands("it is stale", |status| status["state"] == "Stale").await;
        assert!(status["error"].as_str().is_some_and(|error| error.contains("No such file")), "{status}");
        let endpoints = mesh.get(&["endpoints"]).await["items"].clone();
        let stale =
            endpoints.as_array().into_iter().flatten().find(|one| one["spec"]["service"] == "old-orders");
        assert_eq!(stale.expect("it is kept")["status"]["stale"], true);
        mesh.call().await.expect("it is called");
        let metrics = mesh.cluster.members[0].log();
        assert!(metrics.contains("fell silent: its endpoints are kept, marked stale"), "{metrics}");
        let status = mesh.stands("it is lost", |status| status["state"] == "Lost").await;
        assert_eq!(status["endpoints"], 0);
        std::fs::write(&mesh.file, text).expect("written");
        mesh.stands("it is back", |status| status["state"] == "Synced" && status["error"] == "").await;
        mesh.answers("first", SOON).await;
    }

    #[tokio::test]
    async fn only_who_may_say_whom_servers_call_writes_a_source_and_wrong_ones_name_their_fields() {
        let first = Backend::start("first").await.expect("an application");
        let mesh = Mesh::open(1, &first).await;
        let token = mesh.cluster.said(&["token", "access", "ops", "--role", "operator"]).await.fine();
        let mut client = mesh.cluster.client(0).expect("a client");
        let body: Value = serde_json::json!({"spec": {"type": "File", "file": {"path": "/a"}}});
        let path = "/v1/discoverysources/other";
        let wrong = serde_json::json!({"spec": {"type": "File", "file": {"path": "a"}, "stalePolicy": {"after": "1s"}}});
        let refused =
            client.json::<Value>(reqwest::Method::PUT, path, Some(&wrong)).await.expect_err("it is wrong");
        let refused = refused.to_string();
        assert!(
            refused.contains("spec.file.path") && refused.contains("spec.stalePolicy.after"),
            "{refused}"
        );
        let roots = std::fs::read_to_string(&mesh.cluster.cacert).expect("read");
        let (address, token) = (mesh.cluster.members[0].url(), token.trim().to_owned());
        client = Client::new(Settings { address, token: Some(token), roots: Some(roots) }).expect("a client");
        let refused =
            client.json::<Value>(reqwest::Method::PUT, path, Some(&body)).await.expect_err("not theirs");
        assert!(refused.to_string().contains("needs write on DiscoverySource"), "{refused}");
        mesh.stands("the first is in step", |status| status["state"] == "Synced").await;
        // What the server keeps for itself is not read.
        let own = mesh.cluster.members[0].data();
        let own = format!(
            "{{kind: DiscoverySource, metadata: {{name: spy}}, spec: {{type: File, file: {{path: {own:?}}}}}}}"
        );
        mesh.apply(&own).await.fine();
        until("it is refused", PATIENCE, || async {
            let status = mesh.get(&["discoverysource", "spy"]).await["status"].clone();
            let error = status["error"].as_str().unwrap_or_default();
            if error.contains("is the server's own") { Ok(()) } else { Err(status.to_string()) }
        })
        .await
        .expect("in time");
    }
}

/// An application that takes nothing but TLS is called as its source says, and by nobody's other name.
#[tokio::test]
async fn endpoints_are_called_over_tls_where_their_source_says_so() {
    let first = Backend::start("first").await.expect("an application");
    let mesh = patient::Mesh::open(1, &first).await;
    let (port, folder) = (free_port(), mesh.scratch.path().to_owned());
    let (own, root) = certificates(&folder);
    let mut command = foreign::python("tls_server.py");
    command.arg(port.to_string()).args(&own);
    let _application = foreign::listening("application", &folder, &mut command, port).await.expect("it runs");
    mesh.list_at(&[port]);
    let says = async |hostname: &str, ca: &str| {
        let tls = format!(", tls: {{hostname: {hostname:?}{ca}}}");
        mesh.apply(&mesh.source(&tls)).await.fine();
    };
    let ca = format!(", caFile: {root:?}");
    says("{service}.example", &ca).await;
    mesh.answers("over TLS as old-orders.example", patient::PATIENCE).await;
    let log = mesh.front.access_log();
    let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["mtls"], &line["tls"]), (&Value::Bool(false), &Value::Bool(true)));
    let explained =
        mesh.cluster.said(&["explain", "--from", "default/web", "--to", "default/old-orders", "GET", "/"]);
    let explained = explained.await.fine();
    assert!(explained.contains("is called over TLS, by which it does not know its callers"), "{explained}");

    says("orders.example", &ca).await;
    refused(&mesh, "not valid for name").await;
    // By what this host trusts, it is nobody.
    says("{service}.example", "").await;
    refused(&mesh, "UnknownIssuer").await;
    says("{service}.example", &ca).await;
    mesh.answers("over TLS as old-orders.example", patient::PATIENCE).await;
}

/// Calls come to be refused, for this reason.
async fn refused(mesh: &patient::Mesh, reason: &str) {
    until(reason, patient::PATIENCE, || async {
        match mesh.call().await {
            Err(said) if said.starts_with("503") && mesh.front.access_log().contains(reason) => Ok(()),
            said => Err(format!("{said:?}")),
        }
    })
    .await
    .expect("in time");
}

/// The certificate of `old-orders.example` and its key, and the root that it comes from.
fn certificates(folder: &Path) -> ([PathBuf; 2], PathBuf) {
    let [certificate, key, root] = ["app.pem", "app.key", "root.pem"].map(|name| folder.join(name));
    let root_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own_key = KeyPair::generate().expect("a key");
    std::fs::write(&root, authority.self_signed(&root_key).expect("a root").pem()).expect("written");
    let issuer = Issuer::new(authority, root_key);
    let leaf = CertificateParams::new(vec!["old-orders.example".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&own_key, &issuer).expect("a certificate").pem();
    std::fs::write(&certificate, leaf).expect("written");
    std::fs::write(&key, own_key.serialize_pem()).expect("written");
    ([certificate, key], root)
}
