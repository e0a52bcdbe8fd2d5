//! Keeps this member's certificates fresh: its leaf within a third of its life, its intermediate at half of it. The
//! next intermediate is made, recorded in the log, and only then signs. Whoever can unseal the root signs it: this
//! member itself, or another that it asks.

use std::{sync::Arc, time::Duration};

use ca::{Due, Intermediate, Slot, Tenure};
use registry::{Command, MemberId, Registry, Reply, TrustChange};
use rustls_pki_types::UnixTime;
use svid::KeyRequest;
use tokio_util::sync::CancellationToken;

use super::{Authority, AuthorityError, INTERMEDIATE_FILE, read_csr, sign_leaf};
use crate::{clock, peer};

/// How often it is looked whether something is due: a fraction of the shortest life that a leaf can have left.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The next intermediate, until it signs.
pub(super) struct Drawn {
    intermediate: Arc<Intermediate>,
    /// Key and certificate, as they will be kept.
    text: String,
}

impl Authority {
    /// Believes what the log says as soon as it says so; `changed` is called after each change of trust.
    pub async fn keep_trust(
        self: Arc<Self>,
        registry: Registry,
        changed: impl Fn(),
        stop: CancellationToken,
    ) {
        let mut trust = registry.trust();
        loop {
            trust.borrow_and_update();
            let state = registry.applied();
            if self.follow(&state) {
                changed();
            }
            self.keep_sealed(&state);
            let more = stop.run_until_cancelled(trust.changed()).await;
            if !matches!(more, Some(Ok(()))) {
                return;
            }
        }
    }

    /// Renews what is due until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, registry: Registry, stop: CancellationToken) {
        let dice = clock::dice();
        let mut slot = slot(&self);
        while stop.run_until_cancelled(tokio::time::sleep(CHECK_EVERY)).await.is_some() {
            let now = clock::unix();
            if now >= self.leaf.load().renew_at(dice) {
                self.renew_leaf(now);
            }
            if let Err(error) = self.renew_intermediate(&registry, &mut slot, now).await {
                tracing::error!(%error, "the intermediate could not be renewed; trying again in a minute");
            }
        }
    }

    fn renew_leaf(&self, now: UnixTime) {
        match sign_leaf(&self.intermediate.load(), self.member, &self.names, now) {
            Ok(leaf) => {
                tracing::info!(id = %leaf.id, "leaf renewed");
                self.leaf.replace(leaf);
            }
            Err(error) => tracing::error!(%error, "the leaf could not be renewed; trying again in a minute"),
        }
    }

    /// Does the next step towards a new intermediate, if one is due at `now`.
    pub(super) async fn renew_intermediate(
        self: &Arc<Self>,
        registry: &Registry,
        slot: &mut Slot<Arc<Drawn>>,
        now: UnixTime,
    ) -> Result<(), AuthorityError> {
        let fingerprint = self.intermediate.load().fingerprint().to_owned();
        if self.trust.load().distrusted().intermediate(&fingerprint).is_some() {
            // Nobody takes what this member says until it signs with another one; the log learns of that after.
            tracing::warn!(fingerprint, "the own intermediate is distrusted; drawing another one");
            let next = self.draw_intermediate(registry, now).await?.value;
            self.adopt(&next, now)?;
            *slot = self::slot(self);
        }
        // Chains carry their intermediate, so nobody has to learn of it before it signs: known as soon as recorded.
        match slot.due(now.as_secs(), true) {
            Due::Nothing => self.record_own(registry).await?,
            Due::Prepare => slot.prepare(self.draw_intermediate(registry, now).await?),
            Due::Publish => {
                let next = slot.next().expect("a slot publishes what was prepared").clone();
                record(registry, self.member, next.intermediate.certificate_pem()).await?;
                slot.publish();
            }
            Due::Activate => {
                let next = slot.next().expect("a slot activates what was published").clone();
                self.adopt(&next, now)?;
                slot.activate(now.as_secs());
            }
            Due::Drop => slot.drop_previous(),
        }
        Ok(())
    }

    /// Signs with `next` from now on, also after a restart.
    fn adopt(&self, next: &Drawn, now: UnixTime) -> Result<(), AuthorityError> {
        self.folder.write(INTERMEDIATE_FILE, &next.text)?;
        self.intermediate.store(next.intermediate.clone());
        self.renew_leaf(now);
        tracing::info!(fingerprint = next.intermediate.fingerprint(), "intermediate renewed");
        Ok(())
    }

    /// The log lacks an intermediate that was signed while this server was away.
    async fn record_own(&self, registry: &Registry) -> Result<(), AuthorityError> {
        let (state, own) = (registry.applied(), self.intermediate.load().certificate_pem());
        let known = state.trust().and_then(|trust| trust.intermediates.get(&self.member));
        if state.member(self.member).is_none() || known == Some(&own) {
            return Ok(());
        }
        record(registry, self.member, own).await
    }

    async fn draw_intermediate(
        self: &Arc<Self>,
        registry: &Registry,
        now: UnixTime,
    ) -> Result<Tenure<Arc<Drawn>>, AuthorityError> {
        let key = KeyRequest::generate()?;
        let state = registry.applied();
        let own = self.sign_intermediate(&state, self.member, read_csr(&key.csr_pem)?, now).await;
        let pem = match own {
            Ok(pem) => pem,
            Err(error) => {
                tracing::warn!(%error, "cannot sign the own intermediate; asking the other members");
                peer::ask_for_intermediate(self, &state, &key.csr_pem).await?
            }
        };
        let text = format!("{}{pem}", key.key_pem);
        let intermediate = Arc::new(Intermediate::from_pem(&self.domain, &text, &text)?);
        Ok(tenure_of(Drawn { intermediate, text }))
    }
}

async fn record(registry: &Registry, member: MemberId, pem: String) -> Result<(), AuthorityError> {
    let change = Command::Trust(TrustChange::SetIntermediate { member, pem });
    match registry.propose(change).await {
        Ok(Reply::Refused(refusal)) => Err(AuthorityError::NotRecorded(refusal.to_string())),
        Ok(_) => Ok(()),
        Err(error) => Err(AuthorityError::NotRecorded(error.to_string())),
    }
}

/// A slot with the intermediate that signs now.
pub(super) fn slot(authority: &Authority) -> Slot<Arc<Drawn>> {
    Slot::new(tenure_of(Drawn { intermediate: authority.intermediate(), text: String::new() }))
}

fn tenure_of(drawn: Drawn) -> Tenure<Arc<Drawn>> {
    let (not_before, not_after) = drawn.intermediate.validity();
    Tenure { value: Arc::new(drawn), not_before: not_before.as_secs(), not_after: not_after.as_secs() }
}
