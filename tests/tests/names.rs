//! Programs that know nothing of the mesh call services by their names: looked up at the proxy, by virtual IPs that the
//! kernel turns aside to it. In a network namespace, as rules of the kernel are needed.

mod heavy {
    use std::{net::SocketAddr, path::Path, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        foreign::{listening, program, python, said},
        host::{Host, LocalService},
        loopback::free_port,
        netns,
        process::Process,
        scratch::Scratch,
        wait::until,
    };
    use rustix::process::Signal;
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpStream, UdpSocket},
    };

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// What a host needs so that calls of virtual IPs, and look-ups, come to its proxy.
    const RULES: &str = "\
table inet captured {
  chain output {
    type nat hook output priority -100;
    ip daddr 240.0.0.0/8 meta l4proto tcp redirect to :15001
    ip6 daddr fd6d:6573:6800::/48 meta l4proto tcp redirect to :15001
    ip daddr 127.0.0.1 udp dport 53 redirect to :15053
    ip daddr 127.0.0.1 tcp dport 53 redirect to :15053
  }
}
";
    /// Without a way there nothing would be sent that could be turned aside.
    const WAYS: [&str; 2] = [
        "route add local 240.0.0.0/8 dev lo src 127.0.0.1",
        "-6 route add local fd6d:6573:6800::/48 dev lo src ::1",
    ];
    const WEB: &str = "URI=spiffe://mesh.internal/ns/default/svc/web";

    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        back: Host,
        front: Host,
        orders: Backend,
        _lines: Process,
    }

    impl Mesh {
        async fn open() -> Self {
            let scratch = Scratch::new("names");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let orders = Backend::start("orders").await.expect("an application");
            let lines = free_port();
            let mut server = python("tcp_server.py");
            let server = listening("tcp_server", scratch.path(), server.arg(lines.to_string()), lines).await;
            let own = [
                LocalService::new("orders", orders.port, 8_000, "http"),
                LocalService::new("lines", lines, 7_000, "tcp"),
            ];
            let back = Host::start(&cluster, scratch.path(), "back", 12, &own, |_| {}).await;
            let web = [LocalService::new("web", 1, 80, "http")];
            let front = Host::start(&cluster, scratch.path(), "front", 11, &web, |_| {}).await;
            let (back, mut front) = (back.expect("a host"), front.expect("a host"));
            turn_aside(&scratch);
            captures(&mut front).await;
            let _lines = server.expect("an application");
            Self { scratch, cluster, back, front, orders, _lines }
        }

        /// What the registry says of a service.
        async fn status(&self, service: &str) -> Value {
            let shown = self.cluster.said(&["get", "service", service, "-o", "json"]).await.fine();
            let shown: Value = serde_json::from_str(&shown).expect("JSON");
            shown["status"].clone()
        }

        /// An unchanged program, which asks the resolver of its `resolv.conf`.
        async fn curl(&self, arguments: &str) -> String {
            let resolver = self.scratch.write("resolv.conf", "nameserver 127.0.0.1\n");
            let mut unshare = program("unshare");
            let (bind, curl) = (bound(&resolver), program("curl").get_program().to_owned());
            let script = format!("{bind} && exec {} -sS {arguments}", Path::new(&curl).display());
            unshare.args(["--mount", "sh", "-c", &script]);
            let said = said(unshare).await;
            format!("{}{}", said.out, said.err)
        }

        async fn becomes(&self, arguments: &str, want: &str) {
            let what = format!("curl {arguments} says {want}");
            let asked = || async {
                let said = self.curl(arguments).await;
                if said == want { Ok(()) } else { Err(said) }
            };
            until(&what, PATIENCE, asked).await.expect("in time");
        }

        /// A client of DNS that we did not write.
        async fn dig(&self, arguments: &str) -> String {
            let mut dig = program("dig");
            dig.args(["@127.0.0.1", "-p", "15053", "+tries=1"]).args(arguments.split_whitespace());
            said(dig).await.fine()
        }

        async fn counted(&self, line: &str) {
            until(line, PATIENCE, || async {
                let metrics = self.front.admin("/metrics").await.map_err(|error| error.to_string())?;
                if metrics.lines().any(|own| own == line) { Ok(()) } else { Err(metrics) }
            })
            .await
            .expect("in time");
        }
    }

    fn bound(file: &Path) -> String {
        format!("mount --bind {} /etc/resolv.conf", file.display())
    }

    fn turn_aside(scratch: &Scratch) {
        let rules = scratch.write("captured.nft", RULES);
        let mut commands = vec![program("nft")];
        commands[0].arg("-f").arg(rules);
        commands.extend(WAYS.map(|way| {
            let mut ip = program("ip");
            ip.args(way.split_whitespace());
            ip
        }));
        for mut command in commands {
            let output = command.output().expect("it starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Has a host's proxy take captured calls and look-ups.
    async fn captures(host: &mut Host) {
        let text = std::fs::read_to_string(host.config()).expect("it has one");
        let text = text
            .replace("outbound = []", "outbound = [\"127.0.0.1:15001\", \"[::1]:15001\"]")
            .replace("dns = \"\"", "dns = [\"127.0.0.1:15053\", \"[::1]:15053\"]");
        std::fs::write(host.config(), text).expect("it can be written");
        restarted(host).await;
    }

    async fn restarted(host: &mut Host) {
        host.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
        host.run().await.expect("it starts");
    }

    /// Another resolver: it knows each name, and nothing of it.
    async fn another() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                // The query itself, said to be an answer of one that recurses.
                (packet[2], packet[3]) = (packet[2] | 0x80, 0x80);
                socket.send_to(&packet[..length], client).await.expect("sent");
            }
        });
        address
    }

    /// A stream to a virtual IP; what came back.
    async fn line(to: &str) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok(said)
    }

    /// Whether a connection is broken off before anything comes.
    async fn is_broken_off(to: &str) {
        let error = line(to).await.expect_err("it is broken off");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{to}: {error}");
    }

    #[test]
    fn unchanged_programs_call_services_by_name() {
        netns::inside(0, async |_| {
            let mut mesh = Mesh::open().await;
            let status = mesh.status("orders").await;
            let (v4, v6) = (status["virtualIPs"][0].as_str(), status["virtualIPs"][1].as_str());
            let (v4, v6) = (v4.expect("one of IPv4"), v6.expect("one of IPv6"));
            assert_eq!(status["hostname"], "orders.default.mesh");
            assert_eq!(mesh.dig("+short orders.default.mesh A").await, format!("{v4}\n"));
            assert_eq!(mesh.dig("+short orders.default.mesh AAAA").await, format!("{v6}\n"));

            // HTTP at the service's port and at 80, over both, and streams.
            let web = format!("orders for {WEB}");
            mesh.becomes("-4 http://orders.default.mesh:8000/", &web).await;
            for arguments in ["-4 http://orders.default.mesh/", "-6 http://Orders.Default.mesh/"] {
                assert_eq!(mesh.curl(arguments).await, web, "{arguments}");
            }
            let lines = mesh.status("lines").await;
            for ip in [&lines["virtualIPs"][0], &lines["virtualIPs"][1]] {
                let ip: std::net::IpAddr = ip.as_str().expect("a text").parse().expect("an address");
                let said = line(&SocketAddr::new(ip, 7_000).to_string()).await.expect("a stream");
                assert!(said.starts_with("220 ready\r\n5 "), "{said}");
            }

            // What is not there is broken off, and said to be so.
            is_broken_off(&format!("{v4}:81")).await;
            is_broken_off("240.9.9.9:80").await;
            is_broken_off("127.0.0.1:15001").await;
            is_broken_off("[::1]:15001").await;
            for (reason, count) in [("port", 1), ("address", 1), ("direct", 2)] {
                mesh.counted(&format!("mesh_captured_refused_total{{reason=\"{reason}\"}} {count}")).await;
            }
            let log = mesh.front.log();
            assert!(log.contains("service default/orders has no port 81"), "{log}");
            assert!(log.contains("no service has the address 240.9.9.9:80"), "{log}");

            // Without a control plane all of it goes on, and after a cold start.
            mesh.cluster.members[0].process.take().expect("it runs").kill();
            restarted(&mut mesh.front).await;
            mesh.becomes("http://orders.default.mesh/", &web).await;
            assert!(mesh.orders.calls() >= 4 && mesh.back.proxy.is_some());

            // Where two services could be the caller, nobody is taken for it.
            mesh.front.write_service(&LocalService::new("other", 2, 81, "http")).expect("a file");
            mesh.front.proxy.as_ref().expect("it runs").signal(Signal::HUP);
            let nobody =
                "mesh: several local services could be the caller: set host_router_identity in proxy.toml\n";
            mesh.becomes("http://orders.default.mesh/", nobody).await;
        });
    }

    #[test]
    fn a_foreign_client_of_dns_is_told_what_there_is_and_what_there_is_not() {
        netns::inside(0, async |_| {
            let mut mesh = Mesh::open().await;
            let ports: Vec<_> =
                (1..=60).map(|n| format!("{{name: p{n}, port: {n}, protocol: tcp}}")).collect();
            let many = format!(
                "{{kind: Service, metadata: {{namespace: default, name: many}}, spec: {{ports: [{}]}}}}",
                ports.join(", ")
            );
            let file = mesh.scratch.write("many.yaml", many).display().to_string();
            mesh.cluster.said(&["apply", "-f", &file]).await.fine();
            until("it is known", PATIENCE, || async {
                let said = mesh.dig("many.default.mesh A").await;
                if said.contains("status: NOERROR") { Ok(()) } else { Err(said) }
            })
            .await
            .expect("in time");
            let check = async |arguments: &str, wanted: &[&str]| {
                let said = mesh.dig(arguments).await;
                wanted
                    .iter()
                    .for_each(|want| assert!(said.contains(want), "dig {arguments}: {want}\n{said}"));
            };
            let soa = "mesh.\t\t\t5\tIN\tSOA\tmesh. nobody.invalid. ";
            check("orders.default.mesh A", &["status: NOERROR", "flags: qr aa rd;", "\t30\tIN\tA\t240.0.0."])
                .await;
            check(
                "oRdErS.default.MESH AAAA +tcp",
                &["oRdErS.default.MESH.", "\t30\tIN\tAAAA\tfd6d:6573:6800::"],
            )
            .await;
            check("orders.default.mesh MX", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", soa]).await;
            check("nobody.default.mesh A", &["status: NXDOMAIN", "ANSWER: 0, AUTHORITY: 1", soa]).await;
            check("orders.mesh A", &["status: NXDOMAIN", soa]).await;
            check("default.mesh A", &["status: NOERROR", "ANSWER: 0", soa]).await;
            let srv = ["SRV\t0 0 8000 orders.default.mesh.", "orders.default.mesh.\t30\tIN\tA\t240.0.0."];
            check("_http._tcp.orders.default.mesh SRV", &srv).await;
            check("example.com A", &["status: REFUSED"]).await;
            check("orders.default.mesh A +edns=1 +noednsnegotiation", &["status: BADVERS"]).await;
            check("orders.default.mesh A +noedns", &["ANSWER: 1", "ADDITIONAL: 0"]).await;
            check("orders.default.mesh A +opcode=NOTIFY", &["status: NOTIMP"]).await;
            // Longer than a datagram may be: cut, and whole over TCP, where dig goes by itself.
            check("_tcp._tcp.many.default.mesh SRV +ignore", &["flags: qr aa tc rd;", "ANSWER: 0"]).await;
            check("_tcp._tcp.many.default.mesh SRV", &["ANSWER: 60", "(TCP)"]).await;
            // Several on one connection.
            let several = mesh.dig("+tcp +keepopen orders.default.mesh A lines.default.mesh A").await;
            assert_eq!(several.matches("status: NOERROR").count(), 2, "{several}");
            mesh.counted("mesh_dns_queries_total{type=\"AAAA\",outcome=\"found\"} 1").await;
            // Where another resolver is named, it is asked for all other names.
            let another = another().await.to_string();
            let text = std::fs::read_to_string(mesh.front.config()).expect("it has one");
            std::fs::write(mesh.front.config(), format!("dns_upstream = {another:?}\n{text}"))
                .expect("written");
            restarted(&mut mesh.front).await;
            let said = mesh.dig("example.com A").await;
            assert!(said.contains("status: NOERROR") && said.contains("flags: qr rd ra;"), "{said}");
            let said = mesh.dig("orders.default.mesh A").await;
            assert!(said.contains("flags: qr aa rd ra;"), "{said}");
        });
    }
}
