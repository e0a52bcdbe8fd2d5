//! Pure. How a TrafficPolicy says that endpoints are picked.

use crate::{
    duration::Timespan,
    resource::filter::check_name,
    shape::{Decoder, Int, Path, Text, choice, record},
};

choice! {
    /// How an endpoint is picked.
    pub enum BalancerType {
        /// Of two that are drawn, the one with the lesser product of load and latency.
        PeakEwma = "PeakEWMA",
        /// Of two that are drawn, the one with fewer calls under way.
        LeastRequest = "LeastRequest",
        /// In turn.
        RoundRobin = "RoundRobin",
        /// Drawn.
        Random = "Random",
        /// The next one on a ring, by what the request carries.
        RingHash = "RingHash",
        /// By a table and what the request carries: more even than a ring, and a few more keys move with a change.
        Maglev = "Maglev",
    }
}

impl BalancerType {
    /// Whether what the request carries decides.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

choice! {
    /// What of a request is hashed.
    pub enum HashKeyType {
        /// A header's value.
        Header = "Header",
        /// A cookie's value.
        Cookie = "Cookie",
        /// Who calls: the service, and the host that it calls from.
        Source = "Source",
    }
}

record! {
    /// A part of a request that is hashed.
    pub struct HashKey {
        /// What.
        "type" kind: HashKeyType,
        /// The header's or cookie's name.
        "name" name: Option<Text<256>>,
    }
}

record! {
    /// The mesh sets a cookie, by which further requests come to the same endpoint while it is there and well.
    pub struct CookieAffinity {
        /// The cookie's name.
        "cookie" cookie: Text<256>,
        /// How long the caller keeps it; as long as it runs if left out.
        "ttl" ttl: Option<Timespan>,
    }
}

record! {
    /// Calls stay in the zone that they come from.
    pub struct ZonePreference {
        /// If less than this share of the zone's endpoints is well, in percent, the lacking part of the calls goes to others.
        "spillOverBelow" spill_over_below: Int<1, 100> = Int::clamped(70),
    }
}

record! {
    /// Which endpoint a call goes to.
    pub struct LoadBalancer {
        /// How it is picked.
        "type" kind: BalancerType = BalancerType::PeakEwma,
        /// For RingHash and Maglev: the first of these that a request carries decides; one that carries none goes anywhere.
        "hashOn" hash_on: Vec<HashKey>,
        /// The same endpoint again, by a cookie of the mesh.
        "affinity" affinity: Option<CookieAffinity>,
        /// An endpoint that is new, or back, gets its share by and by over this time; at once if left out or 0.
        "slowStart" slow_start: Option<Timespan>,
        /// If less than this share of the endpoints is well, in percent, all get calls; only when none is if 0.
        "panicThreshold" panic_threshold: Int<0, 100> = Int::clamped(0),
        /// Whether calls stay in the caller's zone; they do not if left out.
        "zones" zones: Option<ZonePreference>,
    }
}

impl LoadBalancer {
    /// Reports what does not fit together.
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let hash_at = Path::Field(at, "hashOn");
        match (self.kind.hashes(), self.hash_on.is_empty()) {
            (true, true) => decoder.report(&hash_at, format_args!("is required for {}", self.kind)),
            (false, false) => {
                decoder.report(&hash_at, format_args!("is for RingHash and Maglev, not {}", self.kind))
            }
            _ => {}
        }
        for (index, key) in self.hash_on.iter().enumerate() {
            key.check(&Path::Index(&hash_at, index), decoder);
        }
        if let Some(affinity) = &self.affinity {
            let affinity_at = Path::Field(at, "affinity");
            check_cookie(affinity.cookie.as_str(), &Path::Field(&affinity_at, "cookie"), decoder);
        }
        let elsewhere = [("slowStart", self.slow_start.is_some()), ("zones", self.zones.is_some())];
        for (field, _) in elsewhere.into_iter().filter(|(_, said)| *said && self.kind.hashes()) {
            let message = format_args!("is not for {}: there the request decides", self.kind);
            decoder.report(&Path::Field(at, field), message);
        }
    }
}

impl HashKey {
    fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let name_at = Path::Field(at, "name");
        match (self.kind, &self.name) {
            (HashKeyType::Source, None) => {}
            (HashKeyType::Source, Some(_)) => decoder.report(&name_at, "is for Header and Cookie"),
            (_, None) => decoder.report(&name_at, "is required"),
            (HashKeyType::Header, Some(name)) => check_name(name.as_str(), &name_at, decoder),
            (HashKeyType::Cookie, Some(name)) => check_cookie(name.as_str(), &name_at, decoder),
        }
    }
}

/// A cookie's name is a token, as a header's is (RFC 6265 §4.1.1).
fn check_cookie(name: &str, at: &Path<'_>, decoder: &mut Decoder) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        decoder.report(at, "must be a cookie's name (RFC 6265 §4.1.1)");
    }
}
