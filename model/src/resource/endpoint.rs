//! Pure. Endpoint: one running instance of a service.

use std::{fmt, net::IpAddr, str::FromStr};

use serde_json::{Value, json};

use super::{Port, Rules};
use crate::{
    name::{Name, NameError, as_text},
    shape::{Decoder, Int, Path, Shape, Text, choice, record},
};

/// The longest name in a certificate, in bytes.
pub(super) const HOSTNAME_BYTES_MAX: usize = 253;

/// Who says that the endpoint is there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The proxy of its host: `registration`.
    Registration,
    /// A discovery source, by its name: `discovery/<name>`.
    Discovery(Name),
}

impl FromStr for Source {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("discovery/") {
            Some(name) => name.parse().map(Self::Discovery),
            None if text == "registration" => Ok(Self::Registration),
            None => Err(NameError::Pair(text.to_owned())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registration => f.write_str("registration"),
            Self::Discovery(name) => write!(f, "discovery/{name}"),
        }
    }
}

as_text!(Source);

impl Shape for Source {
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^(registration|discovery/[-a-z0-9]+)$"})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let source = value.as_str().and_then(|text| text.parse().ok());
        if source.is_none() {
            decoder.report(at, "must be registration or discovery/<name>");
        }
        source
    }
}

record! {
    /// A port of a service, as this endpoint serves it.
    pub struct EndpointPort {
        /// The service's port.
        "port" port: Port,
        /// Where the application listens on this host.
        "targetPort" target_port: Port,
    }
}

record! {
    /// What an application that is called over TLS, past any proxy, must show its callers.
    pub struct EndpointTls {
        /// The name in its certificate, which callers ask for (SNI).
        "hostname" hostname: Text<HOSTNAME_BYTES_MAX>,
        /// The certificates that its own must come from: a file on the callers' hosts; those that such a host trusts if left out.
        "caFile" ca_file: Option<Text<4096>>,
    }
}

record! {
    /// Where an instance of a service is dialled.
    pub struct EndpointSpec {
        /// The service, of the same namespace.
        "service" service: Name,
        /// The host whose proxy serves it; left out when discovered without a proxy.
        "node" node: Option<Name>,
        /// Who says that it is there.
        "source" source: Source = Source::Registration,
        /// Where its proxy, or the application itself, is dialled.
        "address" address: IpAddr,
        /// The proxy's port for mTLS.
        "inboundPort" inbound_port: Port = Port::clamped(15_008),
        /// The service's ports that it serves.
        "ports" ports: Vec<EndpointPort>,
        /// The failure domain it stands in.
        "zone" zone: Option<Name>,
        /// Its share among its equals.
        "weight" weight: Int<0, 1_000_000> = Int::clamped(1),
        /// Over TLS, where there is no proxy; in plaintext if left out.
        "tls" tls: Option<EndpointTls>,
    }
}

impl Rules for EndpointSpec {}

choice! {
    /// Whether an endpoint should get traffic.
    pub enum Health {
        /// It should.
        Healthy = "Healthy",
        /// Its own host's checks fail.
        Unhealthy = "Unhealthy",
        /// It is going away: no new calls.
        Draining = "Draining",
    }
}

record! {
    /// What the mesh says of an endpoint.
    pub struct EndpointStatus {
        /// Whether it should get traffic.
        "health" health: Health = Health::Healthy,
        /// Whether its host's session is lost, and it is kept all the same.
        "stale" stale: bool = false,
    }
}
