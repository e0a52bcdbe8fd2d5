//! Every server is gone: traffic goes on, proxies are restarted and serve from their disks, and when the servers are
//! back all is in sync again. No call fails but those that were inside a process when it was killed.

mod heavy {
    use std::time::{Duration, Instant};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        steady::{Seen, Steady, now},
        wait::until,
    };
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long a proxy may take to drain and end.
    const DRAINED_WITHIN: Duration = Duration::from_secs(15);
    /// Calls per second.
    const RATE: u32 = 50;
    /// As many calls in a row show that traffic flows.
    const SOME: u64 = 50;
    /// Where the callers' host has its listener for orders.
    const ORDERS: u16 = 9_001;
    /// What the two instances of orders answer.
    const ANSWERS: [&str; 2] = [
        "one for URI=spiffe://mesh.internal/ns/default/svc/web",
        "two for URI=spiffe://mesh.internal/ns/default/svc/web",
    ];

    /// In turn: by latency, an instance that was slow once, as when it starts, would get hardly a call for ten seconds.
    const MANIFEST: &str = "\
kind: Service
metadata: {namespace: default, name: orders}
spec:
  ports: [{port: 80, protocol: http}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
kind: TrafficPolicy
metadata: {namespace: default, name: orders}
spec:
  targetRefs: [{kind: Service, name: orders}]
  loadBalancer: {type: RoundRobin}
";
    const ONLY_TWO: &str = "\
kind: HTTPRoute
metadata: {namespace: default, name: orders}
spec:
  parentRefs: [{name: orders, port: 80}]
  rules: [{backendRefs: [{name: orders, subset: v2, port: 80}]}]
";

    /// Three servers, two hosts with an instance of orders each, and one that calls them.
    struct Mesh {
        cluster: Cluster,
        front: Host,
        backs: Vec<Host>,
        _backends: Vec<Backend>,
    }

    async fn open(scratch: &Scratch) -> Mesh {
        let cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        apply(&cluster, scratch, MANIFEST).await;
        let (mut backs, mut backends) = (Vec::new(), Vec::new());
        for (n, name, version) in [(12, "one", "v1"), (13, "two", "v2")] {
            let backend = Backend::start(name).await.expect("an application");
            let mut orders = LocalService::new("orders", backend.port, 80, "http").checked();
            orders.version = Some(version.to_owned());
            let host =
                Host::start(&cluster, scratch.path(), &format!("back-{name}"), n, &[orders], |_| {}).await;
            backs.push(host.expect("a host"));
            backends.push(backend);
        }
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        Mesh { cluster, front, backs, _backends: backends }
    }

    async fn apply(cluster: &Cluster, scratch: &Scratch, manifest: &str) {
        let file = scratch.write("manifest.yaml", manifest).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
    }

    impl Mesh {
        fn client(&self) -> Plain {
            Plain::new((self.front.address, ORDERS).into(), "orders.default.mesh")
        }

        fn proxy(&mut self, back: usize) -> &mut mesh_tests::process::Process {
            self.backs[back].proxy.as_mut().expect("it runs")
        }

        async fn sessions(&self) -> Result<(), String> {
            let said = self.cluster.said(&["proxies", "-o", "json"]).await;
            let proxies: Value = serde_json::from_str(&said.out).map_err(|_| said.err)?;
            let items = proxies["items"].as_array().ok_or("no list")?;
            let live = items.iter().filter(|proxy| proxy["session"] == "Live").count();
            if live == 3 { Ok(()) } else { Err(proxies.to_string()) }
        }
    }

    /// Waits until so many more calls were answered by each of these.
    async fn flows(load: &Steady, by: &[&str]) {
        let start = load.seen();
        let more = |seen: &Seen, answer: &str| {
            let count = |seen: &Seen| seen.answers.get(answer).copied().unwrap_or_default();
            count(seen) - count(&start)
        };
        until(&format!("calls are answered by {by:?}"), PATIENCE, || async {
            let seen = load.seen();
            if by.iter().all(|answer| more(&seen, answer) >= SOME) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
        .expect("traffic flows");
    }

    #[tokio::test]
    async fn traffic_and_restarts_need_no_server_and_all_is_in_sync_when_they_are_back() {
        let scratch = Scratch::new("down");
        let mut mesh = open(&scratch).await;
        let client = mesh.client();
        until("a first call goes through", PATIENCE, || async {
            let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await
        .expect("the mesh carries calls");
        let load = Steady::start(mesh.client(), RATE);
        flows(&load, &ANSWERS).await;
        for member in &mut mesh.cluster.members {
            member.kill();
        }
        flows(&load, &ANSWERS).await;
        // Where calls arrive: a proxy is stopped, another is killed, each comes back from its disk.
        restarted(&mut mesh, &load).await;
        let killed = killed(&mut mesh, &load).await;
        // Where calls begin: nobody can call while the caller's own proxy is away.
        let seen = load.stop().await;
        judge(&seen, &[killed]);
        let load = caller_restarted(&mut mesh).await;
        back_again(&mut mesh, &scratch, &load).await;
        let seen = load.stop().await;
        judge(&seen, &[]);
    }

    /// SIGTERM: what runs is finished, what is new goes elsewhere.
    async fn restarted(mesh: &mut Mesh, load: &Steady) {
        let status = mesh.proxy(0).terminate(DRAINED_WITHIN).await.expect("it drains and ends");
        assert!(status.success(), "{status}: {}", mesh.backs[0].log());
        flows(load, &ANSWERS[1..]).await;
        mesh.backs[0].run().await.expect("it starts without any server");
        flows(load, &ANSWERS).await;
    }

    /// kill -9: only what was inside it is lost.
    async fn killed(mesh: &mut Mesh, load: &Steady) -> Instant {
        let moment = now();
        mesh.proxy(1).kill();
        flows(load, &ANSWERS[..1]).await;
        mesh.backs[1].run().await.expect("it starts without any server");
        flows(load, &ANSWERS).await;
        moment
    }

    async fn caller_restarted(mesh: &mut Mesh) -> Steady {
        let proxy = mesh.front.proxy.as_mut().expect("it runs");
        let status = proxy.terminate(DRAINED_WITHIN).await.expect("it drains and ends");
        assert!(status.success(), "{status}: {}", mesh.front.log());
        mesh.front.run().await.expect("it starts without any server");
        let load = Steady::start(mesh.client(), RATE);
        flows(&load, &ANSWERS).await;
        judge(&load.stop().await, &[]);
        mesh.front.proxy.as_mut().expect("it runs").kill();
        mesh.front.run().await.expect("it starts from its disk after kill -9 too");
        let load = Steady::start(mesh.client(), RATE);
        flows(&load, &ANSWERS).await;
        load
    }

    async fn back_again(mesh: &mut Mesh, scratch: &Scratch, load: &Steady) {
        for index in 0..3 {
            mesh.cluster.members[index].spawn().expect("it can be started");
        }
        mesh.cluster.leader().await.expect("they elect a leader from their disks");
        until("all sessions live again", PATIENCE, || mesh.sessions())
            .await
            .expect("proxies come back by themselves");
        flows(load, &ANSWERS).await;
        apply(&mesh.cluster, scratch, ONLY_TWO).await;
        let before = load.seen().answers[ANSWERS[0]];
        flows(load, &ANSWERS[1..]).await;
        until("the new route has reached the caller's proxy", PATIENCE, || async {
            let start = load.seen().answers[ANSWERS[0]];
            flows(load, &ANSWERS[1..]).await;
            let end = load.seen().answers[ANSWERS[0]];
            if start == end { Ok(()) } else { Err(format!("{before}, {start}, {end}")) }
        })
        .await
        .expect("changes arrive");
    }

    /// Only calls that were under way when a proxy was killed may have failed.
    #[track_caller]
    fn judge(seen: &Seen, kills: &[Instant]) {
        let lost = seen.failures.iter().filter(|failure| !kills.iter().any(|kill| failure.spans(*kill)));
        let lost: Vec<_> = lost.map(|failure| (failure.ended - failure.started, &failure.reason)).collect();
        eprintln!(
            "{} answered, {} failed, {} of these lost",
            seen.answered(),
            seen.failures.len(),
            lost.len()
        );
        assert!(lost.is_empty(), "{lost:?}");
    }
}
