//! Pure. Who may call: the check that every call to an own service passes before it reaches the application. It returns a
//! proof, without which nothing can be sent to an application.
//!
//! First a rule of the mesh: callers are services of this trust domain, known by their certificate. Where a
//! PeerAuthentication permits it they may also come without one; then they have no identity. Then the
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
    resource::{PeerAuthenticationMode, PolicyAction},
};

use crate::{path::Strictness, request::RequestHead};

mod index;
mod modes;
mod rule;

pub use modes::{PeerAuthentication, PeerModes};
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
    modes: PeerModes,
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

/// What decides: a rule of a policy, `<namespace>/<policy>/<rule>`, a mode of a PeerAuthentication,
/// `<namespace>/<name>/<mode>`, or one of the mesh itself.
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
    caller: Option<(ServiceName, SpiffeId)>,
}

/// Why a call is refused; each names the rule in its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No certificate, where what is named asks for one.
    #[error("rule {0}: the caller has no identity")]
    NoIdentity(RuleId),
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
    /// Callers must be services of this trust domain, or have no identity where a mode permits it, and pass these
    /// policies. All of them select the service.
    pub fn new(domain: TrustDomain, modes: PeerModes, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let of = |action, rehearsed| {
            Index::new(policies.iter().filter(move |policy| {
                policy.action == action && (policy.dry_run == rehearsed || action == PolicyAction::Audit)
            }))
        };
        let strict = policies.iter().any(|policy| policy.decides() && policy.looks_at_paths());
        Self {
            domain,
            modes,
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
        Self::new(domain, PeerModes::default(), &[])
    }

    /// Whether callers of a port must show who they are.
    pub fn mode(&self, port: u16) -> PeerAuthenticationMode {
        self.mode_and_rule(port).0
    }

    /// The same, with what says so.
    pub fn mode_and_rule(&self, port: u16) -> (PeerAuthenticationMode, RuleId) {
        self.modes.of(port)
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

    /// The service that a peer is, with its id, where the mesh knows it; `None` if it may call without an identity.
    fn known<'a>(
        &self,
        peer: Peer<'a>,
        port: Option<u16>,
    ) -> Result<Option<(ServiceName, &'a SpiffeId)>, Denied> {
        let Peer::Verified(id) = peer else {
            let (mode, rule) = port.map_or_else(|| self.modes.of_any(), |port| self.modes.of(port));
            return match mode {
                PeerAuthenticationMode::Strict => Err(Denied::NoIdentity(rule)),
                PeerAuthenticationMode::Permissive | PeerAuthenticationMode::Disabled => Ok(None),
            };
        };
        if *id.domain() != self.domain {
            return Err(Denied::OtherDomain(id.clone()));
        }
        match id.identity() {
            Identity::Service(caller) => Ok(Some((caller.clone(), id))),
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
    let (port, request) = (Some(call.port), call.request);
    let caller = policies.known(peer, port)?;
    let asked = Asked { caller: of(&caller), port, request, doubt: Doubt::Fails };
    let decided = policies.decide(&asked);
    policies.remark(&asked, &decided, remarks);
    Ok(Permit { rule: decided?, caller: caller.map(|(caller, id)| (caller, id.clone())) })
}

/// Whether nothing that the peer could ask for is let in any more: then its connections need not stay.
///
/// # Errors
/// What refuses all of it.
pub fn admits_any(policies: &PolicySet, peer: Peer<'_>) -> Result<(), Denied> {
    let caller = policies.known(peer, None)?;
    let asked = Asked { caller: of(&caller), port: None, request: None, doubt: Doubt::Fails };
    if let Some(rule) = policies.deny.first(&asked) {
        return Err(Denied::ByRule(rule.clone()));
    }
    let some =
        policies.allow.is_empty() || policies.allow.first(&Asked { doubt: Doubt::Holds, ..asked }).is_some();
    if some { Ok(()) } else { Err(Denied::NotAllowed) }
}

fn of<'a>(caller: &'a Option<(ServiceName, &'a SpiffeId)>) -> Option<(&'a ServiceName, &'a SpiffeId)> {
    caller.as_ref().map(|(caller, id)| (caller, *id))
}

// === impl Permit ===

impl Permit {
    /// Who calls; `None` if it came without an identity.
    pub fn caller(&self) -> Option<&ServiceName> {
        self.caller.as_ref().map(|(caller, _)| caller)
    }

    /// The caller's SPIFFE id, if it has one.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.caller.as_ref().map(|(_, id)| id)
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
            Self::OtherDomain(_) | Self::NotAService(_) => RuleId::MeshPeers,
            Self::NoIdentity(rule) | Self::ByRule(rule) => rule.clone(),
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
