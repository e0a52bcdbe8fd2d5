//! Pure. Which verified identities are taken where: what a listener accepts, whom a dialler expects.

use std::fmt;

use model::identity::{Identity, SpiffeId};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::{
    error::SvidError,
    trust::Trust,
    verify::{Peer, Usage, verify},
};

/// Whom a listener takes as callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Services: the proxies' inbound listener (15008). Nodes and servers have no business there.
    Services,
    /// Members of the control plane: the listener of the registry (8444).
    Members,
    /// Nodes and members, or no certificate at all: the API (8443), where people bring a token instead. A service's
    /// certificate is refused by name rather than ignored.
    NodesAndMembers,
}

/// Whom a dialler expects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expect {
    /// This very identity; the name that was dialled says nothing.
    Id(SpiffeId),
    /// Some member of the control plane, whose certificate is for the name or address that was dialled.
    Meshd,
}

impl Accept {
    /// Whether a caller may come without a certificate.
    pub fn anonymous(self) -> bool {
        self == Self::NodesAndMembers
    }

    /// Whether a verified caller is of an accepted class.
    pub fn admit(self, id: &SpiffeId) -> Result<(), SvidError> {
        let taken = matches!(
            (self, id.identity()),
            (Self::Services, Identity::Service(_))
                | (Self::Members, Identity::Meshd(_))
                | (Self::NodesAndMembers, Identity::Node(_) | Identity::Meshd(_))
        );
        if taken { Ok(()) } else { Err(SvidError::NotAccepted { id: id.clone(), accepts: self.accepts() }) }
    }

    /// Judges a caller from scratch by its chain: what the handshake does, and what its owner does again after every
    /// handshake (a resumed one skips the verifier) and on live connections when trust changes. `None` is a caller
    /// without certificate where that is allowed.
    pub fn recheck(
        self,
        chain: Option<&[CertificateDer<'_>]>,
        trust: &Trust,
        now: UnixTime,
    ) -> Result<Option<Peer>, SvidError> {
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else {
            return if self.anonymous() { Ok(None) } else { Err(SvidError::NoCertificate) };
        };
        let peer = verify(chain, trust, Usage::Client, now)?;
        self.admit(&peer.id)?;
        Ok(Some(peer))
    }

    fn accepts(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Members => "members of the control plane",
            Self::NodesAndMembers => "nodes and members of the control plane",
        }
    }
}

impl Expect {
    /// Whether a verified server is the expected one; `leaf` is its certificate, `name` what was dialled.
    pub fn admit(
        &self,
        id: &SpiffeId,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<(), SvidError> {
        match (self, id.identity()) {
            (Self::Id(expected), _) if expected == id => Ok(()),
            (Self::Meshd, Identity::Meshd(_)) => is_for(leaf, name, id),
            _ => Err(SvidError::Unexpected { id: id.clone(), expected: self.to_string() }),
        }
    }

    /// Judges a server from scratch by its chain; for when, see [`Accept::recheck`].
    pub fn recheck(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        name: &ServerName<'_>,
        trust: &Trust,
        now: UnixTime,
    ) -> Result<Peer, SvidError> {
        let chain = chain.unwrap_or_default();
        let peer = verify(chain, trust, Usage::Server, now)?;
        self.admit(&peer.id, chain.first().ok_or(SvidError::NoCertificate)?, name)?;
        Ok(peer)
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Meshd => f.write_str("a member of the control plane"),
        }
    }
}

fn is_for(leaf: &CertificateDer<'_>, name: &ServerName<'_>, id: &SpiffeId) -> Result<(), SvidError> {
    let cert = EndEntityCert::try_from(leaf).map_err(|error| SvidError::Malformed(error.to_string()))?;
    let other = |_| SvidError::OtherName { id: id.clone(), name: name.to_str().into_owned() };
    cert.verify_is_valid_for_subject_name(name).map_err(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESHD: &str = "spiffe://mesh.internal/meshd/1";
    const NODE: &str = "spiffe://mesh.internal/node/host-a";
    const SERVICE: &str = "spiffe://mesh.internal/ns/default/svc/web";
    const OTHER: &str = "spiffe://mesh.internal/something/else";

    #[track_caller]
    fn check(accept: Accept, want: &[&str]) {
        let takes = |text: &&str| accept.admit(&text.parse().expect("an id")).is_ok();
        let taken: Vec<&str> = [MESHD, NODE, SERVICE, OTHER].into_iter().filter(takes).collect();
        assert_eq!(taken, want, "{accept:?}");
    }

    #[test]
    fn each_listener_takes_its_own_classes() {
        check(Accept::Services, &[SERVICE]);
        check(Accept::Members, &[MESHD]);
        check(Accept::NodesAndMembers, &[MESHD, NODE]);
    }

    #[test]
    fn a_refused_class_is_named() {
        let refused =
            Accept::Services.admit(&NODE.parse().expect("an id")).expect_err("nodes are no services");
        assert_eq!(
            refused.to_string(),
            "spiffe://mesh.internal/node/host-a is not accepted here: only services"
        );
    }
}
