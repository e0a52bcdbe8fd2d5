//! Pure. What the pair of proxies is to reach, row by row: the project's goals.

use crate::results::Goal;

/// The row of a scenario, a figure and a peer.
pub(super) type Row<'a> = (&'a str, &'a str, &'a str);

/// A goal, and where the row counts as met before it is reached, the least that counts.
pub(super) struct Aim {
    pub(super) goal: Goal,
    pub(super) least: Option<Goal>,
}

/// What a row is to reach; `None` for rows that are there to be read.
pub(super) fn aim(row: Row<'_>) -> Option<Aim> {
    let only = |goal| Some(Aim { goal, least: None });
    let with_least = |goal, least| Some(Aim { goal, least: Some(least) });
    match row {
        (super::CLOSED, "CPU", "envoy") => with_least(Goal::AtMost(0.25), Goal::AtMost(0.35)),
        (super::CLOSED, "CPU", "haproxy") => with_least(Goal::AtMost(1.0), Goal::AtMost(1.25)),
        (super::STEADY, "CPU", "nginx") => only(Goal::AtMost(0.75)),
        (super::STEADY, super::ADDED, "haproxy") => only(Goal::AtMost(1.0)),
        (super::BIG, "per second", "envoy") => only(Goal::AtLeast(1.3)),
        (super::TCP, "CPU", "envoy") => only(Goal::AtMost(0.55)),
        (super::NEW_TCP, "per second", "envoy") => only(Goal::AtLeast(3.5)),
        (super::GRPC, "per second", "haproxy") => only(Goal::AtLeast(1.0)),
        (super::SHAKEN, "CPU", "envoy") => only(Goal::AtMost(0.6)),
        _ => None,
    }
}

/// What our own figure is to be, whatever the peers' are.
pub(super) fn own(scenario: &str, what: &str) -> Option<Goal> {
    match (scenario, what) {
        ("idle", super::IDLE_MEMORY) => Some(Goal::AtMost(15.0)),
        // Workers begin with one full handshake each.
        (super::RESUMED, super::SHARE) => Some(Goal::AtLeast(0.9)),
        ("1,000 idle HTTP connections", _) => Some(Goal::AtMost(10.0)),
        ("1,000 idle TCP connections", _) => Some(Goal::AtMost(5.0)),
        _ => None,
    }
}
