//! Pure. The last revisions, with what each changed, for watchers that come back. Bounded in number and in bytes.

use std::sync::Arc;

use imbl::OrdMap;
use model::{
    duration::Millis,
    object::{Key, Object},
};
use serde::{Deserialize, Serialize};

use super::objects::Objects;

/// The most revisions that are kept: at ten writes a second a watcher may be away for sixteen minutes.
pub const HISTORY_REVISIONS_MAX: usize = 10_000;
/// The most bytes that the kept revisions' objects take in memory, roughly: as much as some thousand writes of small
/// objects, and no more than a member can spare.
pub const HISTORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What one revision changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Which.
    pub revision: u64,
    /// Log time.
    pub at: Millis,
    /// The objects that it changed, by key; none where only sessions, secrets, trust or members changed.
    pub changes: Vec<Changed>,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    pub key: Key,
    /// As it was; `None` if it is new.
    pub before: Option<Arc<Object>>,
    /// As it is; `None` if it is gone.
    pub after: Option<Arc<Object>>,
    /// Who asked for it, where somebody wrote this very object; what follows from other changes has none. Members of
    /// version 0.1.0 do not record it: it is not part of the state's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
}

/// Who wrote which object in the entry that is being applied.
pub(super) type Actors = OrdMap<Key, Arc<str>>;

/// What was asked for is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revisions before {oldest} are no longer kept")]
pub struct Compacted {
    /// The least revision from which one can go on (exclusive, as in `from=`).
    pub oldest: u64,
}

/// The last revisions.
#[derive(Debug, Clone)]
pub struct History {
    kept: OrdMap<u64, Arc<Revision>>,
    bytes: usize,
    /// Changes up to this revision are not kept.
    compacted: u64,
    revisions_max: usize,
}

impl History {
    pub(super) fn new(revisions_max: usize) -> Self {
        Self { kept: OrdMap::new(), bytes: 0, compacted: 0, revisions_max: revisions_max.max(1) }
    }

    /// What changed after `revision`, oldest first.
    ///
    /// # Errors
    /// That is no longer kept.
    pub fn since(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Arc<Revision>> + use<'_>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let after = (std::ops::Bound::Excluded(revision), std::ops::Bound::Unbounded);
        Ok(self.kept.range::<_, u64>(after).map(|(_, revision)| revision))
    }

    /// All that is kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.kept.iter().map(|(_, revision)| revision)
    }

    /// The least revision that `since` takes.
    pub fn oldest(&self) -> u64 {
        self.compacted
    }

    pub(super) fn push(&mut self, revision: u64, at: Millis, before: &Objects, after: &Objects, by: &Actors) {
        let changes = after.changes_since(before).map(|(key, old, new)| Changed {
            key: key.clone(),
            before: old.cloned(),
            after: new.cloned(),
            actor: by.get(key).cloned(),
        });
        self.keep(Revision { revision, at, changes: changes.collect() });
    }

    /// As many revisions are kept at most.
    pub(super) fn revisions_max(&self) -> usize {
        self.revisions_max
    }

    /// Starts at a revision, with none kept.
    pub(super) fn restart(&mut self, revision: u64) {
        *self = Self { compacted: revision, ..Self::new(self.revisions_max) };
    }

    pub(super) fn keep(&mut self, revision: Revision) {
        if revision.revision <= self.compacted {
            return;
        }
        self.bytes += weight(&revision);
        self.kept.insert(revision.revision, Arc::new(revision));
        while self.kept.len() > self.revisions_max || (self.bytes > HISTORY_BYTES_MAX && self.kept.len() > 1)
        {
            let Some((oldest, gone)) = self.kept.get_min().cloned() else { return };
            self.kept.remove(&oldest);
            self.bytes -= weight(&gone);
            self.compacted = oldest;
        }
    }
}

/// About what a revision takes in memory.
fn weight(revision: &Revision) -> usize {
    /// A change, or the object around its maps.
    const AROUND: usize = 320;
    let object = |object: &Arc<Object>| {
        let (labels, annotations) = (&object.metadata.labels, &object.metadata.annotations);
        let noted = annotations.values().map(|value| value.as_str().len()).sum::<usize>();
        AROUND + nodes(labels.len()) + nodes(annotations.len()) + noted + map_weight(&object.spec)
    };
    let change = |changed: &Changed| {
        let objects = changed.before.iter().chain(&changed.after);
        AROUND + objects.map(object).sum::<usize>()
    };
    AROUND + revision.changes.iter().map(change).sum::<usize>()
}

/// What the nodes of a map take: each has room for eleven pairs and is at least half full, but where it is the only one.
fn nodes(pairs: usize) -> usize {
    const NODE: usize = 640;
    pairs.div_ceil(6) * NODE
}

fn map_weight(map: &serde_json::Map<String, serde_json::Value>) -> usize {
    nodes(map.len()) + map.iter().map(|(key, value)| key.len() + value_weight(value)).sum::<usize>()
}

fn value_weight(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(values) => {
            values.iter().map(|value| size_of_val(value) + value_weight(value)).sum::<usize>()
        }
        serde_json::Value::Object(map) => map_weight(map),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use model::{kind::Kind, shape::Text};

    use super::*;

    #[test]
    fn what_operators_note_on_objects_counts() {
        const NOTE_BYTES: usize = 4_000;
        let mut history = History::new(usize::MAX);
        let note = Text::new(&"x".repeat(NOTE_BYTES)).expect("it fits");
        let mut object = Object::new(
            Key::mesh_wide(Kind::Namespace, "shop".parse().expect("a name")),
            serde_json::Map::new(),
        );
        object.metadata.annotations.insert("note".parse().expect("a key"), note);
        for revision in 1..=10_000 {
            let after = Some(Arc::new(object.clone()));
            let change = Changed { key: object.key(), before: None, after, actor: None };
            history.keep(Revision { revision, at: Millis(0), changes: vec![change] });
        }
        let kept = history.iter().count();
        assert!(kept > 1_000 && kept * NOTE_BYTES <= HISTORY_BYTES_MAX, "{kept}");
    }
}
