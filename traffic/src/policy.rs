//! Pure. Who may call: the check that every call to an own service passes before it reaches the application. It returns a
//! proof, without which nothing can be sent to an application.
//!
//! Today one rule stands: callers are services of this trust domain, known by their certificate. Rules that operators
//! write will be fields of [`PolicySet`] and are consulted in [`authorize`], after that one.

use model::{
    identity::{Identity, SpiffeId, TrustDomain},
    name::ServiceName,
};

use crate::{path::Strictness, request::RequestHead};

/// The rule that lets in whoever the mesh knows.
const MESH_PEERS: &str = "mesh-peers";

/// What an own service asks of its callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet {
    domain: TrustDomain,
}

/// Who is calling, as the handshake has shown.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    /// Its certificate was verified, and this is its SPIFFE id.
    Verified(&'a SpiffeId),
    /// It came without mTLS.
    Unknown,
}

/// What is called.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The service's port.
    pub port: u16,
    /// The request; a connection as a whole has none.
    pub request: Option<&'a RequestHead<'a>>,
}

/// Proof that policy lets a call in. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit {
    rule: &'static str,
    caller: ServiceName,
    id: SpiffeId,
}

/// Why a call is refused; each names the rule in its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No certificate.
    #[error("rule {MESH_PEERS}: the caller has no identity")]
    NoIdentity,
    /// A certificate of another trust domain.
    #[error("rule {MESH_PEERS}: {0} is of another trust domain")]
    OtherDomain(SpiffeId),
    /// A certificate of a node, a control plane member or something else that is no service.
    #[error("rule {MESH_PEERS}: {0} is no service")]
    NotAService(SpiffeId),
}

impl PolicySet {
    /// Callers must be services of this trust domain.
    pub fn mesh_peers(domain: TrustDomain) -> Self {
        Self { domain }
    }

    /// In which form it needs paths: strict as soon as one of its rules decides by path.
    pub fn strictness(&self) -> Strictness {
        Strictness::Plain
    }
}

impl Permit {
    /// Who calls.
    pub fn caller(&self) -> &ServiceName {
        &self.caller
    }

    /// The caller's SPIFFE id.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The rule that let it in, for logs and explain.
    pub fn rule(&self) -> &str {
        self.rule
    }
}

/// Asks whether the peer may make the call.
///
/// # Errors
/// If not: why.
pub fn authorize(policies: &PolicySet, peer: Peer<'_>, _call: Call<'_>) -> Result<Permit, Denied> {
    let Peer::Verified(id) = peer else { return Err(Denied::NoIdentity) };
    if *id.domain() != policies.domain {
        return Err(Denied::OtherDomain(id.clone()));
    }
    match id.identity() {
        Identity::Service(caller) => Ok(Permit { rule: MESH_PEERS, caller, id: id.clone() }),
        Identity::Meshd(_) | Identity::Node(_) | Identity::Other => Err(Denied::NotAService(id.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `want` is the caller, or `!` and what the refusal says after its rule.
    #[track_caller]
    fn check(peer: &str, want: &str) {
        let policies = PolicySet::mesh_peers("mesh.internal".parse().expect("a domain"));
        let id: Option<SpiffeId> = (!peer.is_empty()).then(|| peer.parse().expect("an id"));
        let service = "default/orders".parse().expect("a service");
        let call = Call { service: &service, port: 80, request: None };
        let got = match authorize(&policies, id.as_ref().map_or(Peer::Unknown, Peer::Verified), call) {
            Ok(permit) => {
                assert_eq!((permit.rule(), permit.id().to_string().as_str()), (MESH_PEERS, peer));
                permit.caller().to_string()
            }
            Err(denied) => format!("!{denied}").replace("rule mesh-peers: ", ""),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn services_of_the_domain_are_let_in_and_nobody_else() {
        check("spiffe://mesh.internal/ns/shop/svc/web", "shop/web");
        check("", "!the caller has no identity");
        check("spiffe://other/ns/shop/svc/web", "!spiffe://other/ns/shop/svc/web is of another trust domain");
        for other in ["/node/host-a", "/meshd/1", "/ns/shop/svc", "/ns/shop/svc/web/extra", ""] {
            let id = format!("spiffe://mesh.internal{other}");
            check(&id, &format!("!{id} is no service"));
        }
    }
}
