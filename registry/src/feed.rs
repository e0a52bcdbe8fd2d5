//! Pure. What a watcher lacks: revision by revision for those who replay, key by key for those who only want to be up to
//! date. Which keys and what becomes of them; how it travels is the API's matter.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
};

use crate::state::{Changed, Compacted, State};

/// What a watcher wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// These kinds; all of them if empty.
    pub kinds: Vec<Kind>,
    /// This namespace; all of them, and what is in none, if left out.
    pub namespace: Option<Name>,
}

/// One change, as a watcher sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The revision that made it.
    pub revision: u64,
    /// Whether it is the last of its revision that the watcher sees.
    pub last: bool,
    /// What became of it.
    pub change: Seen,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It is new, or another.
    Put(Arc<Object>),
    /// It is gone; as it was.
    Delete(Arc<Object>),
}

impl Filter {
    /// Whether the watcher wants to see the object of this key.
    pub fn wants(&self, key: &Key) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&key.kind);
        kind && self.namespace.as_ref().is_none_or(|namespace| key.namespace.as_ref() == Some(namespace))
    }
}

/// What happened after `cursor`, revision by revision, at most so many events, whole revisions only (but at least one);
/// and the watcher's new cursor.
///
/// # Errors
/// The cursor is older than the history: the watcher must start over.
pub fn replay(
    state: &State,
    cursor: u64,
    filter: &Filter,
    events_max: usize,
) -> Result<(Vec<Event>, u64), Compacted> {
    let mut events: Vec<Event> = Vec::new();
    for kept in state.history_since(cursor)? {
        let wanted: Vec<_> =
            kept.changes.iter().filter(|changed| filter.wants(&changed.key)).filter_map(seen).collect();
        if !events.is_empty() && events.len() + wanted.len() > events_max {
            return Ok((events, kept.revision - 1));
        }
        let count = wanted.len();
        let event = |(at, change)| Event { revision: kept.revision, last: at + 1 == count, change };
        events.extend(wanted.into_iter().enumerate().map(event));
    }
    Ok((events, state.revision().max(cursor)))
}

/// The last of what became of each key after `cursor`; what was made and removed in between is left out.
///
/// # Errors
/// The cursor is older than the history: the watcher must start over.
pub fn latest(state: &State, cursor: u64, filter: &Filter) -> Result<Vec<Seen>, Compacted> {
    let mut first: BTreeMap<Key, Option<Arc<Object>>> = BTreeMap::new();
    for kept in state.history_since(cursor)? {
        for changed in kept.changes.iter().filter(|changed| filter.wants(&changed.key)) {
            first.entry(changed.key.clone()).or_insert_with(|| changed.before.clone());
        }
    }
    let now = |(key, before)| match (state.get(&key), before) {
        (Some(object), _) => Some(Seen::Put(object.clone())),
        (None, Some(before)) => Some(Seen::Delete(before)),
        (None, None) => None,
    };
    Ok(first.into_iter().filter_map(now).collect())
}

/// All that a watcher who starts over must see.
pub fn everything<'a>(state: &'a State, filter: &'a Filter) -> impl Iterator<Item = &'a Arc<Object>> {
    state.objects().iter().filter(|object| filter.wants(&object.key()))
}

fn seen(changed: &Changed) -> Option<Seen> {
    match (&changed.before, &changed.after) {
        (_, Some(after)) => Some(Seen::Put(after.clone())),
        (Some(before), None) => Some(Seen::Delete(before.clone())),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
