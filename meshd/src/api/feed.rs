//! Pure. What one watcher still lacks. A watcher is a place in the state's history and nothing else: no queue grows
//! behind a slow one; when the history goes on without it, it is told and cut off.
//!
//! Objects are sent as they were stored at their revision: with what the mesh says of an endpoint, without what is
//! worked out for `GET`.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use model::{kind::Kind, name::Name, object::Object};
use registry::{Compacted, Revision, State, state::Changed};
use uuid::Uuid;

use super::{
    page::{self, Scope},
    selector::Selector,
};
use crate::wake::{Interest, Topic};

pub mod encoded;

use encoded::{Encoded, Form, Line};

/// A step stops after so many bytes of lines, so that what waits for one slow watcher is bounded.
pub const STEP_BYTES: usize = 64 << 10;
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
    form: Form,
    place: Place,
}

/// Lines to be written at once. One alone is not copied: all watchers send the same bytes.
#[derive(Debug, Default)]
pub struct Lines {
    first: Bytes,
    rest: Vec<u8>,
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

    /// What a change is for this filter: whether the object is there, and how it is, or was.
    fn sees<'a>(&self, changed: &'a Changed) -> Option<(bool, &'a Arc<Object>)> {
        let seen = |object: &'a Option<Arc<Object>>| object.as_ref().filter(|object| self.selects(object));
        match (seen(&changed.before), seen(&changed.after)) {
            (_, Some(after)) => Some((true, after)),
            (Some(before), None) => Some((false, before)),
            (None, None) => None,
        }
    }

    /// What a change must be about to be of interest.
    pub fn interest(&self) -> Interest {
        let topic = |kind: &Kind| match &self.namespace {
            Some(namespace) if kind.namespaced() => Topic::Within(*kind, namespace.clone()),
            _ => Topic::Everywhere(*kind),
        };
        Interest { topics: self.kinds.iter().map(topic).collect(), labels: self.labels.clone() }
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

impl Lines {
    /// One more.
    pub fn push(&mut self, line: Bytes) {
        if self.is_empty() {
            self.first = line;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&self.first);
        }
        self.rest.extend_from_slice(&line);
    }

    /// Their length, in bytes.
    pub fn len(&self) -> usize {
        self.first.len().max(self.rest.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}

impl Feed {
    /// From the state as it is now, all of it first.
    pub fn from_now(filter: Filter, form: Form, state: &State) -> Self {
        let revision = state.revision();
        let place = match filter.next(None) {
            Some(kind) => Place::Initial { revision, kind, after: None },
            None => Place::Following(revision),
        };
        Self { filter, form, place }
    }

    /// From after a revision.
    pub fn from_revision(filter: Filter, form: Form, revision: u64) -> Self {
        Self { filter, form, place: Place::Following(revision) }
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

    /// How lines are written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Goes on to a revision up to which nothing of interest happened.
    pub fn pass(&mut self, revision: u64) {
        if let Place::Following(place) = &mut self.place {
            *place = revision.max(*place);
        }
    }

    /// Writes lines for what comes next, a bounded amount of them.
    ///
    /// # Errors
    /// The history went on without this watcher.
    pub fn step(
        &mut self,
        state: &State,
        encoded: &Encoded,
        lines: &mut Lines,
    ) -> Result<Stepped, Compacted> {
        match self.place {
            Place::Initial { revision, kind, ref after } => {
                let page =
                    page::page(state, &self.filter.scope(kind), revision, after.as_ref(), STEP_OBJECTS)?;
                for object in &page.items {
                    lines.push(encoded::present(self.form, object));
                }
                self.place = match (page.next, self.filter.next(Some(kind))) {
                    (Some(next), _) => Place::Initial { revision, kind, after: Some(next.after) },
                    (None, Some(kind)) => Place::Initial { revision, kind, after: None },
                    (None, None) => {
                        lines.push(encoded::bookmark(self.form, revision));
                        Place::Following(revision)
                    }
                };
                Ok(Stepped::More)
            }
            Place::Following(from) => self.follow(state, from, encoded, lines),
        }
    }

    fn follow(
        &mut self,
        state: &State,
        from: u64,
        encoded: &Encoded,
        lines: &mut Lines,
    ) -> Result<Stepped, Compacted> {
        if from > state.revision() {
            // The state is not the one that was followed: it was restored.
            return Err(Compacted { oldest: state.history().oldest() });
        }
        let mut looked = 0;
        for revision in state.history_since(from)? {
            self.events(state.epoch(), &revision, encoded, lines);
            self.place = Place::Following(revision.revision);
            looked += 1;
            if lines.len() >= STEP_BYTES || looked >= STEP_REVISIONS {
                return Ok(Stepped::More);
            }
        }
        Ok(Stepped::UpToDate)
    }

    /// The lines of one revision, never a part of them; the last one says so.
    fn events(&self, epoch: Option<Uuid>, revision: &Revision, encoded: &Encoded, lines: &mut Lines) {
        let changes = revision.changes.iter().enumerate();
        let mut seen =
            changes.filter_map(|(index, changed)| Some((index, self.filter.sees(changed)?))).peekable();
        while let Some((index, (put, object))) = seen.next() {
            let last = seen.peek().is_none();
            let line = Line { epoch, form: self.form, revision: revision.revision, index, put, last };
            lines.push(encoded.line(line, object));
        }
    }
}

#[cfg(test)]
mod tests;
