//! What the state costs as it grows: 100,000 endpoints in 5,000 services, in a process that holds nothing but the state,
//! and in a cluster whose members have them from registrations of hosts. One change must cost what it touches, and a
//! snapshot must hold up neither writes nor signs of life.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt, TryStreamExt, stream};
use mesh_tests::{binaries, cluster::Cluster, process::run, stranger::Stranger};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{salt, system::System};
use crate::{
    clock::{now, since},
    results::{Comparison, Goal, Rounds, alone, compare},
    usage,
};

const ENDPOINTS: usize = 100_000;
const SERVICES: usize = 5_000;
/// What one change is compared with: a hundredth of it all.
const FEW: usize = 100;
/// Endpoints that one host registers.
const PER_HOST: usize = 1_000;
/// The time of one change among all, as a ratio to that among a hundredth: the logarithm's share and colder caches.
const CHANGE_GOAL: f64 = 2.0;
/// Hosts that join at once.
const JOINING: usize = 4;
/// Between two signs of life of a host.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Puts that are timed.
const PUTS: u64 = 200;

/// In one process, then in a cluster.
pub(super) async fn measure_all(folder: &Path) -> anyhow::Result<Vec<Comparison>> {
    let mut results = in_process().await?;
    results.extend(in_a_cluster(folder).await?);
    Ok(results)
}

async fn in_process() -> anyhow::Result<Vec<Comparison>> {
    let (few, all) = (state_cost(FEW).await?, state_cost(1).await?);
    let figure = |from: &Value, name: &str| Rounds(vec![from[name].as_f64().unwrap_or(f64::NAN)]);
    let change = |what: &str, name: &str| {
        let name = (format!("{what}, {ENDPOINTS} endpoints"), figure(&all, name), figure(&few, name));
        compare(&name.0, "µs", &name.1, "1,000", &name.2)
    };
    let line = |what: &str, unit, name: &str| alone(what, unit, &figure(&all, name));
    Ok(vec![
        change("applying one put", "putMicros").with_goal(Goal::AtMost(CHANGE_GOAL)),
        change("a host's 1,000 endpoints, one changed", "registrationOfOneChangeMicros")
            .with_goal(Goal::AtMost(CHANGE_GOAL)),
        line("the state of 100,000 endpoints in memory", "MB", "residentMb"),
        line("  its snapshot, made", "ms", "snapshotMs"),
        line("  its snapshot, size", "MB", "snapshotMb"),
        line("  its snapshot, read back", "ms", "readBackMs"),
    ])
}

/// All divided by `share`.
async fn state_cost(share: usize) -> anyhow::Result<Value> {
    let mut command = tokio::process::Command::new(binaries::path("state-cost"));
    let printed =
        run(command.args([(ENDPOINTS / share).to_string(), (SERVICES / share).to_string()])).await?;
    Ok(serde_json::from_str(&printed)?)
}

async fn in_a_cluster(folder: &Path) -> anyhow::Result<Vec<Comparison>> {
    std::fs::create_dir_all(folder)?;
    let system = System::mesh(Cluster::start(folder, 3, |_| ()).await?)?;
    let System::Mesh { cluster, .. } = &system else { anyhow::bail!("it was made just above") };
    let leader = system.leader().await?;
    let (idle_mb, before) = (usage::memory_mb(&[leader]), puts(&system, PUTS).await?);
    let started = now();
    let mut hosts = JoinSet::new();
    let joining = stream::iter(0..ENDPOINTS / PER_HOST).map(|host| join(cluster, host));
    let mut joining = joining.buffer_unordered(JOINING);
    while let Some((host, registered)) = joining.try_next().await? {
        hosts.spawn(keep_alive(host, registered));
    }
    let loaded = since(started).as_secs_f64();
    let after = puts(&system, PUTS).await?;
    let held = usage::memory_mb(&[leader]) - idle_mb;
    let term = term(cluster).await?;
    let snapshot = async {
        let started = now();
        let bytes = cluster.client(0)?.download("/v1/snapshot").await?.bytes().await?;
        anyhow::Ok((since(started).as_secs_f64() * 1e3, bytes.len() as f64 / 1e6))
    };
    let ((millis, megabytes), during) = tokio::try_join!(snapshot, puts(&system, PUTS))?;
    let elections = self::term(cluster).await? - term;
    Ok(vec![
        alone("100,000 endpoints registered by 100 hosts", "s", &Rounds(vec![loaded])),
        alone("  the leader's memory over idle", "MB", &Rounds(vec![held])),
        compare(
            "  a put by 1 client, p50",
            "ms",
            &Rounds(vec![after.median()]),
            "empty",
            &Rounds(vec![before.median()]),
        ),
        alone("  a snapshot over the API", "ms", &Rounds(vec![millis])),
        alone("  its size", "MB", &Rounds(vec![megabytes])),
        alone("  the longest put meanwhile", "ms", &Rounds(vec![longest(&during)])),
        alone("  elections meanwhile", "", &Rounds(vec![elections])).with_goal(Goal::AtMost(0.0)),
    ])
}

fn longest(latencies: &Rounds) -> f64 {
    latencies.0.iter().copied().fold(0.0, f64::max)
}

/// Latencies of puts one after the other, in milliseconds.
async fn puts(system: &System, count: u64) -> anyhow::Result<Rounds> {
    let (mut client, salt, mut latencies) = (system.client(0).await?, salt(), Rounds::default());
    for number in 0..count {
        let sent = now();
        client.put(system, number, salt).await?;
        latencies.0.push(since(sent).as_secs_f64() * 1e3);
    }
    Ok(latencies)
}

/// A host joins and registers its endpoints; its session's generation.
async fn join(cluster: &Cluster, host: usize) -> anyhow::Result<(Stranger, Value)> {
    let node = format!("host-{host}");
    let stranger = Stranger::join(cluster, &node, &["*/*"]).await?;
    let per_service = ENDPOINTS / SERVICES;
    let own = host * PER_HOST..(host + 1) * PER_HOST;
    let service = |endpoint: usize| format!("service-{}", endpoint / per_service);
    let services: Vec<_> = own.clone().step_by(per_service).map(service).collect();
    let services: Vec<_> = services
        .iter()
        .map(|name| json!({"service": format!("default/{name}"), "ports": [{"port": 80}]}))
        .collect();
    let endpoint = |n: usize| {
        json!({
            "kind": "Endpoint",
            "metadata": {"namespace": "default", "name": format!("ep-{n}-{node}")},
            "spec": {
                "service": service(n), "node": node, "source": "registration",
                "address": format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255),
                "ports": [{"port": 80, "targetPort": 8080}], "zone": "a", "weight": 1,
            },
            "status": {"health": "Healthy", "stale": false},
        })
    };
    let endpoints: Vec<_> = own.map(endpoint).collect();
    let body =
        json!({"version": "0.0.0", "addresses": ["10.0.0.5"], "services": services, "endpoints": endpoints});
    let (status, answer) = stranger.call(Method::PUT, "/v1/proxy/registration", Some(&body)).await?;
    anyhow::ensure!(status == 200, "{status}: {answer}");
    Ok((stranger, answer))
}

async fn keep_alive(host: Stranger, registered: Value) {
    let body = json!({"generation": registered["generation"], "revision": registered["revision"]});
    loop {
        // What is missed is told by the endpoints that go.
        let _ = host.call(Method::POST, "/v1/proxy/keepalive", Some(&body)).await;
        // Pace: as a proxy does.
        tokio::time::sleep(KEEPALIVE).await;
    }
}

async fn term(cluster: &Cluster) -> anyhow::Result<f64> {
    let status: Value = cluster.client(0)?.json(Method::GET, "/v1/cluster", None).await?;
    status["term"].as_f64().context("the cluster has a term")
}
