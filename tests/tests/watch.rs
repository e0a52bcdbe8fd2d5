//! Watches of real servers, held against what was really written: by lines, server-sent events and long polls, and those
//! of proxies. See `mesh_tests::exact` for the judges.

mod heavy {
    use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

    use mesh_tests::{
        cluster::Cluster,
        exact::{
            Entry, Fault, Journal, Scope, Truth, Write, check, proxy, proxy_stream,
            relay::{self, Plant},
            watcher::{self, Form, Plan},
            writer::{self, Writer},
        },
        scratch::Scratch,
        steady::now,
        stranger::{self, Stranger},
        wait::until,
    };
    use model::kind::Kind;
    use reqwest::Client;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpSocket, TcpStream},
        sync::watch,
        task::JoinSet,
    };
    use tokio_rustls::client::TlsStream;

    /// Nothing that is waited for takes as long.
    const PATIENCE: Duration = Duration::from_secs(60);
    const WRITERS: u64 = 4;
    /// Far more than the 100 that are kept, also where sockets take some MiB before anything stands still.
    const REVISIONS: u64 = 220;

    /// So many in CI, so many more with `--full`.
    fn count(ci: u64, full: u64) -> u64 {
        if std::env::var_os("MESH_FULL").is_some() { full } else { ci }
    }

    fn seed() -> u64 {
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
    }

    fn scope(kinds: &[Kind], namespace: Option<&str>) -> Scope {
        Scope { kinds: kinds.to_vec(), namespace: namespace.map(|name| name.parse().expect("a name")) }
    }

    /// A client with connections of its own.
    fn http(cacert: &Path) -> Client {
        let roots = std::fs::read(cacert).expect("the root certificate");
        let roots = reqwest::Certificate::from_pem_bundle(&roots).expect("certificates");
        Client::builder().tls_certs_only(roots).build().expect("a client")
    }

    /// Watchers and proxies under way, and what was written meanwhile.
    struct Run {
        watchers: JoinSet<anyhow::Result<Journal>>,
        done: watch::Sender<Option<u64>>,
        writes: Vec<Write>,
        /// Tells the values of one run on a cluster from those of others.
        number: u64,
    }

    /// What came of it.
    struct Seen {
        number: u64,
        writes: Vec<Write>,
        journals: Vec<Journal>,
        end: (u64, BTreeMap<model::object::Key, String>),
    }

    impl Run {
        /// The first on a cluster.
        async fn first(cluster: &Cluster) -> Self {
            let ground =
                writer::ground(&cluster.client(0).expect("a client")).await.expect("the ground is laid");
            Self { watchers: JoinSet::new(), done: watch::Sender::new(None), writes: vec![ground], number: 0 }
        }

        /// One after others, whose writes still stand.
        fn after(seen: &Seen) -> Self {
            let (writes, number) = (Truth::resolve(&seen.writes, &seen.journals).0.writes(), seen.number + 1);
            Self { watchers: JoinSet::new(), done: watch::Sender::new(None), writes, number }
        }

        fn writers(&self, cluster: &Cluster) -> Vec<Writer> {
            let clients =
                || (0..cluster.members.len()).map(|index| cluster.client(index).expect("a client")).collect();
            let after = self.writes.iter().map(Write::revision).filter(|revision| *revision < u64::MAX).max();
            let writer =
                |number| Writer::new(self.number * WRITERS + number, seed(), clients(), after.unwrap_or(0));
            (0..WRITERS).map(writer).collect()
        }

        fn watch(&mut self, plan: Plan) {
            self.watchers.spawn(watcher::watch(plan, self.done.subscribe()));
        }

        /// Writes with all writers at once, each so many times.
        async fn write(&mut self, writers: &mut Vec<Writer>, steps: u64) {
            let mut at_work = JoinSet::new();
            for mut writer in writers.drain(..) {
                at_work.spawn(async move {
                    for _ in 0..steps {
                        writer.step().await.expect("writes are taken");
                    }
                    writer
                });
            }
            *writers = at_work.join_all().await;
        }

        /// A last write that everybody sees; then all journals.
        async fn end(mut self, cluster: &Cluster, writers: Vec<Writer>) -> Seen {
            self.writes.extend(writers.into_iter().flat_map(|writer| writer.writes));
            let client = cluster.client(0).expect("a client");
            let value = format!("end of {}", self.number);
            let fence = until("the last write", PATIENCE, || writer::fence(&client, &value))
                .await
                .expect("it is taken");
            let end = fence.revision();
            self.writes.push(fence);
            self.done.send_replace(Some(end));
            let mut journals = Vec::new();
            while let Some(journal) = self.watchers.join_next().await {
                journals.push(journal.expect("no panic").expect("a journal"));
            }
            let present = proxy_stream::present(&client).await.expect("a list");
            Seen { number: self.number, writes: self.writes, journals, end: (end, present) }
        }
    }

    impl Seen {
        fn faults(&self, journals: &[Journal]) -> Vec<Fault> {
            check(&self.writes, journals, (self.end.0, &self.end.1))
        }

        /// Nothing is wrong with anything.
        #[track_caller]
        fn exact(&self) -> Truth {
            let faults = self.faults(&self.journals);
            let told: Vec<_> = faults.iter().take(20).map(ToString::to_string).collect();
            assert!(faults.is_empty(), "{} faults, seed {}:\n{}", faults.len(), seed(), told.join("\n"));
            let truth = Truth::resolve(&self.writes, &self.journals).0;
            let entries: usize = self.journals.iter().map(|journal| journal.entries.len()).sum();
            eprintln!(
                "{} watchers, {} entries, {} revisions of {} writes, seed {}: exact",
                self.journals.len(),
                entries,
                truth.len(),
                self.writes.len(),
                seed()
            );
            truth
        }
    }

    /// One watcher of each form and scope; every second one changes servers in the middle of what comes.
    fn plans(cluster: &Cluster) -> Vec<Plan> {
        let urls: Vec<_> = cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
        let both = [Kind::Service, Kind::HTTPRoute];
        let scopes = [
            scope(&both[..1], None),
            scope(&both, None),
            scope(&both[1..], Some("mesh-system")),
            scope(&both, Some("default")),
        ];
        let forms = [Form::Ndjson, Form::Sse, Form::Poll];
        let each = forms.iter().flat_map(|form| scopes.iter().map(move |scope| (*form, scope.clone())));
        let each = each.flat_map(|(form, scope)| [(form, scope.clone(), None), (form, scope, Some(17))]);
        let polls_one_kind = |form: &Form, scope: &Scope| *form != Form::Poll || scope.kinds.len() == 1;
        let plan = |(index, (form, scope, hops_after)): (usize, (Form, Scope, Option<usize>))| {
            let mut bases = urls.clone();
            bases.rotate_left(index % urls.len());
            Plan {
                watcher: format!("{form:?} {:?} {:?} {hops_after:?}", scope.kinds, scope.namespace),
                form,
                scope,
                bases,
                http: http(&cluster.cacert),
                token: cluster.token.clone(),
                from: None,
                hops_after,
            }
        };
        each.filter(|(form, scope, _)| polls_one_kind(form, scope)).enumerate().map(plan).collect()
    }

    #[tokio::test]
    async fn watches_of_all_forms_are_exact_across_a_killed_leader_and_changes_of_servers() {
        let scratch = Scratch::new("watch");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let host = Stranger::join(&cluster, "host-a", &["default/*"]).await.expect("a host");
        let host = Arc::new(host);
        let mut run = Run::first(&cluster).await;
        plans(&cluster).into_iter().for_each(|plan| run.watch(plan));
        let proxies: Vec<_> = [2, 7, usize::MAX]
            .map(|hops| proxy(&cluster, &host, hops, &run))
            .into_iter()
            .map(tokio::spawn)
            .collect();
        let mut writers = run.writers(&cluster);
        let steps = count(12, 300);
        run.write(&mut writers, steps).await;
        let leader = cluster.leader().await.expect("a leader");
        cluster.members[leader].kill();
        run.write(&mut writers, steps).await;
        cluster.run(leader).await.expect("it comes back");
        run.write(&mut writers, steps).await;
        let seen = run.end(&cluster, writers).await;
        let truth = seen.exact();
        for (index, proxy) in proxies.into_iter().enumerate() {
            let lines = proxy.await.expect("no panic").expect("a stream");
            let syncs = lines.iter().filter(|line| matches!(line, proxy::Line::Sync(_))).count();
            let faults =
                proxy::check(&format!("proxy {index}"), &truth, &lines, proxy_stream::concerns, seen.end.0);
            assert!(faults.is_empty(), "{faults:?}");
            eprintln!("proxy {index}: {} lines, {syncs} syncs: each as it stood", lines.len());
        }
        let seen = planted(&cluster, &seen).await;
        a_thousand(&cluster, &seen).await;
    }

    /// A proxy's stream, which changes servers after so many syncs.
    fn proxy(
        cluster: &Cluster,
        host: &Arc<Stranger>,
        hops_after: usize,
        run: &Run,
    ) -> impl Future<Output = anyhow::Result<Vec<proxy::Line>>> + use<> {
        let urls: Vec<_> = cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
        let subscribed: Vec<_> = writer::NAMESPACES
            .iter()
            .map(|namespace| format!("{namespace}/{}", writer::SUBSCRIBED))
            .collect();
        let (host, done) = (host.clone(), run.done.subscribe());
        let open = move |at: usize, from: Option<u64>| {
            let from = from.map_or_else(String::new, |from| format!("&from={from}"));
            let path = format!("/v1/proxy/watch?subscribe={}{from}", subscribed.join(","));
            host.get(&urls[at % urls.len()], &path).timeout(Duration::from_secs(3_600))
        };
        proxy_stream::follow(open, hops_after, done)
    }

    /// Faults between a server and a watcher are found; the same relay without a fault changes nothing.
    async fn planted(cluster: &Cluster, before: &Seen) -> Seen {
        let (mut run, from) = (Run::after(before), before.end.0);
        let plants = [Plant::Nothing, Plant::Drop, Plant::Double, Plant::Swap, Plant::Split, Plant::Bookmark];
        for plant in plants {
            let relay =
                relay::start(cluster.members[0].url(), http(&cluster.cacert), plant).await.expect("a relay");
            run.watch(Plan {
                watcher: format!("{plant:?}"),
                form: Form::Ndjson,
                scope: scope(&[Kind::Service, Kind::HTTPRoute], None),
                bases: vec![format!("http://{relay}")],
                http: Client::new(),
                token: cluster.token.clone(),
                from: Some(from),
                hops_after: None,
            });
        }
        let mut writers = run.writers(cluster);
        run.write(&mut writers, 6).await;
        let seen = run.end(cluster, writers).await;
        let honest = seen.journals.iter().find(|journal| journal.watcher == "Nothing").expect("the control");
        for journal in &seen.journals {
            let mut faults = seen.faults(&[honest.clone(), journal.clone()]);
            faults.retain(|fault| fault.watcher == journal.watcher);
            eprintln!(
                "planted {}: {:?}",
                journal.watcher,
                faults.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
            assert_eq!(faults.is_empty(), journal.watcher == "Nothing", "{}: {faults:?}", journal.watcher);
        }
        seen
    }

    /// A server that keeps few revisions, and a reader that stops reading while many come: it is cut off, and costs
    /// nothing but itself. Who watches something else is neither woken nor cut off, however much comes.
    #[tokio::test]
    async fn a_slow_reader_is_cut_off_and_nobody_else() {
        let scratch = Scratch::new("watch-slow");
        let mut cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        few_revisions(&mut cluster).await;
        let mut run = Run::first(&cluster).await;
        let plans: Vec<_> =
            plans(&cluster).into_iter().filter(|plan| plan.scope.namespace.is_some()).collect();
        let count = plans.len();
        plans.clone().into_iter().for_each(|plan| run.watch(plan));
        let mut slow = slow_reader(&cluster).await;
        let client = cluster.client(0).expect("a client");
        until("all watch", PATIENCE, || async {
            let open = metric(&cluster, "meshd_watches").await;
            if open > count as u64 { Ok(()) } else { Err(open) }
        })
        .await
        .expect("they do");
        let (memory, wakeups) = (memory_kib(&cluster), metric(&cluster, "meshd_watch_wakeups_total").await);
        run.writes.extend(writer::bulk(&client, REVISIONS).await.expect("it is written"));
        let (after, woken) =
            (memory_kib(&cluster), metric(&cluster, "meshd_watch_wakeups_total").await - wakeups);
        eprintln!(
            "{REVISIONS} revisions of 64 KiB beside a reader that stands still: {memory} KiB, then {after} KiB; {woken} wake-ups"
        );
        // The reader is woken while it still has room; each poll of the others may begin anew.
        assert!(woken <= REVISIONS, "{woken} wake-ups: others were woken for what they do not watch");
        assert!(after < memory + (128 << 10), "{memory} KiB, then {after} KiB");
        let rest = tokio::time::timeout(PATIENCE, to_the_end(&mut slow)).await.expect("it ends");
        assert!(rest.contains("\"type\":\"error\",\"status\":410,\"oldest\":"), "it is told");
        // Who comes back from long ago is told, and starts anew.
        run.watch(Plan { watcher: "from long ago".to_owned(), from: Some(1), ..plans[0].clone() });
        let mut writers = run.writers(&cluster);
        run.write(&mut writers, 5).await;
        let seen = run.end(&cluster, writers).await;
        seen.exact();
        for journal in &seen.journals {
            let gone = journal.entries.iter().any(|entry| matches!(entry, Entry::Gone(_)));
            assert_eq!(gone, journal.watcher == "from long ago", "{}", journal.watcher);
        }
    }

    async fn few_revisions(cluster: &mut Cluster) {
        cluster.members[0].kill();
        let config = &cluster.members[0].config;
        let text = std::fs::read_to_string(config).expect("its configuration");
        std::fs::write(config, text + "\n[registry]\nhistory_revisions = 100\n").expect("it can be written");
        cluster.run(0).await.expect("it comes up");
    }

    /// A watch of large objects with a small window, of which nobody reads.
    async fn slow_reader(cluster: &Cluster) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(128 << 10).expect("a small window");
        let door = (cluster.members[0].address, 8_443).into();
        let tcp = socket.connect(door).await.expect("a connection");
        let trust = stranger::bundle(cluster).await.expect("the bundle");
        let shaken = stranger::shake_over(tcp, &trust, svid::Expect::Meshd, b"http/1.1", None);
        let mut stream = shaken.await.expect("a handshake");
        let request = format!(
            "GET /v1/watch?kinds=Service HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\n\r\n",
            cluster.token
        );
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        stream
    }

    /// All that comes until the last chunk (RFC 9112 §7.1).
    async fn to_the_end(stream: &mut TlsStream<TcpStream>) -> String {
        let mut all = Vec::new();
        while !all.ends_with(b"\r\n0\r\n\r\n") {
            let read = stream.read_buf(&mut all).await.expect("the connection stands");
            assert!(read > 0, "it ends with a last chunk");
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The sum of a metric of the first server.
    async fn metric(cluster: &Cluster, name: &str) -> u64 {
        let url = format!("http://{}:8480/metrics", cluster.members[0].address);
        let text = reqwest::get(url).await.expect("metrics").text().await.expect("a text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn memory_kib(cluster: &Cluster) -> u64 {
        let process = cluster.members[0].process.as_ref().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        line.and_then(|number| number.parse().ok()).expect("its memory")
    }

    /// A restore begins another history: every watch of the old one ends with 410, and sees the restored state anew.
    #[tokio::test]
    async fn a_restore_ends_every_watch_and_the_next_one_sees_what_was_restored() {
        let scratch = Scratch::new("watch-restore");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let mut run = Run::first(&cluster).await;
        let mut writers = run.writers(&cluster);
        run.write(&mut writers, 5).await;
        let before = run.end(&cluster, writers).await;
        let file = scratch.path().join("snapshot").display().to_string();
        cluster.said(&["snapshot", "save", &file]).await.fine();
        let mut run = Run::after(&before);
        for plan in plans(&cluster) {
            // None leaves in the middle: an initial state is longer than its patience.
            run.watch(Plan { from: Some(before.end.0), hops_after: None, ..plan });
        }
        let mut writers = run.writers(&cluster);
        run.write(&mut writers, 3).await;
        cluster.said(&["snapshot", "restore", &file, "--yes"]).await.fine();
        let seen = run.end(&cluster, writers).await;
        for journal in &seen.journals {
            let gone = journal.entries.iter().position(|entry| matches!(entry, Entry::Gone(_)));
            let gone = gone.unwrap_or_else(|| panic!("{} was not told", journal.watcher));
            let mut known = known(&journal.entries[gone + 1..]);
            let mut want = seen.end.1.clone();
            want.retain(|key, _| journal.scope.holds(key));
            known.retain(|key, _| journal.scope.holds(key));
            assert_eq!(known, want, "{}", journal.watcher);
        }
        eprintln!(
            "{} watchers: each told of the other history, and of the restored state",
            seen.journals.len()
        );
    }

    /// What a watcher knows after these entries, the first of which opens a stream.
    fn known(entries: &[Entry]) -> BTreeMap<model::object::Key, String> {
        let mut known = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Event { change, .. } if change.put => {
                    known.insert(change.key.clone(), change.value.clone());
                }
                Entry::Event { change, .. } => drop(known.remove(&change.key)),
                Entry::List { objects, .. } => {
                    known = objects.iter().map(|(one, _)| (one.key.clone(), one.value.clone())).collect();
                }
                Entry::Opened(None) => known.clear(),
                _ => {}
            }
        }
        known
    }

    /// Many at once, over some connections; all are told of everything.
    async fn a_thousand(cluster: &Cluster, before: &Seen) {
        let (mut run, watchers, from) = (Run::after(before), count(1_000, 3_000), before.end.0);
        let forms = [Form::Ndjson, Form::Sse, Form::Ndjson, Form::Poll];
        let connections: Vec<_> = (0..watchers.div_ceil(100)).map(|_| http(&cluster.cacert)).collect();
        for index in 0..usize::try_from(watchers).expect("some thousands") {
            run.watch(Plan {
                watcher: format!("one of many {index}"),
                form: forms[index % forms.len()],
                scope: scope(&[Kind::Service], None),
                bases: vec![cluster.members[index / 100 % 3].url()],
                http: connections[index / 100].clone(),
                token: cluster.token.clone(),
                from: Some(from),
                hops_after: None,
            });
        }
        let began = now();
        let mut writers = run.writers(cluster);
        run.write(&mut writers, 3).await;
        let seen = run.end(cluster, writers).await;
        seen.exact();
        eprintln!(
            "{watchers} watchers at once: {:?} from the first write to the last word",
            now().duration_since(began)
        );
    }
}
