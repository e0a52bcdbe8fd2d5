//! Brings up the shop on a mesh, keeps it busy, and judges what was seen.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use mesh_tests::{
    binaries,
    cluster::Cluster,
    host::{Host, LocalService},
    loopback::free_port,
    plain::Plain,
    process::Process,
    wait,
};
use model::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    app::{clock, now_millis},
    faults::Faults,
    load::{self, Load, Seen},
    report::{Kill, Report},
    stats::Stats,
    table::{self, Table},
    weights::{self, Change},
};

/// The services of the shop, as an operator declares them.
const SERVICES: &str = "\
kind: Service
metadata: {namespace: default, name: web}
spec: {ports: [{port: 80, protocol: http}]}
---
kind: Service
metadata: {namespace: default, name: orders}
spec:
  ports: [{port: 80, protocol: http}]
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
kind: Service
metadata: {namespace: default, name: payments}
spec: {ports: [{port: 5432, protocol: tcp}]}
---
kind: Service
metadata: {namespace: default, name: inventory}
spec: {ports: [{port: 80, protocol: http}]}
";

/// Which host runs which instance: host, its address, service, version.
const INSTANCES: [(&str, u8, &str, &str); 8] = [
    ("host-a", 11, "web", "v1"),
    ("host-a", 11, "orders", "v1"),
    ("host-b", 12, "web", "v1"),
    ("host-b", 12, "orders", "v2"),
    ("host-c", 13, "payments", "v1"),
    ("host-c", 13, "inventory", "v1"),
    ("host-d", 14, "payments", "v1"),
    ("host-d", 14, "inventory", "v1"),
];
/// The host of the clients.
const CLIENTS: (&str, u8) = ("host-e", 15);
/// The local ports on which a host's services find their upstreams.
const UPSTREAMS: [(&str, u16); 4] =
    [("web", 9_000), ("orders", 9_001), ("payments", 9_002), ("inventory", 9_003)];

/// A running shop.
pub(crate) struct Shop {
    /// The control plane.
    pub(crate) cluster: Cluster,
    /// The hosts.
    pub(crate) hosts: Vec<Host>,
    /// The instances of the services.
    pub(crate) instances: Vec<Instance>,
    /// What was killed so far.
    pub(crate) kills: Vec<Kill>,
    folder: PathBuf,
    /// Calls per second that come in.
    rate: u32,
}

/// One process of a service.
pub(crate) struct Instance {
    /// The service.
    pub(crate) service: String,
    host: usize,
    version: String,
    port: u16,
    process: Option<Process>,
    /// One for each time that it was started.
    counts: Vec<Arc<Mutex<Stats>>>,
}

/// Runs the demo; whether all was well.
pub(crate) async fn run(limit: Option<Duration>, json: bool, rate: u32) -> anyhow::Result<bool> {
    let folder = tempfile::Builder::new().prefix("mesh-demo-").tempdir()?;
    let mut shop = Shop::open(folder.path(), rate).await?;
    let client = shop.client();
    load::first_answer(&client).await?;
    eprintln!(
        "\nThe API: {} (root certificate {})",
        shop.cluster.members[0].url(),
        shop.cluster.cacert.display()
    );
    let (load, started) = (Load::start(client, rate), clock());
    let mut changes = Vec::new();
    let leader_kills = shop.keep_busy(limit, !json, &load, &mut changes).await?;
    // Pace: the last change has its time to be seen; there is no event that could end it.
    tokio::time::sleep(Duration::from_millis(weights::SEEN_WITHIN_MILLIS)).await;
    let seen = load.stop().await;
    let mut report = shop.report(&seen, &changes).await?;
    report.leader_kills = leader_kills;
    for failure in seen.stats.failures.iter().chain(&shop.failures()).take(20) {
        eprintln!("failed: {failure:?}; kills: {:?}", shop.kills);
    }
    if !report.is_good() {
        let kept = folder.keep();
        eprintln!("not all was well; logs stand in {}", kept.display());
    }
    if json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        table::last(&report, clock().duration_since(started).as_secs_f64())
    }
    Ok(report.is_good())
}

/// Prints a command as it could be typed.
fn announce(command: &str) {
    let (bold, plain) = if std::io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    eprintln!("{bold}$ {command}{plain}");
}

impl Shop {
    async fn open(folder: &Path, rate: u32) -> anyhow::Result<Self> {
        let cluster = Cluster::start(folder, 3, announce).await?;
        let folder = folder.to_path_buf();
        let mut shop =
            Self { cluster, hosts: Vec::new(), instances: Vec::new(), kills: Vec::new(), folder, rate };
        shop.apply("services.yaml", SERVICES).await?;
        shop.apply("route.yaml", &weights::manifest(weights::share(0))).await?;
        let mut names: Vec<_> = INSTANCES.iter().map(|(host, n, ..)| (*host, *n)).collect();
        names.push(CLIENTS);
        names.dedup();
        for (host, n) in names {
            shop.open_host(host, n).await?;
        }
        Ok(shop)
    }

    async fn apply(&self, file: &str, manifest: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, manifest)?;
        let printed = self.cluster.meshctl(&["apply", "-f", &path.display().to_string()]).await?;
        eprint!("{printed}");
        Ok(())
    }

    async fn open_host(&mut self, name: &str, n: u8) -> anyhow::Result<()> {
        let mut services = Vec::new();
        let mut instances = Vec::new();
        for (_, _, service, version) in INSTANCES.iter().filter(|(host, ..)| *host == name) {
            let port = free_port();
            services.push(local_service(service, version, port));
            let (service, version, host) = ((*service).to_owned(), (*version).to_owned(), self.hosts.len());
            instances.push(Instance { service, host, version, port, process: None, counts: Vec::new() });
        }
        if name == CLIENTS.0 {
            services.push(local_service("clients", "v1", free_port()));
        }
        let host = Host::start(&self.cluster, &self.folder, name, n, &services, announce).await?;
        self.hosts.push(host);
        for mut instance in instances {
            instance.start(&self.hosts[instance.host], &self.folder)?;
            self.instances.push(instance);
        }
        Ok(())
    }

    fn client(&self) -> Plain {
        let address = self.cluster.network.address(CLIENTS.1);
        Plain::new((address, UPSTREAMS[0].1).into(), "web.default.mesh")
    }

    /// Changes weights and kills things until the time is over; how often the leader was killed.
    async fn keep_busy(
        &mut self,
        limit: Option<Duration>,
        live: bool,
        load: &Load,
        changes: &mut Vec<Change>,
    ) -> anyhow::Result<u64> {
        let clients: Vec<Client> = (0..self.cluster.members.len())
            .map(|index| self.cluster.client(index))
            .collect::<Result<_, _>>()?;
        let settle = Duration::from_millis(weights::SEEN_WITHIN_MILLIS);
        let busy = limit.map(|limit| limit.saturating_sub(settle));
        let end = async {
            match busy {
                // Pace: the run's length is what was asked for.
                Some(busy) => tokio::time::sleep(busy).await,
                None => std::future::pending().await,
            }
        };
        let mut faults = Faults::new(busy);
        let mut tick = tokio::time::interval(weights::CHANGE_EVERY);
        // A change that had to wait for a new leader is followed by none in haste: each has its second.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        let (mut table, mut printed) = (Table::default(), clock());
        tokio::pin!(end);
        let ended = tokio::signal::ctrl_c();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = &mut ended => break,
                _ = tick.tick() => {
                    changes.push(weights::change(&clients, weights::share(changes.len() + 1)).await?);
                    faults.step(self).await?;
                    if live {
                        let counted = self.counted(&load.seen.lock().expect("nothing panics while it is held").stats);
                        let seconds = clock().duration_since(printed).as_secs_f64();
                        table.live(&counted, seconds, &self.kills, changes, faults.leader_kills);
                        printed = clock();
                    }
                }
            }
        }
        faults.finish(self).await?;
        Ok(faults.leader_kills)
    }

    /// Everybody's counts, by service.
    fn counted(&self, clients: &Stats) -> Vec<(String, Stats)> {
        let mut all = BTreeMap::from([("clients".to_owned(), clients.clone())]);
        for instance in &self.instances {
            let sum = all.entry(instance.service.clone()).or_default();
            for stats in &instance.counts {
                sum.merge(&stats.lock().expect("nothing panics while it is held"));
            }
        }
        all.into_iter().collect()
    }

    fn failures(&self) -> Vec<crate::stats::Failure> {
        self.counted(&Stats::default()).into_iter().flat_map(|(_, stats)| stats.failures).collect()
    }

    async fn report(&self, seen: &Seen, changes: &[Change]) -> anyhow::Result<Report> {
        self.wait_for_counts().await?;
        let counted = self.counted(&seen.stats);
        let mut report = Report::new(&counted, &self.kills);
        report.mtls = self.all_mtls(&counted).await?;
        report.weight_changes = changes.len() as u64;
        let unseen = weights::unseen(changes, &seen.answers, self.rate);
        report.weight_changes_seen = (changes.len() - unseen.len()) as u64;
        for change in unseen {
            eprintln!("not seen in the split: {change:?}");
        }
        Ok(report)
    }

    /// Waits until every service has printed what it counted before the clients stopped.
    async fn wait_for_counts(&self) -> anyhow::Result<()> {
        let mut last = u64::MAX;
        let mut same = 0;
        wait::until("the counts stand still", Duration::from_secs(10), || {
            let now = self
                .counted(&Stats::default())
                .iter()
                .flat_map(|(_, stats)| stats.edges.values())
                .map(|edge| edge.requests)
                .sum();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            let result = if same >= 20 { Ok(()) } else { Err("they grow") };
            async move { result }
        })
        .await
    }

    /// Whether the proxies carried every call over mTLS, and the services saw every caller's identity.
    async fn all_mtls(&self, counted: &[(String, Stats)]) -> anyhow::Result<bool> {
        let mut carried = 0;
        for host in &self.hosts {
            let metrics = host.admin("/metrics").await?;
            for line in metrics.lines().filter(|line| {
                line.starts_with("mesh_requests_total{") || line.starts_with("mesh_tcp_connections_total{")
            }) {
                let value: f64 = line
                    .rsplit(' ')
                    .next()
                    .and_then(|value| value.parse().ok())
                    .context("a metric has a value")?;
                if value > 0.0 && !line.contains("mtls=\"true\"") {
                    eprintln!("{} carried calls without mTLS: {line}", host.name);
                    return Ok(false);
                }
                carried += value as u64;
            }
        }
        let named = |stats: &Stats| stats.callers.keys().all(|caller| caller.starts_with("URI=spiffe://"));
        Ok(carried > 0 && counted.iter().all(|(_, stats)| named(stats)))
    }

    /// Kills one process of a service with kill -9.
    pub(crate) fn kill_instance(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        let signalled = now_millis();
        if let Some(mut process) = instance.process.take() {
            process.kill();
        }
        self.kills.push(Kill { service: instance.service.clone(), signalled, gone: now_millis() });
    }

    /// Starts it again.
    pub(crate) fn restart_instance(&mut self, index: usize) -> anyhow::Result<()> {
        let instance = &mut self.instances[index];
        instance.start(&self.hosts[instance.host], &self.folder)
    }
}

impl Instance {
    fn start(&mut self, host: &Host, folder: &Path) -> anyhow::Result<()> {
        let name = format!("{}-{}", host.name, self.service);
        let mut command = std::process::Command::new(binaries::path("mesh-demo"));
        command.args([
            "app",
            "--name",
            &self.service,
            "--version",
            &self.version,
            "--listen",
            &format!("127.0.0.1:{}", self.port),
        ]);
        for (upstream, port, lines) in upstreams_of(&self.service) {
            let kind = if lines { "--lines" } else { "--http" };
            command.args([kind, &format!("{upstream}={}:{port}", host.address)]);
        }
        if self.service == "payments" {
            command.arg("--tcp");
        }
        let (process, stdout) = Process::spawn_piped(&name, folder, &mut command)?;
        self.process = Some(process);
        let counts = Arc::new(Mutex::new(Stats::default()));
        self.counts.push(counts.clone());
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(stats) = serde_json::from_str(&line) {
                    *counts.lock().expect("nothing panics while it is held") = stats;
                }
            }
        });
        Ok(())
    }
}

/// What a service calls: name, local port, whether it speaks lines.
fn upstreams_of(service: &str) -> Vec<(&'static str, u16, bool)> {
    let called: &[&str] = match service {
        "clients" => &["web"],
        "web" => &["orders"],
        "orders" => &["payments", "inventory"],
        _ => &[],
    };
    UPSTREAMS
        .iter()
        .filter(|(name, _)| called.contains(name))
        .map(|(name, port)| (*name, *port, *name == "payments"))
        .collect()
}

fn local_service(name: &str, version: &str, port: u16) -> LocalService {
    let lines = name == "payments";
    let check = match name {
        "clients" => None,
        "payments" => Some("tcp".to_owned()),
        _ => Some("/healthz".to_owned()),
    };
    LocalService {
        name: name.to_owned(),
        port,
        service_port: if lines { 5_432 } else { 80 },
        protocol: if lines { "tcp" } else { "http" }.to_owned(),
        version: Some(version.to_owned()),
        check,
        upstreams: upstreams_of(name).into_iter().map(|(name, port, _)| (name.to_owned(), port)).collect(),
    }
}
