//! Durable puts, and what they cost: rate, p99, CPU of all members, memory of the leader while they come.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mesh_tests::histogram::Histogram;

use super::{salt, system::System};
use crate::{
    Pace,
    clock::{now, since},
    results::{Comparison, Goal, Rounds, compare},
    usage,
};

/// How many clients put at once, with what is to be reached: rate, p99 and CPU as ratios to etcd's.
const LOADS: [(usize, f64, Option<f64>); 3] = [(1, 1.0, Some(1.0)), (64, 1.0, Some(1.0)), (512, 0.8, None)];
/// The leader's memory, as a ratio to etcd's.
const MEMORY_GOAL: f64 = 0.5;
/// Between two looks at the leader's memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What one round gave.
struct Round {
    per_second: f64,
    p99_ms: f64,
    cpu_micros: f64,
    leader_mb: f64,
}

#[derive(Default)]
struct Figures {
    per_second: Rounds,
    p99_ms: Rounds,
    cpu_micros: Rounds,
    leader_mb: Rounds,
}

/// All loads, in interleaved rounds.
pub(super) async fn compare_all(systems: &[System; 2], pace: Pace) -> anyhow::Result<Vec<Comparison>> {
    let (mut results, mut memory) = (Vec::new(), (Rounds::default(), Rounds::default()));
    for (clients, rate_goal, other_goal) in LOADS {
        let mut figures = [Figures::default(), Figures::default()];
        for round in 1..=pace.rounds {
            for (system, figures) in systems.iter().zip(&mut figures) {
                eprintln!("round {round}: {clients} clients · {}", system.name());
                let one = measure(system, clients, Duration::from_secs(pace.seconds)).await?;
                figures.per_second.0.push(one.per_second);
                figures.p99_ms.0.push(one.p99_ms);
                figures.cpu_micros.0.push(one.cpu_micros);
                figures.leader_mb.0.push(one.leader_mb);
            }
        }
        let [ours, theirs] = figures;
        let line =
            |name: String, unit, ours: &Rounds, theirs: &Rounds| compare(&name, unit, ours, "etcd", theirs);
        results.push(
            line(format!("durable puts, {clients} clients"), "puts/s", &ours.per_second, &theirs.per_second)
                .with_goal(Goal::AtLeast(rate_goal)),
        );
        let p99 = line(format!("p99 of a put, {clients} clients"), "ms", &ours.p99_ms, &theirs.p99_ms);
        let cpu = line(
            format!("CPU of all members, {clients} clients"),
            "µs/put",
            &ours.cpu_micros,
            &theirs.cpu_micros,
        );
        results.extend([p99, cpu].map(|line| match other_goal {
            Some(goal) => line.with_goal(Goal::AtMost(goal)),
            None => line,
        }));
        memory.0.0.extend(ours.leader_mb.0);
        memory.1.0.extend(theirs.leader_mb.0);
    }
    let memory = compare("memory of the leader under puts", "MB", &memory.0, "etcd", &memory.1);
    results.push(memory.with_goal(Goal::AtMost(MEMORY_GOAL)));
    Ok(results)
}

async fn measure(system: &System, clients: usize, length: Duration) -> anyhow::Result<Round> {
    let mut connections = Vec::new();
    for index in 0..clients {
        connections.push(system.client(index).await?);
    }
    let leader = system.leader().await?;
    let (counter, salt) = (&AtomicU64::new(0), salt());
    let (before, started) = (usage::cpu(&system.pids()), now());
    let work = connections.into_iter().map(|mut client| async move {
        let mut latencies = Histogram::default();
        while since(started) < length {
            let sent = now();
            client.put(system, counter.fetch_add(1, Ordering::Relaxed), salt).await?;
            latencies.record(since(sent));
        }
        anyhow::Ok(latencies)
    });
    let work = futures_util::future::try_join_all(work);
    tokio::pin!(work);
    let (mut leader_mb, mut looks) = (0.0_f64, tokio::time::interval(LOOK_EVERY));
    let done = loop {
        tokio::select! {
            done = &mut work => break done?,
            _ = looks.tick() => leader_mb = leader_mb.max(usage::memory_mb(&[leader])),
        }
    };
    let (taken, used) = (since(started).as_secs_f64(), usage::cpu(&system.pids()).saturating_sub(before));
    let mut all = Histogram::default();
    done.iter().for_each(|latencies| all.merge(latencies));
    let count = all.count() as f64;
    Ok(Round {
        per_second: count / taken,
        p99_ms: all.quantile_ms(0.99),
        cpu_micros: used.as_secs_f64() * 1e6 / count,
        leader_mb,
    })
}
