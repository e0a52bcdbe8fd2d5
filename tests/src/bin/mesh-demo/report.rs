//! Pure. What the demo found: counts, and which failures a kill explains.

use serde::Serialize;

use crate::stats::{Failure, Stats};

/// The demo's last line with `--json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Calls on all edges.
    pub(crate) requests: u64,
    /// Calls that failed and that no kill explains.
    pub(crate) failed: u64,
    /// Calls that were in flight inside a process when it was killed.
    pub(crate) in_flight_killed: u64,
    /// Whether every call between hosts was carried over mTLS.
    pub(crate) mtls: bool,
    /// Each pair of services that call each other.
    pub(crate) edges: Vec<EdgeReport>,
    /// How often the leader was killed.
    pub(crate) leader_kills: u64,
    /// How often the weights were changed.
    pub(crate) weight_changes: u64,
    /// How many of these changes were seen in the split in time.
    pub(crate) weight_changes_seen: u64,
}

/// One pair of services.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EdgeReport {
    /// Who calls.
    pub(crate) source: String,
    /// Whom.
    pub(crate) destination: String,
    /// Calls that ended.
    pub(crate) requests: u64,
    /// Calls that failed and that no kill explains.
    pub(crate) failed: u64,
    /// Median latency, as the caller sees it.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
}

/// A process of a service that was killed.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    /// The service.
    pub(crate) service: String,
    /// When it was sent the signal, in milliseconds since 1970.
    pub(crate) signalled: u64,
    /// When it was gone, likewise: until then the kernel takes connections in its name.
    pub(crate) gone: u64,
}

impl Kill {
    /// Whether the call was under way to the killed service while it died.
    fn explains(&self, failure: &Failure) -> bool {
        failure.destination == self.service && failure.started <= self.gone && failure.ended >= self.signalled
    }
}

impl Report {
    /// Adds up what the callers counted.
    pub(crate) fn new(callers: &[(String, Stats)], kills: &[Kill]) -> Self {
        let mut report = Self::default();
        for (source, stats) in callers {
            for failure in &stats.failures {
                if kills.iter().any(|kill| kill.explains(failure)) {
                    report.in_flight_killed += 1;
                } else {
                    report.failed += 1;
                }
            }
            for (destination, edge) in &stats.edges {
                report.requests += edge.requests;
                let unexplained = |failure: &&Failure| {
                    failure.destination == *destination && !kills.iter().any(|kill| kill.explains(failure))
                };
                report.edges.push(EdgeReport {
                    source: source.clone(),
                    destination: destination.clone(),
                    requests: edge.requests,
                    failed: stats.failures.iter().filter(unexplained).count() as u64,
                    p50_ms: rounded(edge.latencies.quantile_ms(0.5)),
                    p99_ms: rounded(edge.latencies.quantile_ms(0.99)),
                });
            }
        }
        report
    }

    /// Whether nothing failed and nothing was lost.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.mtls && self.requests > 0 && self.weight_changes_seen == self.weight_changes
    }
}

fn rounded(millis: f64) -> f64 {
    (millis * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(destination: &str, started: u64, ended: u64) -> Failure {
        Failure {
            source: "web".into(),
            destination: destination.into(),
            started,
            ended,
            reason: String::new(),
        }
    }

    #[test]
    fn only_calls_under_way_to_the_killed_process_are_set_apart() {
        let mut stats = Stats::default();
        for _ in 0..4 {
            stats.ended("orders", Duration::from_millis(2));
        }
        stats.failed(failure("orders", 90, 110));
        stats.failed(failure("orders", 102, 110));
        stats.failed(failure("orders", 104, 110));
        stats.failed(failure("orders", 90, 99));
        stats.failed(failure("payments", 90, 110));
        let kills = [Kill { service: "orders".into(), signalled: 100, gone: 103 }];
        let mut report = Report::new(&[("web".into(), stats)], &kills);
        assert_eq!((report.requests, report.failed, report.in_flight_killed), (4, 3, 2));
        assert_eq!((report.edges[0].requests, report.edges[0].failed), (4, 2));
        report.mtls = true;
        assert!(!report.is_good());
    }

    #[test]
    fn the_line_has_the_documented_fields() {
        let line = serde_json::to_value(Report::default()).expect("serialises");
        let fields: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut want = [
            "requests",
            "failed",
            "inFlightKilled",
            "mtls",
            "edges",
            "leaderKills",
            "weightChanges",
            "weightChangesSeen",
        ];
        want.sort_unstable();
        assert_eq!(
            {
                let mut fields = fields;
                fields.sort_unstable();
                fields
            },
            want
        );
    }
}
