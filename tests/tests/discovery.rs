//! Services from a file, by docs/discovery.md: a real proxy calls them without anybody registering them, within moments of
//! their change, and goes on through the death of the leader that follows the file.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use mesh_tests::{
    backend::Backend,
    elsewhere::{Caller, Elsewhere, PATIENCE},
    foreign,
    loopback::free_port,
    wait::until,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
    use std::{net::Ipv4Addr, path::PathBuf};

    use mesh_tests::{
        backend::Backend,
        elsewhere::{Caller, Elsewhere, PATIENCE, SOON},
        host::{Host, LocalService},
        wait::until,
    };
    use model::client::{Client, Settings};
    use serde_json::Value;

    const SERVICE: &str = "old-orders";

    /// A host whose service web calls `old-orders`, and a file that lists it.
    pub(super) struct Mesh {
        pub(super) caller: Caller,
        pub(super) servers: Elsewhere,
        pub(super) file: PathBuf,
    }

    impl Mesh {
        pub(super) async fn open(members: u8, first: &Backend) -> Self {
            let servers = Elsewhere::open("discovery", members).await;
            let caller = servers.caller(&[(SERVICE, 9_001)]).await;
            let file = servers.scratch.path().join("old-hosts.yaml");
            let mesh = Self { caller, servers, file };
            mesh.list(&[first]);
            mesh.servers.apply(&mesh.source("")).await.fine();
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
            let next = self.servers.scratch.write("next.yaml", text);
            std::fs::rename(next, &self.file).expect("renamed");
        }

        pub(super) fn source(&self, more: &str) -> String {
            format!(
                "{{kind: DiscoverySource, metadata: {{name: old-hosts}}, spec: {{type: File, file: {{path: {:?}}}, filter: {{tags: [mesh]}}{more}}}}}",
                self.file
            )
        }

        pub(super) async fn answers(&self, want: &str, within: std::time::Duration) {
            self.caller.answers(SERVICE, want, within).await;
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
        let status =
            mesh.servers.status("old-hosts", "it is in step", |status| status["endpoints"] == 1).await;
        assert_eq!(status["state"], "Synced");
        assert_eq!(status["services"], 1);
        assert_eq!(status["error"], "");
        let table = mesh.servers.cluster.said(&["get", "endpoints"]).await.fine();
        assert!(table.contains("discovery/old-hosts"), "{table}");
        let service = mesh.servers.get(&["service", "old-orders"]).await;
        assert_eq!(service["metadata"]["annotations"]["mesh/managed-by"], "discovery/old-hosts");
        let log = mesh.caller.host.access_log();
        let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        assert_eq!(line["mtls"], false);
        assert_eq!(line["destination"], "default/old-orders");
        let explained = mesh
            .servers
            .cluster
            .said(&["explain", "--from", "default/web", "--to", "default/old-orders", "GET", "/"])
            .await;
        let explained = explained.fine();
        assert!(explained.contains("without a proxy") && explained.contains("no-proxy"), "{explained}");

        owned(&mesh).await;
        hosts_come_first(&mesh).await;

        let deleted = mesh.servers.cluster.said(&["delete", "discoverysource", "old-hosts"]).await;
        deleted.fine();
        let left = mesh.servers.cluster.said(&["get", "endpoints"]).await.fine();
        assert!(!left.contains("discovery/"), "{left}");
    }

    /// A Service that an operator wrote stays as it is.
    async fn owned(mesh: &Mesh) {
        let own = "{kind: Service, metadata: {namespace: default, name: old-orders}, spec: {ports: [{port: 8080, protocol: http}]}}";
        mesh.servers.apply(own).await.fine();
        until("endpoints serve its port", SOON, || async {
            let endpoints = mesh.servers.get(&["endpoints"]).await;
            let ports = endpoints["items"].as_array().into_iter().flatten();
            let ports: Vec<_> = ports
                .filter(|one| one["spec"]["service"] == "old-orders")
                .map(|one| one["spec"]["ports"][0]["port"].clone())
                .collect();
            if ports == [8_080] { Ok(()) } else { Err(endpoints.to_string()) }
        })
        .await
        .expect("in time");
        let service = mesh.servers.get(&["service", "old-orders"]).await;
        assert_eq!(service["spec"]["ports"][0]["port"], 8_080);
        assert_eq!(service["metadata"].get("annotations"), None);
        mesh.answers("second for nobody", PATIENCE).await;
    }

    /// While proxies serve it, they alone are called, over mTLS.
    async fn hosts_come_first(mesh: &Mesh) {
        let third = Backend::start("third").await.expect("an application");
        let own = LocalService::new("old-orders", third.port, 8_080, "http");
        let host =
            Host::start(&mesh.servers.cluster, mesh.servers.scratch.path(), "back", 12, &[own], |_| {}).await;
        let mut host = host.expect("a host");
        mesh.answers("third for URI=spiffe://mesh.internal/ns/default/svc/web", PATIENCE).await;
        for _ in 0..20 {
            assert!(mesh.caller.call("old-orders").await.expect("an answer").starts_with("third"));
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
        let before = stands(&mesh).await;

        let calls = mesh.caller.calls(SERVICE);
        mesh.servers.lose_leader().await;
        assert_eq!(stands(&mesh).await, before, "nothing of it was written again");
        mesh.list(&[&first, &second]);
        until("the next leader follows the file", PATIENCE, || async {
            let now = stands(&mesh).await;
            if now.as_array().is_some_and(|now| now.len() == 2) { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .expect("in time");
        mesh.list(&[&second]);
        mesh.answers("second", PATIENCE).await;
        calls.end().await;
    }

    /// The endpoints of the service that the file lists.
    async fn stands(mesh: &Mesh) -> Value {
        let mut all = mesh.servers.get(&["endpoints"]).await["items"].take();
        all.as_array_mut().expect("a list").retain(|one| one["spec"]["service"] == SERVICE);
        all
    }

    #[tokio::test]
    async fn a_source_that_falls_silent_is_kept_marked_and_then_lost() {
        let first = Backend::start_at("first", Ipv4Addr::LOCALHOST).await.expect("an application");
        let mesh = Mesh::open(1, &first).await;
        mesh.servers.apply(&mesh.source(", stalePolicy: {after: 3s, keep: 12s}")).await.fine();
        mesh.answers("first", PATIENCE).await;
        let text = std::fs::read_to_string(&mesh.file).expect("read");
        std::fs::remove_file(&mesh.file).expect("removed");
        let status =
            mesh.servers.status("old-hosts", "it is stale", |status| status["state"] == "Stale").await;
        assert!(status["error"].as_str().is_some_and(|error| error.contains("No such file")), "{status}");
        let endpoints = mesh.servers.get(&["endpoints"]).await["items"].clone();
        let stale =
            endpoints.as_array().into_iter().flatten().find(|one| one["spec"]["service"] == "old-orders");
        assert_eq!(stale.expect("it is kept")["status"]["stale"], true);
        mesh.caller.call("old-orders").await.expect("it is called");
        let metrics = mesh.servers.cluster.members[0].log();
        assert!(metrics.contains("fell silent: its endpoints are kept, marked stale"), "{metrics}");
        alarm(&mesh, "0").await;
        let status = mesh.servers.status("old-hosts", "it is lost", |status| status["state"] == "Lost").await;
        assert_eq!(status["endpoints"], 0);
        std::fs::write(&mesh.file, text).expect("written");
        mesh.servers
            .status("old-hosts", "it is back", |status| status["state"] == "Synced" && status["error"] == "")
            .await;
        mesh.answers("first", SOON).await;
        alarm(&mesh, "1").await;
    }

    /// What an alarm looks at comes to be this.
    async fn alarm(mesh: &Mesh, want: &str) {
        let url = format!("http://{}:8480/metrics", mesh.servers.cluster.members[0].address);
        let line = format!("meshd_discovery_synced{{source=\"old-hosts\"}} {want}");
        until(&line, SOON, || async {
            let answer = reqwest::get(&url).await.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if text.lines().any(|own| own == line) { Ok(()) } else { Err(text) }
        })
        .await
        .expect("in time");
    }

    #[tokio::test]
    async fn only_who_may_say_whom_servers_call_writes_a_source_and_wrong_ones_name_their_fields() {
        let first = Backend::start("first").await.expect("an application");
        let mesh = Mesh::open(1, &first).await;
        let token = mesh.servers.cluster.said(&["token", "access", "ops", "--role", "operator"]).await.fine();
        let mut client = mesh.servers.cluster.client(0).expect("a client");
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
        let roots = std::fs::read_to_string(&mesh.servers.cluster.cacert).expect("read");
        let (address, token) = (mesh.servers.cluster.members[0].url(), token.trim().to_owned());
        client = Client::new(Settings { address, token: Some(token), roots: Some(roots) }).expect("a client");
        let refused =
            client.json::<Value>(reqwest::Method::PUT, path, Some(&body)).await.expect_err("not theirs");
        assert!(refused.to_string().contains("needs write on DiscoverySource"), "{refused}");
        mesh.servers.status("old-hosts", "the first is in step", |status| status["state"] == "Synced").await;
        // What the server keeps for itself is not read.
        let own = mesh.servers.cluster.members[0].data();
        let own = format!(
            "{{kind: DiscoverySource, metadata: {{name: spy}}, spec: {{type: File, file: {{path: {own:?}}}}}}}"
        );
        mesh.servers.apply(&own).await.fine();
        until("it is refused", PATIENCE, || async {
            let status = mesh.servers.get(&["discoverysource", "spy"]).await["status"].clone();
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
    let (port, folder) = (free_port(), mesh.servers.scratch.path().to_owned());
    let (own, root) = certificates(&folder);
    let mut command = foreign::python("tls_server.py");
    command.arg(port.to_string()).args(&own);
    let _application = foreign::listening("application", &folder, &mut command, port).await.expect("it runs");
    mesh.list_at(&[port]);
    let says = async |hostname: &str, ca: &str| {
        let tls = format!(", tls: {{hostname: {hostname:?}{ca}}}");
        mesh.servers.apply(&mesh.source(&tls)).await.fine();
    };
    let ca = format!(", caFile: {root:?}");
    says("{service}.example", &ca).await;
    mesh.answers("over TLS as old-orders.example", PATIENCE).await;
    over_tls(&mesh.caller, "default/old-orders").await;
    let explained = mesh.servers.cluster.said(&[
        "explain",
        "--from",
        "default/web",
        "--to",
        "default/old-orders",
        "GET",
        "/",
    ]);
    let explained = explained.await.fine();
    assert!(explained.contains("is called over TLS, by which it does not know its callers"), "{explained}");

    says("orders.example", &ca).await;
    refused(&mesh, "not valid for name").await;
    // By what this host trusts, it is nobody.
    says("{service}.example", "").await;
    refused(&mesh, "UnknownIssuer").await;
    says("{service}.example", &ca).await;
    mesh.answers("over TLS as old-orders.example", PATIENCE).await;
}

/// HTTP/2, which gRPC is, and streams of bytes go over TLS as HTTP/1.1 does; gRPC is called by grpcio, as answered by it.
#[tokio::test]
async fn grpc_and_streams_of_bytes_go_over_tls_where_their_source_says_so() {
    let mesh = Elsewhere::open("over-tls", 1).await;
    let folder = mesh.scratch.path().to_owned();
    let (papers, root) = certificates(&folder);
    let mut running = Vec::new();
    let mut listed = String::new();
    for (service, protocol, program) in [("rpc", "grpc", "grpc_server.py"), ("lines", "tcp", "tcp_server.py")]
    {
        let port = free_port();
        let mut command = foreign::python(program);
        command.arg(port.to_string()).args(&papers);
        running.push(foreign::listening(service, &folder, &mut command, port).await.expect("it runs"));
        listed += &format!(
            "- {{name: {service}, ports: [{{port: 80, protocol: {protocol}}}], endpoints: [{{address: 127.0.0.1, targetPort: {port}}}]}}\n"
        );
    }
    let file = mesh.scratch.write("hosts.yaml", format!("services:\n{listed}"));
    let caller = mesh.caller(&[("rpc", 9_001), ("lines", 9_002)]).await;
    let source = format!(
        "{{type: File, file: {{path: {file:?}}}, tls: {{hostname: old-orders.example, caFile: {root:?}}}}}"
    );
    mesh.follow("over-tls", &source).await;

    let said = until("bytes go there and back", PATIENCE, || async {
        let said = exchange((caller.host.address, 9_002), &[7; 300_000]).await;
        said.map_err(|error| error.to_string())
            .and_then(|said| if said.is_empty() { Err(said) } else { Ok(said) })
    });
    let said = said.await.expect("in time");
    assert!(said.starts_with("220 ready\r\n300000 "), "{said}");
    let mut client = foreign::python("grpc_client.py");
    client.arg(format!("{}:9001", caller.host.address)).arg("1");
    let seen: Value = serde_json::from_str(&foreign::said(client).await.fine()).expect("JSON");
    assert_eq!(seen["unary"], serde_json::json!(["hello", "one", "two", "OK"]), "{seen}");
    assert_eq!(seen["caller"], "none", "nobody says who calls: {seen}");
    for call in ["large", "down", "both"] {
        assert_eq!(seen[call], true, "{call}: {seen}");
    }
    assert_eq!(
        (&seen["fail"][0], &seen["late"][0]),
        (&"NOT_FOUND".into(), &"DEADLINE_EXCEEDED".into()),
        "{seen}"
    );
    for service in ["default/rpc", "default/lines"] {
        over_tls(&caller, service).await;
    }
}

/// The access log comes to say that the last call of a service went over TLS, and not over that of the mesh.
async fn over_tls(caller: &Caller, service: &str) {
    until(&format!("a line says how {service} was called"), PATIENCE, || async {
        let log = caller.host.access_log();
        let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["destination"] == service).unwrap_or_default();
        if line["mtls"] == false && line["tls"] == true { Ok(()) } else { Err(line.to_string()) }
    })
    .await
    .expect("in time");
}

/// What is answered to these bytes, after which the caller has no more to say.
async fn exchange(at: (Ipv4Addr, u16), bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut said = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await??;
    Ok(said)
}

/// Calls come to be refused, for this reason.
async fn refused(mesh: &patient::Mesh, reason: &str) {
    until(reason, PATIENCE, || async {
        match mesh.caller.call("old-orders").await {
            Err(said) if said.starts_with("503") && mesh.caller.host.access_log().contains(reason) => Ok(()),
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
