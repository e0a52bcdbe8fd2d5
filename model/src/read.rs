//! Pure. How fresh a read is to be: how it is said in a query, and what each word promises.

use std::{fmt, str::FromStr};

/// What a read promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// All that was acknowledged anywhere before the read began. The leader asks a majority, once for all who wait.
    #[default]
    Linearizable,
    /// The same, as long as no member's clock runs at less than three quarters of another's: the leader asks nobody
    /// while it was heard by a majority a moment ago.
    Leased,
    /// What this one server has applied. It needs no leader, and never goes back while the server runs.
    Stale,
}

/// How fresh a read is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// What it promises.
    pub consistency: Consistency,
    /// And not without this revision: the server waits for it a moment, or refuses.
    pub min_revision: Option<u64>,
}

/// A word that names no consistency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be linearizable, leased or stale, is '{0}'")]
pub struct ConsistencyError(String);

impl Consistency {
    /// All of them, the strictest first.
    pub const ALL: &[Self] = &[Self::Linearizable, Self::Leased, Self::Stale];

    /// The word in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Leased => "leased",
            Self::Stale => "stale",
        }
    }
}

impl Freshness {
    /// The query parameters that say it; none for the default.
    pub fn query(self) -> impl Iterator<Item = (&'static str, String)> {
        let consistency = (self.consistency != Consistency::default())
            .then(|| ("consistency", self.consistency.as_str().to_owned()));
        let least = self.min_revision.map(|revision| ("minRevision", revision.to_string()));
        consistency.into_iter().chain(least)
    }
}

impl From<Consistency> for Freshness {
    fn from(consistency: Consistency) -> Self {
        Self { consistency, min_revision: None }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Consistency {
    type Err = ConsistencyError;

    fn from_str(text: &str) -> Result<Self, ConsistencyError> {
        let named = Self::ALL.iter().copied().find(|consistency| consistency.as_str() == text);
        named.ok_or_else(|| ConsistencyError(text.chars().take(50).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_queries_say_the_same() {
        for consistency in Consistency::ALL {
            assert_eq!(consistency.to_string().parse(), Ok(*consistency));
        }
        assert!("eventual".parse::<Consistency>().expect_err("no such word").to_string().contains("leased"));
        let query = |freshness: Freshness| freshness.query().collect::<Vec<_>>();
        assert_eq!(query(Freshness::default()), []);
        assert_eq!(
            query(Freshness { consistency: Consistency::Stale, min_revision: Some(7) }),
            [("consistency", "stale".to_owned()), ("minRevision", "7".to_owned())]
        );
    }
}
