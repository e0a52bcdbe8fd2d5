//! The pair of proxies beside Envoy, HAProxy and nginx: load → A → mTLS → B → application. Both proxies of a pair run
//! with one thread on the first core; load and application have the other one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use mesh_tests::{
    cluster::Cluster,
    host::{Host, LocalService},
    loopback::free_port,
    process::{Process, run as run_command},
    wait,
};

use crate::{
    certificates::Certificates,
    peers::{self, Ports, Side},
    results::{Comparison, Rounds, alone, compare},
    usage,
};

/// The answer of the application for large bodies, in bytes.
const BIG_BYTES: usize = 10 << 20;
/// The core of the proxies, and that of load and application.
const CORES: (&str, &str) = ("0", "1");

mod steady;

/// A pair of proxies that carries traffic.
struct Pair {
    name: &'static str,
    http: String,
    tcp: String,
    pids: Vec<u32>,
    /// Held until the end.
    _processes: Vec<Process>,
}

/// What is measured of a pair.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    load: Load,
    /// Whether the pair's TCP listener takes it.
    tcp: bool,
}

#[derive(Debug, Clone, Copy)]
enum Load {
    /// 64 kept connections, as fast as it goes, 1 KB answers.
    Closed,
    /// 1,000 requests per second over 16 connections.
    Steady,
    /// 4 connections, 10 MB answers.
    Big,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "HTTP/1.1, 64 connections", load: Load::Closed, tcp: false },
    Scenario { name: "HTTP/1.1, 1,000 requests/s", load: Load::Steady, tcp: false },
    Scenario { name: "10 MB bodies", load: Load::Big, tcp: false },
    Scenario { name: "TCP, 64 connections", load: Load::Closed, tcp: true },
];

/// What one measurement gave.
struct Measured {
    per_second: f64,
    cpu_micros: f64,
}

/// Runs all scenarios, interleaved, and compares.
pub(crate) async fn run(rounds: u32, seconds: u64) -> anyhow::Result<Vec<Comparison>> {
    let folder = tempfile::Builder::new().prefix("mesh-bench-").tempdir()?;
    let bench = Bench::new(folder.path())?;
    let _application = bench.start_application().await?;
    let pairs = vec![
        bench.ours().await?,
        bench.envoy().await?,
        bench
            .start("haproxy", |side, ports| {
                (haproxy_command(&bench, side), peers::haproxy(side, ports, &bench.certificates))
            })
            .await?,
        bench
            .start("nginx", |side, ports| {
                (nginx_command(&bench, side), peers::nginx(side, ports, &bench.certificates, &bench.text()))
            })
            .await?,
    ];
    let mut figures: BTreeMap<(&str, &str, &str), Rounds> = BTreeMap::new();
    for pair in &pairs {
        figures
            .entry((pair.name, "idle", "memory of the pair"))
            .or_default()
            .0
            .push(usage::memory_mb(&pair.pids));
    }
    for round in 1..=rounds {
        for scenario in SCENARIOS {
            for pair in &pairs {
                eprintln!("round {round}: {} · {}", scenario.name, pair.name);
                let measured = measure(pair, scenario, seconds)
                    .await
                    .with_context(|| format!("{} · {}", scenario.name, pair.name))?;
                let mut keep =
                    |what, value| figures.entry((pair.name, scenario.name, what)).or_default().0.push(value);
                keep("per second", measured.per_second);
                keep("CPU", measured.cpu_micros);
            }
        }
    }
    Ok(compare_all(&figures))
}

fn compare_all(figures: &BTreeMap<(&str, &str, &str), Rounds>) -> Vec<Comparison> {
    let mut results = Vec::new();
    for ((name, scenario, what), ours) in figures.iter().filter(|((name, ..), _)| *name == "mesh") {
        let unit = match (*scenario, *what) {
            (_, "memory of the pair") => "MB",
            ("10 MB bodies", "per second") => "bodies/s",
            (_, "CPU") => "µs/request",
            _ => "requests/s",
        };
        let title = format!("{scenario}: {what}");
        let peers = figures.iter().filter(|((other, s, w), _)| other != name && s == scenario && w == what);
        let before = results.len();
        results.extend(peers.map(|((peer, ..), theirs)| compare(&title, unit, ours, peer, theirs)));
        if results.len() == before {
            results.push(alone(&title, unit, ours));
        }
    }
    results
}

async fn measure(pair: &Pair, scenario: Scenario, seconds: u64) -> anyhow::Result<Measured> {
    let address = if scenario.tcp { &pair.tcp } else { &pair.http };
    load(scenario.load, address, 1).await?;
    let before = usage::cpu(&pair.pids);
    let requests = load(scenario.load, address, seconds).await?;
    let used = usage::cpu(&pair.pids).saturating_sub(before);
    if requests == 0.0 {
        bail!("no request went through");
    }
    Ok(Measured { per_second: requests / seconds as f64, cpu_micros: used.as_secs_f64() * 1e6 / requests })
}

/// Requests that went through.
async fn load(load: Load, address: &str, seconds: u64) -> anyhow::Result<f64> {
    let (connections, path) = match load {
        Load::Steady => return steady::run(address, Duration::from_secs(seconds)).await,
        Load::Closed => ("-c64", ""),
        Load::Big => ("-c4", "big"),
    };
    let mut command = tokio::process::Command::new("taskset");
    let (length, url) = (format!("-d{seconds}s"), format!("http://{address}/{path}"));
    command.args(["-c", CORES.1, "wrk", "-t1", connections, &length, &url]);
    wrk_requests(&run_command(&mut command).await?)
}

fn wrk_requests(printed: &str) -> anyhow::Result<f64> {
    if let Some(bad) = printed.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
    {
        bail!("wrk saw {}", bad.trim());
    }
    let line = printed.lines().find(|line| line.contains(" requests in ")).context("wrk printed no count")?;
    Ok(line.split_whitespace().next().context("an empty line")?.parse()?)
}

/// What all pairs share.
struct Bench {
    folder: PathBuf,
    certificates: Certificates,
    app: u16,
}

impl Bench {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let certificates =
            Certificates::make(&folder.join("certificates"), &["a", "b"], &["b.mesh.test".to_owned()])?;
        std::fs::write(folder.join("big.bin"), vec![b'x'; BIG_BYTES])?;
        Ok(Self { folder: folder.to_path_buf(), certificates, app: free_port() })
    }

    fn text(&self) -> String {
        self.folder.display().to_string()
    }

    fn ports(&self) -> Ports {
        Ports { a: free_port(), b: free_port(), a_tcp: free_port(), b_tcp: free_port(), app: self.app }
    }

    async fn start_application(&self) -> anyhow::Result<Process> {
        let ports = Ports { a: 0, b: 0, a_tcp: 0, b_tcp: 0, app: self.app };
        let config = self.folder.join("app.conf");
        std::fs::write(&config, peers::application(ports, &self.text()))?;
        let mut command = pinned(CORES.1, "nginx");
        let process =
            Process::spawn("app", &self.folder, command.arg("-p").arg(&self.folder).arg("-c").arg(&config))?;
        listening(&format!("127.0.0.1:{}", self.app)).await?;
        Ok(process)
    }

    /// Our pair: two hosts of a real mesh, joined, with everything on.
    async fn ours(&self) -> anyhow::Result<Pair> {
        let cluster = Cluster::start(&self.folder, 1, |_| ()).await?;
        let service = |name: &str, protocol: &str, service_port, upstreams| LocalService {
            name: name.to_owned(),
            port: self.app,
            service_port,
            protocol: protocol.to_owned(),
            version: None,
            check: None,
            upstreams,
        };
        let app = [service("app", "http", 80, Vec::new()), service("bytes", "tcp", 81, Vec::new())];
        let b = Host::start(&cluster, &self.folder, "host-b", 12, &app, |_| ()).await?;
        let upstreams = vec![("app".to_owned(), 9_000), ("bytes".to_owned(), 9_001)];
        let a = Host::start(
            &cluster,
            &self.folder,
            "host-a",
            11,
            &[service("load", "http", 80, upstreams)],
            |_| (),
        )
        .await?;
        println!(
            "mesh A:\n{}\nmesh B:\n{}",
            std::fs::read_to_string(a.config())?,
            std::fs::read_to_string(b.config())?
        );
        let (http, tcp) = (format!("{}:9000", a.address), format!("{}:9001", a.address));
        let mut processes: Vec<_> = [a.proxy, b.proxy].into_iter().flatten().collect();
        let pids: Vec<_> = processes.iter().map(Process::id).collect();
        for pid in &pids {
            run_command(tokio::process::Command::new("taskset").args([
                "-a",
                "-c",
                "-p",
                CORES.0,
                &pid.to_string(),
            ]))
            .await?;
        }
        processes.extend(cluster.members.into_iter().filter_map(|member| member.process));
        answering(&http).await?;
        answering(&tcp).await?;
        Ok(Pair { name: "mesh", http, tcp, pids, _processes: processes })
    }

    async fn envoy(&self) -> anyhow::Result<Pair> {
        let program = std::env::var("MESH_VENV")
            .map(PathBuf::from)
            .context("MESH_VENV names no folder: use `cargo xtask bench proxy`")?
            .join("bin/envoy");
        self.start("envoy", |side, ports| {
            let mut command = pinned(CORES.0, &program.display().to_string());
            let id = if side == Side::A { "71" } else { "72" };
            command
                .args(["--concurrency", "1", "--base-id", id, "-l", "error", "--disable-hot-restart", "-c"])
                .arg(self.config("envoy", side));
            (command, peers::envoy(side, ports, &self.certificates, &self.text()))
        })
        .await
    }

    fn config(&self, peer: &str, side: Side) -> PathBuf {
        // Envoy knows what a file holds by its ending.
        let ending = if peer == "envoy" { "json" } else { "conf" };
        self.folder.join(format!("{peer}-{}.{ending}", side.name()))
    }

    async fn start(
        &self,
        name: &'static str,
        make: impl Fn(Side, Ports) -> (Command, String),
    ) -> anyhow::Result<Pair> {
        let ports = self.ports();
        let mut processes = Vec::new();
        for side in [Side::B, Side::A] {
            let (mut command, config) = make(side, ports);
            println!("{name} {}:\n{config}", side.name().to_uppercase());
            std::fs::write(self.config(name, side), config)?;
            processes.push(Process::spawn(&format!("{name}-{}", side.name()), &self.folder, &mut command)?);
        }
        let (http, tcp) = (format!("127.0.0.1:{}", ports.a), format!("127.0.0.1:{}", ports.a_tcp));
        answering(&http).await.with_context(|| processes.iter().map(Process::log).collect::<String>())?;
        answering(&tcp).await?;
        Ok(Pair { name, http, tcp, pids: processes.iter().map(Process::id).collect(), _processes: processes })
    }
}

fn haproxy_command(bench: &Bench, side: Side) -> Command {
    let mut command = pinned(CORES.0, "haproxy");
    command.args(["-db", "-f"]).arg(bench.config("haproxy", side));
    command
}

fn nginx_command(bench: &Bench, side: Side) -> Command {
    let mut command = pinned(CORES.0, "nginx");
    command.arg("-p").arg(&bench.folder).arg("-c").arg(bench.config("nginx", side));
    command
}

fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

async fn listening(address: &str) -> anyhow::Result<()> {
    wait::until(&format!("{address} listens"), Duration::from_secs(10), || {
        tokio::net::TcpStream::connect(address)
    })
    .await
    .map(drop)
}

async fn answering(address: &str) -> anyhow::Result<()> {
    let url = format!("http://{address}/");
    wait::until(&format!("{url} answers"), Duration::from_secs(20), || async {
        reqwest::get(&url).await?.error_for_status()
    })
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_load_are_not_counted_as_speed() {
        let wrk = "Running 4s test\n  40 requests in 4.00s, 1MB read\n";
        assert_eq!(wrk_requests(wrk).expect("good"), 40.0);
        assert!(wrk_requests(&format!("{wrk}  Non-2xx or 3xx responses: 3\n")).is_err());
    }
}
