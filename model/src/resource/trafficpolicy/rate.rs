//! Pure. How a TrafficPolicy says how often a service may be called.

use std::collections::BTreeSet;

use crate::{
    duration::Timespan,
    name::Name,
    resource::{RouteMatch, filter::check_name, httproute::check_match},
    shape::{Decoder, Int, Path, Text, choice, record},
};

choice! {
    /// What requests are told apart by.
    pub enum RateKeyType {
        /// The service that calls.
        Source = "Source",
        /// A header's value.
        Header = "Header",
    }
}

record! {
    /// A part of a request; each value of it has tokens of its own.
    pub struct RateKey {
        /// What.
        "type" kind: RateKeyType,
        /// The header's name.
        "name" name: Option<Text<256>>,
    }
}

record! {
    /// How often requests of a kind may come to one host of the service.
    pub struct RateLimit {
        /// Its name, for callers, metrics and logs; its index if left out.
        "name" name: Option<Name>,
        /// Which requests, as in routes: any of these; every request if left out.
        "matches" matches: Vec<RouteMatch>,
        /// What they are told apart by; they share the tokens if left out.
        "by" by: Vec<RateKey>,
        /// As many requests.
        "requests" requests: Int<1, 1_000_000>,
        /// In this time; above 0, at most a day.
        "per" per: Timespan = Timespan::from_secs(1),
        /// As many at once after a rest; `requests` if left out.
        "burst" burst: Option<Int<1, 1_000_000>>,
    }
}

/// The longest time that a rate is over: tokens of those who ask seldom are remembered for so long.
const PER_MAX: Timespan = Timespan::from_secs(24 * 3_600);

/// Reports what does not fit together.
pub(super) fn check(limits: &[RateLimit], at: &Path<'_>, decoder: &mut Decoder) {
    let mut names = BTreeSet::new();
    for (index, limit) in limits.iter().enumerate() {
        let at = Path::Index(at, index);
        if limit.name.as_ref().is_some_and(|name| !names.insert(name)) {
            decoder.report(&Path::Field(&at, "name"), "must be another one: a limit has this name");
        }
        if limit.per.duration().is_zero() || limit.per > PER_MAX {
            decoder.report(&Path::Field(&at, "per"), format_args!("must be above 0 and at most {PER_MAX}"));
        }
        let by_at = Path::Field(&at, "by");
        for (index, key) in limit.by.iter().enumerate() {
            key.check(&Path::Index(&by_at, index), decoder);
        }
        let matches_at = Path::Field(&at, "matches");
        for (index, one) in limit.matches.iter().enumerate() {
            check_match(one, &Path::Index(&matches_at, index), decoder);
        }
    }
}

impl RateKey {
    fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let name_at = Path::Field(at, "name");
        match (self.kind, &self.name) {
            (RateKeyType::Source, None) => {}
            (RateKeyType::Source, Some(_)) => decoder.report(&name_at, "is for Header"),
            (RateKeyType::Header, None) => decoder.report(&name_at, "is required"),
            (RateKeyType::Header, Some(name)) => check_name(name.as_str(), &name_at, decoder),
        }
    }
}
