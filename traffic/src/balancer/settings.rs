//! Pure. How a conduct says that endpoints are picked, and what a request carries for that.

use std::{sync::Arc, time::Duration};

use model::{
    name::{Name, ServiceName},
    resource::{BalancerType, CookieAffinity, HashKeyType, LoadBalancer},
};

use super::WARM;
use crate::{
    Moment,
    hash::{hash, mix},
    request::RequestHead,
};

/// A new endpoint begins with a tenth of its share.
const COLD: u32 = WARM / 10;

/// How endpoints are picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// By which means.
    pub kind: BalancerType,
    /// What is hashed, the first that is there.
    hash_on: Arc<[Key]>,
    /// The cookie by which requests come back.
    pub affinity: Option<Arc<Cookie>>,
    /// Over which time a new endpoint gets its share by and by.
    pub slow_start: Option<Duration>,
    /// If a lesser share is well, in percent, all get calls.
    pub(super) panic_below: u32,
    /// If a lesser share of the own zone is well, in percent, calls go to others; `None` if zones do not matter.
    pub(super) spill_below: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Header(String),
    Cookie(String),
    Source,
}

/// A cookie of the mesh, by which requests come to the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    /// In seconds.
    max_age: Option<u64>,
}

/// What a call carries that bears on where it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// What it carries, hashed.
    pub(super) hash: Option<u64>,
    /// The id of the endpoint that it has to come back to.
    pub(super) kept: Option<u64>,
    /// Whose turn it is.
    pub(super) turn: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self::from(&LoadBalancer::default())
    }
}

impl From<&LoadBalancer> for Settings {
    fn from(spec: &LoadBalancer) -> Self {
        let name =
            |name: &Option<model::shape::Text<256>>| name.as_ref().map(|name| name.as_str().to_owned());
        let keys = spec.hash_on.iter().filter_map(|key| match key.kind {
            HashKeyType::Header => name(&key.name).map(|name| Key::Header(name.to_ascii_lowercase())),
            HashKeyType::Cookie => name(&key.name).map(Key::Cookie),
            HashKeyType::Source => Some(Key::Source),
        });
        Self {
            kind: spec.kind,
            hash_on: keys.collect(),
            affinity: spec.affinity.as_ref().map(|affinity| Arc::new(Cookie::from(affinity))),
            slow_start: spec.slow_start.map(|span| span.duration()).filter(|span| !span.is_zero()),
            panic_below: spec.panic_threshold.value() as u32,
            spill_below: spec.zones.as_ref().map(|zones| zones.spill_over_below.value() as u32),
        }
    }
}

impl Settings {
    /// What a request of `source`, called from the host `node`, carries.
    pub fn ask(&self, head: &RequestHead<'_>, source: &ServiceName, node: Option<&Name>) -> Ask {
        let of = |key: &Key| match key {
            Key::Header(name) => head.field_hash(name),
            Key::Cookie(name) => head.cookie(name, hash),
            Key::Source => Some(source_hash(source, node)),
        };
        let kept = self.affinity.as_ref().and_then(|cookie| head.cookie(&cookie.name, id)?);
        Ask { hash: self.hash_on.iter().find_map(of), kept, turn: 0 }
    }

    /// The same of a stream, which shows nothing but its source.
    pub fn ask_of_stream(&self, source: &ServiceName, node: Option<&Name>) -> Ask {
        let hash = self.hash_on.contains(&Key::Source).then(|| source_hash(source, node));
        Ask { hash, ..Ask::default() }
    }

    /// Whether calls stay in the caller's zone.
    pub fn prefers_zones(&self) -> bool {
        self.spill_below.is_some()
    }

    /// The share of an endpoint that is known since `since`, out of [`WARM`].
    pub fn warmth(&self, since: Moment, now: Moment) -> u32 {
        let Some(span) = self.slow_start else { return WARM };
        let share = now.since(since).as_secs_f64() / span.as_secs_f64();
        ((share * f64::from(WARM)) as u32).clamp(COLD, WARM)
    }
}

impl Ask {
    /// As the turn `turn`.
    #[must_use]
    pub fn at_turn(self, turn: u64) -> Self {
        Self { turn, ..self }
    }

    /// What a caller has to keep so that its next requests come to the endpoint `id`; nothing if they will.
    pub fn to_keep(&self, settings: &Settings, id: u64) -> Option<String> {
        let cookie = settings.affinity.as_ref().filter(|_| self.kept != Some(id))?;
        let age = cookie.max_age.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
        Some(format!("{}={id:016x}; Path=/; HttpOnly; SameSite=Lax{age}", cookie.name))
    }
}

impl From<&CookieAffinity> for Cookie {
    fn from(spec: &CookieAffinity) -> Self {
        let max_age = spec.ttl.map(|ttl| ttl.duration().as_millis().div_ceil(1_000) as u64);
        Self { name: spec.cookie.as_str().to_owned(), max_age }
    }
}

fn source_hash(source: &ServiceName, node: Option<&Name>) -> u64 {
    let node = node.map_or(0, |node| hash(node.as_str().as_bytes()));
    let service = mix(hash(source.namespace.as_str().as_bytes())) ^ hash(source.name.as_str().as_bytes());
    mix(service ^ mix(node))
}

/// The id that a cookie's value is, if it is one of ours.
fn id(value: &[u8]) -> Option<u64> {
    let ours = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(value).ok().filter(|_| ours)?;
    u64::from_str_radix(text, 16).ok()
}
