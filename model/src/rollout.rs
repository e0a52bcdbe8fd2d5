//! Pure. How far a write has come among the proxies: what `?wait=applied` asks for, and what is answered.

use serde::{Deserialize, Serialize};

use crate::{duration::Timespan, name::Name};

/// Until when a write waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// So many of a hundred proxies that it concerns must run it, 1 to 100.
    pub quorum: u64,
    /// It does not wait longer than this.
    pub timeout: Timespan,
}

/// How far it has come: `status.rollout` of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The revision that is rolled out.
    pub revision: u64,
    /// Proxies with a live session that it concerns.
    pub concerned: usize,
    /// Those of them that run it.
    pub acked: usize,
    /// Some of those that could not take it, and keep what they had.
    #[serde(default)]
    pub nacked: Vec<Nacked>,
    /// Some of those that have not said anything of it yet.
    #[serde(default)]
    pub lagging: Vec<Name>,
}

/// A proxy that could not take a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nacked {
    /// Its host.
    pub node: Name,
    /// Why.
    pub reason: String,
}

impl Waiting {
    /// As query parameters.
    pub fn query(&self) -> [(&'static str, String); 3] {
        [
            ("wait", "applied".to_owned()),
            ("quorum", self.quorum.to_string()),
            ("timeout", self.timeout.to_string()),
        ]
    }
}

impl Rollout {
    /// Whether so many of a hundred of those whom it concerns run it.
    pub fn has_reached(&self, quorum: u64) -> bool {
        percent(self.acked) >= u128::from(quorum) * self.concerned as u128
    }
}

/// `3 of 4 proxies run revision 7; not yet: a, b; refused by: c (no such port)`
impl std::fmt::Display for Rollout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} proxies run revision {}", self.acked, self.concerned, self.revision)?;
        if !self.lagging.is_empty() {
            let names: Vec<_> = self.lagging.iter().map(Name::as_str).collect();
            write!(f, "; not yet: {}", names.join(", "))?;
        }
        if !self.nacked.is_empty() {
            let refused = self.nacked.iter().map(|nacked| format!("{} ({})", nacked.node, nacked.reason));
            write!(f, "; refused by: {}", refused.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

fn percent(count: usize) -> u128 {
    count as u128 * 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_words() {
        let text = r#"{"revision":7,"concerned":4,"acked":1,"nacked":[{"node":"c","reason":"no"}],"lagging":["a","b"]}"#;
        let rollout: Rollout = serde_json::from_str(text).expect("a rollout");
        assert_eq!(rollout.to_string(), "1 of 4 proxies run revision 7; not yet: a, b; refused by: c (no)");
        assert!(rollout.has_reached(25) && !rollout.has_reached(26));
        assert_eq!(serde_json::to_string(&rollout).expect("JSON"), text);
    }
}
