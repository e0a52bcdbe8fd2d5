//! Snapshots: saved, proven, brought back into a running cluster under traffic, and made the beginning of a new one when
//! two of three servers are lost for good. No call fails meanwhile, and hosts come back by themselves.

mod heavy {
    use std::{path::PathBuf, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        process::run,
        scratch::{Said, Scratch},
        steady::Steady,
        wait::until,
    };
    use model::{
        client::{Client, Selection, Settings},
        kind::Kind,
        object::Object,
        watch::Event,
    };
    use reqwest::Method;
    use serde_json::{Value, json};

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(40);
    /// Calls per second.
    const RATE: u32 = 50;
    /// As many calls in a row show that traffic flows.
    const SOME: u64 = 50;
    /// Where the caller's host has its listener for orders.
    const ORDERS: u16 = 9_001;

    /// Three servers, a host that runs orders, and one that calls it.
    struct Mesh {
        cluster: Cluster,
        hosts: [Host; 2],
        _backend: Backend,
    }

    async fn open(scratch: &Scratch) -> Mesh {
        let cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let backend = Backend::start("one").await.expect("an application");
        let orders = LocalService::new("orders", backend.port, 80, "http").checked();
        let back = Host::start(&cluster, scratch.path(), "back", 12, &[orders], |_| {}).await;
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await;
        let hosts = [back.expect("a host"), front.expect("a host")];
        Mesh { cluster, hosts, _backend: backend }
    }

    fn service(name: &str) -> Object {
        serde_json::from_value(json!({"kind": "Service", "metadata": {"namespace": "default", "name": name},
            "spec": {"ports": [{"port": 80, "protocol": "http"}]}}))
        .expect("an object")
    }

    async fn has(client: &Client, name: &str) -> bool {
        match client.get(&service(name).key()).await {
            Ok(_) => true,
            Err(error) if error.status() == Some(404) => false,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    async fn epoch(client: &Client) -> String {
        let cluster: Value = client.json(Method::GET, "/v1/cluster", None).await.expect("the cluster");
        cluster["epoch"].as_str().expect("an epoch").to_owned()
    }

    async fn revision(client: &Client) -> u64 {
        client.list(Kind::Service, &Selection::default()).await.expect("a list").revision
    }

    impl Mesh {
        fn clients(&self) -> Vec<Client> {
            (0..self.cluster.members.len())
                .map(|index| self.cluster.client(index).expect("a client"))
                .collect()
        }

        fn caller(&self) -> Plain {
            Plain::new((self.hosts[1].address, ORDERS).into(), "orders.default.mesh")
        }

        /// Waits until both proxies run this revision, or a later one.
        async fn follow(&self, revision: u64) {
            for host in &self.hosts {
                let what = format!("{} runs revision {revision}", host.name);
                let followed = until(&what, PATIENCE, || async {
                    let config = host.admin("/config").await.map_err(|error| error.to_string())?;
                    let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
                    let runs = config["acknowledged"].as_u64().unwrap_or(0);
                    if runs >= revision { Ok(()) } else { Err(format!("it runs {runs}\n{}", host.log())) }
                });
                followed.await.expect("proxies follow the new history");
            }
        }

        async fn sessions(&self) {
            until("both hosts are here", PATIENCE, || async {
                let said = self.cluster.said(&["proxies", "-o", "json"]).await;
                let proxies: Value = serde_json::from_str(&said.out).map_err(|_| said.err)?;
                let items = proxies["items"].as_array().ok_or("no list")?;
                let live = items.iter().filter(|proxy| proxy["session"] == "Live").count();
                if live == 2 { Ok(()) } else { Err(proxies.to_string()) }
            })
            .await
            .expect("hosts come back by themselves");
        }
    }

    async fn flows(load: &Steady) {
        let start = load.seen().answered();
        until("calls are answered", PATIENCE, || async {
            let answered = load.seen().answered() - start;
            if answered >= SOME { Ok(()) } else { Err(format!("{answered} of {SOME}")) }
        })
        .await
        .expect("traffic flows");
    }

    #[tokio::test]
    async fn a_snapshot_comes_back_under_traffic_and_one_survivor_founds_a_new_cluster() {
        let scratch = Scratch::new("restore");
        let mut mesh = open(&scratch).await;
        let client = mesh.caller();
        until("a first call goes through", PATIENCE, || async {
            let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await
        .expect("the mesh carries calls");
        let load = Steady::start(mesh.caller(), RATE);
        flows(&load).await;
        let file = saved(&mesh, &scratch).await;
        damaged_files_are_refused(&mesh, &file, &scratch).await;
        let restored = restored(&mut mesh, &file).await;
        mesh.follow(restored).await;
        mesh.sessions().await;
        flows(&load).await;
        new_cluster(&mut mesh, &scratch).await;
        mesh.follow(revision(&mesh.clients()[0]).await).await;
        mesh.sessions().await;
        flows(&load).await;
        let seen = load.stop().await;
        eprintln!("{} calls answered, {} failed", seen.answered(), seen.failures.len());
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
    }

    /// What is kept, and a token that will be revoked, in a file.
    async fn saved(mesh: &Mesh, scratch: &Scratch) -> PathBuf {
        let clients = mesh.clients();
        clients[1].put(&service("kept")).await.expect("written");
        let file = scratch.path().join("mesh.snapshot");
        let name = file.display().to_string();
        let said = mesh.cluster.said(&["snapshot", "save", &name]).await.fine();
        assert!(said.contains("snapshot saved to"), "{said}");
        let told = mesh.cluster.said(&["snapshot", "verify", &name, "-o", "json"]).await.fine();
        let head: Value = serde_json::from_str(&told).expect("its head");
        assert_eq!(head["epoch"], epoch(&clients[0]).await.as_str(), "{head}");
        assert_eq!((&head["objects"]["nodes"], &head["trustDomain"]), (&json!(2), &json!("mesh.internal")));
        file
    }

    async fn damaged_files_are_refused(mesh: &Mesh, file: &std::path::Path, scratch: &Scratch) {
        let sound = std::fs::read(file).expect("the file");
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        let cut = sound[..sound.len() - 7].to_vec();
        let client = &mesh.clients()[0];
        let (before, history) = (revision(client).await, epoch(client).await);
        for (name, bytes) in [("flipped", flipped), ("cut", cut), ("other", b"kind: Service".to_vec())] {
            let path = scratch.write(name, &bytes).display().to_string();
            let said: Said = mesh.cluster.said(&["snapshot", "verify", &path]).await;
            assert!(said.failed(1).contains(&path), "{name}");
            mesh.cluster.said(&["snapshot", "restore", &path, "--yes"]).await.failed(1);
            // A server does not rely on who sends it to it.
            let refused = client.upload::<Value>("/v1/snapshot", bytes).await.expect_err("damaged");
            assert_eq!(refused.status(), Some(400), "{refused}");
        }
        assert_eq!((revision(client).await, epoch(client).await), (before, history), "nothing changed");
    }

    async fn restored(mesh: &mut Mesh, file: &std::path::Path) -> u64 {
        let clients = mesh.clients();
        let revoked =
            mesh.cluster.meshctl(&["token", "access", "revoked", "--role", "viewer"]).await.expect("made");
        let file_name = file.display().to_string();
        let later = file.with_extension("later").display().to_string();
        mesh.cluster.said(&["snapshot", "save", &later]).await.fine();
        mesh.cluster.said(&["delete", "accesstoken", "revoked"]).await.fine();
        clients[0].delete(&service("kept").key()).await.expect("deleted");
        clients[0].put(&service("since")).await.expect("written");
        let (old, before) = (epoch(&clients[0]).await, revision(&clients[0]).await);
        let mut watch =
            clients[1].watch(&[Kind::Service], &Selection::default(), Some(before)).await.expect("a watch");
        // One member is away, and gets it all when it is back.
        let leader = mesh.cluster.leader().await.expect("a leader");
        let away = (0..3).rfind(|index| *index != leader && *index != 0).expect("there are three");
        mesh.cluster.members[away].kill();
        let asked = mesh.cluster.said(&["snapshot", "restore", &later]).await.failed(1);
        assert!(asked.contains("--yes"), "nobody is there to be asked: {asked}");
        let dry = mesh.cluster.said(&["snapshot", "restore", &later, "--dry-run"]).await.fine();
        assert!(dry.contains("dry run"), "{dry}");
        let said = mesh.cluster.said(&["snapshot", "restore", &file_name, "--yes"]).await.fine();
        assert!(said.contains("snapshot restored: revision"), "{said}");
        mesh.cluster.run(away).await.expect("it starts");
        for client in &clients {
            assert!(has(client, "kept").await && !has(client, "since").await);
            assert_ne!(epoch(client).await, old);
            assert_eq!(epoch(client).await, epoch(&clients[0]).await, "all members are of one history");
            assert!(revision(client).await > before, "no number is seen twice");
        }
        watch_ends(&mut watch, away == 1).await;
        old_epochs_are_told(mesh, &old).await;
        let stranger = with_token(mesh, revoked.trim());
        let refused = stranger.list(Kind::Service, &Selection::default()).await.expect_err("revoked");
        assert_eq!(refused.status(), Some(401), "a revoked token does not come back: {refused}");
        clients[0].put(&service("after")).await.expect("writes go on");
        revision(&clients[0]).await
    }

    fn with_token(mesh: &Mesh, token: &str) -> Client {
        let roots = std::fs::read_to_string(&mesh.cluster.cacert).expect("the roots");
        let address = mesh.cluster.members[0].url();
        Client::new(Settings { address, token: Some(token.to_owned()), roots: Some(roots) })
            .expect("a client")
    }

    /// A watch of the old history ends by being told so, unless its server was killed.
    async fn watch_ends(watch: &mut model::client::Events, killed: bool) {
        loop {
            match watch.next().await {
                Ok(Some(Event::Error { status, .. })) => return assert_eq!(status, 410),
                Ok(Some(Event::Bookmark { .. })) => {}
                Ok(Some(other)) => panic!("nothing of the new history stands in an old watch: {other:?}"),
                Ok(None) | Err(_) => return assert!(killed, "it ended without a word"),
            }
        }
    }

    /// Who presents the old history is told the new one.
    async fn old_epochs_are_told(mesh: &Mesh, old: &str) {
        let http =
            reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().expect("a client");
        for member in &mesh.cluster.members {
            let request = http.get(format!("{}/v1/services", member.url())).bearer_auth(&mesh.cluster.token);
            let answer = request.header("mesh-epoch", old).send().await.expect("an answer");
            assert_eq!(answer.status(), 410);
            let told = answer.headers()["mesh-epoch"].to_str().expect("a text").to_owned();
            assert_ne!(told, old);
        }
    }

    /// Two of three servers are lost with their disks: what the third has becomes the beginning of a new cluster.
    async fn new_cluster(mesh: &mut Mesh, scratch: &Scratch) {
        let clients = mesh.clients();
        clients[1].put(&service("last")).await.expect("acknowledged");
        assert!(has(&clients[0], "last").await, "the survivor has it");
        let (old, before) = (epoch(&clients[0]).await, revision(&clients[0]).await);
        let export = scratch.path().join("survivor.snapshot");
        let survivor = mesh.cluster.members[0].data();
        let exporting = || {
            let mut command = tokio::process::Command::new(binaries::path("meshd"));
            command.args(["snapshot", "export", "--data-dir"]).arg(&survivor).arg(&export);
            command
        };
        let running = run(&mut exporting()).await.expect_err("its server runs").to_string();
        assert!(!export.exists(), "{running}");
        for member in &mut mesh.cluster.members {
            member.kill();
        }
        for member in mesh.cluster.members.drain(1..) {
            std::fs::remove_dir_all(member.data()).expect("its disk is lost");
        }
        let said = run(&mut exporting()).await.expect("the survivor's folder is read");
        assert!(said.contains("snapshot of revision"), "{said}");
        std::fs::rename(&survivor, survivor.with_extension("old")).expect("put aside");
        let config = mesh.cluster.members[0].config.clone();
        let initialise = |file: PathBuf| {
            let mut command = tokio::process::Command::new(binaries::path("meshd"));
            command.args(["init", "--from-snapshot"]).arg(file).arg("--config").arg(&config);
            command
        };
        let refused =
            run(&mut initialise(scratch.path().join("flipped"))).await.expect_err("damaged").to_string();
        assert!(refused.contains("checksum"), "{refused}");
        let printed = run(&mut initialise(export.clone())).await.expect("a new cluster");
        let token = printed.lines().find_map(|line| line.trim().strip_prefix("export MESH_TOKEN="));
        mesh.cluster.token = token.unwrap_or_else(|| panic!("no token in {printed}")).to_owned();
        mesh.cluster.run(0).await.expect("it starts");
        for n in [2, 3] {
            // The snapshot holds the token of that name, long used up.
            mesh.cluster.said(&["delete", "jointoken", &format!("server-cp{n}")]).await.fine();
            mesh.cluster.join(n).await.expect("another comes in, with an empty disk");
        }
        mesh.cluster.wait_for_voters(3).await.expect("three vote");
        for client in mesh.clients() {
            assert!(has(&client, "last").await && has(&client, "kept").await && has(&client, "after").await);
            assert!(revision(&client).await > before);
            assert_ne!(epoch(&client).await, old);
        }
        let cluster: Value =
            mesh.clients()[0].json(Method::GET, "/v1/cluster", None).await.expect("the cluster");
        let ids: Vec<_> =
            cluster["members"].as_array().expect("members").iter().map(|member| &member["id"]).collect();
        assert_eq!(ids, [&json!(4), &json!(5), &json!(6)], "no id is given twice");
    }

    #[tokio::test]
    async fn scheduled_snapshots_are_saved_proven_and_bounded_and_a_failure_is_told() {
        let scratch = Scratch::new("schedule");
        let mut cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let folder = scratch.path().join("backups");
        let config = cluster.members[0].config.clone();
        let text = std::fs::read_to_string(&config).expect("its configuration");
        let more = format!("\n[snapshots]\nevery = \"1s\"\nkeep = 2\nfolder = {folder:?}\n");
        std::fs::write(&config, text + &more).expect("written");
        let mut process = cluster.members[0].process.take().expect("it runs");
        process.terminate(PATIENCE).await.expect("it ends");
        cluster.run(0).await.expect("it starts again");
        let first = newest(&folder, |count| count > 0).await;
        newest(&folder, |count| count == 2).await;
        until("the first one is removed", PATIENCE, || async {
            if first.exists() { Err(format!("{} is there", first.display())) } else { Ok(()) }
        })
        .await
        .expect("two are kept");
        let file = newest(&folder, |count| count == 2).await;
        let copy = scratch.path().join("copy.snapshot");
        std::fs::copy(&file, &copy).expect("it can be copied");
        let told = cluster.said(&["snapshot", "verify", &copy.display().to_string()]).await.fine();
        assert!(told.contains("sound") && told.contains("revision"), "{told}");
        assert!(metric(&cluster, "meshd_backup_last_success_timestamp_seconds").await > 0.0);
        // Its folder goes away: that is told, and harms nothing else.
        std::fs::rename(&folder, scratch.path().join("elsewhere")).expect("moved");
        std::fs::write(&folder, "no folder").expect("a file in its place");
        until("the failure is counted", PATIENCE, || async {
            let failed = metric(&cluster, "meshd_backups_failed_total").await;
            if failed > 0.0 { Ok(()) } else { Err(failed.to_string()) }
        })
        .await
        .expect("failures are counted");
        assert!(cluster.members[0].log().contains("the scheduled snapshot could not be saved"));
        cluster.client(0).expect("a client").put(&service("fine")).await.expect("writes go on");
    }

    /// The newest snapshot in a folder, once as many are there.
    async fn newest(folder: &std::path::Path, enough: impl Fn(usize) -> bool) -> PathBuf {
        until("snapshots are saved", PATIENCE, || async {
            let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
            let mut files: Vec<_> = entries
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
                .collect();
            files.sort();
            if enough(files.len()) { Ok(files.pop().ok_or("none")?) } else { Err(format!("{files:?}")) }
        })
        .await
        .expect("as many as are kept")
    }

    async fn metric(cluster: &Cluster, name: &str) -> f64 {
        let url = format!("http://{}:8480/metrics", cluster.members[0].address);
        let text = reqwest::get(url).await.expect("metrics").text().await.expect("a text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).trim().parse().expect("a number")
    }
}
