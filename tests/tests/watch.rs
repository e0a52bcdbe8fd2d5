//! Watches of real servers, held against what was really written: by lines, server-sent events and long polls, and those
//! of proxies. See `mesh_tests::exact` for the judges.

mod heavy {
    use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

    use mesh_tests::{
        cluster::Cluster,
        exact::{
            Fault, Journal, Scope, Truth, Write, check, proxy, proxy_stream,
            relay::{self, Plant},
            watcher::{self, Form, Plan},
            writer::{self, Writer},
        },
        scratch::Scratch,
        steady::now,
        stranger::Stranger,
        wait::until,
    };
    use model::kind::Kind;
    use reqwest::Client;
    use tokio::{sync::watch, task::JoinSet};

    /// Nothing that is waited for takes as long.
    const PATIENCE: Duration = Duration::from_secs(60);
    const WRITERS: u64 = 4;

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
    }

    /// What came of it.
    struct Seen {
        writes: Vec<Write>,
        journals: Vec<Journal>,
        end: (u64, BTreeMap<model::object::Key, String>),
    }

    impl Run {
        fn new() -> Self {
            Self { watchers: JoinSet::new(), done: watch::Sender::new(None), writes: Vec::new() }
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
            let fence = until("the last write", PATIENCE, || writer::fence(&client, "end")).await.expect("it is taken");
            let end = fence.revision();
            self.writes.push(fence);
            self.done.send_replace(Some(end));
            let mut journals = Vec::new();
            while let Some(journal) = self.watchers.join_next().await {
                journals.push(journal.expect("no panic").expect("a journal"));
            }
            let present = proxy_stream::present(&client).await.expect("a list");
            Seen { writes: self.writes, journals, end: (end, present) }
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
            println!(
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
        let scopes = [scope(&both[..1], None), scope(&both, None), scope(&both[1..], Some("mesh-system")), scope(&both, Some("default"))];
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

    fn writers(cluster: &Cluster, after: u64) -> Vec<Writer> {
        let clients = || (0..cluster.members.len()).map(|index| cluster.client(index).expect("a client")).collect();
        (0..WRITERS).map(|number| Writer::new(number, seed(), clients(), after)).collect()
    }

    async fn ground(run: &mut Run, cluster: &Cluster) -> u64 {
        let ground = writer::ground(&cluster.client(0).expect("a client")).await.expect("the ground is laid");
        let revision = ground.revision();
        run.writes.push(ground);
        revision
    }

    #[tokio::test]
    async fn watches_of_all_forms_are_exact_across_a_killed_leader_and_changes_of_servers() {
        let scratch = Scratch::new("watch");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let host = Stranger::join(&cluster, "host-a", &["default/*"]).await.expect("a host");
        let host = Arc::new(host);
        let mut run = Run::new();
        let after = ground(&mut run, &cluster).await;
        plans(&cluster).into_iter().for_each(|plan| run.watch(plan));
        let proxies: Vec<_> = [2, 7, usize::MAX].map(|hops| proxy(&cluster, &host, hops, &run)).into_iter().map(tokio::spawn).collect();
        let mut writers = writers(&cluster, after);
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
            let faults = proxy::check(&format!("proxy {index}"), &truth, &lines, proxy_stream::concerns, seen.end.0);
            assert!(faults.is_empty(), "{faults:?}");
            println!("proxy {index}: {} lines, {syncs} syncs: each as it stood", lines.len());
        }
        planted(&cluster).await;
        a_thousand(&cluster).await;
    }

    /// A proxy's stream, which changes servers after so many syncs.
    fn proxy(
        cluster: &Cluster,
        host: &Arc<Stranger>,
        hops_after: usize,
        run: &Run,
    ) -> impl Future<Output = anyhow::Result<Vec<proxy::Line>>> + use<> {
        let urls: Vec<_> = cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
        let subscribed: Vec<_> =
            writer::NAMESPACES.iter().map(|namespace| format!("{namespace}/{}", writer::SUBSCRIBED)).collect();
        let (host, done) = (host.clone(), run.done.subscribe());
        let open = move |at: usize, from: Option<u64>| {
            let from = from.map_or_else(String::new, |from| format!("&from={from}"));
            let path = format!("/v1/proxy/watch?subscribe={}{from}", subscribed.join(","));
            host.get(&urls[at % urls.len()], &path).timeout(Duration::from_secs(3_600))
        };
        proxy_stream::follow(open, hops_after, done)
    }

    /// Faults between a server and a watcher are found; the same relay without a fault changes nothing.
    async fn planted(cluster: &Cluster) {
        let mut run = Run::new();
        let from = ground(&mut run, cluster).await;
        let plants = [Plant::Nothing, Plant::Drop, Plant::Double, Plant::Swap, Plant::Split, Plant::Bookmark];
        for plant in plants {
            let relay = relay::start(cluster.members[0].url(), http(&cluster.cacert), plant).await.expect("a relay");
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
        let mut writers = writers(cluster, from);
        run.write(&mut writers, 6).await;
        let seen = run.end(cluster, writers).await;
        for journal in &seen.journals {
            let faults = seen.faults(std::slice::from_ref(journal));
            println!("planted {}: {:?}", journal.watcher, faults.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(faults.is_empty(), journal.watcher == "Nothing", "{}: {faults:?}", journal.watcher);
        }
    }

    /// Many at once, over some connections; all are told of everything.
    async fn a_thousand(cluster: &Cluster) {
        let (mut run, watchers) = (Run::new(), count(1_000, 3_000));
        let from = ground(&mut run, cluster).await;
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
        let mut writers = writers(cluster, from);
        run.write(&mut writers, 3).await;
        let seen = run.end(cluster, writers).await;
        seen.exact();
        println!("{watchers} watchers at once: {:?} from the first write to the last word", now().duration_since(began));
    }
}
