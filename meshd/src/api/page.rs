//! Pure. Lists page by page, all pages at one revision: a page at an earlier revision is what stands now with the
//! changes since then undone, which the kept history knows.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
};
use registry::state::{Compacted, State};

use super::selector::Selector;

/// The most objects of one answer, also where none asked for fewer: some 10 MB.
pub const PAGE_OBJECTS_MAX: usize = 10_000;

/// What a list or a watch is about.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Objects of this kind.
    pub kind: Kind,
    /// Only those of this namespace.
    pub namespace: Option<Name>,
    /// Only those with these labels.
    pub labels: Selector,
}

/// Where the next page begins; a text without meaning for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// The revision of the whole list.
    pub revision: u64,
    /// The last object of the page before.
    pub after: (Option<Name>, Name),
}

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Its objects, by namespace and name.
    pub items: Vec<Arc<Object>>,
    /// The revision of the whole list.
    pub revision: u64,
    /// Where the next one begins, if there is more.
    pub next: Option<Continue>,
}

/// Why a text is no place in a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be `metadata.continue` of the page before")]
pub struct ContinueError;

impl Scope {
    /// Whether the object is of it.
    pub fn selects(&self, object: &Object) -> bool {
        self.within(&object.key()) && self.labels.selects(&object.metadata.labels)
    }

    fn within(&self, key: &Key) -> bool {
        key.kind == self.kind && (self.namespace.is_none() || key.namespace == self.namespace)
    }
}

/// At most `limit` objects of `scope` as they stood at `revision`, after the place `after`.
///
/// # Errors
/// That revision is no longer kept.
pub fn page(
    state: &State,
    scope: &Scope,
    revision: u64,
    after: Option<&(Option<Name>, Name)>,
    limit: usize,
) -> Result<Page, Compacted> {
    let undone = undone(state, scope, revision)?;
    let behind =
        |key: &Key| after.is_none_or(|(namespace, name)| (&key.namespace, &key.name) > (namespace, name));
    let now =
        state.list(scope.kind, scope.namespace.as_ref()).filter(|object| !undone.contains_key(&object.key()));
    let then = undone.values().flatten();
    let mut items: Vec<_> = merge(now, then)
        .filter(|object| behind(&object.key()) && scope.labels.selects(&object.metadata.labels))
        .take(limit + 1)
        .cloned()
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more).map(|object| object.key());
    let next = last.map(|last| Continue { revision, after: (last.namespace, last.name) });
    Ok(Page { items, revision, next })
}

/// The keys that changed after `revision`, each as it was then (`None`: it was not there).
fn undone(
    state: &State,
    scope: &Scope,
    revision: u64,
) -> Result<BTreeMap<Key, Option<Arc<Object>>>, Compacted> {
    let mut then = BTreeMap::new();
    for step in state.history_since(revision)? {
        for changed in step.changes.iter().filter(|changed| scope.within(&changed.key)) {
            then.entry(changed.key.clone()).or_insert_with(|| changed.before.clone());
        }
    }
    Ok(then)
}

/// Both, each in order of keys, as one in order of keys.
fn merge<'a>(
    a: impl Iterator<Item = &'a Arc<Object>>,
    b: impl Iterator<Item = &'a Arc<Object>>,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x.key() > y.key() => b.next(),
        (None, _) => b.next(),
        _ => a.next(),
    })
}

impl fmt::Display for Continue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.after;
        write!(f, "{}.{}.{name}", self.revision, namespace.as_ref().map_or("", Name::as_str))
    }
}

impl FromStr for Continue {
    type Err = ContinueError;

    fn from_str(text: &str) -> Result<Self, ContinueError> {
        let parts: Vec<_> = text.split('.').collect();
        let [revision, namespace, name] = parts[..] else { return Err(ContinueError) };
        let namespace =
            if namespace.is_empty() { None } else { Some(namespace.parse().map_err(|_| ContinueError)?) };
        let revision = revision.parse().map_err(|_| ContinueError)?;
        Ok(Self { revision, after: (namespace, name.parse().map_err(|_| ContinueError)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{delete, put, state};

    fn scope(namespace: Option<&str>) -> Scope {
        let namespace = namespace.map(|name| name.parse().expect("a name"));
        Scope { kind: Kind::Service, namespace, labels: Selector::default() }
    }

    #[track_caller]
    fn check(state: &State, scope: &Scope, revision: u64, limit: usize, want: &str) {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = page(state, scope, revision, after.as_ref(), limit).expect("kept");
            pages.push(
                page.items
                    .iter()
                    .map(|object| object.metadata.name.to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            );
            let Some(next) = page.next else { break };
            let next: Continue = next.to_string().parse().expect("its own text");
            assert_eq!(next.revision, revision);
            after = Some(next.after);
        }
        assert_eq!(pages.join(" | "), want);
    }

    #[test]
    fn pages_are_of_one_revision_whatever_changes_between() {
        let mut state = state();
        for name in ["a", "b", "c", "d", "e"] {
            put(&mut state, &format!("Service default/{name}"));
        }
        let then = state.revision();
        check(&state, &scope(None), then, 2, "a b | c d | e");
        delete(&mut state, "Service default/b");
        delete(&mut state, "Service default/e");
        put(&mut state, "Service default/cc");
        put(&mut state, "Service mesh-system/a");
        check(&state, &scope(None), then, 2, "a b | c d | e");
        check(&state, &scope(None), state.revision(), 3, "a c cc | d a");
        check(&state, &scope(Some("mesh-system")), state.revision(), 3, "a");
    }

    #[test]
    fn what_is_no_longer_kept_is_said() {
        let mut state = State::with_history(2);
        for name in ["a", "b", "c", "d"] {
            put(&mut state, &format!("Service default/{name}"));
        }
        assert_eq!(page(&state, &scope(None), 1, None, 10).expect_err("compacted"), Compacted { oldest: 2 });
    }

    #[test]
    fn other_texts_are_no_place() {
        for wrong in ["", "1", "1..", "x.a.b", "1.a.b.c", "1.A.b"] {
            assert!(wrong.parse::<Continue>().is_err(), "{wrong:?} was taken");
        }
    }
}
