//! A source of very many endpoints that changes all the time, by docs/discovery.md: what a server writes for a change is
//! bounded by the change, and what it holds stops growing.

mod heavy {
    use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

    use mesh_tests::{dev::Dev, elsewhere::PATIENCE, scratch::Scratch, steady::now, wait::until};
    use tokio::time::{MissedTickBehavior, interval};

    /// Endpoints of one service.
    const PER_SERVICE: usize = 10;
    /// The most bytes of the log for one change: twice what an endpoint has there.
    const LOG_BYTES_MAX: u64 = 600;
    /// The most bytes that are given to the system for one change, in all: the log, and the index, whose store writes
    /// neighbours again. Held over many changes; what the index is given is held in `registry/src/state/tests/growth.rs`.
    const WRITTEN_BYTES_MAX: u64 = 16_000;
    /// By so much a server may grow between the first third of the changes and the last, in MB: its history fills up.
    const GROWTH_MB: f64 = 48.0;

    /// The file is replaced this often, whether the server has taken it up or not: what it passes over stands in the next.
    const BEAT: Duration = Duration::from_millis(200);
    /// Endpoints that are others in the next file: a hundred a second.
    const CHANGES: usize = 20;
    /// Of a hundred changes so many are written when the last file is there: the server lags by one uptake, whatever that takes.
    const CARRIED_PERCENT: u64 = 95;

    /// How many endpoints there are, and how many files. None becomes another twice within `endpoints / CHANGES` files.
    struct Load {
        endpoints: usize,
        files: usize,
    }

    const CI: Load = Load { endpoints: 2_000, files: 15 };
    const FULL: Load = Load { endpoints: 10_000, files: 1_500 };

    struct Source {
        dev: Dev,
        scratch: Scratch,
        file: PathBuf,
        ports: Vec<u16>,
    }

    /// What was counted up to a moment.
    #[derive(Debug, Clone, Copy)]
    struct Weight {
        changes: u64,
        revision: u64,
        log: u64,
        written: u64,
        memory_mb: f64,
    }

    /// The number behind a name in the system's own words about a process.
    fn number(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is said");
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    }

    impl Source {
        async fn open(endpoints: usize) -> Self {
            let scratch = Scratch::new("growth");
            let dev = Dev::start(scratch.path()).await.expect("a server");
            let source =
                Self { dev, file: scratch.path().join("hosts.yaml"), scratch, ports: vec![8_000; endpoints] };
            source.list();
            let manifest = format!(
                "{{kind: DiscoverySource, metadata: {{name: many}}, spec: {{type: File, file: {{path: {:?}}}}}}}",
                source.file
            );
            let manifest = source.scratch.write("source.yaml", manifest).display().to_string();
            source.dev.meshctl(&["apply", "-f", &manifest]).fine();
            source.counts((endpoints + endpoints / PER_SERVICE) as u64).await;
            source
        }

        /// Writes the file anew, as a whole.
        fn list(&self) {
            let mut text = "services:\n".to_owned();
            for (service, ports) in self.ports.chunks(PER_SERVICE).enumerate() {
                let _ = writeln!(text, "- name: service-{service}\n  ports: [{{port: 80}}]\n  endpoints:");
                for (number, port) in ports.iter().enumerate() {
                    let address = format!("10.{}.{}.{number}", service / 250, service % 250);
                    let _ = writeln!(text, "  - {{id: i{number}, address: {address}, targetPort: {port}}}");
                }
            }
            let next = self.scratch.write("next.yaml", text);
            std::fs::rename(next, &self.file).expect("renamed");
        }

        /// Waits until so many changes were written.
        async fn counts(&self, changes: u64) {
            until(&format!("{changes} changes are written"), PATIENCE, || async {
                let metrics = self.metrics().await.map_err(|error| error.to_string())?;
                let written = metrics.get("meshd_discovery_changes_total").copied().unwrap_or(0);
                if written >= changes { Ok(()) } else { Err(written.to_string()) }
            })
            .await
            .expect("in time");
        }

        /// By name, without labels.
        async fn metrics(&self) -> anyhow::Result<BTreeMap<String, u64>> {
            let log = self.dev.process.log();
            let at = log.lines().find_map(|line| line.strip_prefix("metrics: ")).unwrap_or_default();
            let text = reqwest::get(at).await?.text().await?;
            let line = |line: &str| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.split('{').next()?.to_owned(), value.parse::<f64>().ok()? as u64))
            };
            Ok(text.lines().filter_map(line).collect())
        }

        async fn weight(&self) -> Weight {
            let metrics = self.metrics().await.expect("metrics");
            let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.dev.process.id()));
            Weight {
                changes: metrics["meshd_discovery_changes_total"],
                revision: metrics["meshd_revision"],
                log: metrics["meshd_wal_written_bytes_total"],
                written: number(&of("io").expect("it runs"), "wchar:"),
                memory_mb: number(&of("status").expect("it runs"), "RssAnon:") as f64 / 1_024.0,
            }
        }

        /// Replaces the file with its `number`th: other endpoints each time, one in each service until all had their turn.
        fn next(&mut self, number: usize) {
            let services = self.ports.len() / PER_SERVICE;
            for change in number * CHANGES..(number + 1) * CHANGES {
                let at = change % services * PER_SERVICE + change / services % PER_SERVICE;
                self.ports[at] += 1;
            }
            self.list();
        }

        /// So many files by the clock, whatever the server makes of them; what was counted after the first third, and at the
        /// moment of the last.
        async fn drive(&mut self, files: usize) -> (Weight, Weight) {
            let mut beat = interval(BEAT);
            // A file that came late is followed by the next one at once: the rate is the asked one all the same.
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut third = None;
            for number in 1..=files {
                // Pace: the rate that is asked.
                beat.tick().await;
                self.next(number);
                if number == files / 3 {
                    third = Some(self.weight().await);
                }
            }
            beat.tick().await;
            (third.expect("it was weighed"), self.weight().await)
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_costs_what_it_changes_among_thousands_of_endpoints() {
        let full = std::env::var_os("MESH_FULL").is_some();
        let Load { endpoints, files } = if full { FULL } else { CI };
        let mut source = Source::open(endpoints).await;
        // What the first listing left to do is done before it counts.
        source.next(0);
        source.counts((endpoints + endpoints / PER_SERVICE + CHANGES) as u64).await;
        let first = source.weight().await;
        let began = now();
        let (third, driven) = source.drive(files).await;
        let seconds = (now() - began).as_secs_f64();
        let asked = (files * CHANGES) as u64;
        source.counts(first.changes + asked).await;
        let last = source.weight().await;
        assert_eq!(last.changes - first.changes, asked, "nothing else was written");
        let carried = driven.changes - first.changes;
        let (log, written) = ((last.log - first.log) / asked, (last.written - first.written) / asked);
        println!(
            "{asked} changes among {endpoints} endpoints, {:.0} a second, in {files} files: {carried} were written when the last file came, {:.1} a second, and all after it; {files} files became {} revisions; {log} bytes of log and {written} written for each change; {:.0} MB, {:.0} after a third, {:.0} at last",
            asked as f64 / seconds,
            carried as f64 / seconds,
            last.revision - first.revision,
            first.memory_mb,
            third.memory_mb,
            last.memory_mb
        );
        assert!(log <= LOG_BYTES_MAX, "{log} bytes of log for each change");
        // On a busy machine the index writes the first listing only now: among few changes that would count as theirs.
        assert!(!full || written <= WRITTEN_BYTES_MAX, "{written} bytes written for each change");
        // Among few, those of one uptake are many.
        assert!(
            !full || carried * 100 >= asked * CARRIED_PERCENT,
            "{carried} of {asked} changes were carried"
        );
        let growth = last.memory_mb - third.memory_mb;
        assert!(growth <= GROWTH_MB, "{growth} MB more: {third:?}, {last:?}");
    }
}
