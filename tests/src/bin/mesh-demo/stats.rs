//! Pure. What each service of the shop counts of its own calls, and prints as a line of JSON for the demo to add up.

use std::{collections::BTreeMap, time::Duration};

use mesh_tests::histogram::Histogram;
use serde::{Deserialize, Serialize};

/// As many failures as one line tells in full.
pub(crate) const FAILURES_MAX: usize = 1_000;

/// All that one process counted since it started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// By destination.
    pub(crate) edges: BTreeMap<String, Edge>,
    /// Calls that failed, each told once, by the caller that saw it first.
    pub(crate) failures: Vec<Failure>,
    /// Calls served, by the caller's identity as the mesh told it; empty where it told none.
    pub(crate) callers: BTreeMap<String, u64>,
}

/// The calls to one destination.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// Calls that ended, well or not.
    pub(crate) requests: u64,
    /// How long they took.
    pub(crate) latencies: Histogram,
}

/// A call that failed. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The edge on which it failed first.
    pub(crate) source: String,
    /// The edge on which it failed first.
    pub(crate) destination: String,
    /// When it was sent.
    pub(crate) started: u64,
    /// When it failed.
    pub(crate) ended: u64,
    /// How.
    pub(crate) reason: String,
}

impl Stats {
    /// Counts a call that ended.
    pub(crate) fn ended(&mut self, destination: &str, latency: Duration) {
        let edge = self.edges.entry(destination.to_owned()).or_default();
        edge.requests += 1;
        edge.latencies.record(latency);
    }

    /// Adds what another process of the same service counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (destination, more) in &other.edges {
            let edge = self.edges.entry(destination.clone()).or_default();
            edge.requests += more.requests;
            edge.latencies.merge(&more.latencies);
        }
        self.failures.extend(other.failures.iter().cloned());
        for (caller, calls) in &other.callers {
            *self.callers.entry(caller.clone()).or_default() += calls;
        }
    }

    /// Keeps a failure.
    pub(crate) fn failed(&mut self, failure: Failure) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        }
    }
}
