//! Pure. What was really written: what writers were told, completed by what any watcher saw of writes whose outcome
//! nobody knows. All watchers must agree on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::object::Key;

use super::{Change, Entry, Fault, Journal, What};

/// One write, as its writer knows it: one revision, or none.
#[derive(Debug, Clone)]
pub struct Write {
    /// What it changed. A removal whose outcome is unknown has no value.
    pub changes: Vec<Change>,
    /// When.
    pub at: At,
}

impl Write {
    /// Its revision, or the last that it can have.
    pub fn revision(&self) -> u64 {
        match self.at {
            At::Revision(revision) | At::Within(_, revision) => revision,
            At::Unknown(_) => u64::MAX,
        }
    }
}

/// When a write was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At this revision: it was acknowledged.
    Revision(u64),
    /// After the first and not after the second: it was acknowledged without its revision.
    Within(u64, u64),
    /// At some time after this revision, or never: nobody knows.
    Unknown(u64),
}

/// All changes by revision.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    revisions: BTreeMap<u64, BTreeSet<Change>>,
}

impl Truth {
    /// Puts together what was acknowledged and what was seen; what contradicts it is a fault of whoever saw it.
    pub fn resolve(writes: &[Write], journals: &[Journal]) -> (Self, Vec<Fault>) {
        let mut open = Open::new(writes);
        let (mut truth, mut faults) = (Self::default(), Vec::new());
        for write in writes {
            if let At::Revision(revision) = write.at {
                truth.add(revision, &write.changes);
            }
        }
        for journal in journals {
            for (index, entry) in journal.entries.iter().enumerate() {
                for (revision, change) in seen(entry) {
                    if !truth.takes(&mut open, revision, change) {
                        let what = What::Invented(revision, change.clone());
                        faults.push(Fault { watcher: journal.watcher.clone(), entry: index, what });
                    }
                }
            }
        }
        (truth, faults)
    }

    /// Whether a change that was seen at a revision is one of it, or may be.
    fn takes(&mut self, open: &mut Open<'_>, revision: u64, change: &Change) -> bool {
        if self.at(revision).is_some_and(|changes| changes.contains(change)) {
            return true;
        }
        let Some(write) = open.claim(revision, change) else { return false };
        // A removal without value gets the one that was seen.
        let changes: Vec<_> = write
            .changes
            .iter()
            .map(|one| if one.key == change.key { change.clone() } else { one.clone() })
            .collect();
        self.add(revision, &changes);
        true
    }

    fn add(&mut self, revision: u64, changes: &[Change]) {
        self.revisions.entry(revision).or_default().extend(changes.iter().cloned());
    }

    /// What changed at a revision.
    pub fn at(&self, revision: u64) -> Option<&BTreeSet<Change>> {
        self.revisions.get(&revision)
    }

    /// What changed after the first and up to the second revision.
    pub fn between(&self, after: u64, to: u64) -> impl Iterator<Item = (u64, &Change)> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(to.max(after)));
        let empty = after >= to;
        let range = self.revisions.range(range).filter(move |_| !empty);
        range.flat_map(|(revision, changes)| changes.iter().map(|change| (*revision, change)))
    }

    /// What stood at a revision: the value of each object, with the revision that made it.
    pub fn state(&self, revision: u64) -> BTreeMap<Key, (String, u64)> {
        let mut state = BTreeMap::new();
        for (at, changes) in self.revisions.range(..=revision) {
            for change in changes {
                match change.put {
                    true => state.insert(change.key.clone(), (change.value.clone(), *at)),
                    false => state.remove(&change.key),
                };
            }
        }
        state
    }

    /// As writes of which all is known.
    pub fn writes(&self) -> Vec<Write> {
        let write = |(revision, changes): (&u64, &BTreeSet<Change>)| Write {
            changes: changes.iter().cloned().collect(),
            at: At::Revision(*revision),
        };
        self.revisions.iter().map(write).collect()
    }

    /// How many revisions it has.
    pub fn len(&self) -> usize {
        self.revisions.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }
}

/// The changes that an entry of a journal says were made, with their revisions.
fn seen(entry: &Entry) -> Vec<(u64, &Change)> {
    match entry {
        Entry::Event { revision, change, .. } => vec![(*revision, change)],
        Entry::List { objects, .. } => objects.iter().map(|(change, revision)| (*revision, change)).collect(),
        _ => Vec::new(),
    }
}

/// Writes whose revision is not known yet.
struct Open<'a> {
    writes: Vec<Option<&'a Write>>,
    by_key: HashMap<&'a Key, Vec<usize>>,
}

impl<'a> Open<'a> {
    fn new(writes: &'a [Write]) -> Self {
        let open: Vec<_> =
            writes.iter().map(|write| (!matches!(write.at, At::Revision(_))).then_some(write)).collect();
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for (index, write) in open.iter().enumerate().filter_map(|(index, write)| Some((index, (*write)?))) {
            write.changes.iter().for_each(|change| by_key.entry(&change.key).or_default().push(index));
        }
        Self { writes: open, by_key }
    }

    /// The write that a change must be of; it is no longer open then.
    fn claim(&mut self, revision: u64, change: &Change) -> Option<&'a Write> {
        let fits = |write: &Write| {
            let within = match write.at {
                At::Revision(_) => false,
                At::Within(after, to) => (after + 1..=to).contains(&revision),
                At::Unknown(after) => revision > after,
            };
            let same = |one: &Change| {
                one == change || (!one.put && !change.put && one.value.is_empty() && one.key == change.key)
            };
            within && write.changes.iter().any(same)
        };
        let candidates = self.by_key.get(&change.key)?;
        let index = *candidates.iter().find(|index| self.writes[**index].is_some_and(fits))?;
        self.writes[index].take()
    }
}
