//! A source of very many endpoints that changes all the time, by docs/discovery.md: what a server writes for a change is
//! bounded by the change, and what it holds stops growing.

mod heavy {
    use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

    use mesh_tests::{dev::Dev, elsewhere::PATIENCE, scratch::Scratch, wait::until};

    /// Endpoints of one service.
    const PER_SERVICE: usize = 10;
    /// The most bytes of the log for one change: twice what an endpoint has there.
    const LOG_BYTES_MAX: u64 = 600;
    /// The most bytes that are given to the system for one change, in all: the log, and the index, whose store writes
    /// neighbours again. Held over many changes; what the index is given is held in `registry/src/state/tests/growth.rs`.
    const WRITTEN_BYTES_MAX: u64 = 16_000;
    /// By so much a server may grow between the first third of the changes and the last, in MB: its history fills up.
    const GROWTH_MB: f64 = 48.0;

    /// How many endpoints there are, and how many become others in how many rounds.
    struct Load {
        endpoints: usize,
        changes: usize,
        rounds: usize,
    }

    const CI: Load = Load { endpoints: 2_000, changes: 25, rounds: 8 };
    const FULL: Load = Load { endpoints: 10_000, changes: 60, rounds: 360 };

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
                log: metrics["meshd_wal_written_bytes_total"],
                written: number(&of("io").expect("it runs"), "wchar:"),
                memory_mb: number(&of("status").expect("it runs"), "RssAnon:") as f64 / 1_024.0,
            }
        }

        /// Other endpoints each time, one in each service until all had their turn.
        async fn round(&mut self, round: usize, changes: usize) {
            let before = self.weight().await.changes;
            let services = self.ports.len() / PER_SERVICE;
            for change in round * changes..(round + 1) * changes {
                let at = change % services * PER_SERVICE + change / services % PER_SERVICE;
                self.ports[at] += 1;
            }
            self.list();
            self.counts(before + changes as u64).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_costs_what_it_changes_among_thousands_of_endpoints() {
        let full = std::env::var_os("MESH_FULL").is_some();
        let Load { endpoints, changes, rounds } = if full { FULL } else { CI };
        let mut source = Source::open(endpoints).await;
        // What the first listing left to do is done before it counts.
        source.round(0, changes).await;
        let (first, mut third) = (source.weight().await, None);
        for round in 1..=rounds {
            source.round(round, changes).await;
            if round == rounds / 3 {
                third = Some(source.weight().await);
            }
        }
        let (last, third) = (source.weight().await, third.expect("it was weighed"));
        let made = last.changes - first.changes;
        assert_eq!(made, (rounds * changes) as u64, "nothing else was written");
        let (log, written) = ((last.log - first.log) / made, (last.written - first.written) / made);
        println!(
            "{made} changes among {endpoints} endpoints: {log} bytes of log and {written} written for each; {:.0} MB, {:.0} after a third, {:.0} at last",
            first.memory_mb, third.memory_mb, last.memory_mb
        );
        assert!(log <= LOG_BYTES_MAX, "{log} bytes of log for each change");
        // On a busy machine the index writes the first listing only now: among few changes that would count as theirs.
        assert!(!full || written <= WRITTEN_BYTES_MAX, "{written} bytes written for each change");
        let growth = last.memory_mb - third.memory_mb;
        assert!(growth <= GROWTH_MB, "{growth} MB more: {third:?}, {last:?}");
    }
}
