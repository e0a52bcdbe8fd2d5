//! Three real servers: what is written through one is read through each, watches go on without gaps, members are
//! killed, restarted, stripped of their index, stopped, removed and replaced.

mod heavy {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use mesh_tests::{cluster::Cluster, scratch::Scratch, steady::now, stranger::Stranger, wait::until};
    use model::{
        client::{Client, ClientError, Events, Selection},
        kind::Kind,
        object::{Key, Object},
        watch::Event,
    };
    use rustix::process::Signal;
    use serde_json::{Value, json};

    /// How long the cluster may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How long leadership handed over may keep writers waiting: about one second, twice that on a busy machine.
    const HANDED_OVER_WITHIN: Duration = Duration::from_secs(2);

    /// How long writes may wait when the leader is lost, on a busy machine.
    const RESUMED_WITHIN: Duration = Duration::from_secs(3);

    fn service(name: &str) -> Object {
        serde_json::from_value(json!({"kind": "Service", "metadata": {"namespace": "default", "name": name},
            "spec": {"ports": [{"port": 80, "protocol": "http"}]}}))
        .expect("an object")
    }

    fn key(name: &str) -> Key {
        service(name).key()
    }

    async fn start(scratch: &Scratch) -> (Cluster, Vec<Client>) {
        let cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers come up");
        let clients = (0..3).map(|index| cluster.client(index).expect("a client")).collect();
        (cluster, clients)
    }

    /// Writes as a careful client does: again after «unavailable» and where nobody answers, never after a refusal.
    async fn put(client: &Client, name: &str) -> u64 {
        let object = service(name);
        let what = format!("{name} is written");
        let written = until(&what, PATIENCE, || async {
            match client.put(&object).await {
                Ok((object, _)) => Ok(Ok(object.metadata.revision)),
                Err(error) if error.status() == Some(503) => Err(error.to_string()),
                Err(error @ ClientError::Unreachable { .. }) => Err(error.to_string()),
                Err(error) => Ok(Err(error)),
            }
        });
        written.await.expect("in time").expect("not refused")
    }

    /// The name and the revision of the next change.
    async fn next(events: &mut Events) -> (String, u64) {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("the stream is not silent");
        match event.expect("the stream goes on").expect("it does not end") {
            Event::Put { revision, last: true, object } => (object.metadata.name.to_string(), revision),
            other => panic!("{other:?}"),
        }
    }

    /// A watch of services from now on.
    async fn watch(client: &Client, from: u64) -> Events {
        client.watch(&[Kind::Service], &Selection::default(), Some(from)).await.expect("a watch")
    }

    async fn revision(client: &Client) -> u64 {
        client.list(Kind::Service, &Selection::default()).await.expect("a list").revision
    }

    fn others(of: usize) -> [usize; 2] {
        [(of + 1) % 3, (of + 2) % 3]
    }

    #[tokio::test]
    async fn writes_reads_and_watches_survive_kills_restarts_and_a_lost_index() {
        let scratch = Scratch::new("cluster");
        let (mut cluster, clients) = start(&scratch).await;
        seen_everywhere(&clients).await;
        let leader = a_watch_outlives_the_leader(&mut cluster, &clients).await;
        // The killed one comes back from its disk.
        cluster.run(leader).await.expect("it starts from its disk");
        for name in ["through-0", "before-the-kill", "after-the-kill"] {
            clients[leader].get(&key(name)).await.expect("it has caught up when it answers");
        }
        assert!(cluster.members[leader].log().contains("source=Index"), "{}", cluster.members[leader].log());
        without_its_index(&mut cluster, &clients).await;
        paused(&cluster, &clients).await;
    }

    /// A leader that stands still and does not know it: the others go on, and it believes nothing of its own after.
    async fn paused(cluster: &Cluster, clients: &[Client]) {
        let leader = cluster.leader().await.expect("a leader");
        let [one, other] = others(leader);
        let process = cluster.members[leader].process.as_ref().expect("it runs");
        process.signal(Signal::STOP);
        let started = now();
        put(&clients[one], "while-it-stood").await;
        let took = now().duration_since(started);
        assert!(took < RESUMED_WITHIN, "writes resumed after {took:?}");
        clients[other].get(&key("while-it-stood")).await.expect("everywhere");
        process.signal(Signal::CONT);
        clients[leader].get(&key("while-it-stood")).await.expect("its first answer is no old one");
    }

    async fn seen_everywhere(clients: &[Client]) {
        for (index, client) in clients.iter().enumerate() {
            let name = format!("through-{index}");
            let (written, created) = client.put(&service(&name)).await.expect("it is written");
            assert!(created);
            // Reads are linearizable: what was acknowledged through one is there through each, at once.
            for reader in clients {
                let read = reader.get(&key(&name)).await.expect("it is there");
                assert_eq!(read.metadata.revision, written.metadata.revision);
            }
        }
        let refused =
            clients[2].put(&Object::new(key("nothing"), serde_json::Map::new())).await.expect_err("no ports");
        assert_eq!(refused.status(), Some(422), "a follower forwards refusals too: {refused}");
    }

    /// Which member was killed.
    async fn a_watch_outlives_the_leader(cluster: &mut Cluster, clients: &[Client]) -> usize {
        let leader = cluster.leader().await.expect("a leader");
        let [follower, other] = others(leader);
        let start = revision(&clients[follower]).await;
        let mut events = watch(&clients[follower], start).await;
        let before = put(&clients[leader], "before-the-kill").await;
        assert_eq!(next(&mut events).await, ("before-the-kill".to_owned(), before));
        cluster.members[leader].kill();
        let after = put(&clients[other], "after-the-kill").await;
        assert_eq!(next(&mut events).await, ("after-the-kill".to_owned(), after), "the same stream goes on");
        // Whoever lost its stream goes on by `from`, at whichever member, without a gap and without a repetition.
        for index in [follower, other] {
            let mut resumed = watch(&clients[index], before).await;
            assert_eq!(next(&mut resumed).await, ("after-the-kill".to_owned(), after));
            let mut all = watch(&clients[index], start).await;
            assert_eq!(next(&mut all).await.0, "before-the-kill");
            assert_eq!(next(&mut all).await.0, "after-the-kill");
        }
        leader
    }

    async fn without_its_index(cluster: &mut Cluster, clients: &[Client]) {
        let leader = cluster.leader().await.expect("a leader");
        let [stripped, other] = others(leader);
        let member = &mut cluster.members[stripped];
        let mut process = member.process.take().expect("it runs");
        let status = process.terminate(PATIENCE).await.expect("it ends");
        assert!(status.success(), "{status}: {}", member.log());
        std::fs::remove_dir_all(member.data().join("index")).expect("the index is a folder of its own");
        put(&clients[other], "while-it-was-away").await;
        cluster.run(stripped).await.expect("it starts without its index");
        for name in ["through-2", "after-the-kill", "while-it-was-away"] {
            clients[stripped].get(&key(name)).await.expect("rebuilt");
        }
        assert!(cluster.members[stripped].data().join("index").exists());
        let log = cluster.members[stripped].log();
        let opened =
            log.lines().rfind(|line| line.contains("registry open")).expect("it says how it started");
        assert!(!opened.contains("source=Index"), "{opened}");
    }

    #[tokio::test]
    async fn a_leader_that_is_stopped_hands_over_and_no_write_fails() {
        let scratch = Scratch::new("cluster");
        let (mut cluster, clients) = start(&scratch).await;
        let leader = cluster.leader().await.expect("a leader");
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = others(leader)
            .map(|index| tokio::spawn(write_on(clients[index].clone(), index, stop.clone())))
            .into();
        let first = key(&format!("steady-{}-20", others(leader)[0]));
        until("writers are at work", PATIENCE, || clients[leader].get(&first)).await.expect("they are");
        let mut process = cluster.members[leader].process.take().expect("it runs");
        let stopped = now();
        let status = process.terminate(PATIENCE).await.expect("it ends");
        assert!(status.success(), "{status}: {}", process.log());
        let next = cluster.leader().await.expect("a new leader");
        let took = now().duration_since(stopped);
        assert_ne!(next, leader);
        assert!(took < HANDED_OVER_WITHIN * 2, "the old one was gone and a new one known after {took:?}");
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (written, longest) = writer.await.expect("no write was refused");
            eprintln!("{} writes, the longest took {longest:?}", written.len());
            assert!(longest < HANDED_OVER_WITHIN, "a write took {longest:?}");
            for name in written {
                clients[next].get(&key(&name)).await.expect("what was acknowledged is there");
            }
        }
    }

    /// Writes one object after the other until told to stop: their names, and how long the slowest took.
    async fn write_on(client: Client, index: usize, stop: Arc<AtomicBool>) -> (Vec<String>, Duration) {
        let (mut written, mut longest) = (Vec::new(), Duration::ZERO);
        let mut left = 10;
        while left > 0 {
            if stop.load(Ordering::Relaxed) {
                left -= 1;
            }
            let (name, started) = (format!("steady-{index}-{}", written.len()), now());
            put(&client, &name).await;
            longest = longest.max(now().duration_since(started));
            written.push(name);
        }
        (written, longest)
    }

    #[tokio::test]
    async fn a_member_is_removed_for_ever_and_a_fourth_takes_its_place() {
        let scratch = Scratch::new("cluster");
        let (mut cluster, clients) = start(&scratch).await;
        put(&clients[1], "before").await;
        let leader = cluster.leader().await.expect("a leader");
        let gone = others(leader)[0];
        let id = member(&clients[leader], &cluster.members[gone].url()).await["id"].as_u64().expect("an id");
        let said = cluster.said_at(leader, &["cluster", "remove", &id.to_string()]).await.fine();
        assert_eq!(said, format!("member {id} removed\n"));
        until("two members are left", PATIENCE, || async {
            let cluster = status(&clients[leader]).await;
            let ids: Vec<_> =
                cluster["members"].as_array().expect("a list").iter().map(|member| &member["id"]).collect();
            if ids.len() == 2 && !ids.contains(&&json!(id)) { Ok(()) } else { Err(cluster.to_string()) }
        })
        .await
        .expect("it is gone");
        put(&clients[leader], "without-it").await;
        // Started again with all that it had, it is refused for good.
        cluster.members[gone].process = None;
        cluster.members[gone].spawn().expect("it can be started");
        let removed = &cluster.members[gone];
        until("it is told that it is no member", PATIENCE, || async {
            let log = cluster.members[leader].log() + &removed.log();
            let names = |line: &str| line.contains("refused") && line.contains(&format!("/meshd/{id} "));
            if log.lines().any(names) { Ok(()) } else { Err(removed.log()) }
        })
        .await
        .expect("its certificate is refused by name");
        cluster.members.remove(gone);
        cluster.join(4).await.expect("a fourth comes in");
        cluster.wait_for_voters(3).await.expect("three vote again");
        let newest = cluster.client(2).expect("a client");
        for name in ["before", "without-it"] {
            newest.get(&key(name)).await.expect("it has everything");
        }
        let fourth = member(&newest, &cluster.members[2].url()).await;
        assert_eq!(
            (&fourth["id"], &fourth["role"], &fourth["reachable"]),
            (&json!(4), &json!("voter"), &json!(true)),
            "{fourth}"
        );
    }

    /// Let in, and alone before anybody told it anything: a host that asks it must not hear that the mesh is empty, and a
    /// token that it cannot know is not refused for good.
    #[tokio::test]
    async fn a_member_that_was_told_no_history_yet_does_not_say_that_there_is_nothing() {
        let scratch = Scratch::new("cluster");
        let mut cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let host = Stranger::join(&cluster, "host-a", &["default/*"]).await.expect("it is let in");
        let new = cluster.admit(2).await.expect("it is let in");
        cluster.members[0].kill();
        cluster.members.push(new);
        cluster.members[1].spawn().expect("it starts");
        let url = cluster.members[1].url();
        until("it lives", PATIENCE, || host.get(&url, "/healthz").send()).await.expect("it answers");
        for path in ["/v1/proxy/watch?subscribe=", "/v1/proxy/watch?subscribe=&from=1", "/v1/services"] {
            let answer =
                host.get(&url, path).header("mesh-epoch", "another").send().await.expect("an answer");
            assert_eq!(answer.status(), 503, "{path}");
            assert!(answer.headers().contains_key("retry-after"), "{path}");
            let told: Value = answer.json().await.expect("a problem");
            assert!(told["detail"].as_str().expect("a text").contains("history"), "{path}: {told}");
        }
        cluster.run(0).await.expect("the leader is back");
        cluster.ready(1, PATIENCE).await.expect("it is told the history");
        let answer = host.get(&url, "/v1/proxy/watch?subscribe=").send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }

    /// Stopped for a moment while the others go on, and asked as soon as it runs: a proxy that begins anew says nothing of
    /// what it has seen, and is told all that was acknowledged.
    #[tokio::test]
    async fn a_proxy_that_begins_anew_at_a_member_that_lags_is_told_what_was_acknowledged() {
        let scratch = Scratch::new("cluster");
        let (cluster, clients) = start(&scratch).await;
        let host = Stranger::join(&cluster, "host-a", &["default/*"]).await.expect("it is let in");
        for round in 0..10 {
            let leader = cluster.leader().await.expect("a leader");
            let lags = &cluster.members[(leader + 1) % 3];
            // Its connection stands before.
            assert_eq!(host.get(&lags.url(), "/healthz").send().await.expect("an answer").status(), 200);
            let process = lags.process.as_ref().expect("it runs");
            process.signal(Signal::STOP);
            let name = format!("round-{round}");
            put(&clients[leader], &name).await;
            process.signal(Signal::CONT);
            let path = "/v1/proxy/watch?subscribe=";
            let mut answer = host.get(&lags.url(), path).send().await.expect("an answer");
            let mut told = String::new();
            while !told.contains("\"sync\"") {
                let chunk = answer.chunk().await.expect("a stream").expect("it goes on");
                told.push_str(&String::from_utf8_lossy(&chunk));
            }
            assert!(told.contains(&name), "round {round}: {told}");
        }
    }

    async fn status(client: &Client) -> Value {
        client.json(reqwest::Method::GET, "/v1/cluster", None).await.expect("the members")
    }

    async fn member(client: &Client, url: &str) -> Value {
        let status = status(client).await;
        let members = status["members"].as_array().expect("a list");
        let found = members.iter().find(|member| url.ends_with(member["api"].as_str().expect("an address")));
        found.unwrap_or_else(|| panic!("{url} in {status}")).clone()
    }
}
