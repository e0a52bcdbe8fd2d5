//! Pure. How often a service may be called: token buckets of the host that is called. Each limit is about requests of a
//! kind, and may tell them apart by who calls or by headers; then each has a bucket of its own. A request takes a token of
//! every limit that is about it, or none at all.
//!
//! What is here is of one host. A limit for the whole mesh would share out its rate among hosts by handing each another
//! [`Rate`]; nothing else would change.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use model::{
    invalid::FieldError,
    name::ServiceName,
    resource::{RateKeyType, RateLimit, TrafficPolicySpec},
};

use crate::{
    Moment,
    hash::hash,
    request::{Caller, RequestHead},
    route::Matchers,
};

/// Buckets that are kept for one limit: those that are full again are forgotten first. Each has some 40 bytes; callers who
/// make up values of a header could fill the memory otherwise. Beyond, requests share one.
pub const BUCKETS_MAX: usize = 65_536;

/// Tokens over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// As many requests.
    pub requests: u64,
    /// In this time.
    pub per: Duration,
    /// As many at once after a rest.
    pub burst: u64,
}

/// A limit, compiled.
#[derive(Debug)]
pub struct Limit {
    /// `<namespace>/<policy>/<limit>`, for metrics and logs.
    pub name: Arc<str>,
    /// The limit's own name, for callers.
    short: String,
    matchers: Matchers,
    by: Vec<By>,
    /// How often.
    pub rate: Rate,
}

#[derive(Debug)]
enum By {
    Source,
    Header(String),
}

/// The limits of a service, as one policy says them.
#[derive(Debug, Default)]
pub struct Limits(Vec<Arc<Limit>>);

/// The tokens of one limit. Kept outside the snapshot: they go on when configuration changes.
#[derive(Debug, Default)]
pub struct Buckets {
    buckets: HashMap<u64, Bucket>,
    /// For those that have none of their own.
    shared: Bucket,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// When it would be empty, were it never full: time is the tokens (GCRA). It is full at and before this.
    full_at: Moment,
}

/// How a limit stands after a request asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Whether there was a token.
    pub allowed: bool,
    /// Tokens that are left.
    pub left: u64,
    /// When the next one is there, if none is; else when all are.
    pub reset: Duration,
}

/// What a caller is told of a limit (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `RateLimit-Policy`.
    pub policy: String,
    /// `RateLimit`.
    pub stand: String,
}

/// What of limits the data plane could not compile: for admission.
pub fn check(spec: &TrafficPolicySpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, limit) in spec.rate_limits.iter().enumerate() {
        for (nth, one) in limit.matches.iter().enumerate().filter(|(_, one)| !one.source_labels.is_empty()) {
            let path = format!("spec.rateLimits[{index}].matches[{nth}].sourceLabels");
            let names = one.source_labels.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message =
                format!("the host that is called does not know its callers' labels ({names}); use sources");
            errors.push(FieldError { path, message });
        }
        Matchers::new(&limit.matches, &format!("spec.rateLimits[{index}]"), &mut errors);
    }
    errors
}

impl Limits {
    /// Compiles the limits of the policy `<namespace>/<name>`.
    ///
    /// # Errors
    /// As [`check`] says; never an empty list.
    pub(crate) fn compile(policy: &ServiceName, spec: &TrafficPolicySpec) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let limits = spec.rate_limits.iter().enumerate();
        let limits: Vec<_> =
            limits.map(|(index, limit)| Arc::new(Limit::new(policy, index, limit, &mut errors))).collect();
        if errors.is_empty() { Ok(Self(limits)) } else { Err(errors) }
    }

    /// Those that a request is about, each with whose bucket it is, in the order of the policy.
    pub fn about<'a>(
        &'a self,
        head: &'a RequestHead<'_>,
        source: Option<&'a ServiceName>,
    ) -> impl Iterator<Item = (&'a Arc<Limit>, u64)> {
        let about = self
            .0
            .iter()
            .filter(move |limit| limit.matchers.match_any(head, Caller { service: source, labels: None }));
        about.map(move |limit| (limit, limit.key(head, source)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|limit| &*limit.name == name)
    }
}

/// The same where they were compiled from the same.
impl PartialEq for Limits {
    fn eq(&self, other: &Self) -> bool {
        let both = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && both.into_iter().all(|(own, other)| Arc::ptr_eq(own, other))
    }
}

impl Eq for Limits {}

impl Limit {
    fn new(policy: &ServiceName, index: usize, limit: &RateLimit, errors: &mut Vec<FieldError>) -> Self {
        let short = limit.name.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
        let by = limit.by.iter().filter_map(|key| match key.kind {
            RateKeyType::Source => Some(By::Source),
            RateKeyType::Header => Some(By::Header(key.name.as_ref()?.as_str().to_ascii_lowercase())),
        });
        let requests = limit.requests.value();
        Self {
            name: format!("{policy}/{short}").into(),
            matchers: Matchers::new(&limit.matches, &format!("spec.rateLimits[{index}]"), errors),
            by: by.collect(),
            rate: Rate {
                requests,
                per: limit.per.duration(),
                burst: limit.burst.map_or(requests, |burst| burst.value()),
            },
            short,
        }
    }

    /// Whose bucket a request takes from.
    fn key(&self, head: &RequestHead<'_>, source: Option<&ServiceName>) -> u64 {
        self.by.iter().fold(0, |key, by| {
            let part = match by {
                By::Source => source.map_or(0, |source| {
                    hash(source.namespace.as_str().as_bytes())
                        ^ hash(source.name.as_str().as_bytes()).rotate_left(1)
                }),
                By::Header(name) => head.field_hash(name).unwrap_or(0),
            };
            crate::hash::mix(key ^ part)
        })
    }

    /// What a caller is told when it stands so.
    pub fn told(&self, stand: Stand) -> Told {
        Told { policy: self.policy_field(), stand: self.field(stand) }
    }

    fn policy_field(&self) -> String {
        let seconds = self.rate.per.as_secs_f64().ceil().max(1.0);
        let mut field = String::new();
        let Rate { requests, .. } = self.rate;
        write!(field, "\"{}\";q={requests};w={seconds}", self.short).expect("a String takes everything");
        field
    }

    fn field(&self, stand: Stand) -> String {
        format!("\"{}\";r={};t={}", self.short, stand.left, stand.reset_secs())
    }
}

impl Stand {
    /// In whole seconds, never too early: for `Retry-After` and `RateLimit`.
    pub fn reset_secs(&self) -> u64 {
        self.reset.as_millis().div_ceil(1_000) as u64
    }
}

impl Rate {
    /// The time in which one token comes.
    fn token(&self) -> Duration {
        self.per / u32::try_from(self.requests).unwrap_or(u32::MAX).max(1)
    }

    fn burst_span(&self) -> Duration {
        self.token().saturating_mul(u32::try_from(self.burst).unwrap_or(u32::MAX))
    }
}

impl Buckets {
    /// How the bucket `key` would stand if a token were taken; none is.
    pub fn look(&self, rate: Rate, key: u64, now: Moment) -> Stand {
        self.bucket(key).after(rate, now).0
    }

    /// Takes a token of the bucket `key`, which [`Buckets::look`] allowed.
    pub fn take(&mut self, rate: Rate, key: u64, now: Moment) {
        let after = self.bucket(key).after(rate, now).1;
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            self.shared = self.shared.after(rate, now).1;
            return;
        }
        self.buckets.insert(key, after);
    }

    /// Forgets those that are full again.
    pub fn sweep(&mut self, now: Moment) {
        self.buckets.retain(|_, bucket| bucket.full_at > now);
    }

    fn bucket(&self, key: u64) -> Bucket {
        let fresh = if self.buckets.len() >= BUCKETS_MAX { self.shared } else { Bucket::default() };
        self.buckets.get(&key).copied().unwrap_or(fresh)
    }
}

impl Bucket {
    fn after(self, rate: Rate, now: Moment) -> (Stand, Self) {
        let (token, burst) = (rate.token(), rate.burst_span());
        let full_at = self.full_at.max(now);
        let owed = full_at.since(now) + token;
        if owed > burst {
            return (Stand { allowed: false, left: 0, reset: owed - burst }, self);
        }
        let left = ((burst - owed).as_nanos() / token.as_nanos().max(1)) as u64;
        (Stand { allowed: true, left, reset: owed }, Self { full_at: full_at + token })
    }
}

#[cfg(test)]
mod tests;
