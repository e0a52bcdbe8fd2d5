//! Pure. What a look at a host found, what it means, and how it is told.

use std::{fmt::Write, time::Duration};

use serde::Serialize;

/// Clocks that differ by more are refused by nobody yet, and will be: certificates are made valid from five minutes back.
pub const SKEW_MAX: Duration = Duration::from_secs(300);
/// A clock that is kept right does not differ by this.
const SKEW_ODD: Duration = Duration::from_secs(60);
/// A renewal is tried again and again for so long before it is told.
const OVERDUE: Duration = Duration::from_secs(600);
/// What IPv6 asks of every link (RFC 8200 §5).
const MTU_MIN: u32 = 1_280;
/// Of a hundred connections that the kernel can follow, so many in use are a warning.
const CONNTRACK_PERCENT: u64 = 80;

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// What it means.
    pub state: State,
    /// What was seen.
    pub said: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Fine,
    /// It could not be looked at, or does not matter here.
    Skipped,
    /// It works, and will not for long, or not for all.
    Doubtful,
    /// Something does not work.
    Wrong,
}

impl Finding {
    /// As it should be.
    pub fn fine(check: &'static str, said: impl Into<String>) -> Self {
        Self { check, state: State::Fine, said: said.into(), remedy: None }
    }

    /// Not looked at.
    pub fn skipped(check: &'static str, said: impl Into<String>) -> Self {
        Self { check, state: State::Skipped, said: said.into(), remedy: None }
    }

    /// It may become wrong.
    pub fn doubtful(check: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Doubtful, said: said.into(), remedy: Some(remedy.into()) }
    }

    /// It is wrong.
    pub fn wrong(check: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Wrong, said: said.into(), remedy: Some(remedy.into()) }
    }
}

/// Whether anything is wrong.
pub fn is_ill(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Wrong)
}

/// For people: the worst last, where it is seen.
pub fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.state);
    let mut text = String::new();
    for Finding { check, state, said, remedy } in sorted {
        let state = format!("{state:?}").to_lowercase();
        writeln!(text, "{state:<9} {check}: {said}").expect("a text grows");
        if let Some(remedy) = remedy {
            writeln!(text, "{:<9}   {remedy}", "").expect("a text grows");
        }
    }
    text
}

/// This host's clock beside a server's, both in seconds since 1970.
pub(super) fn clock(server: &str, own: u64, other: u64) -> Finding {
    let (skew, side) = (own.abs_diff(other), if own > other { "ahead of" } else { "behind" });
    let said = format!("{skew} s {side} {server}");
    let remedy = "set the clock, here or there, and keep it so (chrony, systemd-timesyncd)";
    match Duration::from_secs(skew) {
        skew if skew > SKEW_MAX => Finding::wrong("clock", said, remedy),
        skew if skew > SKEW_ODD => Finding::doubtful("clock", said, remedy),
        _ => Finding::fine("clock", said),
    }
}

/// A certificate at `now`, which is to be renewed by `renew_by`; all in seconds since 1970.
pub(super) fn certificate(id: &str, now: u64, renew_by: u64, not_after: u64) -> Finding {
    let said = format!("{id}: {} left", hours(not_after.saturating_sub(now)));
    if now >= not_after {
        let remedy = "start mesh-proxy where a server of the mesh can be reached";
        return Finding::wrong("certificate", format!("{id}: expired"), remedy);
    }
    if now > renew_by + OVERDUE.as_secs() {
        let remedy = "it should have been renewed by now: is mesh-proxy running, and does a server answer? Its log says why not";
        return Finding::doubtful("certificate", said, remedy);
    }
    Finding::fine("certificate", said)
}

fn hours(seconds: u64) -> String {
    match seconds / 3_600 {
        0 => format!("{} min", seconds / 60),
        hours => format!("{hours} h"),
    }
}

/// A link's largest packet, in bytes.
pub(super) fn mtu(link: &str, bytes: u32) -> Finding {
    let said = format!("{link}: {bytes}");
    match bytes < MTU_MIN {
        true => Finding::wrong(
            "mtu",
            said,
            format!("set it to {MTU_MIN} at least: ip link set {link} mtu {MTU_MIN}"),
        ),
        false => Finding::fine("mtu", said),
    }
}

/// The connections that the kernel follows, of so many that it can.
pub(super) fn conntrack(count: u64, limit: u64) -> Finding {
    let said = format!("{count} of {limit} connections");
    let percent = count.saturating_mul(100).checked_div(limit).unwrap_or(100);
    match percent {
        100.. => Finding::wrong("conntrack", said, more_room(limit)),
        CONNTRACK_PERCENT.. => Finding::doubtful("conntrack", said, more_room(limit)),
        _ => Finding::fine("conntrack", said),
    }
}

fn more_room(limit: u64) -> String {
    format!(
        "new connections are dropped when it is full: sysctl -w net.netfilter.nf_conntrack_max={}",
        limit * 4
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_judged() {
        for (finding, want) in [
            (clock("cp1", 1_000, 1_059), State::Fine),
            (clock("cp1", 1_000, 1_061), State::Doubtful),
            (clock("cp1", 1_301, 1_000), State::Wrong),
            (certificate("x", 100, 90, 10_000), State::Fine),
            (certificate("x", 5_000, 90, 10_000), State::Doubtful),
            (certificate("x", 10_000, 90, 10_000), State::Wrong),
            (mtu("eth0", 1_280), State::Fine),
            (mtu("eth0", 1_279), State::Wrong),
            (conntrack(79, 100), State::Fine),
            (conntrack(80, 100), State::Doubtful),
            (conntrack(100, 100), State::Wrong),
            (conntrack(0, 0), State::Wrong),
        ] {
            assert_eq!(finding.state, want, "{finding:?}");
            let ill = matches!(want, State::Wrong | State::Doubtful);
            assert_eq!(finding.remedy.is_some(), ill, "what is not fine has a remedy: {finding:?}");
        }
    }

    #[test]
    fn the_worst_is_told_last_with_its_remedy() {
        let findings = [
            Finding::wrong("clock", "off", "set it"),
            Finding::fine("mtu", "1500"),
            Finding::skipped("dns", "off"),
        ];
        assert!(is_ill(&findings) && !is_ill(&findings[1..]));
        let want = "fine      mtu: 1500\nskipped   dns: off\nwrong     clock: off\n            set it\n";
        assert_eq!(text(&findings), want);
    }
}
