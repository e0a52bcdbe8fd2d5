//! Pure. What is trusted: roots, intermediates, distrust. Certificates are texts here; what they say is read elsewhere.

use std::collections::BTreeMap;

use model::{
    identity::SpiffeId,
    name::Name,
    trust::{Distrust, TrustBundle},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::State;
use crate::command::{MemberId, Refusal, Refused, Reply, TrustChange};

/// The most roots at once: the current and the next, and some that a slow rotation has not dropped yet.
pub const ROOTS_MAX: usize = 8;

/// What is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// What proxies watch; its epoch is the cluster's.
    pub bundle: TrustBundle,
    /// The cluster's history.
    pub epoch: Uuid,
    /// The root's key, sealed; empty until there is one.
    #[serde(default)]
    pub sealed_root: Vec<u8>,
    /// Each member's own intermediate, in PEM.
    #[serde(default)]
    pub intermediates: BTreeMap<MemberId, String>,
}

impl State {
    pub(super) fn change_trust(&mut self, change: TrustChange) -> Result<Reply, Refusal> {
        if let TrustChange::Found { domain, epoch } = change {
            return self.found(domain, epoch);
        }
        // Before its founding a mesh has nothing that could be trusted, or not.
        let Some(before) = self.trust() else { return Ok(Reply::Nothing) };
        let (before, now) = (before.clone(), self.time.0 / 1_000);
        let mut trust = (*before).clone();
        match change {
            TrustChange::Found { .. } => {}
            TrustChange::AddRoot { pem } => add_root(&mut trust, pem)?,
            TrustChange::DropRoot { pem } => trust.bundle.roots.retain(|root| *root != pem),
            TrustChange::SealRoot { blob } => trust.sealed_root = blob,
            TrustChange::SetIntermediate { member, pem } => {
                trust.intermediates.insert(member, pem);
            }
            TrustChange::Distrust(refused) => {
                self.withdraw_refused(&refused);
                distrust(&mut trust, refused, now);
            }
            TrustChange::Prune { leaf_ttl, intermediate_ttl } => {
                trust.bundle.distrusted.prune(now, leaf_ttl, intermediate_ttl);
            }
        }
        self.set_trust(&before, trust);
        Ok(Reply::Nothing)
    }

    /// From now on the node's certificates are refused, also those of the services that were signed for it.
    pub(super) fn distrust_node(&mut self, node: &Name) {
        self.distrust(Refused::Node(node.clone()));
    }

    /// From now on a member's certificates are refused.
    pub(super) fn distrust_member(&mut self, id: MemberId) {
        let Some(before) = self.trust().cloned() else { return };
        let mut trust = (*before).clone();
        trust.intermediates.remove(&id);
        let member = SpiffeId::meshd(&trust.bundle.trust_domain, id);
        distrust(&mut trust, Refused::Id(member), self.time.0 / 1_000);
        self.set_trust(&before, trust);
    }

    fn distrust(&mut self, refused: Refused) {
        let Some(before) = self.trust().cloned() else { return };
        let mut trust = (*before).clone();
        distrust(&mut trust, refused, self.time.0 / 1_000);
        self.set_trust(&before, trust);
    }

    fn found(&mut self, domain: model::identity::TrustDomain, epoch: Uuid) -> Result<Reply, Refusal> {
        if let Some(trust) = self.trust() {
            return Err(Refusal::Founded { domain: trust.bundle.trust_domain.clone() });
        }
        let bundle = TrustBundle {
            trust_domain: domain,
            epoch: epoch.to_string(),
            generation: 1,
            roots: Vec::new(),
            distrusted: model::trust::Distrusted::default(),
        };
        self.trust
            .insert((), Trust { bundle, epoch, sealed_root: Vec::new(), intermediates: BTreeMap::new() });
        self.touched = true;
        Ok(Reply::Nothing)
    }

    /// Equal changes nothing; what proxies watch gets a new generation.
    fn set_trust(&mut self, before: &Trust, mut trust: Trust) {
        if *before == trust {
            return;
        }
        if before.bundle != trust.bundle {
            trust.bundle.generation += 1;
        }
        self.trust.insert((), trust);
        self.touched = true;
    }
}

fn add_root(trust: &mut Trust, pem: String) -> Result<(), Refusal> {
    if trust.bundle.roots.contains(&pem) {
        return Ok(());
    }
    if trust.bundle.roots.len() >= ROOTS_MAX {
        let (actual, limit) = (ROOTS_MAX as u64 + 1, ROOTS_MAX as u64);
        return Err(Refusal::TooLarge { what: "root certificates".to_owned(), actual, limit });
    }
    trust.bundle.roots.push(pem);
    Ok(())
}

/// `now` in seconds since 1970. Repeating moves the moment on: what was signed since then is refused too.
fn distrust(trust: &mut Trust, refused: Refused, now: u64) {
    let distrusted = &mut trust.bundle.distrusted;
    match Distrust::from(refused) {
        Distrust::Intermediate(fingerprint) => distrusted.intermediates.insert(fingerprint, now),
        Distrust::Node(node) => distrusted.nodes.insert(node, now),
        Distrust::Id(id) => distrusted.ids.insert(id, now),
    };
}
