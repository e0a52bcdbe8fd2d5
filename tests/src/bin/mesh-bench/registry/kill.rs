//! The leader goes, by kill -9 or by a stop: how long until a write is taken again, and whether the old leader, when it
//! goes on, ever answers a read with what has been overwritten.

use std::{path::Path, time::Duration};

use mesh_tests::{cluster::Cluster, process::Process, wait};
use rustix::process::Signal;

use super::system::{Client, System};
use crate::{
    clock::{now, since},
    results::{Comparison, Goal, Rounds, alone},
};

/// Goals for the time until the next accepted write, in milliseconds.
const NEXT_WRITE_GOALS_MS: (f64, f64) = (1_000.0, 3_000.0);
/// A round that takes longer has failed.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// A try that takes longer is given up, and another one made.
const TRY_LIMIT: Duration = Duration::from_secs(6);

/// Both measurements, on a cluster of their own.
pub(super) async fn measure_all(folder: &Path, kills: u32) -> anyhow::Result<Vec<Comparison>> {
    std::fs::create_dir_all(folder)?;
    let mut system = System::mesh(Cluster::start(folder, 3, |_| ()).await?)?;
    let mut waits = Vec::new();
    for round in 1..=kills {
        waits.push(kill(&mut system, round).await?);
        eprintln!("kill {round} of {kills}: next write after {:.0} ms", waits[waits.len() - 1]);
    }
    waits.sort_by(f64::total_cmp);
    let rank = |share: f64| waits[((waits.len() as f64 * share).ceil() as usize).clamp(1, waits.len()) - 1];
    let line = |name: &str, value, goal| {
        alone(&format!("leader killed → next write, {name} of {kills}"), "ms", &Rounds(vec![value]))
            .with_goal(Goal::AtMost(goal))
    };
    let mut results =
        vec![line("p50", rank(0.5), NEXT_WRITE_GOALS_MS.0), line("p99", rank(0.99), NEXT_WRITE_GOALS_MS.1)];
    let mut stale = 0;
    for round in 1..=kills {
        stale += u32::from(stop(&system, round).await?);
    }
    let stale =
        alone(&format!("stale reads of a stopped leader, of {kills}"), "reads", &Rounds(vec![stale.into()]));
    results.push(stale.with_goal(Goal::AtMost(0.0)));
    Ok(results)
}

/// Kills the leader, and brings it back when the others have taken a write. Milliseconds from one to the other.
async fn kill(system: &mut System, round: u32) -> anyhow::Result<f64> {
    let leader = leader(system).await?;
    let mut survivors = survivors(system, leader).await?;
    if let System::Mesh { cluster, .. } = system {
        cluster.members[leader].kill();
    }
    let killed = now();
    written(system, &mut survivors, &format!("kill-{round}-")).await?;
    let waited = since(killed).as_secs_f64() * 1e3;
    if let System::Mesh { cluster, .. } = system {
        cluster.run(leader).await?;
    }
    Ok(waited)
}

/// Stops the leader until the others have taken a write, lets it go on, and reads from it at once over a connection
/// that was open before. Whether that write is missing.
async fn stop(system: &System, round: u32) -> anyhow::Result<bool> {
    let System::Mesh { cluster, .. } = system else { anyhow::bail!("only ours is stopped") };
    let leader = leader(system).await?;
    let mut survivors = survivors(system, leader).await?;
    let mut old = system.client(leader).await?;
    let path = "/v1/namespaces/default/services/bench-0";
    let process = cluster.members[leader].process.as_ref();
    let signal = |signal| process.map(|process: &Process| process.signal(signal));
    signal(Signal::STOP);
    let value = format!("stop-{round}-");
    let done = written(system, &mut survivors, &value).await;
    signal(Signal::CONT);
    done?;
    // An answer that refuses to read is not stale.
    let read = tokio::time::timeout(TRY_LIMIT, old.read(cluster, path)).await;
    Ok(matches!(read, Ok(Ok(body)) if !String::from_utf8_lossy(&body).contains(&value)))
}

async fn leader(system: &System) -> anyhow::Result<usize> {
    match system {
        System::Mesh { cluster, .. } => cluster.leader().await,
        System::Etcd { .. } => anyhow::bail!("only ours is stopped"),
    }
}

async fn survivors(system: &System, leader: usize) -> anyhow::Result<Vec<Client>> {
    let mut survivors = Vec::new();
    for index in (0..3).filter(|index| *index != leader) {
        survivors.push(system.client(index).await?);
    }
    Ok(survivors)
}

/// Returns when one of the members has taken a write; each is asked again as soon as it refuses.
async fn written(system: &System, survivors: &mut [Client], value: &str) -> anyhow::Result<()> {
    let tries = survivors.iter_mut().map(|client| {
        let asked = wait_for(client, system, value);
        Box::pin(asked)
    });
    futures_util::future::select_ok(tries).await.map(drop)
}

async fn wait_for(client: &mut Client, system: &System, value: &str) -> anyhow::Result<()> {
    let client = tokio::sync::Mutex::new(client);
    wait::until("a write is taken", ROUND_LIMIT, || async {
        let mut client = client.lock().await;
        tokio::time::timeout(TRY_LIMIT, client.put_value(system, 0, value)).await?
    })
    .await
}
