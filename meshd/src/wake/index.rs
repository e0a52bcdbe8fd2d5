//! Pure. Which watches a revision concerns: by the topics of what it changed, and by labels. Each watch has marks, which
//! say whether, and from which revision on, it has something to look at. How it is woken is not known here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
};
use parking_lot::Mutex;
use registry::{State, state::Changed};
use uuid::Uuid;

use crate::{api::selector::Selector, proxy_scope};

/// Something that changes, and that a watch may be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Objects of a kind, in all namespaces or in none.
    Everywhere(Kind),
    /// Objects of a kind in one namespace.
    Within(Kind, Name),
    /// One object.
    Object(Key),
    /// The routes and endpoints of a service.
    Details(ServiceName),
    /// Whom to trust.
    Trust,
    /// An object that the caller's rights rest on.
    Access(Key),
}

/// What one watch is about.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Any of these.
    pub topics: BTreeSet<Topic>,
    /// Of objects, only those that have, or had, such labels.
    pub labels: Selector,
}

/// One watch. `B` is what rings.
#[derive(Debug)]
pub(super) struct Slot<B> {
    id: u64,
    labels: Selector,
    marks: Mutex<Marks>,
    pub(super) bell: B,
}

#[derive(Debug, Default)]
struct Marks {
    /// The first and the last revision that concern it and that it was not told of.
    pending: Option<(u64, u64)>,
    access: bool,
    /// The last round of judging that rang for it.
    rung: u64,
}

/// All watches by topic.
#[derive(Debug)]
pub(super) struct Index<B> {
    by_topic: BTreeMap<Topic, BTreeMap<u64, Arc<Slot<B>>>>,
    next_id: u64,
    round: u64,
    /// Every revision up to this was judged.
    judged: u64,
    epoch: Option<Uuid>,
    trust: Option<u64>,
}

impl<B> Slot<B> {
    /// For one who was told everything up to `place` and sees the state of `revision`: from where it is worth looking,
    /// and whether access has to be checked again.
    pub(super) fn look(&self, place: u64, revision: u64) -> (u64, bool) {
        let mut marks = self.marks.lock();
        let clean = match marks.pending {
            None => revision,
            Some((first, _)) => first.saturating_sub(1).min(revision),
        };
        (place.max(clean), std::mem::take(&mut marks.access))
    }

    /// Everything up to `place` was told.
    pub(super) fn told(&self, place: u64) {
        let mut marks = self.marks.lock();
        marks.pending =
            marks.pending.filter(|(_, last)| *last > place).map(|(first, last)| (first.max(place + 1), last));
    }

    /// Whether it has to be rung in this round.
    fn mark(&self, round: u64, revision: Option<u64>) -> bool {
        let mut marks = self.marks.lock();
        match revision {
            Some(revision) => {
                let (first, last) = marks.pending.unwrap_or((revision, revision));
                marks.pending = Some((first.min(revision), last.max(revision)));
            }
            None => marks.access = true,
        }
        std::mem::replace(&mut marks.rung, round) != round
    }
}

impl<B> Index<B> {
    pub(super) fn new(state: &State) -> Self {
        Self {
            by_topic: BTreeMap::new(),
            next_id: 0,
            round: 0,
            judged: state.revision(),
            epoch: state.epoch(),
            trust: generation(state),
        }
    }

    /// One more watch. It may come from any place: all that was judged so far is worth a look.
    pub(super) fn enter(&mut self, interest: Interest, bell: B) -> Arc<Slot<B>> {
        let marks = Marks { pending: Some((0, self.judged)), ..Marks::default() };
        let slot =
            Arc::new(Slot { id: self.next_id, labels: interest.labels, marks: Mutex::new(marks), bell });
        self.next_id += 1;
        self.add(&slot, &interest.topics);
        slot
    }

    pub(super) fn leave(&mut self, slot: &Slot<B>, topics: &BTreeSet<Topic>) {
        for topic in topics {
            let Some(slots) = self.by_topic.get_mut(topic) else { continue };
            slots.remove(&slot.id);
            if slots.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// Other topics for a watch that was told everything up to `place` by the new ones; whether something may have come
    /// since.
    pub(super) fn turn(
        &mut self,
        slot: &Arc<Slot<B>>,
        from: &BTreeSet<Topic>,
        to: &BTreeSet<Topic>,
        place: u64,
    ) -> bool {
        self.leave(slot, &(from - to));
        self.add(slot, &(to - from));
        let behind = self.judged > place;
        if behind {
            slot.mark(self.round, Some(place + 1));
            slot.mark(self.round, Some(self.judged));
        }
        behind
    }

    /// All watches; those of several topics several times.
    pub(super) fn everybody(&self) -> impl Iterator<Item = &Arc<Slot<B>>> {
        self.by_topic.values().flat_map(BTreeMap::values)
    }

    /// Judges what came since the last time; whom to ring.
    pub(super) fn judge(&mut self, state: &State) -> Vec<Arc<Slot<B>>> {
        self.round += 1;
        let mut rung = BTreeMap::new();
        let another = state.epoch() != self.epoch || state.revision() < self.judged;
        match state.history_since(self.judged) {
            Ok(revisions) if !another => {
                for revision in revisions {
                    revision
                        .changes
                        .iter()
                        .for_each(|changed| self.change(revision.revision, changed, &mut rung));
                }
            }
            // Another history, or more of it than is kept: all must see for themselves.
            _ => self.everyone(state.revision(), &mut rung),
        }
        if generation(state) != self.trust {
            self.topic(&Topic::Trust, Some(state.revision()), |_| true, &mut rung);
        }
        (self.judged, self.epoch, self.trust) = (state.revision(), state.epoch(), generation(state));
        rung.into_values().collect()
    }

    fn change(&self, revision: u64, changed: &Changed, rung: &mut Rung<B>) {
        let selects = |labels: &Selector| {
            let object = |object: &Option<Arc<Object>>| {
                object.as_ref().is_some_and(|object| labels.selects(&object.metadata.labels))
            };
            object(&changed.before) || object(&changed.after)
        };
        for topic in topics(changed) {
            match topic {
                Topic::Access(_) => self.topic(&topic, None, |_| true, rung),
                _ => self.topic(&topic, Some(revision), selects, rung),
            }
        }
    }

    fn topic(
        &self,
        topic: &Topic,
        revision: Option<u64>,
        selects: impl Fn(&Selector) -> bool,
        rung: &mut Rung<B>,
    ) {
        for (id, slot) in self.by_topic.get(topic).into_iter().flatten() {
            if selects(&slot.labels) && slot.mark(self.round, revision) {
                rung.insert(*id, slot.clone());
            }
        }
    }

    fn everyone(&self, revision: u64, rung: &mut Rung<B>) {
        for (id, slot) in self.by_topic.values().flatten() {
            slot.mark(self.round, None);
            slot.mark(self.round, Some(0));
            slot.mark(self.round, Some(revision));
            rung.insert(*id, slot.clone());
        }
    }

    fn add(&mut self, slot: &Arc<Slot<B>>, topics: &BTreeSet<Topic>) {
        for topic in topics {
            self.by_topic.entry(topic.clone()).or_default().insert(slot.id, slot.clone());
        }
    }
}

type Rung<B> = BTreeMap<u64, Arc<Slot<B>>>;

/// All that a change is about.
pub fn topics(changed: &Changed) -> Vec<Topic> {
    let key = &changed.key;
    let mut topics = vec![Topic::Everywhere(key.kind), Topic::Object(key.clone())];
    topics.extend(key.namespace.clone().map(|namespace| Topic::Within(key.kind, namespace)));
    match key.kind {
        Kind::Endpoint | Kind::HTTPRoute | Kind::GRPCRoute | Kind::TCPRoute => {
            let objects = changed.before.iter().chain(&changed.after);
            let services: BTreeSet<_> = objects.flat_map(|object| proxy_scope::services_of(object)).collect();
            topics.extend(services.into_iter().map(Topic::Details));
        }
        Kind::AccessToken | Kind::Role => topics.push(Topic::Access(key.clone())),
        _ => {}
    }
    topics
}

fn generation(state: &State) -> Option<u64> {
    state.trust().map(|trust| trust.bundle.generation)
}

#[cfg(test)]
mod tests;
