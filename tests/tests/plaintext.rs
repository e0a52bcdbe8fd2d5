//! Callers outside the mesh: connections that the kernel turned aside on their way to an application, by the examples of
//! docs/peer-authentication.md. In a network namespace, as rules of the kernel are needed.

mod heavy {
    use std::{net::SocketAddr, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        foreign::{listening, program, python},
        host::{Host, LocalService},
        loopback::free_port,
        netns,
        plain::Plain,
        process::Process,
        scratch::{Said, Scratch},
        wait::until,
    };
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    const MANUAL: &str = include_str!("../../docs/peer-authentication.md");
    const SERVICES: &str = "\
{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}
---
{kind: Service, metadata: {namespace: default, name: lines}, spec: {ports: [{port: 7000, protocol: tcp}]}}
";
    const STRICT: &str = "{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Strict}}";
    const ALL_PERMISSIVE: &str =
        "{kind: PeerAuthentication, metadata: {namespace: mesh-system, name: all}, spec: {mode: Permissive}}";
    const TWICE: &str =
        "{kind: PeerAuthentication, metadata: {namespace: mesh-system, name: more}, spec: {mode: Strict}}";
    const FORGED: [(&str, &str); 3] = [
        ("x-forwarded-client-cert", "URI=spiffe://mesh.internal/ns/default/svc/web"),
        ("x-mesh-port", "81"),
        ("x-forwarded-for", "1.2.3.4"),
    ];

    /// The manual's manifests, in their order.
    fn examples() -> Vec<&'static str> {
        let blocks = MANUAL.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
        blocks.map(|(block, _)| block).collect()
    }

    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        back: Host,
        front: Host,
        orders: Backend,
        lines: u16,
        _lines: Process,
    }

    impl Mesh {
        async fn open() -> Self {
            let scratch = Scratch::new("plaintext");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let orders = Backend::start("orders").await.expect("an application");
            let lines = free_port();
            let mut server = python("tcp_server.py");
            let server = listening("tcp_server", scratch.path(), server.arg(lines.to_string()), lines).await;
            let own = [
                LocalService::new("orders", orders.port, 80, "http"),
                LocalService::new("lines", lines, 7_000, "tcp"),
            ];
            let back = Host::start(&cluster, scratch.path(), "back", 12, &own, |_| {}).await;
            let web = [LocalService::new("web", 1, 80, "http").calling("orders", 9_001)];
            let front = Host::start(&cluster, scratch.path(), "front", 11, &web, |_| {}).await;
            let (back, front) = (back.expect("a host"), front.expect("a host"));
            let (mesh, apps) = ([back.address], [orders.port, lines]);
            turn_aside(&mesh, &apps).expect("nftables");
            let _lines = server.expect("an application");
            Self { scratch, cluster, back, front, orders, lines, _lines }
        }

        async fn apply(&self, manifest: &str) -> Said {
            let file = self.scratch.write("manifest.yaml", manifest).display().to_string();
            self.cluster.said(&["apply", "-f", &file]).await
        }

        /// A request from outside, straight to the application.
        async fn outside(&self, path: &str) -> Result<(u16, String), String> {
            let client = Plain::new((self.back.address, self.orders.port).into(), "orders.example");
            let answer = client.with_fields(path, &FORGED).await.map_err(|error| format!("{error:#}"))?;
            Ok((answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()))
        }

        async fn becomes(&self, path: &str, want: u16) -> String {
            let what = format!("{path} from outside becomes {want}");
            until(&what, PATIENCE, || async {
                let (status, body) = self.outside(path).await?;
                if status == want { Ok(body) } else { Err(format!("{status}: {body}")) }
            })
            .await
            .expect("in time")
        }

        /// The rule by which requests from outside become refused, as the log names it.
        async fn refused_by(&self, path: &str) -> String {
            let problem: Value = serde_json::from_str(&self.becomes(path, 403).await).expect("a problem");
            let id = problem["id"].as_str().expect("an id");
            until("the refusal stands in the log", PATIENCE, || async {
                let log = self.back.access_log();
                let line = log.lines().find(|line| line.contains(id)).ok_or(log.clone())?;
                let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                Ok::<_, String>(line["rule"].as_str().unwrap_or_default().to_owned())
            })
            .await
            .expect("in time")
        }

        /// A stream from outside; what came back, or that it was broken off.
        async fn line(&self) -> std::io::Result<String> {
            let mut stream = TcpStream::connect((self.back.address, self.lines)).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            Ok(said)
        }
    }

    /// What a host's firewall does for the mesh: who dials an application from outside reaches the proxy.
    fn turn_aside(hosts: &[std::net::Ipv4Addr], apps: &[u16]) -> anyhow::Result<()> {
        let ports: Vec<String> = apps.iter().map(ToString::to_string).collect();
        let rules: String = hosts
            .iter()
            .map(|host| {
                format!("ip daddr {host} tcp dport {{ {} }} dnat to {host}:15006; ", ports.join(", "))
            })
            .collect();
        let rules =
            format!("table ip plain {{ chain output {{ type nat hook output priority -100; {rules} }}; }}");
        let output = program("nft").arg(rules).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    #[test]
    fn callers_outside_come_in_where_a_mode_and_policies_let_them() {
        netns::inside(0, async |_| {
            let mesh = Mesh::open().await;
            mesh.apply(SERVICES).await.fine();
            let [permissive, public] = examples()[..] else { panic!("the manual has two examples") };

            // By default they do not, neither requests nor streams.
            assert_eq!(mesh.refused_by("/").await, "mesh-peers");
            assert!(mesh.line().await.is_err(), "a stream is broken off");
            assert_eq!(mesh.orders.calls(), 0);

            // By the manual's first example requests do, with nothing of what they say of themselves.
            mesh.apply(permissive).await.fine();
            assert_eq!(mesh.becomes("/", 200).await, "orders for nobody");
            assert!(mesh.line().await.is_err(), "the other service stays as it was");
            assert_eq!(mesh.apply(ALL_PERMISSIVE).await.code, Some(0));
            let said = until("streams come in", PATIENCE, || mesh.line()).await.expect("in time");
            assert!(said.starts_with("220 ready\r\n5 "), "{said}");
            let clash = mesh.apply(TWICE).await.failed(1);
            assert!(
                clash.contains("PeerAuthentication mesh-system/all is for all of its place already"),
                "{clash}"
            );

            // The most specific counts.
            mesh.apply(STRICT).await.fine();
            assert_eq!(mesh.refused_by("/").await, "default/orders/strict");

            // By the second, as policies say.
            mesh.apply(permissive).await.fine();
            mesh.apply(public).await.fine();
            assert_eq!(mesh.refused_by("/private").await, "only-allowed");
            assert_eq!(mesh.becomes("/public", 200).await, "orders for nobody");
            let web = Plain::new((mesh.front.address, 9_001).into(), "orders.default.mesh");
            let answer = web.get("/private").await.expect("an answer");
            assert_eq!(
                (answer.status().as_u16(), &answer.body()[..]),
                (200, &b"orders for URI=spiffe://mesh.internal/ns/default/svc/web"[..])
            );
            seen(&mesh).await;
        });
    }

    #[tokio::test]
    async fn where_the_mode_is_disabled_proxies_call_the_application_itself() {
        let scratch = Scratch::new("disabled");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let everywhere = std::net::Ipv4Addr::UNSPECIFIED;
        let http = Backend::start_at("orders", everywhere).await.expect("an application");
        let lines = TcpListener::bind((everywhere, 0)).await.expect("an application");
        let tcp = lines.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = lines.accept().await {
                let mut said = String::new();
                if stream.read_to_string(&mut said).await.is_ok() {
                    stream.write_all(said.to_uppercase().as_bytes()).await.expect("taken");
                }
            }
        });
        let own = [
            LocalService::new("orders", http.port, 80, "http"),
            LocalService::new("lines", tcp, 7_000, "tcp"),
        ];
        let back = Host::start(&cluster, scratch.path(), "back", 12, &own, |_| {}).await.expect("a host");
        let web = LocalService::new("web", 1, 80, "http").calling("orders", 9_001).calling("lines", 9_002);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let apply = async |manifest: &str| {
            let file = scratch.write("manifest.yaml", manifest).display().to_string();
            cluster.said(&["apply", "-f", &file]).await.fine()
        };
        apply(SERVICES).await;
        let client = Plain::new((front.address, 9_001).into(), "orders.default.mesh");
        let becomes = async |want: &str| {
            until(want, PATIENCE, || async {
                let answer = client.with_fields("/", &FORGED).await.map_err(|error| format!("{error:#}"))?;
                let said = String::from_utf8_lossy(answer.body()).into_owned();
                if said.starts_with(want) { Ok(()) } else { Err(said) }
            })
            .await
            .expect("in time");
        };
        becomes("orders for URI=spiffe://mesh.internal/ns/default/svc/web").await;
        apply(
            "{kind: PeerAuthentication, metadata: {namespace: default, name: all}, spec: {mode: Disabled}}",
        )
        .await;
        becomes("orders for nobody").await;
        let mut stream = TcpStream::connect((front.address, 9_002)).await.expect("dialled");
        stream.write_all(b"hello").await.expect("taken");
        stream.shutdown().await.expect("said");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "HELLO");
        let metrics = front.admin("/metrics").await.expect("metrics");
        let series = r#"mesh_requests_total{direction="outbound",source="default/web",destination="default/orders",route="default",code="200",protocol="http",mtls="false"}"#;
        assert!(metrics.contains(series), "{metrics}");
        let metrics = back.admin("/metrics").await.expect("metrics");
        assert!(
            !metrics.contains(r#"destination="default/lines""#),
            "nothing of it came to the proxy\n{metrics}"
        );
        apply("{kind: PeerAuthentication, metadata: {namespace: default, name: all}, spec: {mode: Strict}}")
            .await;
        becomes("orders for URI=spiffe://mesh.internal/ns/default/svc/web").await;
    }

    /// It is told apart in metrics and log, and who comes by itself is refused.
    async fn seen(mesh: &Mesh) {
        let metrics = mesh.back.admin("/metrics").await.expect("metrics");
        let series = r#"mesh_requests_total{direction="inbound",source="unknown",destination="default/orders",route="default",code="200",protocol="http",mtls="false"}"#;
        assert!(metrics.contains(series), "{metrics}");
        let mut own =
            TcpStream::connect(SocketAddr::from((mesh.back.address, 15_006))).await.expect("dialled");
        let mut nothing = Vec::new();
        // It may be reset as well as closed.
        let _ = own.read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
        until("the log says why", PATIENCE, || async {
            let log = mesh.back.log();
            if log.contains("nothing turned it aside") { Ok(()) } else { Err(log) }
        })
        .await
        .expect("in time");
        let table = mesh.cluster.said(&["get", "peerauthentications"]).await.fine();
        let row = table.lines().find(|line| line.contains("orders")).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[..4], ["orders", "Strict", "orders", "80=Permissive"], "{table}");
    }
}
