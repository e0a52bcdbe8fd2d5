//! Certificates for hosts: what they may be comes from the registry, the signature from this member's intermediate.
//! A new identity is judged by a linearizable view, a renewal by this member's own, so that it works without a quorum.

use std::{collections::HashMap, time::Duration};

use ca::{Csr, CsrError, Grant, GrantRefused, NodeGrant, Signed, SignerError, decide};
use model::{
    ca::Subject,
    identity::{Identity, SpiffeId},
    kind::Kind,
    name::Name,
    object::Key,
    resource::Resource,
};
use registry::State;
use rustls_pki_types::UnixTime;
use svid::{SvidError, Usage, pem, verify};

use super::Authority;

/// As many certificates as one host may get within [`BUDGET_SPAN`] from one member: enough to start a host with the
/// most services twice over, too few to keep a member busy signing.
pub const BUDGET_CERTIFICATES: u32 = 2_048;
/// The span that the budget is for.
pub const BUDGET_SPAN: Duration = Duration::from_secs(3_600);
/// Hosts whose use is remembered; beyond that the account starts anew, which costs little.
const BUDGET_HOSTS_MAX: usize = 20_000;

/// What each host has used up lately.
#[derive(Debug, Default)]
pub struct Budget {
    hosts: HashMap<Name, Used>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    /// Seconds since 1970.
    since: u64,
    certificates: u32,
}

/// Why a certificate is refused.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request itself.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// Nobody knows the host.
    #[error("node '{0}' does not exist")]
    NoNode(Name),
    /// The host may not be this.
    #[error(transparent)]
    Refused(#[from] GrantRefused),
    /// The certificate that is to be renewed is not valid.
    #[error("the current certificate: {0}")]
    Current(SvidError),
    /// The certificate that is to be renewed cannot be read.
    #[error("the current certificate {0}")]
    CurrentPem(pem::PemError),
    /// The certificate that is to be renewed is another's.
    #[error("the current certificate is for {id} of node {node:?}, not for what was asked")]
    OtherCurrent {
        /// Whom it is for.
        id: SpiffeId,
        /// For which node it was signed.
        node: Option<Name>,
    },
    /// Too many.
    #[error(
        "node '{0}' got {BUDGET_CERTIFICATES} certificates from this member within an hour; is it renewing in a loop?"
    )]
    Budget(Name),
    /// Signing failed.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl Authority {
    /// Checks the certificate that `caller` renews: still valid, and of the same subject and host.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_current(
        &self,
        caller: &Name,
        subject: &Subject,
        current: &str,
        now: UnixTime,
    ) -> Result<(), IssueError> {
        let chain = pem::certificates(current).map_err(IssueError::CurrentPem)?;
        let peer = verify(&chain, &self.trust.load(), Usage::Client, now).map_err(IssueError::Current)?;
        if *peer.id.identity() != identity(subject) || peer.node.as_ref() != Some(caller) {
            return Err(IssueError::OtherCurrent { id: peer.id, node: peer.node });
        }
        Ok(())
    }

    /// Signs for `caller` the subject that it asks for, if `state` says that it may be.
    ///
    /// # Errors
    /// Why not, naming what was asked.
    pub fn issue(
        &self,
        caller: &Name,
        subject: &Subject,
        csr: &str,
        state: &State,
        now: UnixTime,
    ) -> Result<Signed, IssueError> {
        let csr = Csr::from_pem(csr)?;
        let grant = decide(&node_grant(state, caller)?, &identity(subject), &Identity::Node(caller.clone()))?;
        if !self.budget.lock().take(caller, now.as_secs()) {
            return Err(IssueError::Budget(caller.clone()));
        }
        Ok(self.sign(&grant, &csr, now)?)
    }

    /// Signs for a host that the registry has let in.
    ///
    /// # Errors
    /// If the request is malformed or signing fails.
    pub fn issue_joined(&self, node: &Name, csr: &Csr, now: UnixTime) -> Result<Signed, IssueError> {
        Ok(self.sign(&Grant::joined(node), csr, now)?)
    }
}

/// Whom a subject stands for.
pub fn identity(subject: &Subject) -> Identity {
    match subject {
        Subject::Service(service) => Identity::Service(service.clone()),
        Subject::Node(node) => Identity::Node(node.clone()),
    }
}

fn node_grant(state: &State, node: &Name) -> Result<NodeGrant, IssueError> {
    let missing = || IssueError::NoNode(node.clone());
    let object = state.get(&Key::mesh_wide(Kind::Node, node.clone())).ok_or_else(missing)?;
    match object.resource() {
        Ok(Resource::Node(spec)) => {
            Ok(NodeGrant { name: node.clone(), services: spec.services, disabled: spec.disabled })
        }
        _ => Err(missing()),
    }
}

impl Budget {
    /// Takes one of what is left; times are seconds since 1970.
    fn take(&mut self, node: &Name, now: u64) -> bool {
        if self.left(node, now) == 0 {
            return false;
        }
        if self.hosts.len() >= BUDGET_HOSTS_MAX && !self.hosts.contains_key(node) {
            self.hosts.clear();
        }
        let used = self.hosts.entry(node.clone()).or_insert(Used { since: now, certificates: 0 });
        if over(used, now) {
            *used = Used { since: now, certificates: 0 };
        }
        used.certificates += 1;
        true
    }

    fn left(&self, node: &Name, now: u64) -> u32 {
        match self.hosts.get(node) {
            Some(used) if !over(used, now) => BUDGET_CERTIFICATES - used.certificates,
            _ => BUDGET_CERTIFICATES,
        }
    }
}

fn over(used: &Used, now: u64) -> bool {
    now.saturating_sub(used.since) >= BUDGET_SPAN.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_s_budget_fills_up_again_after_an_hour() {
        let (mut budget, host) = (Budget::default(), "host-a".parse::<Name>().expect("a name"));
        assert!((0..BUDGET_CERTIFICATES).all(|_| budget.take(&host, 1_000)));
        assert_eq!((budget.take(&host, 1_001), budget.left(&host, 1_001)), (false, 0));
        assert!(budget.take(&"host-b".parse().expect("a name"), 1_001), "each host has its own");
        assert!(budget.take(&host, 1_000 + BUDGET_SPAN.as_secs()));
        assert_eq!(budget.left(&host, 1_000 + BUDGET_SPAN.as_secs()), BUDGET_CERTIFICATES - 1);
    }
}
