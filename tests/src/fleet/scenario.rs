//! What a fleet goes through: it joins, registers, follows, is held for a while; then every server is killed at once and
//! started again, and all is in sync as if nothing had been. What it costs is measured beside.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{Counts, Fleet, Settings, usage};
use crate::{cluster::Cluster, steady::now, wait::until};

/// How long thousands may take to register, or to take up their streams.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// All are in sync so soon after the servers' start.
pub const IN_SYNC_LIMIT: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Simulated proxies.
    pub proxies: usize,
    /// Servers.
    pub servers: usize,
    /// All had certificates after so many seconds.
    pub joined_seconds: f64,
    /// All were registered so many seconds later.
    pub registered_seconds: f64,
    /// All had complete streams so many seconds later.
    pub followed_seconds: f64,
    /// While they were held.
    pub held: Span,
    /// From the servers' start until all were in sync.
    pub restart: Restart,
}

/// A span of time.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// How long it was.
    pub seconds: f64,
    /// What the fleet did in it.
    pub counts: Counts,
    /// CPU of each server, in percent of one core.
    pub cpu_percent: Vec<f64>,
    /// CPU of all servers for each keep-alive, in microseconds, whatever else they did among it.
    pub cpu_micros_per_keep_alive: f64,
    /// Resident memory of each server at its end, in MB.
    pub memory_mb: Vec<f64>,
    /// Revisions in it.
    pub revisions: u64,
}

/// All servers were killed and started.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// The servers were ready after so many seconds.
    pub ready_seconds: f64,
    /// Every proxy was in sync after so many seconds, counted from the servers' start.
    pub in_sync_seconds: f64,
    /// What the fleet did in it.
    pub counts: Counts,
    /// The state's revision before and after it.
    pub revisions: (u64, u64),
    /// Resident memory of each server at its end, in MB.
    pub memory_mb: Vec<f64>,
    /// Its greatest, in MB.
    pub memory_peak_mb: Vec<f64>,
    /// CPU of all servers in it, in seconds.
    pub cpu_seconds: f64,
}

/// Takes a fleet of so many proxies through it, and holds it for `hold`.
///
/// # Errors
/// If something takes too long.
pub async fn run(cluster: &mut Cluster, proxies: usize, hold: Duration) -> anyhow::Result<Report> {
    let settings = settings(cluster, proxies)?;
    let began = now();
    let fleet = Fleet::join(&settings).await?;
    let joined = now();
    fleet.register();
    fleet.all_kept(SETTLE_LIMIT).await?;
    let registered = now();
    fleet.begin_round();
    fleet.watch();
    fleet.all_in_sync(revision(cluster).await?, SETTLE_LIMIT).await?;
    let followed = now();
    let held = held(cluster, &fleet, hold).await?;
    let restart = restarted(cluster, &fleet).await?;
    Ok(Report {
        proxies,
        servers: cluster.members.len(),
        joined_seconds: (joined - began).as_secs_f64(),
        registered_seconds: (registered - joined).as_secs_f64(),
        followed_seconds: (followed - registered).as_secs_f64(),
        held,
        restart,
    })
}

/// A fleet of so many for this cluster.
///
/// # Errors
/// If the root certificate cannot be read.
pub fn settings(cluster: &Cluster, proxies: usize) -> anyhow::Result<Settings> {
    let address = |member: &crate::cluster::Member| SocketAddr::from((member.address, 8_443));
    Ok(Settings {
        servers: cluster.members.iter().map(address).collect(),
        roots: std::fs::read_to_string(&cluster.cacert)?,
        token: cluster.token.clone(),
        proxies,
        prefix: "sim".to_owned(),
    })
}

async fn held(cluster: &Cluster, fleet: &Fleet, hold: Duration) -> anyhow::Result<Span> {
    let (began, before, cpu) = (now(), fleet.counts(), cpus(cluster));
    let first = revision(cluster).await?;
    // Pace: it lasts as long as it is asked to; what happens in the meantime is measured.
    tokio::time::sleep(hold).await;
    let seconds = (now() - began).as_secs_f64();
    let used: Vec<f64> =
        cpus(cluster).iter().zip(&cpu).map(|(after, before)| (*after - *before).as_secs_f64()).collect();
    let counts = fleet.counts() - before;
    Ok(Span {
        seconds,
        counts,
        cpu_percent: used.iter().map(|used| used / seconds * 100.0).collect(),
        cpu_micros_per_keep_alive: used.iter().sum::<f64>() * 1e6 / counts.keep_alives.max(1) as f64,
        memory_mb: memories(cluster).iter().map(|memory| memory.0).collect(),
        revisions: revision(cluster).await? - first,
    })
}

/// kill -9 for all servers, and all are started at once.
async fn restarted(cluster: &mut Cluster, fleet: &Fleet) -> anyhow::Result<Restart> {
    let first = revision(cluster).await?;
    cluster.members.iter_mut().for_each(crate::cluster::Member::kill);
    fleet.begin_round();
    let (began, before) = (now(), fleet.counts());
    for member in &mut cluster.members {
        member.spawn()?;
    }
    until("a server answers", SETTLE_LIMIT, || revision(cluster)).await?;
    let ready = now();
    fleet.all_in_sync(first, SETTLE_LIMIT).await?;
    let in_sync = now();
    let last = revision(cluster).await?;
    fleet.all_in_sync(first, SETTLE_LIMIT).await?;
    let memory = memories(cluster);
    Ok(Restart {
        ready_seconds: (ready - began).as_secs_f64(),
        in_sync_seconds: (in_sync - began).as_secs_f64(),
        counts: fleet.counts() - before,
        revisions: (first, last),
        memory_mb: memory.iter().map(|memory| memory.0).collect(),
        memory_peak_mb: memory.iter().map(|memory| memory.1).collect(),
        cpu_seconds: cpus(cluster).iter().map(Duration::as_secs_f64).sum(),
    })
}

/// The state's revision, as the first server that answers has it.
///
/// # Errors
/// If none answers.
pub async fn revision(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut last = anyhow::anyhow!("no servers");
    for index in 0..cluster.members.len() {
        let asked = cluster.client(index)?;
        match asked.json::<serde_json::Value>(reqwest::Method::GET, "/v1/namespaces", None).await {
            Ok(list) => return Ok(list["metadata"]["revision"].as_u64().unwrap_or_default()),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn processes(cluster: &Cluster) -> impl Iterator<Item = u32> {
    cluster.members.iter().filter_map(|member| Some(member.process.as_ref()?.id()))
}

fn cpus(cluster: &Cluster) -> Vec<Duration> {
    processes(cluster).map(usage::cpu).collect()
}

fn memories(cluster: &Cluster) -> Vec<(f64, f64)> {
    processes(cluster).map(usage::memory_mb).collect()
}
