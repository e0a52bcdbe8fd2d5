//! The kernel's rules for capture, loaded by `mesh-proxy capture`: what they turn aside, what they leave alone, and that
//! nothing is left of them. In network namespaces, with a second host that sees what leaves the first.

mod heavy {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        path::PathBuf,
        process::{Command, Stdio},
        time::Duration,
    };

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        firewall::{FOREIGN, FOREIGN_RULES},
        foreign::program,
        host::{Host, LocalService},
        netns::{self, Field},
        scratch::{Said, Scratch},
        wait::until,
    };
    use rustix::{process::Uid, thread::set_thread_res_uid};
    use socket2::{Domain, SockRef, Socket, Type};
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
        net::{TcpListener, TcpStream, UdpSocket},
        process::{Child, ChildStdin, ChildStdout},
        time::timeout,
    };

    /// Debian's user of that name.
    const NOBODY: u32 = 65_534;
    const PATIENCE: Duration = Duration::from_secs(30);
    const VIRTUAL: &str = "240.0.0.7:80";
    const VIRTUAL_6: &str = "[fd6d:6573:6800::7]:80";
    /// The host that everything is about; 1 is the one beside it.
    const OWN: u8 = 0;
    const BESIDE: u8 = 1;

    /// What a line sent to it comes back as, over one connection that is made at once.
    const SESSION: &str = "import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
print('connected', flush=True)
for line in sys.stdin:
    s.sendall(line.encode())
    print(s.recv(99).decode(), end='', flush=True)
";

    fn nft(rules: &str) {
        let output = program("nft").arg(rules).output().expect("nft runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn ip(arguments: &str) -> String {
        let output = program("ip").args(arguments.split(' ')).output().expect("ip runs");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn foreign_rules() -> String {
        let output = program("sh").args(["-c", FOREIGN_RULES]).output().expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    }

    fn routes() -> String {
        // What the kernel adds for links of its own comes when it likes.
        let v6 = ip("-6 route show table all");
        let v6: String = v6.lines().filter(|line| line.contains("fd6d")).collect();
        ip("-4 route show table all") + &v6
    }

    /// A command on the host beside.
    fn beside(field: &Field) -> Command {
        let words: Vec<_> =
            field.wrapper().iter().map(|word| word.replace("{n}", &BESIDE.to_string())).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// A connection from the host beside, and who keeps it.
    struct Session {
        _child: Child,
        asks: ChildStdin,
        hears: Lines<BufReader<ChildStdout>>,
        said: u32,
    }

    impl Session {
        /// `None` if it is not let in.
        async fn open(field: &Field, port: u16) -> Option<Self> {
            let mut command = tokio::process::Command::from(beside(field));
            command.args(["python3", "-c", SESSION, &field.address(OWN).to_string(), &port.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
            let mut child = command.spawn().expect("it starts");
            let asks = child.stdin.take().expect("a pipe");
            let mut hears = BufReader::new(child.stdout.take().expect("a pipe")).lines();
            let first = hears.next_line().await.expect("text")?;
            assert_eq!(first, "connected");
            Some(Self { _child: child, asks, hears, said: 0 })
        }

        async fn lives(&mut self, when: &str) {
            self.said += 1;
            let said = format!("{} {when}", self.said);
            self.asks.write_all(format!("{said}\n").as_bytes()).await.expect("asked");
            let heard = timeout(PATIENCE, self.hears.next_line()).await.expect("in time").expect("text");
            assert_eq!(heard.as_deref(), Some(said.as_str()));
        }
    }

    /// Says back what it hears, at a port of all addresses.
    async fn echo(port: u16) {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.expect("a free port");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
    }

    struct Capture {
        scratch: Scratch,
        config: PathBuf,
    }

    impl Capture {
        /// With `listen` in its settings; the proxy is nobody's.
        fn new(listen: &str) -> Self {
            let scratch = Scratch::new("capture");
            let config = scratch.path().join("proxy.toml");
            let own = Self { scratch, config };
            own.set(listen);
            own
        }

        fn set(&self, listen: &str) {
            let folder = self.scratch.path();
            let text = format!(
                "data_dir = {:?}\nservices_dir = {:?}\n[listen]\n{listen}\n[capture]\nuser = \"nobody\"\ndns = true\nrun_dir = {:?}\n",
                folder.join("data"),
                folder.join("services.d"),
                folder.join("run")
            );
            std::fs::write(&self.config, text).expect("written");
        }

        async fn said(&self, arguments: &[&str]) -> Said {
            capture(&self.config, arguments).await
        }

        async fn does(&self, arguments: &[&str]) -> String {
            self.said(arguments).await.fine()
        }
    }

    async fn capture(config: &std::path::Path, arguments: &[&str]) -> Said {
        let mut command = Command::new(binaries::path("mesh-proxy"));
        command.arg("capture").arg("--config").arg(config).args(arguments);
        mesh_tests::foreign::said(command).await
    }

    /// A call of this host, and what a listener at `at` is told of where it was on its way to.
    async fn turned_aside(to: &str, at: &str) -> SocketAddr {
        let listener = TcpListener::bind(at).await.expect("a free port");
        let _call = timeout(PATIENCE, TcpStream::connect(to)).await.expect("in time").expect("connected");
        let (stream, _) = listener.accept().await.expect("taken");
        let socket = SockRef::from(&stream);
        let meant = if at.starts_with('[') { socket.original_dst_v6() } else { socket.original_dst_v4() };
        meant.expect("it was turned aside").as_socket().expect("an address")
    }

    const ALL: &str = "outbound = [\"127.0.0.1:15001\", \"[::1]:15001\"]\ndns = \"127.0.0.1:15053\"\ninbound_plain = \"0.0.0.0:15006\"";

    #[test]
    fn rules_come_and_go_and_touch_neither_those_of_others_nor_a_live_connection() {
        netns::inside(1, async |field| {
            nft(FOREIGN);
            let capture = Capture::new(ALL);
            let (rules, before) = (foreign_rules(), routes());
            assert!(rules.contains("table ip nat") && rules.contains("# handle"), "{rules}");
            echo(22).await;
            echo(9_000).await;
            let mut ssh = Session::open(field, 22).await.expect("connected");
            ssh.lives("before").await;
            let check = async |ssh: &mut Session, when: &str| {
                assert_eq!(foreign_rules(), rules, "{when}");
                ssh.lives(when).await;
                let new = Session::open(field, 9_000).await;
                new.expect("what is not for the mesh is let in").lives(when).await;
            };

            // What is planned is what is loaded.
            let plan = capture.does(&["plan"]).await;
            assert_eq!((foreign_rules(), routes()), (rules.clone(), before.clone()), "a plan does nothing");
            capture.does(&["apply"]).await;
            check(&mut ssh, "applied").await;
            for family in ["-4", "-6"] {
                let planned = plan.lines().filter(|line| line.starts_with(&format!("# ip {family}"))).count();
                assert_eq!(ip(&format!("{family} route show table all proto 219")).lines().count(), planned);
            }
            assert_eq!(turned_aside(VIRTUAL, "127.0.0.1:15001").await, VIRTUAL.parse().expect("an address"));
            assert_eq!(turned_aside(VIRTUAL_6, "[::1]:15001").await, VIRTUAL_6.parse().expect("an address"));
            capture.does(&["apply"]).await;
            check(&mut ssh, "applied again").await;

            // On trial: what stood before comes back by itself, unless it is confirmed.
            let loaded = own_table();
            capture.set("outbound = \"\"");
            capture.does(&["apply", "--confirm", "3s"]).await;
            assert_ne!(own_table(), loaded);
            check(&mut ssh, "on trial").await;
            rolled_back(&loaded).await;
            check(&mut ssh, "rolled back").await;
            assert!(capture.said(&["confirm"]).await.failed(1).contains("nothing waits to be confirmed"));
            assert_eq!(turned_aside(VIRTUAL, "127.0.0.1:15001").await, VIRTUAL.parse().expect("an address"));
            capture.does(&["apply", "--confirm", "60s"]).await;
            let tried = own_table();
            capture.does(&["confirm"]).await;
            assert_eq!(own_table(), tried);

            capture.does(&["remove"]).await;
            check(&mut ssh, "removed").await;
            assert_eq!((own_table(), routes()), (String::new(), before), "no trace");
            capture.does(&["remove"]).await;
        });
    }

    fn own_table() -> String {
        let output = program("nft").args(["-s", "list", "table", "inet", "mesh"]).output().expect("nft runs");
        String::from_utf8(output.stdout).expect("text")
    }

    async fn rolled_back(want: &str) {
        until("what stood before is back", PATIENCE, || async {
            let table = own_table();
            if table == want { Ok(()) } else { Err(table) }
        })
        .await
        .expect("in time");
    }

    /// The kernel may give a call another port when it is turned aside, and nobody would know whose it is: not where the
    /// listener is at every address, though two programs call two addresses from one port.
    #[test]
    fn a_call_to_a_listener_at_every_address_keeps_its_port() {
        netns::inside(0, async |_| {
            let capture = Capture::new("outbound = [\"0.0.0.0:15001\", \"[::]:15001\"]");
            capture.does(&["apply"]).await;
            for (at, calls) in [
                ("0.0.0.0:15001", ["240.0.0.7:80", "240.0.0.8:80"]),
                ("[::]:15001", ["[fd6d:6573:6800::7]:80", "[fd6d:6573:6800::8]:80"]),
            ] {
                let listener = listening(at);
                let mut kept = Vec::new();
                for to in calls {
                    let to: SocketAddr = to.parse().expect("an address");
                    let call = from_port(41_000, to);
                    let (stream, peer) = listener.accept().expect("taken");
                    assert_eq!(peer, call.local_addr().expect("an address"), "{to}");
                    kept.push((call, stream));
                }
            }
        });
    }

    fn listening(at: &str) -> std::net::TcpListener {
        let at: SocketAddr = at.parse().expect("an address");
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("a socket");
        if at.is_ipv6() {
            socket.set_only_v6(true).expect("set");
        }
        socket.bind(&at.into()).and_then(|()| socket.listen(8)).expect("a free port");
        socket.into()
    }

    fn from_port(port: u16, to: SocketAddr) -> std::net::TcpStream {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("set");
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let own = SocketAddr::new(any.parse().expect("an address"), port);
        socket.bind(&own.into()).expect("bound");
        socket.connect_timeout(&to.into(), PATIENCE).expect("connected");
        socket.into()
    }

    /// A trial of a first apply leaves nothing, though the shell that began it is gone with all its processes' terminal.
    #[test]
    fn a_trial_of_the_first_rules_leaves_nothing_and_needs_no_shell() {
        netns::inside(1, async |_| {
            let (capture, before) = (Capture::new(ALL), routes());
            let mut shell = Command::new("setsid");
            shell.args(["--wait", "sh", "-c", "\"$@\"; kill -HUP 0", "sh"]).arg(binaries::path("mesh-proxy"));
            shell.arg("capture").arg("--config").arg(&capture.config).args(["apply", "--confirm", "3s"]);
            mesh_tests::foreign::said(shell).await;
            assert!(own_table().contains("chain outbound"));
            rolled_back("").await;
            until("no route is left", PATIENCE, || async {
                let now = routes();
                if now == before { Ok(()) } else { Err(now) }
            })
            .await
            .expect("in time");
        });
    }

    /// A server of names that this host's programs ask, in a resolv.conf that only `capture` sees.
    const SERVER: &str = "192.0.2.53";

    #[test]
    fn names_are_asked_of_us_and_of_nobody_else_but_by_the_proxy_itself() {
        netns::inside(1, async |_| {
            let capture = Capture::new(ALL);
            let resolv = capture.scratch.write("resolv.conf", format!("nameserver {SERVER}\n"));
            let mut apply = program("unshare");
            let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
            apply.args(["--mount", "sh", "-c", script, "sh"]).arg(resolv).arg(binaries::path("mesh-proxy"));
            apply.args(["capture", "apply", "--config"]).arg(&capture.config);
            ip("route add default dev eth0");
            mesh_tests::foreign::said(apply).await.fine();
            let dns = UdpSocket::bind("127.0.0.1:15053").await.expect("a free port");
            let asks = |server: &str, uid: u32| {
                let (to, user) = (format!("{server}:53"), Uid::from_raw(uid));
                // Of this thread alone: what it opens is that user's.
                let thread = std::thread::spawn(move || {
                    set_thread_res_uid(user, user, user).expect("root");
                    let client = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
                    client.send_to(b"who is it", to).expect("sent");
                });
                thread.join().expect("no panic");
            };
            let heard = async || {
                let mut bytes = [0; 64];
                timeout(Duration::from_millis(500), dns.recv(&mut bytes)).await.is_ok()
            };
            asks(SERVER, 0);
            assert!(heard().await, "a resolver's query comes to us");
            asks("192.0.2.1", 0);
            assert!(!heard().await, "a server that is nobody's resolver is left alone");
            asks(SERVER, NOBODY);
            assert!(!heard().await, "the proxy itself asks the resolver");
        });
    }

    /// Packets for virtual IPs that the host beside has seen.
    fn leaked(field: &Field) -> u64 {
        let output = beside(field).args(["nft", "list", "counter", "inet", "seen", "leaked"]).output();
        let text = String::from_utf8(output.expect("nft runs").stdout).expect("text");
        let after = text.split("packets ").nth(1).expect("a counter");
        after.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    }

    #[test]
    fn no_packet_for_a_virtual_ip_leaves_the_host() {
        netns::inside(1, async |field| {
            ip(&format!("route add default via {}", field.address(BESIDE)));
            let seen = "table inet seen { counter leaked { }; chain in { type filter hook prerouting priority 0; ip daddr 240.0.0.0/8 counter name leaked; }; }";
            assert!(beside(field).args(["nft", seen]).status().expect("nft runs").success());
            let calls = async || {
                let udp = UdpSocket::bind("0.0.0.0:0").await.expect("a free port");
                let sent = udp.send_to(b"x", VIRTUAL).await;
                let tcp = timeout(Duration::from_millis(500), TcpStream::connect(VIRTUAL)).await;
                (sent.is_ok(), matches!(tcp, Ok(Ok(_))))
            };
            // Without rules they do leave, and are seen.
            let _ = calls().await;
            let at_first = leaked(field);
            assert!(at_first > 0, "the witness sees them");
            let capture = Capture::new("outbound = \"\"");
            capture.does(&["apply"]).await;
            assert_eq!(calls().await, (false, false), "where nothing is captured they go nowhere");
            capture.set(ALL);
            capture.does(&["apply"]).await;
            assert!(!calls().await.1, "nor where the proxy is not there");
            echo(80).await;
            assert!(!calls().await.1, "nor to who listens at every address here");
            ip("route flush table all proto 219");
            let _ = calls().await;
            assert_eq!(leaked(field), at_first, "nor without its routes");
        });
    }

    #[test]
    fn a_host_without_ipv6_has_rules_too() {
        netns::inside(0, async |_| {
            let off = ["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1"];
            assert!(program("sysctl").args(off).status().expect("sysctl runs").success());
            let capture = Capture::new(ALL);
            capture.does(&["apply"]).await;
            assert_eq!(turned_aside(VIRTUAL, "127.0.0.1:15001").await, VIRTUAL.parse().expect("an address"));
            capture.does(&["remove"]).await;
            assert_eq!(own_table(), "");
        });
    }

    #[test]
    fn rules_for_a_proxy_whose_user_is_not_there_are_refused() {
        netns::inside(0, async |_| {
            let capture = Capture::new(ALL);
            let text = std::fs::read_to_string(&capture.config).expect("it is there");
            std::fs::write(&capture.config, text.replace("\"nobody\"", "\"mesh-nobody\"")).expect("written");
            let said = capture.said(&["apply"]).await.failed(1);
            let want = "capture.user: must be a user of this host, which has no \"mesh-nobody\"";
            assert!(said.contains(want), "{said}");
        });
    }

    const PERMISSIVE: &str = "\
{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Permissive}}
---
{kind: PeerAuthentication, metadata: {namespace: default, name: lines}, spec: {targetRefs: [{name: lines}], mode: Permissive}}
";
    const LINES: u16 = 7_000;
    const SECRET: u16 = 7_001;
    const OTHER: u16 = 9_000;

    /// A host of the mesh, whose rules send what comes from outside to a listener at its own address.
    async fn mesh_host(field: &Field, cluster: &Cluster, scratch: &Scratch, orders: u16) -> Host {
        let own = [
            LocalService::new("orders", orders, 80, "http"),
            LocalService::new("lines", LINES, LINES, "tcp"),
            LocalService::new("secret", SECRET, SECRET, "tcp"),
        ];
        let host = Host::start(cluster, scratch.path(), "back", 12, &own, |_| {}).await;
        let mut host = host.expect("a host");
        let text = std::fs::read_to_string(host.config()).expect("it is there");
        let plain = |address: Ipv4Addr| format!("inbound_plain = \"{address}:15006\"");
        let text = text.replace(&plain(host.address), &plain(field.address(OWN)));
        let run = scratch.path().join("run");
        let text = text + &format!("\n[capture]\nuser = \"nobody\"\nrun_dir = {run:?}\n");
        std::fs::write(host.config(), text).expect("written");
        host.proxy = None;
        host.run().await.expect("it starts again");
        let manifest = scratch.write("modes.yaml", PERMISSIVE).display().to_string();
        cluster.said(&["apply", "-f", &manifest]).await.fine();
        until("the plan has both", PATIENCE, || async {
            let plan = capture(&host.config(), &["plan"]).await.fine();
            let open = plan.contains(&format!("tcp dport {{ {LINES}, {orders} }} tcp flags"));
            if open && plan.contains(&format!("tcp dport {{ {SECRET} }} tcp flags")) {
                Ok(())
            } else {
                Err(plan)
            }
        })
        .await
        .expect("the last good configuration is on disk");
        host
    }

    /// What comes from outside to services of the mesh, by their modes.
    #[test]
    fn callers_outside_reach_permissive_services_by_the_proxy_and_strict_ones_not_at_all() {
        netns::inside(1, async |field| {
            let scratch = Scratch::new("inbound");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let orders = Backend::start_at("orders", Ipv4Addr::UNSPECIFIED).await.expect("an application");
            for port in [LINES, SECRET, OTHER] {
                echo(port).await;
            }
            let mut host = mesh_host(field, &cluster, &scratch, orders.port).await;
            let mut live = Vec::new();
            for port in [LINES, SECRET, OTHER] {
                live.push(Session::open(field, port).await.expect("nothing is captured yet"));
            }
            capture(&host.config(), &["apply"]).await.fine();
            all_live(&mut live, "applied").await;

            assert_eq!(asked(field, orders.port).await.out, "orders for nobody");
            Session::open(field, LINES).await.expect("let in").lives("by the proxy").await;
            for service in ["orders", "lines"] {
                until("the proxy carried it", PATIENCE, || async {
                    let (log, name) = (host.access_log(), format!("\"destination\":\"default/{service}\""));
                    if log.contains(&name) { Ok(()) } else { Err(log) }
                })
                .await
                .expect("it is logged");
            }
            assert_ne!(asked(field, SECRET).await.code, Some(0), "a strict service is closed to it");
            let here = TcpStream::connect((field.address(OWN), SECRET)).await;
            here.expect("this host's own calls are not from outside");
            all_live(&mut live, "while others are refused").await;

            // Without the proxy all that is not of the mesh goes on.
            host.proxy.as_mut().expect("it runs").signal(rustix::process::Signal::KILL);
            all_live(&mut live, "without a proxy").await;
            Session::open(field, OTHER).await.expect("let in").lives("without a proxy").await;
            capture(&host.config(), &["remove"]).await.fine();
            all_live(&mut live, "removed").await;
            Session::open(field, SECRET).await.expect("let in").lives("removed").await;
        });
    }

    async fn all_live(sessions: &mut [Session], when: &str) {
        for session in sessions {
            session.lives(when).await;
        }
    }

    /// What an application of the host says to a caller on the one beside.
    async fn asked(field: &Field, port: u16) -> Said {
        let mut curl = beside(field);
        let url = format!("http://{}:{port}/", field.address(OWN));
        curl.args(["curl", "--silent", "--max-time", "3", &url]);
        mesh_tests::foreign::said(curl).await
    }
}
