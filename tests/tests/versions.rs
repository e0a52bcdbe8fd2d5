//! The release before this one and this one together: a cluster that is upgraded member by member under load and back,
//! its data opened by the next release, proxies of either beside servers of the other.

mod heavy {
    use std::{collections::BTreeSet, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        host::{Host, LocalService},
        life::Life,
        plain::Plain,
        scratch::Scratch,
        wait::until,
    };
    use model::{
        client::{Client, Selection},
        kind::Kind,
        object::{Key, Object},
    };
    use serde_json::{Map, Value, json};
    use svid::KeyRequest;

    /// How long the cluster may take to do what it does by itself, on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// As many writes in a row show that they go on.
    const SOME: usize = 20;
    /// What a member of this release says its version is.
    const THIS: &str = env!("CARGO_PKG_VERSION");
    /// Where the callers' host has its listener for orders.
    const ORDERS: u16 = 9_001;

    async fn previous(scratch: &Scratch, size: u8) -> Cluster {
        let program = binaries::previous("meshd");
        Cluster::start_with(scratch.path(), size, program, String::new(), |_| {})
            .await
            .expect("servers come up")
    }

    fn clients(cluster: &Cluster) -> Vec<Client> {
        (0..cluster.members.len()).map(|index| cluster.client(index).expect("a client")).collect()
    }

    async fn status(cluster: &Cluster, index: usize) -> Value {
        let client = cluster.client(index).expect("a client");
        let asked = || client.json::<Value>(reqwest::Method::GET, "/v1/cluster", None);
        until("the members are told", PATIENCE, asked).await.expect("in time")
    }

    /// Stops a member in good order and starts it again as another program.
    async fn becomes(cluster: &mut Cluster, index: usize, program: std::path::PathBuf) {
        let mut process = cluster.members[index].process.take().expect("it runs");
        let ended = process.terminate(PATIENCE).await.expect("it ends");
        assert!(ended.success(), "{ended}: {}", process.log());
        cluster.members[index].program = program;
        cluster.run(index).await.expect("it starts as the other program");
    }

    /// Has one of them lead; asked of the leader itself.
    async fn leads(cluster: &Cluster, index: usize) {
        let leader = cluster.leader().await.expect("a leader");
        let (status, url) = (status(cluster, leader).await, cluster.members[index].url());
        let members = status["members"].as_array().expect("a list");
        let member = members.iter().find(|member| url.ends_with(member["api"].as_str().unwrap_or("?")));
        let id = member.expect("it is a member")["id"].to_string();
        if leader != index {
            cluster.said_at(leader, &["cluster", "transfer", &id]).await.fine();
        }
        assert_eq!(cluster.leader().await.expect("a leader"), index);
    }

    /// What the members say that they are, once it is what it should be.
    async fn versions(cluster: &Cluster, want: &[&str]) {
        until("the versions are known", PATIENCE, || async {
            let leader = cluster.leader().await.map_err(|error| error.to_string())?;
            let status = status(cluster, leader).await;
            let members = status["members"].as_array().expect("a list");
            let versions: Vec<_> =
                members.iter().map(|member| member["version"].as_str().unwrap_or("?")).collect();
            if versions == want { Ok(()) } else { Err(status.to_string()) }
        })
        .await
        .expect("in time");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn data_of_the_previous_release_is_opened() {
        let scratch = Scratch::new("versions");
        let mut cluster = previous(&scratch, 1).await;
        let life = Life::start(clients(&cluster), 3, 0);
        life.goes_on(120).await.expect("they write");
        let lived = life.finish().await.expect("nothing was lost");
        cluster.said(&["token", "join", "for-later", "--node", "later"]).await.fine();
        let client = cluster.client(0).expect("a client");
        let before = client.list(Kind::Service, &Selection::default()).await.expect("a list");
        // From its index, and then without it: from the log as the previous release wrote it.
        for without_index in [false, true] {
            becomes(&mut cluster, 0, binaries::path("meshd")).await;
            if without_index {
                let mut process = cluster.members[0].process.take().expect("it runs");
                assert!(process.terminate(PATIENCE).await.expect("it ends").success());
                std::fs::remove_dir_all(cluster.members[0].data().join("index")).expect("it is a folder");
                cluster.run(0).await.expect("it starts without its index");
            }
            let after = numbered(&client).await;
            let same = |(before, after): (&Object, &Object)| before.same_input(after);
            assert!(before.items.iter().zip(&after).all(same), "every object as it was written");
            assert_eq!(before.items.len(), after.len());
            cluster.said(&["get", "jointoken", "for-later"]).await.fine();
        }
        versions(&cluster, &[THIS]).await;
        assert!(before.items.len() >= lived.acknowledged, "{lived:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_is_upgraded_member_by_member_and_back_under_load() {
        let scratch = Scratch::new("versions");
        let mut cluster = previous(&scratch, 3).await;
        let life = Life::start(clients(&cluster), 2, 2);
        life.goes_on(SOME).await.expect("all of the previous release");
        becomes(&mut cluster, 0, binaries::path("meshd")).await;
        // Each leads for a while: the new one beside two old ones, an old one beside a new one.
        for leader in [0, 1] {
            leads(&cluster, leader).await;
            life.goes_on(SOME).await.expect("a mixed cluster");
        }
        versions(&cluster, &["commands/5", "commands/1", "commands/1"]).await;
        no_request_is_taken_yet(&cluster.client(0).expect("a client")).await;
        // Back again: nothing new was used yet.
        becomes(&mut cluster, 0, binaries::previous("meshd")).await;
        life.goes_on(SOME).await.expect("all of the previous release again");
        for index in [0, 2] {
            becomes(&mut cluster, index, binaries::path("meshd")).await;
            life.goes_on(SOME).await.expect("a mixed cluster");
        }
        for leader in [1, 2] {
            leads(&cluster, leader).await;
            life.goes_on(SOME).await.expect("a mixed cluster");
        }
        becomes(&mut cluster, 1, binaries::path("meshd")).await;
        // The first command of version 2 tells names and versions: used when all understand it, and not before.
        versions(&cluster, &[THIS, THIS, THIS]).await;
        life.goes_on(SOME).await.expect("all of this release");
        numbered(&cluster.client(0).expect("a client")).await;
        eprintln!(
            "upgrade of 3 and back and again: {} writes, longest gap {:?}",
            life.acknowledged(),
            life.longest_gap()
        );
        refused_downgrade(&mut cluster, &life).await;
        eprintln!("{:?}", life.finish().await.expect("nothing was lost"));
    }

    /// What an older member could not read does not come into the log, whoever asks for it.
    async fn no_request_is_taken_yet(client: &Client) {
        let node = Key::mesh_wide(Kind::Node, "away".parse().expect("a name"));
        client.put(&Object::new(node, Map::new())).await.expect("a Node");
        let csr = KeyRequest::generate().expect("a key").csr_pem;
        let body = json!({"node": "away", "csr": csr});
        let filed = client.json::<Value>(reqwest::Method::POST, "/v1/ca/requests", Some(&body)).await;
        let refused = filed.expect_err("two members do not know it");
        assert!(refused.to_string().contains("not every member understands"), "{refused}");
    }

    /// All Services, once each has virtual IPs: those of the previous release get them by themselves. No two have the same.
    async fn numbered(client: &Client) -> Vec<Object> {
        let services = until("all have virtual IPs", PATIENCE, || async {
            let all = client.list(Kind::Service, &Selection::default()).await;
            let all = all.map_err(|error| error.to_string())?.items;
            let lacks = all.iter().find(|service| virtual_ips(service).is_null());
            lacks.map_or(Ok(all.clone()), |lacks| Err(format!("{} has none", lacks.key())))
        });
        let services = services.await.expect("in time");
        let different: BTreeSet<_> =
            services.iter().map(|service| virtual_ips(service).to_string()).collect();
        assert_eq!(different.len(), services.len());
        services
    }

    fn virtual_ips(service: &Object) -> &Value {
        service.status.as_ref().map_or(&Value::Null, |status| &status["virtualIPs"])
    }

    /// What stands in the log now the previous release does not understand: it ends at its start, and takes no part.
    async fn refused_downgrade(cluster: &mut Cluster, life: &Life) {
        let leader = cluster.leader().await.expect("a leader");
        let index = (leader + 1) % 3;
        let mut process = cluster.members[index].process.take().expect("it runs");
        assert!(process.terminate(PATIENCE).await.expect("it ends").success());
        let member = &mut cluster.members[index];
        member.program = binaries::previous("meshd");
        let before = member.log().len();
        member.spawn().expect("it can be started");
        let process = member.process.as_mut().expect("it was started");
        let ended = until("it ends", PATIENCE, || {
            let ended = process.ended().ok_or_else(|| process.log()[before..].to_owned());
            async move { ended }
        });
        assert!(!ended.await.expect("in time").success());
        let said = process.log()[before..].to_owned();
        assert!(said.contains("this version reads 1") && said.contains("meshd: raft: "), "{said}");
        member.process = None;
        member.program = binaries::path("meshd");
        life.goes_on(SOME).await.expect("two of three");
        cluster.run(index).await.expect("the newer program is welcome as before");
        life.goes_on(SOME).await.expect("with all three");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn proxies_and_servers_of_either_release_work_together() {
        let scratch = Scratch::new("versions");
        let mut cluster = previous(&scratch, 1).await;
        let backend = Backend::start("one").await.expect("an application");
        let orders = LocalService::new("orders", backend.port, 80, "http").checked();
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        // Proxies of this release at a server of the previous one.
        let mut back =
            Host::start(&cluster, scratch.path(), "back", 12, &[orders], |_| {}).await.expect("a host");
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let caller = Plain::new((front.address, ORDERS).into(), "orders.default.mesh");
        answers(&caller).await;
        // A proxy of the previous release among them, on the same folder.
        back.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
        back.program = binaries::previous("mesh-proxy");
        back.run().await.expect("it starts");
        answers(&caller).await;
        // A server of this release: the older proxy registers, keeps its session and is called.
        becomes(&mut cluster, 0, binaries::path("meshd")).await;
        back.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
        until("its endpoint is gone", PATIENCE, || async {
            match caller.get("/").await {
                Ok(answer) if answer.status() == 200 => Err("it is called".to_owned()),
                _ => Ok(()),
            }
        })
        .await
        .expect("it left the mesh");
        back.run().await.expect("it starts");
        answers(&caller).await;
    }

    /// Calls flow within the time that a registration takes.
    async fn answers(caller: &Plain) {
        until("calls flow", PATIENCE, || async {
            let answer = caller.get("/").await.map_err(|error| error.to_string())?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await
        .expect("in time");
    }
}
