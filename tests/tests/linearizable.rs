//! What reads and writes promise, held against real servers under faults: what clients saw must have been possible for
//! registers that change one operation at a time. And the checker against faults that are planted beside the servers.

mod heavy {
    use std::{fmt::Write as _, fs, path::Path, time::Duration};

    use mesh_tests::{
        cluster::Cluster,
        linear::{self, Call, Expect, Operation, Outcome},
        nemesis::{self, Fault, Nemesis, disk::Disk},
        netns::{self, Dropped, Field},
        register::Registers,
        scratch::Scratch,
        steady::now,
        wait::until,
        work::{Load, Servers, Work},
    };
    use model::read::Consistency;
    use rustix::process::Signal;
    use serde_json::Value;
    use tokio::{sync::mpsc, task::JoinSet};

    /// How long the cluster may take to do what it does by itself, on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Hosts of a field: five members, and one that comes for each that is removed, in a short run and in a full one.
    const HOSTS: (u8, u8) = (9, 40);
    const CLIENTS: u32 = 10;
    const KEYS: u32 = 6;
    /// Reads of each consistency that wait for a stopped leader.
    const READERS: usize = 8;

    /// How much is done: the count of a short run, or of a full one.
    fn full<T>(short: T, full: T) -> T {
        if std::env::var_os("MESH_FULL").is_some_and(|value| value == "1") { full } else { short }
    }

    struct Run {
        seed: u64,
        members: u8,
        faults: &'static [Fault],
        time: Duration,
    }

    /// Short runs with one seed each; full ones with many. `MESH_SEED` names one.
    fn runs(first: u64, members: u8, faults: &'static [Fault]) {
        let named = std::env::var("MESH_SEED").ok().and_then(|seed| seed.parse().ok());
        let seeds: Vec<u64> = named.map_or_else(|| (first..first + full(1, 10)).collect(), |seed| vec![seed]);
        let time = Duration::from_secs(full(15, 45));
        for seed in seeds {
            netns::inside(full(HOSTS.0, HOSTS.1), async move |field| {
                run(field, Run { seed, members, faults, time }).await;
            });
        }
    }

    async fn run(field: &Field, run: Run) {
        let scratch = Scratch::new("linear");
        let folder = scratch.path();
        let disks: Vec<_> = (1..=run.members)
            .filter(|_| run.faults.contains(&Fault::Fill))
            .map(|n| Disk::mount(folder, &format!("cp{n}")).expect("a disk"))
            .collect();
        let mut cluster = start(field, folder, &run).await;
        let servers = Servers::default();
        for (n, member) in (1..).zip(&cluster.members) {
            servers.come(n, member.url());
        }
        let load = Load { clients: CLIENTS, keys: KEYS, seed: run.seed };
        let work = Work::start(load, servers.clone(), &cluster.cacert, &cluster.token).expect("clients");
        let plan = nemesis::plan(run.seed, run.faults, run.time);
        save(folder, "plan.json", plan.iter());
        let mut nemesis = Nemesis::new(field, &mut cluster, servers, folder, &disks);
        let done = nemesis.carry_out(&plan).await;
        let told = std::mem::take(&mut nemesis.told);
        save(folder, "told.json", told.iter());
        done.expect("every member comes back");
        let history = work.stop(KEYS).await.expect("answers that the API promises");
        save(folder, "history.json", history.iter());
        converged(&cluster).await;
        judge(&run, &history, &told);
    }

    async fn start(field: &Field, folder: &Path, run: &Run) -> Cluster {
        let mut wrapper = field.wrapper();
        if run.faults.contains(&Fault::Clock) {
            wrapper.extend(nemesis::clocks(folder, full(HOSTS.0, HOSTS.1)).expect("faketime"));
        }
        let started = Cluster::start_on(field.network(), folder, run.members, wrapper, |_| {}).await;
        started.expect("the members come up")
    }

    fn judge(run: &Run, history: &[Operation], told: &[String]) {
        let Run { seed, members, .. } = run;
        let begun = now();
        match linear::check(history) {
            Ok(checked) => {
                let took = now().duration_since(begun);
                eprintln!(
                    "seed {seed}, {members} members, {} faults: {checked:?}, checked in {took:?}",
                    told.len()
                );
                assert!(checked.operations > 200, "hardly anything was done: {checked:?}");
            }
            Err(violation) => panic!("seed {seed}, {members} members: {violation}\n{}", told.join("\n")),
        }
    }

    fn save<T: serde::Serialize>(folder: &Path, name: &str, lines: impl Iterator<Item = T>) {
        let mut text = String::new();
        for line in lines {
            writeln!(text, "{}", serde_json::to_string(&line).expect("JSON")).expect("memory");
        }
        fs::write(folder.join(name), text).expect("the folder takes files");
    }

    /// All members come to show the same at one revision.
    async fn converged(cluster: &Cluster) {
        until("the members agree", PATIENCE, || async {
            let mut lists = Vec::new();
            for index in 0..cluster.members.len() {
                let client = cluster.client(index).map_err(|error| error.to_string())?;
                let list =
                    client.json::<Value>(reqwest::Method::GET, "/v1/namespaces?consistency=stale", None);
                lists.push(list.await.map_err(|error| error.to_string())?);
            }
            if lists.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err(format!("{lists:?}")) }
        })
        .await
        .expect("they do");
    }

    #[test]
    fn three_members_that_are_killed_stopped_and_cut_off_answer_as_one_register() {
        runs(100, 3, &[Fault::Kill, Fault::Pause, Fault::Isolate, Fault::Mute, Fault::Deaf]);
    }

    #[test]
    fn five_members_that_lose_packets_and_time_answer_as_one_register() {
        runs(200, 5, &[Fault::Loss, Fault::Narrow, Fault::Clock, Fault::Pause, Fault::Isolate]);
    }

    #[test]
    fn members_that_are_replaced_and_out_of_disk_answer_as_one_register() {
        runs(300, 3, &[Fault::Replace, Fault::Fill, Fault::Kill]);
    }

    /// Three members whose leader no other hears, nor it them; clients reach them all.
    struct Deposed {
        cluster: Cluster,
        registers: Registers,
        old: String,
        new: String,
    }

    impl Deposed {
        async fn start(field: &Field, folder: &Path) -> Self {
            let started = Cluster::start_on(field.network(), folder, 3, field.wrapper(), |_| {}).await;
            let cluster = started.expect("the members come up");
            let leader = cluster.leader().await.expect("a leader");
            let registers = Registers::new(&cluster.cacert, &cluster.token).expect("a client");
            let (old, new) = (cluster.members[leader].url(), cluster.members[(leader + 1) % 3].url());
            Self { cluster, registers, old, new }
        }

        fn cut(&self, field: &Field) {
            let host =
                |url: &str| url.trim_end_matches(":8443").rsplit('.').next().and_then(|n| n.parse().ok());
            let old: u8 = host(&self.old).expect("a number");
            let others = || (1..=3).filter(move |other| *other != old);
            let away = others().map(|to| Dropped { from: old, to, percent: 100 });
            let back = others().map(|from| Dropped { from, to: old, percent: 100 });
            field.drop_packets(&away.chain(back).collect::<Vec<_>>()).expect("rules");
        }
    }

    /// What one client does and is told, as a history: `recorded` is what it takes the call for.
    struct Diary<'a> {
        registers: &'a Registers,
        start: std::time::Instant,
        history: Vec<Operation>,
    }

    impl<'a> Diary<'a> {
        fn new(registers: &'a Registers) -> Self {
            Self { registers, start: now(), history: Vec::new() }
        }

        async fn call(&mut self, address: &str, call: Call, recorded: Call) -> Outcome {
            let began = self.moment();
            let outcome = self.registers.call(address, 1, call).await.expect("an answer of the API");
            self.enter(began, recorded, outcome);
            outcome
        }

        fn enter(&mut self, began: u64, call: Call, outcome: Outcome) {
            let ended = self.moment();
            let number = self.history.len() as u32;
            // Each of another server: what one of them shows in turn is not what is judged here.
            self.history.push(Operation {
                client: 0,
                server: number,
                boot: 0,
                key: 1,
                began,
                ended,
                call,
                outcome,
            });
        }

        fn moment(&self) -> u64 {
            now().duration_since(self.start).as_nanos() as u64
        }

        /// Writes until it is acknowledged.
        async fn write(&mut self, address: &str, value: u64) {
            let call = put(value);
            until("it is written", PATIENCE, || {
                let answered = self.registers.call(address, 1, call);
                let began = self.moment();
                async move {
                    match answered.await {
                        Ok(outcome @ Outcome::Written { .. }) => Ok((began, outcome)),
                        other => Err(format!("{other:?}")),
                    }
                }
            })
            .await
            .map(|(began, outcome)| self.enter(began, call, outcome))
            .expect("it is acknowledged");
        }
    }

    fn put(value: u64) -> Call {
        Call::Put { value, expect: Expect::Any }
    }

    fn get(consistency: Consistency) -> Call {
        Call::Get { consistency, least: None }
    }

    #[test]
    fn a_deposed_leader_s_own_view_taken_for_more_turns_the_checker_red() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("deposed");
            let deposed = Deposed::start(field, scratch.path()).await;
            let mut diary = Diary::new(&deposed.registers);
            diary.write(&deposed.old, 1).await;
            deposed.cut(field);
            diary.write(&deposed.new, 2).await;
            // What promises more than its own view, it refuses.
            for consistency in [Consistency::Linearizable, Consistency::Leased] {
                let refused = diary.call(&deposed.old, get(consistency), get(consistency)).await;
                assert_eq!(refused, Outcome::Refused, "{consistency}");
            }
            let stale = get(Consistency::Stale);
            let seen = diary.call(&deposed.old, stale, stale).await;
            assert!(matches!(seen, Outcome::Found { value: 1, .. }), "{seen:?}");
            linear::check(&diary.history).expect("a stale read may be old");
            for planted in [Consistency::Linearizable, Consistency::Leased] {
                let mut history = diary.history.clone();
                history.last_mut().expect("the read").call = get(planted);
                let violation = linear::check(&history).expect_err("it is no stale read any more");
                eprintln!("planted, taken for {planted}: {violation}");
                assert_eq!(violation.key, Some(1));
            }
            drop(deposed.cluster);
        });
    }

    #[test]
    fn an_acknowledged_write_that_never_came_through_turns_the_checker_red() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("swallowed");
            let deposed = Deposed::start(field, scratch.path()).await;
            let mut diary = Diary::new(&deposed.registers);
            let linearizable = get(Consistency::Linearizable);
            diary.write(&deposed.old, 1).await;
            let seen = diary.call(&deposed.new, linearizable, linearizable).await;
            let Outcome::Found { of, .. } = seen else { panic!("{seen:?}") };
            linear::check(&diary.history).expect("nothing is wrong yet");
            // A relay on the client's side that answers a write by itself.
            diary.enter(diary.moment(), put(2), Outcome::Written { revision: of + 1, created: false });
            diary.call(&deposed.new, linearizable, linearizable).await;
            let violation = linear::check(&diary.history).expect_err("a write is missing");
            eprintln!("planted: {violation}");
            // Though no revision gives it away.
            let mut history = diary.history.clone();
            let Some(Operation { outcome: Outcome::Found { of, .. }, .. }) = history.last_mut() else {
                panic!()
            };
            *of += 1;
            let violation = linear::check(&history).expect_err("a write is missing");
            eprintln!("planted, hidden: {violation}");
            assert_eq!((violation.key, violation.window.len()), (Some(1), 3), "{violation}");
        });
    }

    #[tokio::test]
    async fn without_a_majority_only_stale_reads_answer() {
        let scratch = Scratch::new("minority");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers come up");
        let get = ["get", "namespaces", "-o", "json"];
        let said = cluster.said_at(0, &[&get[..], &["--consistency", "leased"]].concat()).await.fine();
        let revision = serde_json::from_str::<Value>(&said).expect("JSON")["metadata"]["revision"].as_u64();
        let revision = revision.expect("a number");
        (1..3).for_each(|index| cluster.members[index].kill());
        let at = |least: u64| {
            let words = ["--consistency", "stale", "--min-revision"].map(str::to_owned);
            get.map(str::to_owned).into_iter().chain(words).chain([least.to_string()]).collect::<Vec<_>>()
        };
        let words = at(revision);
        let stale = cluster.said_at(0, &words.iter().map(String::as_str).collect::<Vec<_>>()).await.fine();
        assert!(stale.contains("mesh-system"), "{stale}");
        let words = at(revision + 1_000);
        let behind = cluster.said_at(0, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(behind.failed(1).contains("not yet"), "it says which revision there is");
        for consistency in ["linearizable", "leased"] {
            let refused = cluster.said_at(0, &[&get[..], &["--consistency", consistency]].concat()).await;
            let error = refused.failed(1);
            assert!(error.contains("no leader"), "{consistency}: {error}");
        }
    }

    /// What came of the reads of one kind.
    #[derive(Debug, Default)]
    struct Reads {
        fresh: u32,
        refused: u32,
        stale: u32,
    }

    impl Reads {
        fn count(&mut self, outcome: Outcome, newest: u64) {
            match outcome {
                Outcome::Found { value, .. } if value == newest => self.fresh += 1,
                Outcome::Found { .. } | Outcome::Nothing { .. } => self.stale += 1,
                _ => self.refused += 1,
            }
        }
    }

    /// Each round stops the leader (SIGSTOP) amid a stream of writes, writes through the next one, and lets the old one go
    /// on: reads that wait for it on a connection of old, or come at once, must not show what it last knew, though it
    /// still finds answers of its followers to what it sent before. Its own view does: that is the proof that there
    /// was something to see.
    #[tokio::test]
    async fn no_promising_read_is_stale_when_a_stopped_leader_goes_on() {
        let scratch = Scratch::new("stopped");
        let cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers come up");
        let registers = Registers::new(&cluster.cacert, &cluster.token).expect("a client");
        let mut reads: [Reads; 3] = Default::default();
        let rounds = full(50, 500);
        let started = now();
        for round in 1..=rounds {
            for (reads, outcomes) in reads.iter_mut().zip(stopped(&cluster, &registers, round).await) {
                outcomes.into_iter().for_each(|outcome| reads.count(outcome, 2 * round));
            }
        }
        let [linearizable, leased, stale] = reads;
        let took = now().duration_since(started);
        eprintln!("{rounds} rounds in {took:?}: {linearizable:?}, leased {leased:?}, its own view {stale:?}");
        assert_eq!((linearizable.stale, leased.stale), (0, 0));
        assert!(linearizable.fresh + leased.fresh > 0, "none of them was answered");
        assert!(stale.stale > 0, "the old leader never was behind: nothing was tried");
    }

    /// Clients that write other registers through one member, as fast as it answers, until they are dropped; several
    /// writes of each were acknowledged.
    async fn written_to(registers: &Registers, address: &str) -> JoinSet<()> {
        let mut writers = JoinSet::new();
        let (acknowledged, mut counted) = mpsc::channel(1);
        for key in 2..=KEYS {
            let (registers, address, acknowledged) =
                (registers.clone(), address.to_owned(), acknowledged.clone());
            writers.spawn(async move {
                for value in 0.. {
                    if let Ok(Outcome::Written { .. }) = registers.call(&address, key, put(value)).await {
                        let _ = acknowledged.send(()).await;
                    }
                }
            });
        }
        for _ in 0..5 * KEYS {
            counted.recv().await.expect("they write");
        }
        writers
    }

    /// One round: what the linearizable, leased and stale reads of the old leader answered.
    async fn stopped(cluster: &Cluster, registers: &Registers, round: u64) -> [Vec<Outcome>; 3] {
        let leader = cluster.leader().await.expect("a leader");
        let (old, new) = (cluster.members[leader].url(), cluster.members[(leader + 1) % 3].url());
        let mut diary = Diary::new(registers);
        diary.write(&old, 2 * round - 1).await;
        let _stream = written_to(registers, &old).await;
        let process = cluster.members[leader].process.as_ref().expect("it runs");
        process.signal(Signal::STOP);
        diary.write(&new, 2 * round).await;
        let read = |consistency| {
            let (registers, old) = (registers.clone(), old.clone());
            async move { registers.call(&old, 1, get(consistency)).await.expect("an answer of the API") }
        };
        let reads = [Consistency::Linearizable, Consistency::Leased, Consistency::Stale].map(|one| {
            let reads: Vec<_> = (0..READERS).map(|_| tokio::spawn(read(one))).collect();
            reads
        });
        if round.is_multiple_of(2) {
            // The requests are on their way while it stands still.
            tokio::task::yield_now().await;
        }
        process.signal(Signal::CONT);
        let [linearizable, leased, stale] = reads.map(futures_util::future::join_all);
        [linearizable.await, leased.await, stale.await]
            .map(|outcomes| outcomes.into_iter().map(|outcome| outcome.expect("no panic")).collect())
    }
}
