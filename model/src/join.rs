//! Pure. What a join token allows: one step that the log applies and the leader asks beforehand, with equal outcome.
//! Secrets never come here, only their hashes; who makes tokens and how they are printed is decided elsewhere.

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameGlob};

/// How long the key to which a use was bound may ask again (the answer may have been lost), in milliseconds.
pub const RETRY_MS: u64 = 10 * 60 * 1_000;

/// For what a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinRole {
    /// A host with its proxy.
    Host,
    /// A member of the control plane.
    Server,
}

/// What the cluster keeps of a join token. Times are milliseconds since 1970, of the log's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRecord {
    /// SHA-256 of the secret, lower-case hex.
    pub hash: String,
    /// For what it lets in.
    pub role: JoinRole,
    /// Uses that are not bound yet.
    pub uses_left: u32,
    /// From this moment on nothing new is granted.
    pub expires_at: u64,
    /// Names that it may create.
    pub nodes: Vec<NameGlob>,
    /// Lets one existing node in anew; `nodes` is then its exact name.
    #[serde(default)]
    pub rejoin: bool,
    /// The uses that were taken.
    #[serde(default)]
    pub bound: Vec<Binding>,
}

/// One use of a token, bound to the key that took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// SHA-256 over the SubjectPublicKeyInfo of the request's key, lower-case hex.
    pub fingerprint: String,
    /// The name under which it joined.
    pub node: Name,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// One try to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAttempt {
    /// SHA-256 of the secret that was presented, lower-case hex.
    pub hash: String,
    /// As what it wants to join.
    pub role: JoinRole,
    /// The name it asks for.
    pub node: Name,
    /// The key it asks for: SHA-256 over its SubjectPublicKeyInfo, lower-case hex.
    pub fingerprint: String,
}

/// The attempt is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGranted {
    /// A use was taken; `false` when the same key asked again.
    pub first: bool,
}

/// Why an attempt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum JoinRefused {
    /// The secret is not the token's.
    #[error("the token is not known")]
    Secret,
    /// A host's token for a server, or the other way round.
    #[error("the token is for a {token:?}, not for a {asked:?}")]
    Role {
        /// What the token is for.
        token: JoinRole,
        /// What was asked.
        asked: JoinRole,
    },
    /// The key took a use and may no longer ask again.
    #[error(
        "the token was used with this key for node '{node}' more than 10 minutes ago; join with a new token"
    )]
    RetryOver {
        /// The name under which it joined.
        node: Name,
    },
    /// The key took a use for another name.
    #[error("the token was used with this key for node '{bound}', not '{asked}'")]
    OtherNode {
        /// The name under which the key joined.
        bound: Name,
        /// The name it asks for now.
        asked: Name,
    },
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// No use is left.
    #[error("the token is used up")]
    UsedUp,
    /// The token may not create this name.
    #[error("the token does not allow node '{node}', only {allowed:?}")]
    Name {
        /// The name that was asked for.
        node: Name,
        /// What the token allows.
        allowed: Vec<NameGlob>,
    },
    /// The name is taken.
    #[error("node '{node}' exists; make a token with rejoin for it, or delete it")]
    Exists {
        /// The name that was asked for.
        node: Name,
    },
    /// A rejoin token, and no such node.
    #[error("node '{node}' does not exist, and the token only lets an existing node in anew")]
    Missing {
        /// The name that was asked for.
        node: Name,
    },
}

impl JoinRecord {
    /// Whether the attempt may join at `now` (milliseconds since 1970); `exists` says whether the name is taken.
    /// Changes nothing: see [`JoinRecord::bind`].
    pub fn decide(&self, attempt: &JoinAttempt, exists: bool, now: u64) -> Result<JoinGranted, JoinRefused> {
        if !same(&self.hash, &attempt.hash) {
            return Err(JoinRefused::Secret);
        }
        if self.role != attempt.role {
            return Err(JoinRefused::Role { token: self.role, asked: attempt.role });
        }
        match self.bound.iter().find(|binding| binding.fingerprint == attempt.fingerprint) {
            Some(binding) => again(binding, attempt, now),
            None => self.first(attempt, exists, now),
        }
    }

    /// Takes the use that [`JoinRecord::decide`] granted as a first one.
    pub fn bind(&mut self, attempt: &JoinAttempt, now: u64) {
        self.uses_left = self.uses_left.saturating_sub(1);
        let (fingerprint, node) = (attempt.fingerprint.clone(), attempt.node.clone());
        self.bound.push(Binding { fingerprint, node, at: now });
    }

    fn first(&self, attempt: &JoinAttempt, exists: bool, now: u64) -> Result<JoinGranted, JoinRefused> {
        let node = attempt.node.clone();
        if now >= self.expires_at {
            return Err(JoinRefused::Expired);
        }
        if self.uses_left == 0 {
            return Err(JoinRefused::UsedUp);
        }
        if !self.allows(&node) {
            return Err(JoinRefused::Name { node, allowed: self.nodes.clone() });
        }
        match (exists, self.rejoin) {
            (true, false) => Err(JoinRefused::Exists { node }),
            (false, true) => Err(JoinRefused::Missing { node }),
            _ => Ok(JoinGranted { first: true }),
        }
    }

    /// A rejoin token is for one exact name, never for a pattern.
    fn allows(&self, node: &Name) -> bool {
        if self.rejoin {
            return self.nodes.len() == 1 && self.nodes[0].as_str() == node.as_str();
        }
        self.nodes.iter().any(|glob| glob.matches(node.as_str()))
    }
}

fn again(binding: &Binding, attempt: &JoinAttempt, now: u64) -> Result<JoinGranted, JoinRefused> {
    if binding.node != attempt.node {
        return Err(JoinRefused::OtherNode { bound: binding.node.clone(), asked: attempt.node.clone() });
    }
    if now > binding.at.saturating_add(RETRY_MS) {
        return Err(JoinRefused::RetryOver { node: binding.node.clone() });
    }
    Ok(JoinGranted { first: false })
}

/// Compares in a time that does not depend on where the texts differ.
fn same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn record() -> JoinRecord {
        JoinRecord {
            hash: "aa".repeat(32),
            role: JoinRole::Host,
            uses_left: 1,
            expires_at: NOW + 60_000,
            nodes: vec!["shop-*".parse().expect("a glob")],
            rejoin: false,
            bound: Vec::new(),
        }
    }

    fn attempt(node: &str, key: &str) -> JoinAttempt {
        let node = node.parse().expect("a name");
        JoinAttempt { hash: "aa".repeat(32), role: JoinRole::Host, node, fingerprint: key.to_owned() }
    }

    fn refused(record: &JoinRecord, attempt: &JoinAttempt, exists: bool, now: u64) -> String {
        record.decide(attempt, exists, now).expect_err("it must be refused").to_string()
    }

    #[test]
    fn one_use_is_bound_to_its_key_which_may_retry_for_ten_minutes() {
        let mut record = record();
        let mine = attempt("shop-1", "k1");
        assert_eq!(record.decide(&mine, false, NOW), Ok(JoinGranted { first: true }));
        record.bind(&mine, NOW);
        // The node exists by now, the token is used up and expired: the key may still fetch what it was granted.
        for at in [NOW + 1, NOW + RETRY_MS] {
            assert_eq!(record.decide(&mine, true, at), Ok(JoinGranted { first: false }));
        }
        assert!(refused(&record, &mine, true, NOW + RETRY_MS + 1).contains("more than 10 minutes ago"));
        assert_eq!(refused(&record, &attempt("shop-2", "k2"), false, NOW + 1), "the token is used up");
        assert!(
            refused(&record, &attempt("shop-2", "k1"), false, NOW + 1).contains("'shop-1', not 'shop-2'")
        );
    }

    #[test]
    fn a_hundred_attempts_share_one_use() {
        let mut record = record();
        let mut granted = 0;
        for n in 0..100 {
            let attempt = attempt(&format!("shop-{n}"), &format!("k{n}"));
            if record.decide(&attempt, false, NOW).is_ok() {
                record.bind(&attempt, NOW);
                granted += 1;
            }
        }
        assert_eq!((granted, record.uses_left, record.bound.len()), (1, 0, 1));
    }

    #[test]
    fn each_refusal_says_why() {
        let record = record();
        let wrong = JoinAttempt { hash: "ab".repeat(32), ..attempt("shop-1", "k") };
        assert_eq!(refused(&record, &wrong, false, NOW), "the token is not known");
        let short = JoinAttempt { hash: String::new(), ..attempt("shop-1", "k") };
        assert_eq!(refused(&record, &short, false, NOW), "the token is not known");
        let server = JoinAttempt { role: JoinRole::Server, ..attempt("shop-1", "k") };
        assert!(refused(&record, &server, false, NOW).contains("not for a Server"));
        assert_eq!(refused(&record, &attempt("shop-1", "k"), false, NOW + 60_000), "the token has expired");
        assert!(
            refused(&record, &attempt("web-1", "k"), false, NOW)
                .contains("does not allow node 'web-1', only [shop-*]")
        );
        assert!(
            refused(&record, &attempt("shop-1", "k"), true, NOW).contains("exists; make a token with rejoin")
        );
    }

    #[test]
    fn rejoin_is_for_one_exact_name_that_exists() {
        let rejoin = JoinRecord { rejoin: true, nodes: vec!["shop-1".parse().expect("a glob")], ..record() };
        assert_eq!(rejoin.decide(&attempt("shop-1", "k"), true, NOW), Ok(JoinGranted { first: true }));
        assert!(refused(&rejoin, &attempt("shop-1", "k"), false, NOW).contains("does not exist"));
        assert!(refused(&rejoin, &attempt("shop-2", "k"), true, NOW).contains("does not allow"));
        let pattern = JoinRecord { rejoin: true, ..record() };
        assert!(
            refused(&pattern, &attempt("shop-1", "k"), true, NOW).contains("does not allow"),
            "a pattern is no name"
        );
    }
}
