//! Pure. Holds what watchers saw against the truth.

use std::collections::{BTreeMap, BTreeSet};

use model::object::Key;

use super::{Change, Fault, Scope, Truth, What, Write};

/// What one watcher saw, in its order.
#[derive(Debug, Clone)]
pub struct Journal {
    /// Who it is, for reports.
    pub watcher: String,
    /// What it watched.
    pub scope: Scope,
    /// What it saw.
    pub entries: Vec<Entry>,
}

/// One thing that a watcher saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A stream began: from the present state, or after a revision.
    Opened(Option<u64>),
    /// A change, or an object of the initial state.
    Event {
        /// Its revision.
        revision: u64,
        /// Whether the stream says that it is the last of it.
        last: bool,
        /// What became of what.
        change: Change,
    },
    /// Everything up to there was told.
    Bookmark(u64),
    /// A whole list, each object with the revision that made it.
    List {
        /// Its revision.
        revision: u64,
        /// Whether it answers a long poll, and not a plain list.
        polled: bool,
        /// Its objects.
        objects: Vec<(Change, u64)>,
    },
    /// A long poll without news, up to this revision.
    Unchanged(u64),
    /// The watcher was sent away: what it wants is no longer kept before this revision.
    Gone(u64),
    /// A stream ended; whether by its server's will, and not by a broken connection.
    Ended(bool),
}

/// Everything that is wrong with what watchers saw. `end` is what stood at the end, read by other means, at a revision
/// that every watcher has reached.
pub fn check(writes: &[Write], journals: &[Journal], end: (u64, &BTreeMap<Key, String>)) -> Vec<Fault> {
    let (truth, mut faults) = Truth::resolve(writes, journals);
    faults.extend(unwritten(&truth, end));
    for journal in journals {
        let mut watcher =
            Watcher { truth: &truth, journal, at: 0, place: 0, initial: None, part: None, faults };
        watcher.run(end.0);
        faults = watcher.faults;
    }
    faults
}

fn unwritten(truth: &Truth, (revision, end): (u64, &BTreeMap<Key, String>)) -> Vec<Fault> {
    let state = truth.state(revision);
    let keys: BTreeSet<_> = state.keys().chain(end.keys()).collect();
    let differs = |key: &&Key| state.get(*key).map(|(value, _)| value) != end.get(*key);
    let fault =
        |key: &Key| Fault { watcher: "the end".to_owned(), entry: 0, what: What::Unwritten(key.clone()) };
    keys.into_iter().filter(differs).map(fault).collect()
}

struct Watcher<'a> {
    truth: &'a Truth,
    journal: &'a Journal,
    /// The entry that is judged.
    at: usize,
    /// Everything up to this revision was told.
    place: u64,
    /// The initial state, while it comes.
    initial: Option<BTreeMap<Key, (String, u64)>>,
    /// A revision that was told in part.
    part: Option<(u64, BTreeSet<Change>)>,
    faults: Vec<Fault>,
}

impl Watcher<'_> {
    fn run(&mut self, end: u64) {
        for (at, entry) in self.journal.entries.iter().enumerate() {
            self.at = at;
            match entry {
                Entry::Opened(from) => self.opened(*from),
                Entry::Event { revision, change, .. } if self.initial.is_some() => {
                    self.present(*revision, change)
                }
                Entry::Event { revision, last, change } => self.event(*revision, *last, change),
                Entry::Bookmark(revision) => self.bookmark(*revision),
                Entry::List { revision, polled, objects } => self.list(*revision, *polled, objects),
                Entry::Unchanged(revision) => self.reaches(*revision),
                Entry::Gone(oldest) => self.gone(*oldest),
                Entry::Ended(true) => self.whole(),
                Entry::Ended(false) => self.part = None,
            }
        }
        self.missing(end);
    }

    fn fault(&mut self, what: What) {
        self.faults.push(Fault { watcher: self.journal.watcher.clone(), entry: self.at, what });
    }

    fn opened(&mut self, from: Option<u64>) {
        self.part = None;
        match from {
            None => self.initial = Some(BTreeMap::new()),
            Some(from) => (self.initial, self.place) = (None, from),
        }
    }

    /// One object of the initial state; judged when that is whole.
    fn present(&mut self, revision: u64, change: &Change) {
        let initial = self.initial.get_or_insert_default();
        if initial.insert(change.key.clone(), (change.value.clone(), revision)).is_some() {
            self.fault(What::Doubled(revision, change.clone()));
        }
    }

    fn event(&mut self, revision: u64, last: bool, change: &Change) {
        if self.part.as_ref().is_some_and(|(part, _)| *part != revision) {
            self.whole();
        }
        if revision <= self.place {
            return self.late(revision, change);
        }
        self.missing(revision - 1);
        let (_, told) = self.part.get_or_insert_with(|| (revision, BTreeSet::new()));
        if !told.insert(change.clone()) {
            self.fault(What::Doubled(revision, change.clone()));
        }
        if last {
            let told = self.part.take().map(|(_, told)| told).unwrap_or_default();
            let lacking: Vec<_> =
                self.expected(revision).filter(|change| !told.contains(change)).cloned().collect();
            lacking.into_iter().for_each(|change| self.fault(What::Missing(revision, change)));
            self.place = revision;
        }
    }

    fn late(&mut self, revision: u64, change: &Change) {
        let before = self.journal.entries[..self.at].iter();
        let told = before.filter(|entry| matches!(entry, Entry::Event { revision: r, change: c, .. } if *r == revision && c == change));
        let what = if told.count() > 0 { What::Doubled } else { What::OutOfOrder };
        self.fault(what(revision, change.clone()));
    }

    fn expected(&self, revision: u64) -> impl Iterator<Item = &Change> {
        self.truth.at(revision).into_iter().flatten().filter(|change| self.journal.scope.holds(&change.key))
    }

    fn bookmark(&mut self, revision: u64) {
        if let Some(initial) = self.initial.take() {
            self.place = revision;
            return self.state(revision, &initial);
        }
        self.whole();
        self.reaches(revision);
    }

    fn list(&mut self, revision: u64, polled: bool, objects: &[(Change, u64)]) {
        if revision < self.place {
            self.fault(What::Back(revision));
        }
        let scope = &self.journal.scope;
        if polled && !self.truth.between(self.place, revision).any(|(_, change)| scope.holds(&change.key)) {
            self.fault(What::Needless(revision));
        }
        let state =
            objects.iter().map(|(change, at)| (change.key.clone(), (change.value.clone(), *at))).collect();
        self.state(revision, &state);
        self.place = revision;
    }

    fn state(&mut self, revision: u64, told: &BTreeMap<Key, (String, u64)>) {
        let mut want = self.truth.state(revision);
        want.retain(|key, _| self.journal.scope.holds(key));
        let keys = want.keys().chain(told.keys());
        let differs = keys.filter(|key| want.get(*key) != told.get(*key)).min().cloned();
        if let Some(key) = differs {
            self.fault(What::State(revision, key));
        }
    }

    /// The stream says that nothing more happened up to there.
    fn reaches(&mut self, revision: u64) {
        if revision < self.place {
            return self.fault(What::Back(revision));
        }
        self.missing(revision);
        self.place = revision;
    }

    fn gone(&mut self, oldest: u64) {
        self.whole();
        if self.initial.is_none() && oldest <= self.place {
            self.fault(What::Dismissed(oldest));
        }
        self.initial = None;
    }

    /// Nothing may be told in part where something else comes.
    fn whole(&mut self) {
        if let Some((revision, _)) = self.part.take() {
            self.fault(What::Split(revision));
            self.place = revision;
        }
    }

    /// What happened up to there without being told, told in part or not at all.
    fn missing(&mut self, to: u64) {
        let after = self.part.as_ref().map_or(self.place, |(part, _)| *part);
        let scope = &self.journal.scope;
        let missing: Vec<_> = self
            .truth
            .between(after, to)
            .filter(|(_, change)| scope.holds(&change.key))
            .map(|(revision, change)| What::Missing(revision, change.clone()))
            .collect();
        missing.into_iter().for_each(|what| self.fault(what));
    }
}

#[cfg(test)]
mod tests;
