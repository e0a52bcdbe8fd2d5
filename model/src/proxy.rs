//! Pure. The bodies and lines of `/v1/proxy/...`: what a host's proxy and the control plane tell each other.

use serde::{Deserialize, Serialize};

use crate::{
    answer,
    duration::Timespan,
    name::{Name, ServiceName},
    object::{Labels, Object},
    trust::TrustBundle,
};

/// A session ends so long after its last keep-alive, unless the control plane itself was away.
pub const SESSION_TTL: Timespan = Timespan::from_secs(10);
/// A proxy keeps its session alive this often: two may be lost.
pub const KEEPALIVE_INTERVAL: Timespan = Timespan::from_secs(3);
/// A proxy's stream has a line at least this often.
pub const SYNC_INTERVAL: Timespan = Timespan::from_secs(15);
/// A proxy's stream without a line for so long is dead.
pub const STREAM_SILENCE_MAX: Timespan = Timespan::from_secs(45);
/// As many services and endpoints as one host may register.
pub const REGISTRATION_OBJECTS_MAX: usize = 1_024;

/// Endpoints that one proxy says it leaves alone: with each sign of life, so that it stays short.
pub const LEFT_ALONE_MAX: usize = 32;
/// The longest reason for that, in characters.
pub const LEFT_ALONE_REASON_MAX: usize = 120;

/// `PUT /v1/proxy/registration`: everything that a host runs, in one write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// The proxy's version.
    pub version: String,
    /// The addresses under which it is dialled.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The services that its endpoints belong to: created where missing.
    #[serde(default)]
    pub services: Vec<RegisteredService>,
    /// The endpoints: kind Endpoint, with `status.health`.
    #[serde(default)]
    pub endpoints: Vec<Object>,
}

/// A service as a host describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisteredService {
    /// Which.
    pub service: ServiceName,
    /// As in a Service's `spec.ports`.
    pub ports: Vec<serde_json::Value>,
    /// For a Service that is created.
    #[serde(default)]
    pub labels: Labels,
}

answer! {
    /// The answer to a [`Registration`].
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Registered {
        /// The session's generation: part of each keep-alive.
        "generation" pub generation: u64,
        /// How long the session lasts without a keep-alive.
        "ttl" pub ttl: Timespan,
        /// The revision at which it is registered.
        "revision" pub revision: u64,
    }
}

/// `POST /v1/proxy/keepalive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepAlive {
    /// The session's.
    pub generation: u64,
    /// The revision that the proxy runs.
    pub revision: u64,
    /// What it could not compile, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nack: Option<Nack>,
    /// Endpoints that its callers leave alone, the first [`LEFT_ALONE_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<LeftAlone>,
}

/// An endpoint that a proxy's callers leave alone, by a traffic policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// The service.
    pub service: ServiceName,
    /// The Endpoint's name.
    pub endpoint: Name,
    /// Why.
    pub reason: String,
}

answer! {
    /// Why a proxy stays at its old configuration.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Nack {
        /// The revision that it could not take.
        "revision" pub revision: u64,
        /// Why not.
        "reason" pub reason: String,
    }
}

answer! {
    /// The answer to a [`KeepAlive`].
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KeptAlive {
        /// The leader's term.
        "term" pub term: u64,
        /// How long the session lasts from now.
        "ttl" pub ttl: Timespan,
    }
}

/// A line of `GET /v1/proxy/watch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// An object of the scope.
    Put {
        /// As it is.
        object: Object,
    },
    /// An object left the scope, or is gone.
    Delete {
        /// Its key is what counts.
        object: Object,
    },
    /// Whom to trust.
    Trust {
        /// Replaces what was held.
        trust: TrustBundle,
    },
    /// The set is complete as of this revision: now it may be compiled.
    Sync {
        /// The revision.
        revision: u64,
    },
    /// The stream ends: start again without `from`.
    Error {
        /// 410.
        status: u16,
    },
}

/// Who holds which session: also the answer of `GET /v1/proxies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyState {
    /// The host.
    pub node: Name,
    /// `Live`, `Stale` or `None`.
    pub session: String,
    /// The proxy's version.
    #[serde(default)]
    pub version: String,
    /// The revision that it runs.
    #[serde(default)]
    pub revision: u64,
    /// What it could not compile, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nack: Option<Nack>,
    /// Endpoints that its callers leave alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<LeftAlone>,
    /// The services whose endpoints it serves.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// The addresses under which it is dialled.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// Reads one line of a stream, leniently.
///
/// # Errors
/// If it is no line that this version knows.
pub fn parse_line(line: &[u8]) -> Result<Line, serde_json::Error> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_have_the_documented_form() {
        assert_eq!(
            serde_json::to_value(Line::Sync { revision: 3 }).expect("serialises"),
            json!({"type": "sync", "revision": 3})
        );
        let put = json!({"type": "put", "object": {"kind": "Node", "metadata": {"name": "a"}, "spec": {"services": ["a/*"]}, "later": 1}});
        let Line::Put { object } = parse_line(put.to_string().as_bytes()).expect("parses") else {
            panic!("not a put")
        };
        assert_eq!(object.key().to_string(), "Node a");
        assert!(parse_line(b"{}").is_err() && parse_line(b"").is_err());
    }
}
