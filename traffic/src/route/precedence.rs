//! Pure. Which of several matches that fit a request wins, by Gateway API (HTTPRouteRule.matches): the more special one,
//! then the older route, then the first by name, then the first in the route.
//!
//! Gateway API leaves regular expressions to the implementation: here they come after every path that says something
//! and before the bare `/`, which says nothing; a catch-all beside a regular expression is then what it looks like.

use std::cmp::Reverse;

use model::{duration::Millis, name::Name};

/// How special a match is; the lesser comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) path: PathRank,
    /// `false` where a method is asked for.
    pub(crate) any_method: bool,
    pub(crate) headers: Reverse<usize>,
    pub(crate) query_params: Reverse<usize>,
    pub(crate) cookies: Reverse<usize>,
    /// `false` where a caller is asked for.
    pub(crate) any_source: bool,
}

/// How special a path is; the first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathRank {
    /// The whole path.
    Exact,
    /// A prefix of so many bytes, without a final `/`.
    Prefix(Reverse<usize>),
    /// A gRPC service and method, by the characters that they name (GRPCRouteRule.matches).
    Call { service: Reverse<usize>, method: Reverse<usize> },
    /// A regular expression.
    RegularExpression,
    /// Every path.
    Any,
}

/// What decides between equals of different routes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) created_at: Millis,
    pub(crate) namespace: Name,
    pub(crate) name: Name,
}
