//! Damaged files of a real server: it makes them good, or refuses to start with the file and the way out. What it serves
//! after a start is what the others have. (registry/tests/damage.rs draws many more places, in one process.)

mod heavy {
    use std::{
        collections::BTreeMap,
        fs,
        path::{Path, PathBuf},
        time::Duration,
    };

    use mesh_tests::{binaries, cluster::Cluster, scratch::Scratch, wait::until};
    use model::{
        client::{Client, Selection},
        kind::Kind,
        object::Object,
    };
    use serde_json::json;

    /// How long a server may take to be ready, or to refuse.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// The server whose files are spoiled: it follows, or leads no more after its first stop.
    const SPOILED: usize = 2;

    /// A kind of file, how it is spoiled, and whether a start must make it good.
    struct Case {
        what: &'static str,
        files: fn(&Path) -> bool,
        without_index: bool,
        spoil: fn(&mut Vec<u8>),
        must_serve: bool,
    }

    fn has(path: &Path, text: &str) -> bool {
        path.to_string_lossy().contains(text)
    }

    /// Where something was written: most of a log's segment is zeros.
    fn written(bytes: &[u8]) -> usize {
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    fn flip_in_the_middle(bytes: &mut [u8]) {
        let at = written(bytes) / 2;
        bytes[at] ^= 0x04;
    }

    fn cut_in_the_middle(bytes: &mut Vec<u8>) {
        bytes.truncate(written(bytes) / 2);
    }

    const CASES: &[Case] = &[
        Case {
            what: "log, a bit",
            files: |path| has(path, ".wal"),
            without_index: false,
            spoil: |bytes| flip_in_the_middle(bytes),
            must_serve: false,
        },
        Case {
            what: "log, cut",
            files: |path| has(path, ".wal"),
            without_index: false,
            spoil: cut_in_the_middle,
            must_serve: false,
        },
        Case {
            what: "snapshot, a bit",
            files: |path| has(path, ".snap"),
            without_index: true,
            spoil: |bytes| flip_in_the_middle(bytes),
            must_serve: true,
        },
        Case {
            what: "index, a bit",
            files: |path| has(path, "/index/db"),
            without_index: false,
            spoil: |bytes| flip_in_the_middle(bytes),
            must_serve: true,
        },
        Case {
            what: "audit, a bit",
            files: |path| has(path, ".audit"),
            without_index: false,
            spoil: |bytes| flip_in_the_middle(bytes),
            must_serve: true,
        },
        Case {
            what: "member.json, a bit",
            files: |path| has(path, "member.json"),
            without_index: false,
            spoil: |bytes| flip_in_the_middle(bytes),
            must_serve: false,
        },
        Case {
            what: "keys, cut",
            files: |path| has(path, "/ca/intermediate"),
            without_index: false,
            spoil: cut_in_the_middle,
            must_serve: false,
        },
        Case {
            what: "trust, cut",
            files: |path| has(path, "/ca/bundle"),
            without_index: false,
            spoil: cut_in_the_middle,
            must_serve: false,
        },
    ];

    fn service(name: &str, count: u32) -> Object {
        serde_json::from_value(json!({"kind": "Service",
            "metadata": {"namespace": "default", "name": name, "annotations": {"count": count.to_string()}},
            "spec": {"ports": [{"port": 80, "protocol": "http"}]}}))
        .expect("an object")
    }

    async fn put(client: &Client, name: &str, count: u32) {
        let object = service(name, count);
        let written = until("a write", PATIENCE, || async { client.put(&object).await });
        written.await.expect("it is written");
    }

    async fn list(client: &Client) -> BTreeMap<String, u64> {
        let list = until("a list", PATIENCE, || async {
            client.list(Kind::Service, &Selection::default()).await.map_err(|error| error.to_string())
        });
        let items = list.await.expect("it lists").items;
        items.into_iter().map(|object| (object.key().path(), object.metadata.revision)).collect()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
        }
        files.sort();
        files
    }

    /// Waits until the server is ready, or ended: then what it said at last.
    async fn ready_or_refused(cluster: &mut Cluster) -> Option<String> {
        let before = cluster.members[SPOILED].log().len();
        cluster.members[SPOILED].spawn().expect("it can be started");
        let deadline = mesh_tests::steady::now() + PATIENCE;
        loop {
            let member = &mut cluster.members[SPOILED];
            if let Some(status) = member.process.as_mut().and_then(mesh_tests::process::Process::ended) {
                assert!(!status.success(), "a refusal is no success");
                return Some(member.log()[before..].to_owned());
            }
            if cluster.ready(SPOILED, Duration::from_millis(200)).await.is_ok() {
                return None;
            }
            let log = cluster.members[SPOILED].log();
            assert!(mesh_tests::steady::now() < deadline, "neither ready nor refused: {}", &log[before..]);
        }
    }

    async fn stop(cluster: &mut Cluster) {
        let mut process = cluster.members[SPOILED].process.take().expect("it runs");
        let status = process.terminate(PATIENCE).await.expect("it ends");
        assert!(status.success(), "{status}: {}", process.log());
    }

    async fn check(cluster: &mut Cluster, case: &Case) {
        let data = cluster.members[SPOILED].data();
        let path = files(&data).into_iter().rfind(|path| (case.files)(path)).expect(case.what);
        let sound = fs::read(&path).expect("a file");
        let mut spoiled = sound.clone();
        (case.spoil)(&mut spoiled);
        fs::write(&path, spoiled).expect("writable");
        if case.without_index {
            fs::remove_dir_all(data.join("index")).expect("an index");
        }
        match ready_or_refused(cluster).await {
            None => {
                let client = cluster.client(SPOILED).expect("a client");
                let others = cluster.client(0).expect("a client");
                assert_eq!(list(&client).await, list(&others).await, "{}", case.what);
                eprintln!("{}: made good", case.what);
                stop(cluster).await;
            }
            Some(said) => {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                assert!(!case.must_serve, "{}: {said}", case.what);
                assert!(said.contains(&name) && said.contains("join"), "{}: {name}: {said}", case.what);
                eprintln!("{}: refused", case.what);
                cluster.members[SPOILED].process = None;
                fs::write(&path, sound).expect("writable");
            }
        }
    }

    #[tokio::test]
    async fn spoiled_files_are_made_good_or_refused_and_never_served() {
        let scratch = Scratch::new("damage");
        let settings = "[registry]\nsnapshot_every = 100\n".to_owned();
        let mut cluster = Cluster::start_with(scratch.path(), 3, binaries::path("meshd"), settings, |_| {})
            .await
            .expect("three servers come up");
        let clients = [0, SPOILED].map(|index| cluster.client(index).expect("a client"));
        for n in 0..220 {
            put(&clients[0], &format!("s{}", n % 20), n).await;
        }
        let data = cluster.members[SPOILED].data();
        until("a snapshot", PATIENCE, || async {
            let taken = files(&data).iter().any(|path| has(path, ".snap"));
            if taken { Ok(()) } else { Err("none yet") }
        })
        .await
        .expect("one in a hundred entries");
        stop(&mut cluster).await;
        for case in CASES {
            check(&mut cluster, case).await;
        }
        // With all its files as they were it is one of them again.
        cluster.run(SPOILED).await.expect("it starts");
        put(&clients[1], "at-last", 1).await;
        let lists = [list(&clients[0]).await, list(&clients[1]).await];
        assert_eq!(lists[0], lists[1]);
    }
}
