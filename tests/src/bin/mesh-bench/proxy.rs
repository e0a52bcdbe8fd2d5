//! The pair of proxies beside Envoy, HAProxy and nginx: load → A → mTLS → B → application. Both proxies of a pair run
//! with one thread on the first core; load and application have the other one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use mesh_tests::process::run as run_command;

use crate::{
    results::{Comparison, Goal, Rounds, alone, compare},
    usage,
};

mod connect;
mod counts;
mod goals;
mod growth;
mod grpc;
mod handshakes;
mod idle;
mod pairs;
mod pinned;
mod steady;

use handshakes::{Door, Shaken};
use pairs::{Bench, Pair};
use pinned::on_core;
use steady::Latencies;

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
    /// Connections of mTLS to the called proxy, one request each: with full handshakes.
    Shaken,
    /// The same with sessions that are resumed.
    Resumed,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Rates, CPU, latencies and memory beside the peers
    Load,
    /// Of these the memory alone: at rest, and for connections that wait
    Rest,
    /// New connections of mTLS at the called proxy beside the peers
    Handshakes,
    /// System calls, instructions and allocations of each request
    Counts,
    /// Of these, instructions and allocations alone: ours only, in a minute
    Instructions,
    /// Decisions among 10,000 routes, one changed endpoint among 5,000
    Growth,
}

/// In the order in which they run, with their names.
const SCENARIOS: [(&str, Load); 8] = [
    (CLOSED, Load::Closed),
    (STEADY, Load::Steady),
    (BIG, Load::Big),
    (TCP, Load::Tcp),
    (NEW_TCP, Load::NewTcp),
    (GRPC, Load::Grpc),
    (SHAKEN, Load::Shaken),
    (RESUMED, Load::Resumed),
];
const CLOSED: &str = "HTTP/1.1, 64 connections";
const STEADY: &str = "HTTP/1.1, 1,000 requests/s";
const BIG: &str = "10 MB bodies";
const TCP: &str = "TCP, 64 connections";
const NEW_TCP: &str = "new TCP connections";
const GRPC: &str = "gRPC, unary";
const SHAKEN: &str = "new mTLS connections, full handshakes, called proxy";
const RESUMED: &str = "new mTLS connections, resumed, called proxy";
/// How many of all handshakes resumed a session.
const SHARE: &str = "resumed of all";

/// What a pair adds to the time that the application takes without it.
const ADDED: &str = "p50 added to direct";
const ADDED_P99: &str = "p99 added to direct";
const ADDED_P999: &str = "p999 added to direct";
const IDLE_MEMORY: &str = "memory of the larger one";

/// The figures of all rounds, by pair, scenario and what was measured.
type Figures = BTreeMap<(&'static str, &'static str, &'static str), Rounds>;

/// What one measurement gave.
struct Measured {
    requests: f64,
    /// Where the load does not go as fast as it can.
    latencies: Option<Latencies>,
    /// The share of handshakes that resumed a session, where there were some.
    resumed: Option<f64>,
}

/// Runs all scenarios that are wanted, interleaved, and compares.
pub(crate) async fn run(
    only: &[Part],
    rounds: u32,
    seconds: u64,
    keep: Option<&Path>,
) -> anyhow::Result<Vec<Comparison>> {
    let wanted = |part| only.is_empty() || only.contains(&part);
    let mut results = if wanted(Part::Growth) { growth::measure().await? } else { Vec::new() };
    let folder = tempfile::Builder::new().prefix("mesh-bench-").tempdir()?;
    let bench = Bench::new(folder.path())?;
    let _applications = bench.start_applications().await?;
    if [Part::Load, Part::Rest, Part::Handshakes, Part::Counts].into_iter().any(wanted) {
        let pairs = bench.pairs().await?;
        let mut figures = Figures::new();
        if wanted(Part::Load) || wanted(Part::Rest) {
            at_rest(&pairs, &mut figures).await?;
        }
        let scenarios = SCENARIOS.into_iter().filter(|(_, load)| wanted(load.part()));
        for round in 1..=rounds {
            one_round(&bench, &pairs, (round, seconds), scenarios.clone(), &mut figures).await?;
        }
        if wanted(Part::Counts) {
            counts::system_calls(&bench, &pairs, seconds, &mut figures).await?;
        }
        results.extend(compare_all(&figures));
        if wanted(Part::Load) {
            results.push(idle_held(&pairs[0]).await?);
        }
    }
    if wanted(Part::Counts) || wanted(Part::Instructions) {
        results.extend(counts::instructions(&bench, keep).await?);
    }
    Ok(results)
}

async fn one_round(
    bench: &Bench,
    pairs: &[Pair],
    (round, seconds): (u32, u64),
    scenarios: impl Iterator<Item = (&'static str, Load)>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut direct = None;
    for (name, load) in scenarios {
        if load == Load::Steady {
            direct = steadily(&bench.direct(), seconds).await?.latencies;
        }
        for pair in pairs {
            eprintln!("round {round}: {name} · {}", pair.name);
            let measured = measure(bench, pair, load, seconds).await;
            let measured = measured.with_context(|| format!("{name} · {}", pair.name))?;
            let Some((measured, cpu)) = measured else { continue };
            let mut keep = |what, value| keep(figures, (pair.name, name, what), value);
            keep("per second", measured.requests / seconds as f64);
            keep("CPU", cpu.as_secs_f64() * 1e6 / measured.requests);
            if let Some((through, direct)) = measured.latencies.zip(direct) {
                keep(ADDED, through.p50 - direct.p50);
                keep(ADDED_P99, through.p99 - direct.p99);
                keep(ADDED_P999, through.p999 - direct.p999);
            }
            if let Some(share) = measured.resumed {
                keep(SHARE, share);
            }
        }
    }
    Ok(())
}

async fn idle_held(pair: &Pair) -> anyhow::Result<Comparison> {
    eprintln!("{} idle connections · mesh", idle::MANY);
    let held = idle::still_there(&pair.http).await?;
    let held = alone("10,000 idle HTTP connections: answer again", "", &Rounds(vec![held]));
    Ok(held.with_goal(Goal::AtLeast(idle::MANY as f64)))
}

impl Load {
    fn part(self) -> Part {
        match self {
            Self::Shaken | Self::Resumed => Part::Handshakes,
            _ => Part::Load,
        }
    }
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
        (_, ADDED | ADDED_P99 | ADDED_P999) => "µs",
        (_, SHARE) => "",
        (_, counts::CALLS) => "calls",
        (SHAKEN | RESUMED, "per second") => "connections/s",
        (SHAKEN | RESUMED, "CPU") => "µs/connection",
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
        Load::Shaken | Load::Resumed => return shake(&pair.door, load, seconds).await.map(Some),
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

/// New connections to the called proxy, and what they took of its CPU. Where none is to resume a session, none may.
async fn shake(door: &Door, load: Load, seconds: u64) -> anyhow::Result<(Measured, Duration)> {
    let resume = load == Load::Resumed;
    let shake = |seconds| {
        let door = door.clone();
        on_core(LOAD_CORE, move || async move { door.run(resume, Duration::from_secs(seconds)).await })
    };
    shake(1).await?;
    let before = usage::cpu(&[door.pid]);
    let shaken: Shaken = shake(seconds).await?;
    let used = usage::cpu(&[door.pid]).saturating_sub(before);
    let requests = shaken.full + shaken.resumed;
    anyhow::ensure!(requests > 0.0, "no connection was made");
    anyhow::ensure!(resume || shaken.resumed == 0.0, "a session was resumed that nobody kept");
    let resumed = resume.then_some(shaken.resumed / requests);
    Ok((Measured { requests, latencies: None, resumed }, used))
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
        Load::Shaken | Load::Resumed => bail!("these are no requests through a pair"),
    };
    Ok(Measured { requests, latencies: None, resumed: None })
}

async fn steadily(address: &str, seconds: u64) -> anyhow::Result<Measured> {
    let (length, to) = (Duration::from_secs(seconds), address.to_owned());
    let mut took = on_core(LOAD_CORE, move || async move { steady::run(&to, length).await }).await?;
    let latencies = Some(Latencies::of(&mut took));
    Ok(Measured { requests: took.len() as f64, latencies, resumed: None })
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
