//! Three meshd beside three etcd, TLS for peers and clients on both sides, values of the same size on the same disk,
//! persistent HTTP/2 connections spread over the members. What has no counterpart in etcd is measured alone.

use std::time::Duration;

use clap::ValueEnum;
use mesh_tests::{cluster::Cluster, wait};

use crate::{Pace, etcd, results::Comparison};

mod cost;
mod kill;
mod puts;
mod system;
mod watch;
mod watching;

use system::System;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Durable puts at 1, 64 and 512 clients, CPU, memory of the leader
    Puts,
    /// 1,000 watchers told of a change, 5,000 held
    Watch,
    /// The leader killed and stopped
    Kill,
    /// 100,000 endpoints: memory, one change, a snapshot
    State,
}

/// Runs the parts that are asked for, all if none is named.
pub(crate) async fn run(only: &[Part], pace: Pace) -> anyhow::Result<Vec<Comparison>> {
    let wanted = |part| only.is_empty() || only.contains(&part);
    let folder = tempfile::Builder::new().prefix("mesh-bench-").tempdir()?;
    let mut results = Vec::new();
    if wanted(Part::Puts) || wanted(Part::Watch) {
        let etcd = etcd::start(folder.path())?;
        let cluster = Cluster::start(folder.path(), 3, |_| ()).await?;
        println!("meshd:\n{}", std::fs::read_to_string(&cluster.members[0].config)?);
        let systems = [System::mesh(cluster)?, System::etcd(etcd)?];
        for system in &systems {
            ready(system).await?;
        }
        if wanted(Part::Puts) {
            results.extend(puts::compare_all(&systems, pace).await?);
        }
        if wanted(Part::Watch) {
            results.extend(watch::compare_all(&systems).await?);
        }
    }
    if wanted(Part::Kill) {
        results.extend(kill::measure_all(&folder.path().join("kill"), pace.kills).await?);
    }
    if wanted(Part::State) {
        results.extend(cost::measure_all(&folder.path().join("state")).await?);
    }
    Ok(results)
}

async fn ready(system: &System) -> anyhow::Result<()> {
    wait::until("puts are taken", Duration::from_secs(20), || async {
        tokio::time::timeout(Duration::from_secs(2), async {
            system.client(0).await?.put(system, 0, 0).await
        })
        .await?
    })
    .await
}

/// Differs from run to run, so that no put writes what stands there already.
fn salt() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 1
}
