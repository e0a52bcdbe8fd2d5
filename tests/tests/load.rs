//! A client that floods a control plane is told to come again; nobody else is, no session ends, and the leader stays.

mod heavy {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use mesh_tests::{
        cluster::Cluster,
        fleet::{Fleet, scenario, usage},
        scratch::Scratch,
        steady::now,
        stranger::trusting,
        wait::until,
    };
    use reqwest::Method;
    use serde_json::{Value, json};
    use tokio::task::JoinSet;

    /// So few that a hundred connections are more than the share of one on any machine: 8 writes and 4 lists at once.
    const LIMITS: &str = "[limits]\nrequests = 64\n";
    /// Hosts with sessions and streams.
    const HOSTS: usize = 30;
    /// Connections that the flood keeps busy, and programs that open one after the other.
    const FLOODERS: (usize, usize) = (90, 6);
    /// How long the flood lasts: longer than a session lives without a sign of life.
    const FLOOD: Duration = Duration::from_secs(12);
    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Resident memory of a server at its greatest, in MB: three times what 30 hosts, a hundred connections and a few
    /// thousand large objects take; a flood that is not refused takes a multiple.
    const MEMORY_MB: f64 = 500.0;

    /// What the flood was answered, by status, and answers that say when to come again.
    #[derive(Debug, Default)]
    struct Answers {
        by_status: BTreeMap<u16, u64>,
        told_when: u64,
    }

    /// Somebody with a token of his own.
    #[derive(Clone)]
    struct Someone {
        token: String,
        urls: Vec<String>,
        http: reqwest::Client,
    }

    impl Someone {
        async fn new(cluster: &Cluster, name: &str) -> Self {
            let admin = cluster.client(0).expect("a client");
            let (path, body) = (format!("/v1/accesstokens/{name}"), json!({"spec": {"roles": ["admin"]}}));
            let made: Value = admin.json(Method::PUT, &path, Some(&body)).await.expect("a token");
            Self {
                token: made["status"]["token"].as_str().expect("it is shown once").to_owned(),
                urls: cluster.members.iter().map(mesh_tests::cluster::Member::url).collect(),
                http: trusting(cluster).expect("a client").build().expect("a client"),
            }
        }

        /// The same with a connection that nobody else has.
        fn apart(&self, cluster: &Cluster) -> Self {
            let http = trusting(cluster).expect("a client").http1_only().build().expect("a client");
            Self { http, ..self.clone() }
        }

        async fn put(&self, server: usize, name: &str, text: &str) -> reqwest::Result<reqwest::Response> {
            let url =
                format!("{}/v1/namespaces/default/services/{name}", self.urls[server % self.urls.len()]);
            let metadata = json!({"annotations": {"text": text}});
            let body = json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}});
            self.http.put(url).bearer_auth(&self.token).json(&body).send().await
        }

        async fn list(&self, server: usize) -> reqwest::Result<reqwest::Response> {
            let url = format!("{}/v1/services", self.urls[server % self.urls.len()]);
            self.http.get(url).bearer_auth(&self.token).send().await
        }
    }

    impl Answers {
        fn note(answers: &Mutex<Self>, answer: &reqwest::Response) {
            let mut answers = answers.lock().expect("no panic");
            *answers.by_status.entry(answer.status().as_u16()).or_default() += 1;
            answers.told_when += u64::from(answer.headers().contains_key("retry-after"));
        }

        fn refused(&self) -> u64 {
            [429, 503].iter().filter_map(|status| self.by_status.get(status)).sum()
        }
    }

    /// Asks again and again over one connection, and does not wait when it is told to.
    async fn flood(someone: Someone, index: usize, answers: Arc<Mutex<Answers>>) {
        let text = "x".repeat(4_000);
        for round in 0_usize.. {
            let answer = match index % 3 {
                0 => someone.list(index + round).await,
                _ => someone.put(index + round, &format!("flood-{index}-{}", round % 50), &text).await,
            };
            if let Ok(answer) = answer {
                Answers::note(&answers, &answer);
                // Read to its end, or the connection could not be used again.
                let _ = answer.bytes().await;
            }
        }
    }

    /// Opens a connection for each request.
    async fn connect(cluster: Arc<Cluster>, someone: Someone, answers: Arc<Mutex<Answers>>) {
        for round in 0_usize.. {
            if let Ok(answer) = someone.apart(&cluster).list(round).await {
                Answers::note(&answers, &answer);
            }
        }
    }

    /// Who leads, in which term.
    async fn leader(cluster: &Cluster) -> (u64, u64) {
        let asked = until("a server says who leads", PATIENCE, || async {
            let client = cluster.client(0).map_err(|error| error.to_string())?;
            let told = client.json::<Value>(Method::GET, "/v1/cluster", None).await;
            let told = told.map_err(|error| error.to_string())?;
            told["leader"].as_u64().zip(told["term"].as_u64()).ok_or_else(|| told.to_string())
        });
        asked.await.expect("a leader")
    }

    /// Writes one object after the other until `end`; how many, how long the slowest took, and what was refused for a
    /// moment.
    async fn work(operator: Someone, end: Instant) -> (u64, Duration, Vec<String>) {
        let (mut written, mut slowest, mut refused) = (0, Duration::ZERO, Vec::new());
        while now() < end {
            let (name, began) = (format!("work-{written}"), now());
            let done = until("the other's write", PATIENCE, || async {
                let server = usize::try_from(written).unwrap_or_default();
                match operator.put(server, &name, "work").await {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    Ok(answer) => Err(format!("{} {:?}", answer.status(), answer.text().await)),
                    Err(error) => Err(format!("{error:?}")),
                }
            });
            match done.await {
                Ok(()) => written += 1,
                Err(error) => refused.push(format!("{error:#}")),
            }
            slowest = slowest.max(now() - began);
        }
        (written, slowest, refused)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_floods_moves_no_leader_ends_no_session_and_holds_up_nobody() {
        let scratch = Scratch::new("load");
        let program = mesh_tests::binaries::path("meshd");
        let cluster = Cluster::start_with(scratch.path(), 3, program, LIMITS.to_owned(), |_| {});
        let cluster = cluster.await.expect("three servers");
        let settings = scenario::settings(&cluster, HOSTS).expect("settings");
        let fleet = Fleet::join(&settings).await.expect("they are let in");
        fleet.begin_round();
        fleet.register();
        fleet.watch();
        fleet.all_kept(PATIENCE).await.expect("all sessions are there");
        let (flooder, operator) =
            (Someone::new(&cluster, "flooder").await, Someone::new(&cluster, "operator").await);
        let (before, alive) = (leader(&cluster).await, fleet.counts());

        let (answers, mut flooding) = (Arc::<Mutex<Answers>>::default(), JoinSet::new());
        for index in 0..FLOODERS.0 {
            flooding.spawn(flood(flooder.apart(&cluster), index, answers.clone()));
        }
        let cluster = Arc::new(cluster);
        for _ in 0..FLOODERS.1 {
            flooding.spawn(connect(cluster.clone(), flooder.clone(), answers.clone()));
        }
        let (written, slowest, refused) = work(operator, now() + FLOOD).await;
        let meanwhile = fleet.counts() - alive;
        let memory: Vec<_> = cluster
            .members
            .iter()
            .filter_map(|member| Some(usage::memory_mb(member.process.as_ref()?.id()).1))
            .collect();
        let during = leader(&cluster).await;
        flooding.shutdown().await;

        let answers = std::mem::take(&mut *answers.lock().expect("no panic"));
        eprintln!(
            "the flood was answered {answers:?}; {written} writes of another, the slowest in {slowest:?}; {memory:?} MB"
        );
        eprintln!("the hosts: {meanwhile:?}");
        assert_eq!(during, before, "the leader and its term");
        assert_eq!((meanwhile.lost, meanwhile.registrations), (0, 0), "no session ends");
        assert!(meanwhile.keep_alives >= HOSTS as u64, "they go on: {meanwhile:?}");
        assert!(refused.is_empty() && written > 0, "{refused:?}");
        assert!(answers.by_status.get(&429).is_some_and(|refused| *refused > 0), "{answers:?}");
        assert_eq!(answers.told_when, answers.refused(), "each is told when to come again");
        assert!(memory.iter().all(|memory| *memory < MEMORY_MB), "{memory:?} MB, at most {MEMORY_MB}");
        let metrics = format!("http://{}:8480/metrics", cluster.members[0].address);
        let text = reqwest::get(metrics).await.expect("metrics").text().await.expect("a text");
        let counted = |line: &&str| {
            line.starts_with("meshd_api_refused_total{") && line.contains("reason=\"own_places\"")
        };
        assert!(text.lines().any(|line| counted(&line)), "{text}");
    }
}
