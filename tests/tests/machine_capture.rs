//! What the kernel's rules do on real hosts: calls from outside by the modes of services, rules that follow modes and files
//! by themselves, and a way in for an administrator that nothing of it cuts.

mod booted {
    use std::{net::SocketAddr, time::Duration};

    use mesh_tests::{
        firewall::{FOREIGN, FOREIGN_RULES},
        machine::Machine,
        netns::{self, Field},
        plain::Plain,
        scratch::Scratch,
        site::{PATIENCE, mesh, serve, until_works},
        wait::until,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    const ORDERS: u16 = 8_081;
    const ECHO: u16 = 8_082;
    const SSH: u16 = 22;
    /// A call that is not let in is dropped: it ends by its caller's patience.
    const DROPPED: Duration = Duration::from_millis(800);
    /// Our rules on a host.
    const RULES: &str = "nft -s list table inet mesh";
    const PERMISSIVE: &str = "{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Permissive}}";
    const STRICT: &str = "{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Strict}}";

    /// Says back what it hears, as a shell would over SSH.
    const SHELL: &str = "import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(('0.0.0.0', 22), Echo).serve_forever()
";

    /// An administrator's connection from outside, and the rules of others, which have to live through everything.
    struct Witness<'a> {
        machine: &'a Machine,
        session: TcpStream,
        foreign: String,
    }

    impl<'a> Witness<'a> {
        async fn of(machine: &'a Machine) -> Self {
            machine.write("/srv/foreign.nft", FOREIGN);
            machine.write("/srv/shell.py", SHELL);
            machine.fine("nft -f /srv/foreign.nft && systemd-run -q --unit shell python3 /srv/shell.py");
            let shell = SocketAddr::from((machine.address(), SSH));
            let dial = || async { TcpStream::connect(shell).await.map_err(|error| error.to_string()) };
            let session = until("the shell listens", PATIENCE, dial).await.expect("it does");
            let foreign = machine.fine(FOREIGN_RULES);
            assert!(foreign.contains("table ip nat") && foreign.contains("# handle"), "{foreign}");
            Self { machine, session, foreign }
        }

        /// The session lives, another one is let in, and the rules of others are the same, to the byte.
        async fn lives(&mut self, when: &str) {
            said_back(&mut self.session, when).await;
            let new = timeout(PATIENCE, TcpStream::connect((self.machine.address(), SSH))).await;
            said_back(&mut new.expect("in time").expect("let in"), when).await;
            assert_eq!(self.machine.fine(FOREIGN_RULES), self.foreign, "{when}");
        }
    }

    async fn said_back(session: &mut TcpStream, when: &str) {
        session.write_all(when.as_bytes()).await.expect("the session lives");
        let mut heard = vec![0; when.len()];
        timeout(PATIENCE, session.read_exact(&mut heard)).await.expect(when).expect("the session lives");
        assert_eq!(heard, when.as_bytes());
    }

    /// What becomes of a call from outside.
    async fn outside(host: &Machine, port: u16) -> String {
        let client = Plain::dialling((host.address(), port).into(), "orders.example");
        match timeout(DROPPED, client.get("/")).await {
            Err(_) => "dropped".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Ok(Ok(answer)) => String::from_utf8_lossy(answer.body()).into_owned(),
        }
    }

    async fn until_outside(host: &Machine, port: u16, want: &str, when: &str) {
        let becomes = || async {
            let said = outside(host, port).await;
            if said == want { Ok(()) } else { Err(said) }
        };
        let what = format!("{want:?} for a call from outside {when}");
        until(&what, PATIENCE, becomes)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", host.run(RULES).out, host.journal()));
    }

    fn apply(cp: &Machine, manifest: &str) {
        cp.write("/srv/mode.yaml", manifest);
        cp.fine(". /srv/admin; meshctl apply -f /srv/mode.yaml");
    }

    /// Whoever comes from outside, by the modes: nobody types a word on the host.
    async fn modes(cp: &Machine, b: &Machine, witness: &mut Witness<'_>) {
        until_outside(b, ORDERS, "dropped", "to a strict service").await;
        apply(cp, PERMISSIVE);
        until_outside(b, ORDERS, "ok", "to a permissive service").await;
        let carried = b.fine("curl -sS http://127.0.0.1:15000/metrics");
        let series = "direction=\"inbound\",source=\"unknown\",destination=\"default/orders\"";
        assert!(carried.contains(series), "the proxy carried it\n{carried}");
        witness.lives("while a service is permissive").await;
        apply(cp, STRICT);
        until_outside(b, ORDERS, "dropped", "when it is strict again").await;
        witness.lives("while it is strict").await;
    }

    /// Files that go and come, one of which names the port of SSH.
    async fn files(b: &Machine, witness: &mut Witness<'_>) {
        until_outside(b, ECHO, "dropped", "to another strict service").await;
        b.fine("mv /etc/mesh/services.d/echo.toml /srv/");
        let gone = || async {
            let rules = b.run(RULES).out;
            if rules.contains(&ECHO.to_string()) { Err(rules) } else { Ok(()) }
        };
        until("its port is nobody's concern", PATIENCE, gone).await.expect("in time");
        b.fine("mv /srv/echo.toml /etc/mesh/services.d/");
        b.write("/etc/mesh/services.d/shell.toml", "[service]\nname = \"shell\"\nport = 22\n");
        let told = || async {
            let ports = b.run("cat /var/lib/mesh-proxy/ports.json").out;
            if ports.contains("[22,8081,8082]") { Ok(()) } else { Err(ports) }
        };
        until("the proxy tells of all three", PATIENCE, told).await.expect("in time");
        until_outside(b, ECHO, "dropped", "when its file is back").await;
        witness.lives("though a file names its port").await;
        b.fine("rm /etc/mesh/services.d/shell.toml");
        until("the proxy tells of two", PATIENCE, || async {
            let ports = b.run("cat /var/lib/mesh-proxy/ports.json").out;
            if ports.contains("[8081,8082]") { Ok(()) } else { Err(ports) }
        })
        .await
        .expect("in time");
    }

    /// A proxy that tells what is not its to say: rules stay as they are.
    async fn lies(b: &Machine, witness: &mut Witness<'_>) {
        b.fine("systemctl stop mesh-proxy");
        let refreshed = "systemctl show --property InvocationID --value mesh-capture-refresh";
        for (said, result) in [
            ("{\"permissive\":[22,7000],\"strict\":[8081,8082,9000]}", "success"),
            ("{\"permissive\":[],\"strict\":[],\"rules\":\"flush ruleset\"}", "exit-code"),
        ] {
            let (before, last) = (b.fine(RULES), b.fine(refreshed));
            b.write("/srv/told.json", said);
            b.fine("chmod 644 /srv/told.json && runuser -u mesh-proxy -- cp /srv/told.json /var/lib/mesh-proxy/ports.json");
            let heard = || async {
                let state = b.run("systemctl show --property ActiveState,Result mesh-capture-refresh").out;
                let done = b.run(refreshed).out != last && !state.contains("=activating");
                if done && state.contains(&format!("Result={result}")) { Ok(()) } else { Err(state) }
            };
            until(said, PATIENCE, heard).await.unwrap_or_else(|error| panic!("{error:#}\n{}", b.journal()));
            assert_eq!(b.fine(RULES), before, "{said}");
            witness.lives("whatever the proxy says").await;
        }
        b.fine("systemctl start mesh-proxy");
    }

    /// Rules on trial: what comes back does, and what changed meanwhile holds then, too.
    async fn trial(cp: &Machine, b: &Machine, witness: &mut Witness<'_>) {
        let before = b.fine(RULES);
        b.fine("cp -p /etc/mesh/proxy.toml /srv/ && sed -i 's/^outbound = .*/outbound = \"\"/' /etc/mesh/proxy.toml");
        b.fine("mesh-proxy capture apply --confirm 5s");
        assert!(!b.fine(RULES).contains("15001"));
        witness.lives("on trial").await;
        apply(cp, PERMISSIVE);
        until_outside(b, ORDERS, "ok", "while other rules are tried").await;
        let back = || async {
            let rules = b.run(RULES).out;
            if rules.contains("15001") { Ok(rules) } else { Err(rules) }
        };
        let rules = until("what stood before is back", PATIENCE, back).await.expect("in time");
        witness.lives("rolled back").await;
        until_outside(b, ORDERS, "ok", "when they are rolled back").await;
        apply(cp, STRICT);
        until_outside(b, ORDERS, "dropped", "by rules that were rolled back").await;
        assert_eq!(b.fine(RULES), before, "{rules}");
        b.fine("cp -p /srv/proxy.toml /etc/mesh/");
    }

    /// What systemd-resolved was told stands in the plan, line by line.
    fn planned(b: &Machine) {
        let told = b.fine("cat /run/systemd/resolved.conf.d/mesh.conf");
        let lines: String = told.lines().map(|line| format!("#     {line}\n")).collect();
        let plan = b.fine("mesh-proxy capture plan");
        assert!(told.contains("Domains=~mesh") && plan.contains(&lines), "{plan}");
    }

    /// An administrator's session lives through all that happens to the rules, which follow modes and files by themselves.
    #[test]
    fn rules_follow_modes_and_files_and_never_cut_an_administrator_off() {
        netns::inside(3, async |field: &Field| {
            let scratch = Scratch::new("rules");
            let _repository = serve(&scratch);
            let [cp, a, b] = mesh(field, &scratch).await;
            let mut witness = Witness::of(&b).await;
            witness.lives("at first").await;
            until_works(&a).await;
            planned(&b);
            modes(&cp, &b, &mut witness).await;
            files(&b, &mut witness).await;
            lies(&b, &mut witness).await;
            until_works(&a).await;
            trial(&cp, &b, &mut witness).await;

            b.fine("kill -9 $(pgrep -u mesh-proxy)");
            witness.lives("when its proxy is killed").await;
            until_works(&a).await;
            until_outside(&b, ORDERS, "dropped", "after its proxy was killed").await;
            b.fine("mesh-proxy capture remove");
            witness.lives("removed").await;
            // What an operator took away does not come back by itself.
            b.fine("systemctl start mesh-capture-refresh");
            assert_eq!(
                b.fine("nft list tables | grep -c mesh; ip route show table all proto 219; true"),
                "0\n"
            );
            b.fine("systemctl reload mesh-capture");
            until_outside(&b, ORDERS, "dropped", "when they are loaded again").await;
            b.fine("systemctl stop mesh-capture");
            witness.lives("when their unit is stopped").await;
            assert_eq!(
                b.run("systemctl is-active mesh-capture mesh-capture.path").out,
                "inactive\ninactive\n"
            );
        });
    }
}
