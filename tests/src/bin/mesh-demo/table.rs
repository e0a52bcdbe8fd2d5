//! The live table: what each pair of services says to each other, once a second.

use std::{collections::BTreeMap, fmt::Write, io::IsTerminal};

use crate::{
    report::{Kill, Report},
    stats::Stats,
    weights::Change,
};

/// The table that is printed again and again.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The calls of each edge when it was last printed.
    before: BTreeMap<String, u64>,
}

impl Table {
    /// Prints the state of things, with the rates since it was last printed, `seconds` ago; on a terminal, over the one
    /// before.
    pub(crate) fn live(
        &mut self,
        counted: &[(String, Stats)],
        seconds: f64,
        kills: &[Kill],
        changes: &[Change],
        leader_kills: u64,
    ) {
        let report = Report::new(counted, kills);
        let clear = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
        let v2 = changes.last().map_or(0, |change| change.share);
        println!("{clear}{}", self.rows(&report, seconds));
        println!(
            "orders: {}% v1, {v2}% v2, changed {} times; endpoints killed: {}; leader killed: {leader_kills}",
            100 - v2,
            changes.len(),
            kills.len()
        );
    }

    fn rows(&mut self, report: &Report, seconds: f64) -> String {
        let mut text = format!(
            "{:<24} {:>8} {:>10} {:>8} {:>10} {:>10}\n",
            "EDGE", "CALLS/S", "CALLS", "FAILED", "P50 MS", "P99 MS"
        );
        for edge in &report.edges {
            let name = format!("{} → {}", edge.source, edge.destination);
            let before = self.before.insert(name.clone(), edge.requests).unwrap_or_default();
            let rate = edge.requests.saturating_sub(before) as f64 / seconds;
            writeln!(
                text,
                "{name:<24} {rate:>8.0} {:>10} {:>8} {:>10.2} {:>10.2}",
                edge.requests, edge.failed, edge.p50_ms, edge.p99_ms
            )
            .expect("a String takes everything");
        }
        text
    }
}

/// Prints the end of it: rates over the whole run of `seconds`.
pub(crate) fn last(report: &Report, seconds: f64) {
    println!("\n{}", Table::default().rows(report, seconds));
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
