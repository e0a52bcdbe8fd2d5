//! Pure. What one watcher still lacks. A watcher is a place in the state's history and nothing else: no queue grows
//! behind a slow one; when the history goes on without it, it is told and cut off.
//!
//! Objects are sent as they were stored at their revision: with what the mesh says of an endpoint, without what is
//! worked out for `GET`.

use std::{collections::BTreeSet, sync::Arc};

use model::{kind::Kind, name::Name, object::Object, watch::Event};
use registry::{Compacted, Revision, State};

use super::{
    page::{self, Scope},
    selector::Selector,
};

/// A step stops after so many bytes of lines, so that what waits for one slow watcher is bounded.
pub const STEP_BYTES: usize = 256 << 10;
/// A step of the initial state takes so many objects.
const STEP_OBJECTS: usize = 256;
/// A step looks at so many revisions, that it may be none of interest among them must not cost more.
const STEP_REVISIONS: usize = 1_024;

/// What a watcher wants to see.
#[derive(Debug, Clone)]
pub struct Filter {
    /// These kinds.
    pub kinds: BTreeSet<Kind>,
    /// Of kinds that live in namespaces, only what is in this one.
    pub namespace: Option<Name>,
    /// Only with these labels.
    pub labels: Selector,
}

/// One watcher.
#[derive(Debug)]
pub struct Feed {
    filter: Filter,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the initial state, as it was at a revision.
    Initial { revision: u64, kind: Kind, after: Option<(Option<Name>, Name)> },
    /// In history: everything up to this revision was sent.
    Following(u64),
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// There is more to send at once.
    More,
    /// Nothing is left to send.
    UpToDate,
}

impl Filter {
    /// Whether an object is of interest.
    fn selects(&self, object: &Object) -> bool {
        self.within(object.kind, object.metadata.namespace.as_ref())
            && self.labels.selects(&object.metadata.labels)
    }

    fn within(&self, kind: Kind, namespace: Option<&Name>) -> bool {
        let here = self.namespace.is_none() || !kind.namespaced() || namespace == self.namespace.as_ref();
        here && self.kinds.contains(&kind)
    }

    /// The kind that comes after `kind` in the initial state.
    fn next(&self, kind: Option<Kind>) -> Option<Kind> {
        self.kinds.iter().copied().find(|next| kind.is_none_or(|kind| *next > kind))
    }

    fn scope(&self, kind: Kind) -> Scope {
        let namespace = self.namespace.clone().filter(|_| kind.namespaced());
        Scope { kind, namespace, labels: self.labels.clone() }
    }
}

impl Feed {
    /// From the state as it is now, all of it first.
    pub fn from_now(filter: Filter, state: &State) -> Self {
        let revision = state.revision();
        let place = match filter.next(None) {
            Some(kind) => Place::Initial { revision, kind, after: None },
            None => Place::Following(revision),
        };
        Self { filter, place }
    }

    /// From after a revision.
    pub fn from_revision(filter: Filter, revision: u64) -> Self {
        Self { filter, place: Place::Following(revision) }
    }

    /// Everything up to this revision was sent; `None` while the initial state is under way.
    pub fn revision(&self) -> Option<u64> {
        match self.place {
            Place::Initial { .. } => None,
            Place::Following(revision) => Some(revision),
        }
    }

    /// The kinds and the namespace, to ask again whether they may be watched.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Writes lines for what comes next, a bounded amount of them.
    ///
    /// # Errors
    /// The history went on without this watcher.
    pub fn step(&mut self, state: &State, lines: &mut Vec<u8>) -> Result<Stepped, Compacted> {
        match self.place {
            Place::Initial { revision, kind, ref after } => {
                let page =
                    page::page(state, &self.filter.scope(kind), revision, after.as_ref(), STEP_OBJECTS)?;
                for object in &page.items {
                    write(lines, &put(object.metadata.revision, false, object));
                }
                self.place = match (page.next, self.filter.next(Some(kind))) {
                    (Some(next), _) => Place::Initial { revision, kind, after: Some(next.after) },
                    (None, Some(kind)) => Place::Initial { revision, kind, after: None },
                    (None, None) => {
                        write(lines, &Event::Bookmark { revision });
                        Place::Following(revision)
                    }
                };
                Ok(Stepped::More)
            }
            Place::Following(from) => self.follow(state, from, lines),
        }
    }

    fn follow(&mut self, state: &State, from: u64, lines: &mut Vec<u8>) -> Result<Stepped, Compacted> {
        if from > state.revision() {
            // The state is not the one that was followed: it was restored.
            return Err(Compacted { oldest: state.history().oldest() });
        }
        let mut looked = 0;
        for revision in state.history_since(from)? {
            self.events(revision, lines);
            self.place = Place::Following(revision.revision);
            looked += 1;
            if lines.len() >= STEP_BYTES || looked >= STEP_REVISIONS {
                return Ok(Stepped::More);
            }
        }
        Ok(Stepped::UpToDate)
    }

    /// The lines of one revision; the last one says so.
    fn events(&self, revision: &Revision, lines: &mut Vec<u8>) {
        let seen = |object: &Option<Arc<Object>>| object.clone().filter(|object| self.filter.selects(object));
        let mut events: Vec<Event> = Vec::new();
        for changed in &revision.changes {
            match (seen(&changed.before), seen(&changed.after)) {
                (_, Some(after)) => events.push(put(revision.revision, false, &after)),
                (Some(before), None) => events.push(Event::Delete {
                    revision: revision.revision,
                    last: false,
                    object: (*before).clone(),
                }),
                (None, None) => {}
            }
        }
        if let Some(Event::Put { last, .. } | Event::Delete { last, .. }) = events.last_mut() {
            *last = true;
        }
        events.iter().for_each(|event| write(lines, event));
    }
}

fn put(revision: u64, last: bool, object: &Object) -> Event {
    Event::Put { revision, last, object: object.clone() }
}

/// One event as one line.
pub fn write(lines: &mut Vec<u8>, event: &Event) {
    serde_json::to_writer(&mut *lines, event)
        .expect("events are made of texts and numbers, and memory takes them");
    lines.push(b'\n');
}

#[cfg(test)]
mod tests;
