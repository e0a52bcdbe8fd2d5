//! Pure. A snapshot comes back: kept aside piece by piece, put in force by one entry, whole or not at all.
//!
//! In a running cluster it brings back what operators configured. What is a fact of the present stands: members, roots and
//! intermediates, hosts with their sessions and endpoints, roles and tokens. What was distrusted since stays so. A new
//! cluster begins with the snapshot as it is, but for its members. Either way another epoch begins, at a revision above
//! all that anybody has seen.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    identity::SpiffeId, kind::Kind, name::Name, object::Object, resource::Source, trust::Distrusted,
};
use uuid::Uuid;

use super::{
    Blob, History, Member, Members, Objects, State, Trust, VIRTUAL_IPS_SINCE, objects::endpoint, table::Table,
};
use crate::{
    command::{Founder, Refusal, Reply, RestoreCommit, RestoreStep},
    saved::{self, PIECE_BYTES_MAX},
};

/// The most bytes that are kept aside: as large as a saved snapshot may be.
pub const STAGED_BYTES_MAX: usize = model::saved::SAVED_BYTES_MAX;
/// The most pieces: their number is bounded as their bytes are, should they be tiny.
pub const STAGED_PARTS_MAX: u32 = 4_096;

/// What becomes of an object when a snapshot comes back into a running cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is what the snapshot says, or gone.
    Restored,
    /// It stays as it is; what only the snapshot has comes back.
    Joined,
    /// It stays as it is; what only the snapshot has stays gone.
    Stands,
}

impl State {
    pub(super) fn restore(&mut self, step: RestoreStep) -> Result<Reply, Refusal> {
        match step {
            RestoreStep::Stage { id, part, bytes } => self.stage(id, part, bytes)?,
            RestoreStep::Discard { id } => self.unstage(|(staged, _)| *staged == id),
            RestoreStep::Commit(commit) => self.put_in_force(*commit)?,
        }
        Ok(Reply::Nothing)
    }

    fn stage(&mut self, id: Uuid, part: u32, bytes: Vec<u8>) -> Result<(), Refusal> {
        if part == 0 {
            self.unstage(|(staged, _)| *staged != id);
        }
        let kept: usize = self.staged.iter().map(|(_, piece)| piece.0.len()).sum();
        for (what, actual, limit) in [
            ("bytes of a snapshot's piece", bytes.len(), PIECE_BYTES_MAX),
            ("bytes of a snapshot", kept + bytes.len(), STAGED_BYTES_MAX),
            ("pieces of a snapshot", part as usize + 1, STAGED_PARTS_MAX as usize),
        ] {
            if actual > limit {
                let (actual, limit) = (actual as u64, limit as u64);
                return Err(Refusal::TooLarge { what: what.to_owned(), actual, limit });
            }
        }
        self.staged.insert((id, part), Blob(bytes));
        self.touched = true;
        Ok(())
    }

    fn unstage(&mut self, gone: impl Fn(&(Uuid, u32)) -> bool) {
        let keys: Vec<_> = self.staged.iter().map(|(key, _)| *key).filter(|key| gone(key)).collect();
        for key in keys {
            self.staged.remove(&key);
            self.touched = true;
        }
    }

    fn put_in_force(&mut self, commit: RestoreCommit) -> Result<(), Refusal> {
        let saved = self.assembled(&commit)?;
        if commit.founder.is_none() {
            self.may_number(&saved)?;
        }
        self.staged = Table::new(self.staged.tag());
        self.revision = self.revision.max(saved.revision);
        self.time = self.time.max(saved.time);
        (self.touched, self.restored) = (true, true);
        match commit.founder {
            Some(founder) => self.begin_with(saved, founder, commit.epoch),
            None => self.take_back(&saved, commit.epoch),
        }
    }

    /// A member that does not know of virtual IPs cannot read a snapshot that has some: no other takes it either.
    fn may_number(&self, saved: &Self) -> Result<(), Refusal> {
        if saved.numbers.is_empty() || self.members.used() >= VIRTUAL_IPS_SINCE {
            return Ok(());
        }
        let reason = "it has virtual IPs, which not all servers of this cluster understand yet".to_owned();
        Err(Refusal::Restore { reason })
    }

    /// The state that the pieces make.
    fn assembled(&self, commit: &RestoreCommit) -> Result<Self, Refusal> {
        let refused = |reason: String| Refusal::Restore { reason };
        let piece = |part: u32| {
            let piece = self.staged.get(&(commit.id, part));
            let missing = || refused(format!("piece {part} of {} is missing; start again", commit.parts));
            piece.cloned().ok_or_else(missing)
        };
        let pieces = (0..commit.parts).map(piece).collect::<Result<Vec<_>, _>>()?;
        let bytes = pieces.iter().map(|piece| piece.0.as_slice());
        saved::gather(commit.sum, bytes, self.history.revisions_max()).map_err(refused)
    }

    /// A new cluster of one member, whose past is the snapshot's.
    fn begin_with(&mut self, saved: Self, founder: Founder, epoch: Uuid) -> Result<(), Refusal> {
        let refused = |reason: &str| Refusal::Restore { reason: reason.to_owned() };
        if self.trust().is_some() {
            return Err(refused("this cluster has begun already"));
        }
        let trust = saved.trust().ok_or_else(|| refused("it is of a cluster that was never founded"))?;
        let mut trust = (**trust).clone();
        if founder.id < saved.members.next() {
            return Err(refused("the first member's id was given before"));
        }
        let now = self.time.0 / 1_000;
        for (id, _) in saved.members.by_id.iter() {
            // Should one of them rise again, nobody takes it for a member of this cluster.
            let member = SpiffeId::meshd(&trust.bundle.trust_domain, *id);
            trust.bundle.distrusted.ids.insert(member, now);
        }
        trust.intermediates.clear();
        set_epoch(&mut trust, epoch, 0);
        let Founder { id, admission } = founder;
        let (addresses, incarnation) = (admission.addresses, admission.incarnation);
        let (boot, nonce) = (0, Uuid::nil());
        let member = Member { id, addresses, incarnation, boot, nonce, command_version: 0, program: None };
        self.members = Members::new();
        self.members.by_id.insert(id, member);
        self.members.next.insert((), id + 1);
        self.objects = saved.objects;
        self.sessions = saved.sessions;
        self.credentials = saved.credentials;
        self.joins = saved.joins;
        self.numbers = saved.numbers;
        self.requests = Table::new(self.requests.tag());
        if !self.numbers.is_empty() {
            self.note_version(VIRTUAL_IPS_SINCE);
        }
        self.trust.insert((), trust);
        Ok(())
    }

    /// The present cluster goes on with what operators had configured.
    fn take_back(&mut self, saved: &Self, epoch: Uuid) -> Result<(), Refusal> {
        let before = self.objects.clone();
        self.take_back_trust(saved, epoch)?;
        self.recall_virtual_ips(saved);
        self.take_back_objects(&saved.objects);
        let here = self.sessions.iter().map(|(node, _)| node.clone());
        let lost: Vec<_> = here.filter(|node| !self.may_stay(node)).collect();
        lost.iter().for_each(|node| self.end_session(node));
        let claims: Vec<_> = self.sessions.iter().flat_map(|(_, session)| session.claims.clone()).collect();
        self.claim(&[], &claims);
        let judged: Vec<_> = self
            .objects
            .changes_since(&before)
            .filter(|(key, _, now)| key.kind == Kind::Service && now.is_some())
            .filter_map(|(key, ..)| super::catalog::service_name(key))
            .collect();
        judged.iter().for_each(|service| self.judge_claims(service));
        Ok(())
    }

    fn take_back_trust(&mut self, saved: &Self, epoch: Uuid) -> Result<(), Refusal> {
        let refused = |reason: String| Refusal::Restore { reason };
        let present = self.trust().ok_or_else(|| refused("this cluster was never founded".to_owned()))?;
        let old =
            saved.trust().ok_or_else(|| refused("it is of a cluster that was never founded".to_owned()))?;
        let (ours, theirs) = (&present.bundle.trust_domain, &old.bundle.trust_domain);
        if ours != theirs {
            return Err(refused(format!("it is of trust domain {theirs}, this cluster of {ours}")));
        }
        let mut trust = (**present).clone();
        join_distrust(&mut trust.bundle.distrusted, &old.bundle.distrusted);
        set_epoch(&mut trust, epoch, old.bundle.generation);
        self.trust.insert((), trust);
        Ok(())
    }

    fn take_back_objects(&mut self, saved: &Objects) {
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|object| fate(object) == Fate::Restored)
            .map(|object| object.key())
            .filter(|key| saved.get(key).is_none())
            .collect();
        gone.iter().for_each(|key| self.discard(key));
        for object in saved.iter() {
            let present = self.objects.get(&object.key());
            let back = match fate(object) {
                Fate::Restored => present.is_none_or(|present| !present.same_input(object)),
                Fate::Joined => present.is_none() && !self.shut_out(object),
                Fate::Stands => false,
            };
            if back {
                // The time of its making is the snapshot's; the revision is this one's, as nobody has seen it so.
                self.stamp((**object).clone());
            }
        }
    }

    /// A host that was removed since stays removed.
    fn shut_out(&self, object: &Object) -> bool {
        let name = &object.metadata.name;
        object.kind == Kind::Node
            && self.trust().is_some_and(|trust| trust.bundle.distrusted.nodes.contains_key(name))
    }

    /// Whether what a host registered still has its place: its namespaces exist.
    fn may_stay(&self, node: &Name) -> bool {
        let exists = |namespace: &Name| self.namespace_exists(namespace).is_ok();
        let claims = self.sessions.get(node).map(|session| session.claims.clone()).unwrap_or_default();
        let claimed: BTreeSet<_> = claims.into_iter().map(|claim| claim.service.namespace).collect();
        let stands: Vec<_> =
            self.objects.endpoints_on(node).filter_map(|key| key.namespace.clone()).collect();
        claimed.iter().chain(&stands).all(exists)
    }

    /// Without what no saved snapshot holds.
    pub(crate) fn to_save(&self) -> Self {
        let mut history = History::new(self.history.revisions_max());
        history.restart(self.revision);
        let (staged, requests) = (Table::new(self.staged.tag()), Table::new(self.requests.tag()));
        Self { history, staged, requests, ..self.clone() }
    }

    /// The records of [`State::to_save`].
    pub(crate) fn into_saved_records(self) -> Vec<(super::RecordKey, Vec<u8>)> {
        self.records().collect()
    }
}

fn fate(object: &Arc<Object>) -> Fate {
    match object.kind {
        Kind::Node => Fate::Joined,
        Kind::Role | Kind::AccessToken | Kind::JoinToken => Fate::Stands,
        Kind::Endpoint if endpoint(object).is_none_or(|spec| spec.source == Source::Registration) => {
            Fate::Stands
        }
        _ => Fate::Restored,
    }
}

/// Another history begins, with a generation above all that were seen.
fn set_epoch(trust: &mut Trust, epoch: Uuid, seen: u64) {
    trust.epoch = epoch;
    trust.bundle.epoch = epoch.to_string();
    trust.bundle.generation = trust.bundle.generation.max(seen) + 1;
}

/// Whatever either refuses stays refused, since the later moment.
fn join_distrust(present: &mut Distrusted, old: &Distrusted) {
    fn join<K: Ord + Clone>(
        present: &mut std::collections::BTreeMap<K, u64>,
        old: &std::collections::BTreeMap<K, u64>,
    ) {
        for (key, &since) in old {
            let since = present.get(key).map_or(since, |&now| now.max(since));
            present.insert(key.clone(), since);
        }
    }
    join(&mut present.intermediates, &old.intermediates);
    join(&mut present.nodes, &old.nodes);
    join(&mut present.ids, &old.ids);
}
