//! Pure. JoinToken and AccessToken: what they allow. Their secrets are never here, only in the registry, hashed.

use std::collections::BTreeMap;

use super::Rules;
use crate::{
    duration::Timespan,
    name::{Name, NameGlob, ServiceGlob},
    object::{LABEL_VALUE_BYTES_MAX, LabelKey, Metadata},
    shape::{Decoder, Int, Path, Text, choice, record},
};

/// The longest life of a token that brings in a server: its holder becomes part of the control plane.
pub const SERVER_TOKEN_TTL_MAX: Timespan = Timespan::from_secs(3_600);

choice! {
    /// Whom a token brings in.
    pub enum JoinRole {
        /// A host with its proxy.
        Host = "host",
        /// A member of the control plane.
        Server = "server",
    }
}

record! {
    /// A right to bring in hosts or servers.
    pub struct JoinTokenSpec {
        /// Whom it brings in.
        "role" role: JoinRole = JoinRole::Host,
        /// How many may join with it.
        "uses" uses: Int<1, 100_000> = Int::clamped(1),
        /// How long it is valid.
        "ttl" ttl: Timespan = Timespan::from_secs(3_600),
        /// Whether it lets one host that exists come back with a new key.
        "rejoin" rejoin: bool = false,
        /// The names that may join, with globs; any new one if left out.
        "nodes" nodes: Vec<NameGlob>,
        /// The services that the hosts may run.
        "services" services: Vec<ServiceGlob>,
        /// Labels that the hosts get; `zone` becomes the host's zone.
        "nodeLabels" node_labels: BTreeMap<LabelKey, Text<LABEL_VALUE_BYTES_MAX>>,
    }
}

impl Rules for JoinTokenSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        if self.ttl.duration().is_zero() {
            decoder.report(&Path::Field(at, "ttl"), "must be longer than 0s");
        }
        if self.role == JoinRole::Server {
            if self.uses.value() != 1 {
                decoder.report(&Path::Field(at, "uses"), "must be 1 for a server");
            }
            if self.ttl > SERVER_TOKEN_TTL_MAX {
                decoder.report(
                    &Path::Field(at, "ttl"),
                    format_args!("must be at most {SERVER_TOKEN_TTL_MAX} for a server"),
                );
            }
        }
        let exact = matches!(&self.nodes[..], [one] if one.as_str().parse::<Name>().is_ok());
        if self.rejoin && (self.uses.value() != 1 || !exact) {
            decoder
                .report(&Path::Field(at, "rejoin"), "needs uses 1 and exactly one name without '*' in nodes");
        }
    }
}

record! {
    /// A bearer token for the API.
    pub struct AccessTokenSpec {
        /// The roles whose rights it has: built in (admin, operator, viewer) or a Role's name.
        "roles" roles: Vec<Name>,
        /// How long it is valid; until it is deleted if left out.
        "ttl" ttl: Option<Timespan>,
    }
}

impl Rules for AccessTokenSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        if self.roles.is_empty() {
            decoder.report(
                &Path::Field(at, "roles"),
                "must name at least one role: admin, operator, viewer, or a Role",
            );
        }
        if self.ttl.is_some_and(|ttl| ttl.duration().is_zero()) {
            decoder.report(&Path::Field(at, "ttl"), "must be longer than 0s");
        }
    }
}
