//! The pair of proxies beside Envoy, HAProxy and nginx: load → A → mTLS → B → application. Both proxies of a pair run
//! with one thread on the first core; load and application have the other one.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use mesh_tests::process::run as run_command;

use crate::{
    results::{Comparison, Goal, Rounds, alone, compare},
    usage,
};

mod connect;
mod goals;
mod grpc;
mod idle;
mod pairs;
mod pinned;
mod steady;

use pairs::{Bench, Pair};
use pinned::on_core;

/// The core of the proxies, and that of load and application.
const CORES: (&str, &str) = ("0", "1");
/// The second of them, as a number.
const LOAD_CORE: usize = 1;

/// What is measured of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// 64 kept connections, as fast as it goes, 1 KB answers.
    Closed,
    /// 1,000 requests per second over 16 connections.
    Steady,
    /// 4 connections, 10 MB answers.
    Big,
    /// 64 kept connections through the listener for TCP.
    Tcp,
    /// Connections of TCP, one after the other.
    NewTcp,
    /// Unary calls, as fast as it goes.
    Grpc,
}

/// In the order in which they run, with their names.
const SCENARIOS: [(&str, Load); 6] = [
    (CLOSED, Load::Closed),
    (STEADY, Load::Steady),
    (BIG, Load::Big),
    (TCP, Load::Tcp),
    (NEW_TCP, Load::NewTcp),
    (GRPC, Load::Grpc),
];
const CLOSED: &str = "HTTP/1.1, 64 connections";
const STEADY: &str = "HTTP/1.1, 1,000 requests/s";
const BIG: &str = "10 MB bodies";
const TCP: &str = "TCP, 64 connections";
const NEW_TCP: &str = "new TCP connections";
const GRPC: &str = "gRPC, unary";

/// What a pair adds to the time that the application takes without it.
const ADDED: &str = "p50 added to direct";
const IDLE_MEMORY: &str = "memory of the larger one";

/// The figures of all rounds, by pair, scenario and what was measured.
type Figures = BTreeMap<(&'static str, &'static str, &'static str), Rounds>;

/// What one measurement gave.
struct Measured {
    requests: f64,
    /// In µs, where the load does not go as fast as it can.
    p50: Option<f64>,
}

/// Runs all scenarios, interleaved, and compares.
pub(crate) async fn run(rounds: u32, seconds: u64) -> anyhow::Result<Vec<Comparison>> {
    let folder = tempfile::Builder::new().prefix("mesh-bench-").tempdir()?;
    let bench = Bench::new(folder.path())?;
    let _applications = bench.start_applications().await?;
    let pairs = bench.pairs().await?;
    let mut figures = Figures::new();
    at_rest(&pairs, &mut figures).await?;
    for round in 1..=rounds {
        let direct = steadily(&bench.direct(), seconds).await?.p50;
        for (name, load) in SCENARIOS {
            for pair in &pairs {
                eprintln!("round {round}: {name} · {}", pair.name);
                let measured = measure(&bench, pair, load, seconds).await;
                let measured = measured.with_context(|| format!("{name} · {}", pair.name))?;
                let Some((measured, cpu)) = measured else { continue };
                let mut keep = |what, value| keep(&mut figures, (pair.name, name, what), value);
                keep("per second", measured.requests / seconds as f64);
                keep("CPU", cpu.as_secs_f64() * 1e6 / measured.requests);
                if let Some((p50, direct)) = measured.p50.zip(direct) {
                    keep(ADDED, p50 - direct);
                }
            }
        }
    }
    let mut results = compare_all(&figures);
    eprintln!("{} idle connections · mesh", idle::MANY);
    let held = idle::still_there(&pairs[0].http).await?;
    let held = alone("10,000 idle HTTP connections: answer again", "", &Rounds(vec![held]));
    results.push(held.with_goal(Goal::AtLeast(idle::MANY as f64)));
    Ok(results)
}

fn keep(figures: &mut Figures, row: (&'static str, &'static str, &'static str), value: f64) {
    figures.entry(row).or_default().0.push(value);
}

/// What the proxies hold before there is any load, and for connections that only wait.
async fn at_rest(pairs: &[Pair], figures: &mut Figures) -> anyhow::Result<()> {
    for pair in pairs {
        let each = pair.pids.iter().map(|pid| usage::memory_mb(&[*pid]));
        keep(figures, (pair.name, "idle", IDLE_MEMORY), each.fold(0.0, f64::max));
        keep(figures, (pair.name, "idle", "memory of the pair"), usage::memory_mb(&pair.pids));
    }
    for (scenario, tcp) in [("1,000 idle HTTP connections", false), ("1,000 idle TCP connections", true)] {
        for pair in pairs {
            eprintln!("{scenario} · {}", pair.name);
            keep(figures, (pair.name, scenario, "memory of each"), idle::cost_kb(pair, tcp).await?);
        }
    }
    Ok(())
}

fn compare_all(figures: &Figures) -> Vec<Comparison> {
    let mut results = Vec::new();
    for ((name, scenario, what), ours) in figures.iter().filter(|((name, ..), _)| *name == "mesh") {
        let unit = unit(scenario, what);
        let title = format!("{scenario}: {what}");
        if let Some(goal) = goals::own(scenario, what) {
            results.push(alone(&title, unit, ours).with_goal(goal));
        }
        let peers = figures.iter().filter(|((other, s, w), _)| other != name && s == scenario && w == what);
        results.extend(peers.map(|((peer, ..), theirs)| {
            let row = compare(&title, unit, ours, peer, theirs);
            match goals::aim((scenario, what, peer)) {
                Some(aim) => row.with_least(aim.goal, aim.least),
                None => row,
            }
        }));
    }
    results
}

fn unit(scenario: &str, what: &str) -> &'static str {
    match (scenario, what) {
        (_, "memory of each") => "kB",
        ("idle", _) => "MB",
        (_, ADDED) => "µs",
        (BIG, "per second") => "bodies/s",
        (NEW_TCP, "per second") => "connections/s",
        (_, "CPU") => "µs/request",
        _ => "requests/s",
    }
}

/// What the load got, and the CPU that the pair took for it; `None` where the pair does not carry such.
async fn measure(
    bench: &Bench,
    pair: &Pair,
    load: Load,
    seconds: u64,
) -> anyhow::Result<Option<(Measured, Duration)>> {
    let address = match load {
        Load::Closed | Load::Steady | Load::Big => Some(&pair.http),
        Load::Tcp | Load::NewTcp => Some(&pair.tcp),
        Load::Grpc => pair.grpc.as_ref(),
    };
    let Some(address) = address else { return Ok(None) };
    put_on(bench, load, address, 1).await?;
    let before = usage::cpu(&pair.pids);
    let measured = put_on(bench, load, address, seconds).await?;
    let used = usage::cpu(&pair.pids).saturating_sub(before);
    if measured.requests == 0.0 {
        bail!("no request went through");
    }
    Ok(Some((measured, used)))
}

/// Requests that went through.
async fn put_on(bench: &Bench, load: Load, address: &str, seconds: u64) -> anyhow::Result<Measured> {
    let (length, to) = (Duration::from_secs(seconds), address.to_owned());
    let requests = match load {
        Load::Steady => return steadily(address, seconds).await,
        Load::NewTcp => on_core(LOAD_CORE, move || async move { connect::run(&to, length).await }).await?,
        Load::Grpc => grpc::load(address, &bench.folder, seconds).await?,
        Load::Closed | Load::Tcp => wrk(&["-c64"], address, "", seconds).await?,
        Load::Big => wrk(&["-c4"], address, "big", seconds).await?,
    };
    Ok(Measured { requests, p50: None })
}

async fn steadily(address: &str, seconds: u64) -> anyhow::Result<Measured> {
    let (length, to) = (Duration::from_secs(seconds), address.to_owned());
    let mut took = on_core(LOAD_CORE, move || async move { steady::run(&to, length).await }).await?;
    Ok(Measured { requests: took.len() as f64, p50: Some(steady::p50_micros(&mut took)) })
}

async fn wrk(connections: &[&str], address: &str, path: &str, seconds: u64) -> anyhow::Result<f64> {
    let mut command = tokio::process::Command::new("taskset");
    command.args(["-c", CORES.1, "wrk", "-t1"]).args(connections).arg(format!("-d{seconds}s"));
    command.arg(format!("http://{address}/{path}"));
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
