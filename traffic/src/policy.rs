//! Pure. Who may call: the check that every call to an own service passes before it reaches the application. It returns a
//! proof, without which nothing can be sent to an application.
//!
//! First a rule of the mesh: callers are services of this trust domain, known by their certificate. Then the
//! AuthorizationPolicies that select the service: what one refuses is refused; where one allows, only what one allows is
//! let in; and what is only noted or rehearsed is handed back as [`Remark`]s. Policies that do not select the service
//! are not here, and rules for other callers are not looked at: see `index`.
//!
//! A stream of bytes shows no method, path or header. A rule that asks for one never allows a stream, and one that
//! denies is taken to ask nothing: what cannot be seen never opens a way.

use std::{fmt, sync::Arc};

use model::{
    identity::{Identity, SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    resource::PolicyAction,
};

use crate::{path::Strictness, request::RequestHead};

mod index;
mod rule;

pub use rule::{AuthorizationPolicy, check};

use index::Index;
use rule::{Asked, Doubt};

/// The rule that lets in whoever the mesh knows.
const MESH_PEERS: &str = "mesh-peers";
/// The rule by which one policy that allows closes the service to all that none allows.
const ONLY_ALLOWED: &str = "only-allowed";

/// As many remarks as one call is given: each is a part of its log line.
pub const REMARKS_MAX: usize = 8;

/// What an own service asks of its callers.
#[derive(Debug)]
pub struct PolicySet {
    domain: TrustDomain,
    deny: Index,
    allow: Index,
    audit: Index,
    rehearsed_deny: Index,
    rehearsed_allow: Index,
    strictness: Strictness,
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
    /// The service's port.
    pub port: u16,
    /// The request; a connection as a whole has none.
    pub request: Option<&'a RequestHead<'a>>,
}

/// What decides: a rule of a policy, `<namespace>/<policy>/<rule>`, or one of the mesh itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleId {
    /// Callers are services of the mesh.
    MeshPeers,
    /// Where a policy allows, only what one allows is let in.
    OnlyAllowed,
    /// A rule of a policy.
    Policy(Arc<str>),
}

/// Proof that policy lets a call in. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit {
    rule: RuleId,
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
    /// A rule that denies.
    #[error("rule {0}: it denies the call")]
    ByRule(RuleId),
    /// No rule that allows, where one has to.
    #[error("rule {ONLY_ALLOWED}: no policy that allows calls to the service allows this one")]
    NotAllowed,
}

/// What policies say of a call beside letting it in or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remark {
    /// What it is.
    pub kind: RemarkKind,
    /// By which rule.
    pub rule: RuleId,
}

/// What policies say of a call beside letting it in or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemarkKind {
    /// A policy of action Audit matches it.
    Audited,
    /// It is let in, and would not be if the rehearsed policies held.
    WouldDeny,
    /// It is refused, and would be let in if the rehearsed policies held.
    WouldAllow,
}

// === impl PolicySet ===

impl PolicySet {
    /// Callers must be services of this trust domain, and pass these policies, all of which select the service.
    pub fn new(domain: TrustDomain, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let of = |action, rehearsed| {
            Index::new(policies.iter().filter(move |policy| {
                policy.action == action && (policy.dry_run == rehearsed || action == PolicyAction::Audit)
            }))
        };
        let strict = policies.iter().any(|policy| policy.decides() && policy.looks_at_paths());
        Self {
            domain,
            deny: of(PolicyAction::Deny, false),
            allow: of(PolicyAction::Allow, false),
            audit: of(PolicyAction::Audit, false),
            rehearsed_deny: of(PolicyAction::Deny, true),
            rehearsed_allow: of(PolicyAction::Allow, true),
            strictness: if strict { Strictness::Strict } else { Strictness::Plain },
        }
    }

    /// Callers must be services of this trust domain, no more.
    pub fn mesh_peers(domain: TrustDomain) -> Self {
        Self::new(domain, &[])
    }

    /// In which form it needs paths: strict as soon as one of its rules decides by path.
    pub fn strictness(&self) -> Strictness {
        self.strictness
    }

    fn decide(&self, asked: &Asked<'_>) -> Result<RuleId, Denied> {
        if let Some(rule) = self.deny.first(&Asked { doubt: Doubt::Holds, ..*asked }) {
            return Err(Denied::ByRule(rule.clone()));
        }
        if self.allow.is_empty() {
            return Ok(RuleId::MeshPeers);
        }
        self.allow.first(&Asked { doubt: Doubt::Fails, ..*asked }).cloned().ok_or(Denied::NotAllowed)
    }

    fn remark(&self, asked: &Asked<'_>, decided: &Result<RuleId, Denied>, remarks: &mut Vec<Remark>) {
        let certain = Asked { doubt: Doubt::Fails, ..*asked };
        for (_, rule) in self.audit.matching(&certain) {
            push(remarks, RemarkKind::Audited, rule);
        }
        match decided {
            Ok(_) => {
                let denies = self.rehearsed_deny.first(&Asked { doubt: Doubt::Holds, ..*asked });
                // Where an enforced policy allows, the rehearsed ones can only allow more.
                let alone = self.allow.is_empty() && !self.rehearsed_allow.is_empty();
                if let Some(rule) = denies {
                    push(remarks, RemarkKind::WouldDeny, rule);
                } else if alone && self.rehearsed_allow.first(&certain).is_none() {
                    push(remarks, RemarkKind::WouldDeny, &RuleId::OnlyAllowed);
                }
            }
            Err(Denied::NotAllowed) => {
                if let Some(rule) = self.rehearsed_allow.first(&certain) {
                    push(remarks, RemarkKind::WouldAllow, rule);
                }
            }
            Err(_) => {}
        }
    }

    /// The service that a peer is, with its id, where the mesh knows it.
    fn known<'a>(&self, peer: Peer<'a>) -> Result<(ServiceName, &'a SpiffeId), Denied> {
        let Peer::Verified(id) = peer else { return Err(Denied::NoIdentity) };
        if *id.domain() != self.domain {
            return Err(Denied::OtherDomain(id.clone()));
        }
        match id.identity() {
            Identity::Service(caller) => Ok((caller, id)),
            Identity::Meshd(_) | Identity::Node(_) | Identity::Other => Err(Denied::NotAService(id.clone())),
        }
    }
}

/// A rule that one call was matched with twice is told once.
fn push(remarks: &mut Vec<Remark>, kind: RemarkKind, rule: &RuleId) {
    let remark = Remark { kind, rule: rule.clone() };
    if remarks.len() < REMARKS_MAX && !remarks.contains(&remark) {
        remarks.push(remark);
    }
}

/// Asks whether the peer may make the call. What policies say beside that is added to `remarks`.
///
/// # Errors
/// If not: why.
pub fn authorize(
    policies: &PolicySet,
    peer: Peer<'_>,
    call: Call<'_>,
    remarks: &mut Vec<Remark>,
) -> Result<Permit, Denied> {
    let (caller, id) = policies.known(peer)?;
    let (port, request) = (Some(call.port), call.request);
    let asked = Asked { caller: &caller, id, port, request, doubt: Doubt::Fails };
    let decided = policies.decide(&asked);
    policies.remark(&asked, &decided, remarks);
    Ok(Permit { rule: decided?, id: id.clone(), caller })
}

/// Whether nothing that the peer could ask for is let in any more: then its connections need not stay.
///
/// # Errors
/// What refuses all of it.
pub fn admits_any(policies: &PolicySet, peer: Peer<'_>) -> Result<(), Denied> {
    let (caller, id) = policies.known(peer)?;
    let asked = Asked { caller: &caller, id, port: None, request: None, doubt: Doubt::Fails };
    if let Some(rule) = policies.deny.first(&asked) {
        return Err(Denied::ByRule(rule.clone()));
    }
    let some =
        policies.allow.is_empty() || policies.allow.first(&Asked { doubt: Doubt::Holds, ..asked }).is_some();
    if some { Ok(()) } else { Err(Denied::NotAllowed) }
}

// === impl Permit ===

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
    pub fn rule(&self) -> &RuleId {
        &self.rule
    }
}

impl Denied {
    /// The rule that refuses.
    pub fn rule(&self) -> RuleId {
        match self {
            Self::NoIdentity | Self::OtherDomain(_) | Self::NotAService(_) => RuleId::MeshPeers,
            Self::ByRule(rule) => rule.clone(),
            Self::NotAllowed => RuleId::OnlyAllowed,
        }
    }
}

impl RuleId {
    fn of(namespace: &Name, policy: &Name, rule: impl fmt::Display) -> Self {
        Self::Policy(format!("{namespace}/{policy}/{rule}").into())
    }

    /// The rule as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::MeshPeers => MESH_PEERS,
            Self::OnlyAllowed => ONLY_ALLOWED,
            Self::Policy(name) => name,
        }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RemarkKind {
    /// As in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audited => "audited",
            Self::WouldDeny => "would-deny",
            Self::WouldAllow => "would-allow",
        }
    }
}

#[cfg(test)]
mod tests;
