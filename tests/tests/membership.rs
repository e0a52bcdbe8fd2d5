//! A host leaves, and comes back: whatever fails on the way changes nothing, and what the mesh was told holds.

mod heavy {
    use std::{collections::BTreeMap, fs, path::Path, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        foreign::said,
        host::{Host, LocalService},
        process::Process,
        scratch::{Said, Scratch},
        stranger::{Forger, Papers, bundle, from_now, knock},
        wait::until,
    };
    use reqwest::Method;
    use rustix::process::Signal;
    use rustls::pki_types::PrivateKeyDer;
    use serde_json::{Value, json};
    use svid::{Expect, KeyRequest, pem};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What a command of the host's says; `arguments` before those that name its settings.
    async fn typed(host: &Host, arguments: &[&str]) -> Said {
        let mut command = std::process::Command::new(binaries::path("mesh-proxy"));
        command.args(arguments).arg("--config").arg(host.config());
        said(command).await
    }

    /// All files below a folder.
    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read")) {
            let (path, name) = (entry.path(), entry.file_name().into_string().expect("UTF-8"));
            match path.is_dir() {
                true => found
                    .extend(files(&path).into_iter().map(|(file, text)| (format!("{name}/{file}"), text))),
                false => drop(found.insert(name, fs::read(&path).expect("read"))),
            }
        }
        found
    }

    async fn stop(host: &mut Host) {
        host.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
    }

    async fn registered(host: &Host) {
        until("the host is registered", PATIENCE, || async {
            let health = host.admin("/healthz").await.map_err(|error| error.to_string())?;
            let health: Value = serde_json::from_str(&health).map_err(|error| error.to_string())?;
            if health["registered"] == true { Ok(()) } else { Err(health.to_string()) }
        })
        .await
        .expect("the mesh knows it");
    }

    async fn token(cluster: &Cluster, arguments: &[&str]) -> String {
        cluster.said(&[&["token", "join"], arguments].concat()).await.fine().trim().to_owned()
    }

    #[tokio::test]
    async fn a_host_leaves_for_good_once_and_may_join_again() {
        let scratch = Scratch::new("leaving");
        let mut cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let mut host =
            Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await.expect("a host");
        registered(&host).await;
        let data = host.folder().join("data");
        let refused = typed(&host, &["leave"]).await.failed(1);
        assert!(refused.contains("nothing was changed: a proxy runs on this host"), "{refused}");
        stop(&mut host).await;
        assert!(!host.log().contains("could not leave the registry"), "{}", host.log());
        nobody_answers(&mut cluster, &host).await;

        let papers = Papers::from_pem(
            &fs::read_to_string(data.join("node.pem")).expect("it has joined"),
            &fs::read_to_string(data.join("node.key")).expect("it has joined"),
        );
        let told = typed(&host, &["leave"]).await.fine();
        assert!(told.starts_with("node back has left mesh.internal") && !told.contains("meshctl"), "{told}");
        assert_eq!(files(&data), BTreeMap::new(), "no key, no certificate, no configuration is left");
        let gone = cluster.said(&["get", "node", "back"]).await.failed(1);
        assert!(gone.contains("back"), "{gone}");
        let trust = bundle(&cluster).await.expect("the bundle");
        assert!(trust.distrusted.nodes.keys().any(|node| node.as_str() == "back"), "{trust:?}");
        let api = (cluster.members[0].address, 8_443).into();
        knock(api, &trust, Expect::Meshd, b"http/1.1", Some(&papers.expect("papers"))).await.refused();
        let told = typed(&host, &["leave"]).await.fine();
        assert!(told.contains("there is nothing to leave"), "{told}");

        let token = token(&cluster, &["again", "--node", "back", "--service", "default/orders"]).await;
        let server = cluster.members[0].url();
        typed(&host, &["join", &server, "--token", &token]).await.fine();
        host.run().await.expect("it comes up");
        registered(&host).await;
    }

    async fn nobody_answers(cluster: &mut Cluster, host: &Host) {
        let data = host.folder().join("data");
        let before = files(&data);
        cluster.members[0].kill();
        let refused = typed(host, &["leave"]).await.failed(1);
        assert!(refused.contains("nothing was changed") && refused.contains("--offline"), "{refused}");
        assert!(refused.contains("no server took the farewell: https://"), "{refused}");
        assert_eq!(files(&data), before);
        cluster.run(0).await.expect("it comes back");
        let list = cluster.said(&["get", "node", "back"]).await.fine();
        assert!(list.contains("back"), "{list}");
    }

    #[tokio::test]
    async fn a_host_leaves_without_a_server_and_says_what_is_left_to_do() {
        let scratch = Scratch::new("leaving-alone");
        let mut cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let mut host = Host::start(&cluster, scratch.path(), "back", 12, &[], |_| {}).await.expect("a host");
        stop(&mut host).await;
        cluster.members[0].kill();
        let told = typed(&host, &["leave", "--offline"]).await.fine();
        assert!(told.contains("meshctl delete node back"), "{told}");
        assert_eq!(files(&host.folder().join("data")), BTreeMap::new());
    }

    /// A host whose own certificate ended a while ago, and was not renewed in time.
    fn expire(cluster: &Cluster, host: &Host) {
        let thief = Forger::thief(&cluster.members[0].data()).expect("the server's key");
        let id = format!("spiffe://mesh.internal/node/{}", host.name);
        let expired = thief
            .leaf(&id, |params| (params.not_before, params.not_after) = (from_now(-7_200), from_now(-5)));
        let Papers { chain, key } = expired.expect("forged");
        let PrivateKeyDer::Pkcs8(key) = key else { panic!("a key of PKCS #8") };
        let data = host.folder().join("data");
        fs::write(data.join("node.pem"), pem::encode_chain(&chain)).expect("written");
        let key = pem::encode("PRIVATE KEY", key.secret_pkcs8_der());
        fs::write(data.join("node.key"), key).expect("written");
    }

    #[tokio::test]
    async fn a_host_whose_certificate_has_expired_comes_back_by_rejoin() {
        let scratch = Scratch::new("rejoining");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let mut host =
            Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await.expect("a host");
        registered(&host).await;
        stop(&mut host).await;
        expire(&cluster, &host);
        host.run().await.expect("it serves from disk");
        it_says_what_helps(&host).await;
        let refused = typed(&host, &["leave"]).await.failed(1);
        assert!(refused.contains("has expired") && refused.contains("--offline"), "{refused}");
        stop(&mut host).await;

        let data = host.folder().join("data");
        let (before, server) = (files(&data), cluster.members[0].url());
        let other = token(&cluster, &["other", "--node", "other"]).await;
        let refused = typed(&host, &["join", &server, "--token", &other]).await.failed(1);
        assert!(refused.contains("mesh-proxy rejoin") && refused.contains("mesh-proxy leave"), "{refused}");
        let refused = typed(&host, &["rejoin", &server, "--token", &other]).await.failed(1);
        assert!(refused.contains("does not allow node 'back'"), "{refused}");
        let refused = typed(&host, &["rejoin", &server, "--token", &other, "--node", "x"]).await.failed(1);
        assert!(refused.contains("this host is node 'back', not 'x'"), "{refused}");
        let mut after = files(&data);
        after.retain(|name, _| !name.starts_with("rejoin/"));
        assert_eq!(after, before, "what fails leaves the identity as it was");

        let token = token(&cluster, &["back", "--node", "back", "--rejoin"]).await;
        let told = typed(&host, &["rejoin", &server, "--token", &token]).await.fine();
        assert!(told.starts_with("rejoined as node back of mesh.internal"), "{told}");
        let after = files(&data);
        assert_ne!(after["node.key"], before["node.key"]);
        assert_eq!(after["snapshot.json"], before["snapshot.json"], "it still knows its mesh");
        assert!(!after.keys().any(|name| name.starts_with("rejoin/")), "{:?}", after.keys());
        host.run().await.expect("it comes up");
        registered(&host).await;
        let health = host.admin("/healthz").await.expect("healthy");
        assert!(health.contains("\"shutOut\":null"), "{health}");
    }

    async fn it_says_what_helps(host: &Host) {
        let words = "the certificate of node back has expired";
        until("the log names the way out", PATIENCE, || async {
            let log = host.log();
            let told = log.lines().any(|line| line.contains(words) && line.contains("mesh-proxy rejoin"));
            if told { Ok(()) } else { Err(log) }
        })
        .await
        .expect("it does");
        let health = host.admin("/healthz").await.expect("it serves");
        assert!(health.contains(words) && health.contains("--node back --rejoin"), "{health}");
        let found = typed(host, &["doctor"]).await;
        let told = format!("wrong     certificate: {words}");
        assert!(found.out.contains(&told) && found.out.contains("mesh-proxy rejoin https://"), "{found:?}");
    }

    /// The disk is lost: nothing but the name of the host is known, and the token.
    #[tokio::test]
    async fn a_host_that_lost_its_disk_or_is_distrusted_comes_back_by_rejoin() {
        let scratch = Scratch::new("rejoining-bare");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let mut host =
            Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await.expect("a host");
        registered(&host).await;
        let server = cluster.members[0].url();
        for lost in [true, false] {
            stop(&mut host).await;
            match lost {
                true => fs::remove_dir_all(host.folder().join("data")).expect("removed"),
                false => drop(cluster.said(&["ca", "distrust", "--node", "back"]).await.fine()),
            }
            let token = token(&cluster, &[&format!("lost-{lost}"), "--node", "back", "--rejoin"]).await;
            typed(&host, &["rejoin", &server, "--token", &token]).await.fine();
            host.run().await.expect("it comes up");
            registered(&host).await;
        }
    }

    /// A `mesh-proxy rejoin` that waits for an operator, and what it shows on the host's terminal.
    struct Asks {
        process: Process,
        id: String,
        fingerprint: String,
    }

    impl Asks {
        /// `name` is that of its log.
        async fn start(host: &Host, name: &str, server: &str) -> Self {
            let mut command = std::process::Command::new(binaries::path("mesh-proxy"));
            command.args(["rejoin", server, "--config"]).arg(host.config());
            let process = Process::spawn(name, host.folder(), &mut command).expect("it starts");
            let shown = until("the request is shown", PATIENCE, || async {
                let log = process.log();
                let value =
                    |name: &str| log.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
                match (value("request "), value("fingerprint ")) {
                    (Some(id), Some(fingerprint)) => Ok((id.to_owned(), fingerprint.to_owned())),
                    _ => Err(log),
                }
            });
            let (id, fingerprint) = shown.await.expect("it is");
            Self { process, id, fingerprint }
        }

        /// All that it said, once it ended so.
        async fn ended(mut self, code: i32) -> String {
            let end = until("it ends", PATIENCE, || {
                let ended = self.process.ended();
                async move { ended.ok_or("it waits") }
            });
            let end = end.await.unwrap_or_else(|error| panic!("{error}: {}", self.process.log()));
            assert_eq!(end.code(), Some(code), "{}", self.process.log());
            self.process.log()
        }
    }

    /// Somebody who is not the host asks in its name.
    async fn stranger_asks(cluster: &Cluster, node: &str) -> String {
        let csr = KeyRequest::generate().expect("a key").csr_pem;
        let body = json!({"node": node, "csr": csr});
        let client = cluster.client(0).expect("a client");
        let filed = client.json::<Value>(Method::POST, "/v1/ca/requests", Some(&body)).await;
        filed.expect("anybody may ask")["id"].as_str().expect("an id").to_owned()
    }

    async fn state_of(cluster: &Cluster, index: usize, id: &str) -> String {
        let list = cluster.said_at(index, &["ca", "requests", "-o", "json"]).await.fine();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let items = list["items"].as_array().expect("a list");
        let request = items.iter().find(|request| request["id"] == id).expect("it is kept");
        request["state"].as_str().expect("a state").to_owned()
    }

    #[tokio::test]
    async fn a_host_comes_back_by_approval_at_another_member_after_the_leader_was_killed() {
        let scratch = Scratch::new("rejoining-approved");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let mut host =
            Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await.expect("a host");
        registered(&host).await;
        stop(&mut host).await;
        expire(&cluster, &host);
        let before = files(&host.folder().join("data"));
        let theirs = stranger_asks(&cluster, "back").await;

        let leader = cluster.leader().await.expect("a leader");
        let server = cluster.members[leader].url();
        let first = Asks::start(&host, "asks-first", &server).await;
        first.process.signal(Signal::INT);
        let (id, fingerprint) = (first.id.clone(), first.fingerprint.clone());
        let said = first.ended(1).await;
        assert!(said.contains("interrupted; the request stays"), "{said}");
        let asks = Asks::start(&host, "asks-again", &server).await;
        assert_eq!((&asks.id, &asks.fingerprint), (&id, &fingerprint), "the same key, the same request");

        cluster.members[leader].kill();
        let survivor = cluster.leader().await.expect("another leader");
        let other = (0..3).find(|index| ![leader, survivor].contains(index)).expect("a third");
        let table = cluster.said_at(other, &["ca", "requests"]).await.fine();
        assert!(table.contains(&fingerprint) && table.contains(&theirs), "{table}");
        let approve = ["ca", "approve", &theirs, "--fingerprint", &fingerprint];
        let refused = cluster.said_at(other, &approve).await.failed(1);
        assert!(refused.contains("the request is for another key"), "{refused}");
        let unseen = cluster.said_at(other, &["ca", "approve", &id]).await.failed(1);
        assert!(unseen.contains("--yes"), "nobody approves what nobody compared: {unseen}");
        let approve = ["ca", "approve", &id, "--fingerprint", &fingerprint];
        cluster.said_at(other, &approve).await.fine();
        let said = asks.ended(0).await;
        assert!(said.contains("rejoined as node back of mesh.internal"), "{said}");
        assert_eq!(state_of(&cluster, survivor, &theirs).await, "denied");

        let after = files(&host.folder().join("data"));
        assert_ne!(after["node.key"], before["node.key"]);
        assert_eq!(after["snapshot.json"], before["snapshot.json"], "it still knows its mesh");
        assert!(!after.keys().any(|name| name.starts_with("rejoin/")), "{:?}", after.keys());
        host.run().await.expect("it comes up");
        registered(&host).await;
        denied(&cluster, &host, survivor).await;
        believes_nobody_at_first_sight(&cluster, &host, survivor).await;
    }

    async fn denied(cluster: &Cluster, host: &Host, at: usize) {
        let before = files(&host.folder().join("data"));
        let asks = Asks::start(host, "asks-in-vain", &cluster.members[at].url()).await;
        let id = asks.id.clone();
        cluster.said_at(at, &["ca", "deny", &id, "--reason", "nobody called me"]).await.fine();
        let said = asks.ended(1).await;
        assert!(said.contains("the request was denied: nobody called me"), "{said}");
        let mut after = files(&host.folder().join("data"));
        after.retain(|name, _| !name.starts_with("rejoin/"));
        assert_eq!(after["node.key"], before["node.key"], "what was denied changes nothing");
        let next = Asks::start(host, "asks-anew", &cluster.members[at].url()).await;
        assert_ne!(next.id, id, "with another key");
    }

    /// Its disk is lost, so that it knows no root: it has to be told of one.
    async fn believes_nobody_at_first_sight(cluster: &Cluster, host: &Host, at: usize) {
        let server = cluster.members[at].url();
        let bare = host.folder().join("bare").display().to_string();
        let rejoin = ["rejoin", &server, "--node", "back", "--timeout", "1ms", "--data-dir", &bare];
        let with = |more: &[&'static str]| [&rejoin[..], more].concat();
        let refused = typed(host, &with(&[])).await.failed(1);
        assert!(refused.contains("does not say whom to trust: add --ca-pin"), "{refused}");
        let zeros: &'static str = "0000000000000000000000000000000000000000000000000000000000000000";
        let refused = typed(host, &with(&["--ca-pin", zeros])).await.failed(1);
        assert!(refused.contains("none of its roots has the fingerprint 0000"), "{refused}");
        let status = cluster.said_at(at, &["ca", "status", "-o", "json"]).await.fine();
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let pin = status["roots"][0]["fingerprint"].as_str().expect("a fingerprint");
        let cacert = cluster.cacert.display().to_string();
        for anchor in [["--ca-pin", pin], ["--ca", &cacert]] {
            let waited = typed(host, &[&rejoin[..], &anchor].concat()).await.failed(1);
            assert!(waited.contains("not approved within 1ms; the request stays"), "{waited}");
        }
    }
}
