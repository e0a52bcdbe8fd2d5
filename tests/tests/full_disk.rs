//! A server whose disk fills, and one whose disk fails, among others that go on.

mod heavy {
    use std::{io::Write, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration};

    use mesh_tests::{cluster::Cluster, scratch::Scratch, wait::until};
    use model::{
        client::{Client, Selection},
        kind::Kind,
        object::Object,
        watch::Event,
    };
    use reqwest::Method;
    use serde_json::{Value, json};

    /// How long the cluster may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// A server's disk: room for what it starts with, and a few megabytes more.
    const DISK: &str = "48m";
    /// The signal of an abort.
    const SIGABRT: i32 = 6;

    /// Starts a program with its data folder ($1) on a small disk of its own ($2 bytes), in a mount namespace that ends
    /// with it.
    const ON_A_SMALL_DISK: &str = r#"
set -eu
data=$1 size=$2
shift 2
rm -rf "$data.before"
cp -a "$data" "$data.before"
mount -t tmpfs -o size=$size tmpfs "$data"
cp -a "$data.before/." "$data"
exec "$@"
"#;

    fn service(name: &str) -> Object {
        serde_json::from_value(json!({"kind": "Service", "metadata": {"namespace": "default", "name": name},
            "spec": {"ports": [{"port": 80, "protocol": "http"}]}}))
        .expect("an object")
    }

    async fn put(client: &Client, name: &str) {
        let object = service(name);
        until(&format!("{name} is written"), PATIENCE, || async { client.put(&object).await })
            .await
            .expect("it is written");
    }

    async fn names(client: &Client) -> Vec<String> {
        let list =
            until("a list", PATIENCE, || async { client.list(Kind::Service, &Selection::default()).await });
        let items = list.await.expect("it lists").items;
        items.into_iter().map(|object| object.metadata.name.to_string()).collect()
    }

    /// What `/v1/cluster` says of a member.
    async fn member(client: &Client, url: &str) -> Result<Value, String> {
        let cluster: Value =
            client.json(Method::GET, "/v1/cluster", None).await.map_err(|error| error.to_string())?;
        let members = cluster["members"].as_array().ok_or("no members")?;
        let found =
            members.iter().find(|member| member["api"].as_str().is_some_and(|api| url.ends_with(api)));
        found.cloned().ok_or_else(|| cluster.to_string())
    }

    async fn metric(cluster: &Cluster, index: usize, name: &str) -> Result<f64, String> {
        let url = format!("http://{}:8480/metrics", cluster.members[index].address);
        let text = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let text = text.text().await.map_err(|error| error.to_string())?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or(text)
    }

    async fn stop(cluster: &mut Cluster, index: usize) {
        let mut process = cluster.members[index].process.take().expect("it runs");
        process.terminate(PATIENCE).await.expect("it ends");
    }

    /// Makes a server lead.
    async fn lead(cluster: &Cluster, index: usize) {
        let client = cluster.client(index).expect("a client");
        let url = cluster.members[index].url();
        let led = until("leadership moves", PATIENCE, || async {
            let member = member(&client, &url).await?;
            if member["leader"] == true {
                return Ok(());
            }
            let to = json!({"to": member["id"]});
            let moved: Result<Value, _> = client.json(Method::POST, "/v1/cluster/transfer", Some(&to)).await;
            Err(format!("{moved:?}"))
        });
        led.await.expect("it leads");
    }

    /// Takes all the room that is left on a server's disk, as seen from its mount namespace.
    fn fill(cluster: &Cluster, index: usize) -> PathBuf {
        let member = &cluster.members[index];
        let process = member.process.as_ref().expect("it runs").id();
        let data = member.data();
        let inside = data.strip_prefix("/").expect("an absolute path");
        let ballast = PathBuf::from(format!("/proc/{process}/root")).join(inside).join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("the disk of the server");
        for block in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0x5a; block]).is_ok() {}
        }
        ballast
    }

    #[tokio::test]
    async fn a_leader_whose_disk_fills_steps_aside_serves_reads_and_comes_back() {
        let scratch = Scratch::new("full-disk");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers come up");
        let full = 1;
        stop(&mut cluster, full).await;
        let data = cluster.members[full].data().display().to_string();
        cluster.members[full].wrapper =
            ["unshare", "--mount", "bash", "-c", ON_A_SMALL_DISK, "small-disk", &data, DISK]
                .map(str::to_owned)
                .to_vec();
        cluster.run(full).await.expect("it starts on its small disk");
        let clients = [0, 1, 2].map(|index| cluster.client(index).expect("a client"));
        put(&clients[full], "before").await;
        lead(&cluster, full).await;
        let mut events =
            clients[full].watch(&[Kind::Service], &Selection::default(), None).await.expect("a watch");

        let ballast = fill(&cluster, full);
        refuses(&cluster, &clients[full], full).await;
        // The others lead and write; the full one still reads and tells its watchers.
        put(&clients[0], "while-full").await;
        put(&clients[2], "while-full-too").await;
        assert!(names(&clients[full]).await.contains(&"while-full-too".to_owned()));
        let url = cluster.members[full].url();
        let aside = until("it is seen to be full, and not to lead", PATIENCE, || async {
            let member = member(&clients[0], &url).await?;
            if member["disk"] == "full" && member["leader"] == false {
                Ok(())
            } else {
                Err(member.to_string())
            }
        });
        aside.await.expect("it steps aside");
        seen(&mut events, "while-full-too").await;

        std::fs::remove_file(ballast).expect("it is removed");
        cluster.ready(full, PATIENCE).await.expect("it comes back by itself");
        put(&clients[full], "after").await;
        for client in &clients {
            let names = names(client).await;
            for name in ["before", "while-full", "while-full-too", "after"] {
                assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
            }
        }
        assert!(metric(&cluster, full, "meshd_wal_fsyncs_total").await.expect("a metric") > 0.0);
    }

    /// Writes there are refused by the disk's name, and everybody who asks is told.
    async fn refuses(cluster: &Cluster, client: &Client, full: usize) {
        // Written until it is noticed: a few lines still find room in pages that are there.
        let mut n = 0;
        let refused = until("writes are refused", PATIENCE, || {
            n += 1;
            let object = service(&format!("filling-{n}"));
            async move {
                match client.put(&object).await {
                    Err(error) if error.to_string().contains("disk of this server is full") => Ok(error),
                    other => Err(format!("{:?}", other.map(|_| ()))),
                }
            }
        });
        let refused = refused.await.expect("it notices");
        assert_eq!(refused.status(), Some(503), "{refused}");
        let said = cluster.ready(full, Duration::ZERO).await.expect_err("it is not ready").to_string();
        assert!(said.contains("503"), "{said}");
        assert_eq!(metric(cluster, full, "meshd_disk_full").await, Ok(1.0));
    }

    async fn seen(events: &mut model::client::Events, name: &str) {
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                let event = events.next().await.expect("the stream goes on").expect("it does not end");
                if let Event::Put { object, .. } = event
                    && object.metadata.name.as_str() == name
                {
                    return;
                }
            }
        });
        seen.await.expect("the watch goes on");
    }

    #[tokio::test]
    async fn a_failed_sync_ends_the_server_at_once_and_it_starts_clean() {
        let scratch = Scratch::new("failed-sync");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers come up");
        let failing = 1;
        stop(&mut cluster, failing).await;
        let log = scratch.path().join("syncs").display().to_string();
        cluster.members[failing].wrapper = [
            "strace",
            "-f",
            "-qq",
            "-o",
            &log,
            "-e",
            "trace=fdatasync",
            "-e",
            "signal=none",
            "-e",
            "inject=fdatasync:error=EIO:when=12+",
        ]
        .map(str::to_owned)
        .to_vec();
        cluster.members[failing].spawn().expect("it starts");
        let clients = [0, 2].map(|index| cluster.client(index).expect("a client"));
        let mut n = 0;
        let deadline = mesh_tests::steady::now() + PATIENCE;
        let status = loop {
            // The others go on all the time: a write may only be late.
            put(&clients[n % 2], &format!("n{n}")).await;
            n += 1;
            let process = cluster.members[failing].process.as_mut().expect("it was started");
            if let Some(status) = process.ended() {
                break status;
            }
            assert!(mesh_tests::steady::now() < deadline, "it goes on after a sync that failed");
        };
        assert_eq!(status.signal(), Some(SIGABRT), "{status}");
        let said = cluster.members[failing].log();
        assert!(said.contains("the process ends") && said.contains("Input/output error"), "{said}");
        // No thread tried again: each has at most the one failure that ended it.
        let calls = std::fs::read_to_string(&log).expect("strace's log");
        let mut failures: Vec<_> = calls
            .lines()
            .filter(|line| line.contains("INJECTED"))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let count = failures.len();
        failures.dedup();
        assert!(count >= 1 && failures.len() == count, "{calls}");

        cluster.members[failing].process = None;
        cluster.members[failing].wrapper = Vec::new();
        cluster.run(failing).await.expect("it starts clean");
        let back = names(&cluster.client(failing).expect("a client")).await;
        assert!((0..n).all(|n| back.contains(&format!("n{n}"))), "{n} written: {back:?}");
    }
}
