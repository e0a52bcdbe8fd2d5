//! docs/migrating.md says what works: what it shows is what `meshctl import` prints, a real control plane takes it, and
//! between real hosts it does what the other mesh's words say.

mod heavy {
    use std::{net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        consul::Consul,
        dev::Dev,
        host::{Host, LocalService},
        loopback::Network,
        plain::Plain,
        scratch::{Said, Scratch},
        tour,
        wait::until,
    };
    use model::{kind::Kind, manifest};
    use serde_json::{Value, json};

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    const MANUAL: &str = include_str!("../../docs/migrating.md");

    /// The manual's blocks of a language, in the part below a heading of the first level.
    fn blocks(part: &str, language: &str) -> Vec<&'static str> {
        let (_, rest) = MANUAL.split_once(&format!("# {part}\n")).expect("the part is there");
        let part = rest.split("\n# ").next().expect("the first of a split");
        let fence = format!("```{language}\n");
        let blocks = part.split(fence.as_str()).skip(1);
        blocks.filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
    }

    /// The manual's files of a language, written down.
    fn files(scratch: &Scratch, part: &str, language: &str, end: &str) -> Vec<PathBuf> {
        let blocks = blocks(part, language);
        assert!(blocks.len() >= 4, "{part} has {} blocks of {language}", blocks.len());
        let write = |(index, block)| scratch.write(&format!("{index}.{end}"), block);
        blocks.into_iter().enumerate().map(write).collect()
    }

    fn import(from: &str, files: &[PathBuf], more: &[&str]) -> Command {
        let mut command = Command::new(binaries::path("meshctl"));
        command.args(["import", from]).args(files).args(more);
        command
    }

    fn said(mut command: Command) -> Said {
        command.output().expect("meshctl starts").into()
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Takes what was imported, twice: the second time nothing is to be done.
    async fn taken(dev: &Dev, manifest: &str) {
        let client = dev.client().expect("a client");
        client.apply(manifest.to_owned(), true).await.expect("it passes the rehearsal");
        client.apply(manifest.to_owned(), false).await.expect("it is taken");
        let again = client.apply(manifest.to_owned(), false).await.expect("it is taken");
        let outcomes: Vec<_> = again.results.iter().map(|result| result.outcome.to_string()).collect();
        assert!(outcomes.iter().all(|outcome| outcome == "unchanged"), "{outcomes:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_manual_shows_of_consul_is_what_is_imported() {
        let scratch = Scratch::new("migrating");
        let files = files(&scratch, "From Consul Connect", "hcl", "hcl");
        let printed = said(import("consul", &files, &[]));
        assert!(printed.err.ends_with("objects; 0 lost, 0 differ\n"), "{}", printed.err);
        let printed = printed.fine();
        let [shown] = blocks("From Consul Connect", "yaml result")[..] else { panic!("one block shows it") };
        assert_eq!(printed, shown, "docs/migrating.md shows something else");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        taken(&dev, &printed).await;
        for block in blocks("From Consul Connect", "yaml") {
            dev.client().expect("a client").apply(block.to_owned(), false).await.expect("it is taken");
        }
        differs(&scratch);
        let whole = json(&said(import("consul", &files, &["-o", "json"])).fine());
        taken(&dev, &whole.to_string()).await;
        assert_eq!(whole["remarks"], json!([]));
    }

    /// The manual's example of a file that says more than the mesh has: its router with another path, typed as it stands.
    fn differs(scratch: &Scratch) {
        let [shown] = blocks("From Consul Connect", "text")[..] else { panic!("one block shows it") };
        let [(command, remarks)] = &tour::typed(shown)[..] else { panic!("one command: {shown}") };
        let folder = scratch.path().join("differs");
        std::fs::create_dir(&folder).expect("a folder");
        for block in blocks("From Consul Connect", "hcl") {
            let name =
                block.split('"').nth(1).and_then(|kind| kind.strip_prefix("service-")).expect("a kind");
            let text = block.replace("PathPrefix = \"/\"\n", "PathPrefix = \"/api\"\n");
            std::fs::write(folder.join(format!("orders-{name}.hcl")), text).expect("written");
        }
        let meshctl = binaries::path("meshctl");
        let command = command.replacen("meshctl", &meshctl.display().to_string(), 1);
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &command]).current_dir(&folder);
        let said = said(shell);
        assert_eq!(
            (said.code, said.err.lines().collect::<Vec<_>>()),
            (Some(0), remarks.iter().map(String::as_str).collect())
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_manual_shows_of_kuma_is_what_is_imported() {
        let scratch = Scratch::new("migrating");
        let files = files(&scratch, "From Kuma", "yaml kuma", "yaml");
        let printed = said(import("kuma", &files, &[]));
        assert!(printed.err.ends_with("objects; 0 lost, 0 differ\n"), "{}", printed.err);
        let printed = printed.fine();
        let [shown] = blocks("From Kuma", "yaml result")[..] else { panic!("one block shows it") };
        assert_eq!(printed, shown, "docs/migrating.md shows something else");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        taken(&dev, &printed).await;
    }

    /// The steps, typed in a folder with the manual's files; what the other mesh's own command says of itself is these.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_steps_of_the_manual_are_typed_as_they_stand() {
        for (part, language, end) in
            [("From Consul Connect", "hcl", "hcl"), ("From Kuma", "yaml kuma", "yaml")]
        {
            let scratch = Scratch::new("migrating");
            let dev = Dev::start(scratch.path()).await.expect("a server");
            files(&scratch, part, language, end);
            let [steps] = blocks(part, "console")[..] else { panic!("{part} has one block of steps") };
            let own = steps.lines().filter_map(|line| line.strip_prefix("$ meshctl "));
            let own: Vec<_> = own.collect();
            assert!(own.len() >= 4, "{steps}");
            for step in own {
                let program = binaries::path("meshctl");
                let mut shell = Command::new("bash");
                shell.args(["-euo", "pipefail", "-c", &format!("{} {step}", program.display())]);
                shell.current_dir(scratch.path()).env("XDG_CONFIG_HOME", dev.home());
                shell
                    .env("MESH_ADDR", &dev.addr)
                    .env("MESH_TOKEN", &dev.token)
                    .env("MESH_CACERT", &dev.cacert);
                said(shell).fine();
            }
            let mesh = scratch.path().join("mesh.yaml").display().to_string();
            assert_eq!(dev.meshctl(&["diff", "-f", &mesh]).fine(), "", "all of it was applied");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_applied_where_something_is_lost_unless_it_is_said() {
        let scratch = Scratch::new("migrating");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let entry = "Kind = \"service-resolver\"\nName = \"orders\"\nConnectTimeout = \"5s\"\nFailover = { \"*\" = { Datacenters = [\"dc2\"] } }\n";
        let file = scratch.write("orders.hcl", entry).display().to_string();
        let run = |more: &[&str]| dev.meshctl(&[&["import", "consul", &file, "--apply"], more].concat());
        let error = run(&[]).failed(1);
        assert!(error.contains("orders.hcl:4: service-resolver orders: Failover: lost: "), "{error}");
        assert!(error.contains("nothing is applied") && error.contains("--partial"), "{error}");
        dev.meshctl(&["get", "trafficpolicies", "orders"]).failed(1);
        let rehearsed = run(&["--partial", "--dry-run"]).fine();
        assert_eq!(rehearsed, "TrafficPolicy default/orders created (dry run)\n");
        dev.meshctl(&["get", "trafficpolicies", "orders"]).failed(1);
        assert_eq!(run(&["--partial"]).fine(), "TrafficPolicy default/orders created\n");
        let whole = json(&dev.meshctl(&["import", "consul", &file, "-o", "json"]).fine());
        assert_eq!(whole["remarks"][0]["line"], 4);
        assert_eq!(whole["remarks"][0]["degree"], "lost");
        let wrong =
            scratch.write("wrong.hcl", "Kind = \"service-router\"\nName = var.name\n").display().to_string();
        let error = dev.meshctl(&["import", "consul", &wrong]).failed(1);
        assert!(error.contains("wrong.hcl: not HCL: line 2: "), "{error}");
    }

    /// What a real Consul says of the manual's entries comes to what they come to themselves.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_real_consul_took_and_gives_back_is_imported_alike() {
        let scratch = Scratch::new("migrating");
        let address: Ipv4Addr = Network::claim().address(9);
        let consul = Consul::start(scratch.path(), address).await.expect("Consul");
        // Its release is of before config entries for intentions.
        let mut files = files(&scratch, "From Consul Connect", "hcl", "hcl");
        files.truncate(4);
        let mut given_back = Vec::new();
        for (index, file) in files.iter().enumerate() {
            consul.command(&["config", "write", &file.display().to_string()]).fine();
            let kind = ["service-defaults", "service-resolver", "service-splitter", "service-router"][index];
            let read = consul.command(&["config", "read", "-kind", kind, "-name", "orders"]).fine();
            given_back.push(scratch.write(&format!("read-{index}.json"), read));
        }
        let of_files = said(import("consul", &files, &[])).fine();
        let of_consul = said(import("consul", &given_back, &[]));
        assert!(of_consul.err.ends_with("objects; 0 lost, 0 differ\n"), "{}", of_consul.err);
        assert_eq!(of_consul.fine(), of_files);
        for (caller, action) in [("web", "allow"), ("*", "deny")] {
            let body = json!({"SourceName": caller, "DestinationName": "orders", "SourceType": "consul", "Action": action});
            consul.post("/v1/connect/intentions", &body).await.expect("it is taken");
        }
        let list = consul.get("/v1/connect/intentions").await.expect("a list");
        let list = scratch.write("intentions.json", list.to_string());
        let whole = json(&said(import("consul", &[list], &["-o", "json", "--default", "allow"])).fine());
        let want = json!([{"kind": "AuthorizationPolicy", "metadata": {"namespace": "default", "name": "orders-callers"}, "spec": {
            "targetRefs": [{"kind": "Service", "name": "orders"}],
            "action": "Allow",
            "rules": [{"from": [{"services": ["default/web"]}]}],
        }}]);
        assert_eq!((&whole["items"], &whole["remarks"]), (&want, &json!([])));
    }

    struct Mesh {
        scratch: Scratch,
        cluster: Cluster,
        front: Host,
        _hosts: Vec<Host>,
        _backends: [Backend; 2],
    }

    impl Mesh {
        /// Two versions of orders, and two who call it: web and bot.
        async fn open() -> Self {
            let scratch = Scratch::new("migrating");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let backends =
                [Backend::start("one").await.expect("one"), Backend::start("two").await.expect("two")];
            let mut hosts = Vec::new();
            for ((n, version), backend) in (12..).zip(["v1", "v2"]).zip(&backends) {
                let mut orders = LocalService::new("orders", backend.port, 80, "http");
                orders.version = Some(version.to_owned());
                let name = format!("back-{n}");
                hosts.push(
                    Host::start(&cluster, scratch.path(), &name, n, &[orders], |_| {}).await.expect("a host"),
                );
            }
            let callers = [("web", 9_001), ("bot", 9_002)]
                .map(|(name, port)| LocalService::new(name, 1, 80, "http").calling("orders", port));
            let front =
                Host::start(&cluster, scratch.path(), "front", 11, &callers, |_| {}).await.expect("a host");
            Self { scratch, cluster, front, _hosts: hosts, _backends: backends }
        }

        async fn apply(&self, manifest: String) {
            self.cluster.client(0).expect("a client").apply(manifest, false).await.expect("it is taken");
        }

        /// The status, and who answered.
        async fn answer(
            &self,
            port: u16,
            path: &str,
            fields: &[(&str, &str)],
        ) -> Result<(u16, String), String> {
            let caller = Plain::new((self.front.address, port).into(), "orders.default.mesh");
            let answer = caller.with_fields(path, fields).await.map_err(|error| error.to_string())?;
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            Ok((answer.status().as_u16(), body.split_whitespace().next().unwrap_or_default().to_owned()))
        }

        /// Waits until what was applied holds for a call.
        async fn becomes(&self, port: u16, path: &str, fields: &[(&str, &str)], want: (u16, &str)) {
            until("it holds", PATIENCE, || async {
                let answer = self.answer(port, path, fields).await?;
                let right = answer.0 == want.0 && (want.0 != 200 || answer.1.starts_with(want.1));
                if right { Ok(()) } else { Err(format!("{path} {fields:?}: {answer:?}")) }
            })
            .await
            .expect("in time");
        }

        /// Takes back all of a manifest but the services.
        async fn clear(&self, manifest: String) {
            let client = self.cluster.client(0).expect("a client");
            let objects =
                manifest::parse(&manifest).expect("a manifest").into_iter().map(|parsed| parsed.object.key());
            for key in objects.filter(|key| key.kind != Kind::Service) {
                client.delete(&key).await.expect("it is there");
            }
        }

        /// Web is let in and gets what it asks for, a tenth of the rest is the second version's, and bot is refused.
        async fn holds(&self) {
            self.becomes(9_002, "/api/7", &[], (403, "")).await;
            self.becomes(9_001, "/api/7", &[("x-version", "2")], (200, "two")).await;
            let [one, two] = self.shares().await;
            assert!((75..100).contains(&one) && two >= 1, "{one} and {two} of a hundred");
        }

        /// How many of a hundred calls each version answered.
        async fn shares(&self) -> [usize; 2] {
            let mut counts = [0, 0];
            for _ in 0..100 {
                let (_, who) = self.answer(9_001, "/api/7", &[]).await.expect("an answer");
                counts[usize::from(who.starts_with("two"))] += 1;
            }
            counts
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_consul_and_kuma_said_holds_between_real_hosts() {
        let mesh = Mesh::open().await;
        let files = files(&mesh.scratch, "From Consul Connect", "hcl", "hcl");
        mesh.apply(said(import("consul", &files, &[])).fine()).await;
        mesh.holds().await;
        mesh.clear(said(import("consul", &files, &[])).fine()).await;
        mesh.becomes(9_002, "/api/7", &[], (200, "")).await;
        let files = self::files(&mesh.scratch, "From Kuma", "yaml kuma", "yaml");
        mesh.apply(said(import("kuma", &files, &[])).fine()).await;
        mesh.holds().await;
    }
}
