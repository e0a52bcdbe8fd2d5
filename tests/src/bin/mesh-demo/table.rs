//! The live table: what each pair of services says to each other, once a second.

use std::{fmt::Write, io::IsTerminal};

use crate::{
    report::{Kill, Report},
    stats::Stats,
    weights::Change,
};

/// Prints the state of things; on a terminal, over the one before.
pub(crate) fn live(counted: &[(String, Stats)], kills: &[Kill], changes: &[Change]) {
    let report = Report::new(counted, kills);
    let clear = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    let weights = changes.last().map_or(0, |change| change.share);
    println!(
        "{clear}{}orders: {}% v1, {weights}% v2 · {} changes of weights",
        rows(&report),
        100 - weights,
        changes.len()
    );
    for kill in kills {
        println!("an endpoint of {} was killed", kill.service);
    }
}

/// Prints the end of it.
pub(crate) fn last(report: &Report) {
    println!("\n{}", rows(report));
    println!(
        "{} calls, {} failed ({} more in flight inside a killed process), mTLS {}; leader killed {} times; {} of {} changes of weights seen in time",
        report.requests,
        report.failed,
        report.in_flight_killed,
        if report.mtls { "everywhere" } else { "NOT everywhere" },
        report.leader_kills,
        report.weight_changes_seen,
        report.weight_changes
    );
}

fn rows(report: &Report) -> String {
    let mut text =
        format!("{:<24} {:>10} {:>8} {:>10} {:>10}\n", "EDGE", "CALLS", "FAILED", "P50 MS", "P99 MS");
    for edge in &report.edges {
        let name = format!("{} → {}", edge.source, edge.destination);
        writeln!(
            text,
            "{name:<24} {:>10} {:>8} {:>10.2} {:>10.2}",
            edge.requests, edge.failed, edge.p50_ms, edge.p99_ms
        )
        .expect("a String takes everything");
    }
    text
}
