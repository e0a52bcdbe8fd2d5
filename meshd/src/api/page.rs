//! Pure. Lists page by page, all pages at one revision: a page at an earlier revision is what stands now with the
//! changes since then undone, which the kept history knows.

use std::{collections::BTreeMap, fmt, io::Write as _, str::FromStr, sync::Arc};

use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
};
use registry::state::{Compacted, State};
use serde_json::json;

use super::selector::Selector;

/// The most objects of one answer, also where none asked for fewer.
pub const PAGE_OBJECTS_MAX: usize = 10_000;
/// The most bytes of one answer's objects, unless it is a single one: what its reader, and this server, have to hold.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

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

impl Page {
    /// The page as it is answered, with each object as `show` has it. It ends early where its objects are large.
    pub fn encode(mut self, show: impl Fn(&Object) -> Object) -> Vec<u8> {
        let mut bytes = br#"{"items":["#.to_vec();
        let mut last = None;
        for object in &self.items {
            let before = bytes.len();
            if last.is_some() {
                bytes.push(b',');
            }
            serde_json::to_writer(&mut bytes, &show(object)).expect("objects are JSON, and memory takes it");
            if let Some(last) = last
                && bytes.len() > PAGE_BYTES_MAX
            {
                bytes.truncate(before);
                self.next = Some(place(self.revision, last));
                break;
            }
            last = Some(object);
        }
        let next = self.next.map(|next| next.to_string()).unwrap_or_default();
        let metadata = json!({"revision": self.revision, "continue": next});
        write!(bytes, "],\"metadata\":{metadata}}}").expect("memory takes it");
        bytes
    }
}

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
    let next = items.last().filter(|_| more).map(|last| place(revision, last));
    Ok(Page { items, revision, next })
}

/// Behind an object of a list.
fn place(revision: u64, last: &Object) -> Continue {
    Continue { revision, after: (last.metadata.namespace.clone(), last.metadata.name.clone()) }
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
    fn pages_of_large_objects_end_early_and_none_is_left_out() {
        let mut state = state();
        let text = "x".repeat(PAGE_BYTES_MAX / 3);
        for name in ["a", "b", "c", "d"] {
            put(&mut state, &format!(r#"Service default/{name} {{"note":"{text}"}}"#));
        }
        let huge = "x".repeat(PAGE_BYTES_MAX + 1);
        put(&mut state, &format!(r#"Service default/e {{"note":"{huge}"}}"#));
        put(&mut state, "Service default/f");
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = page(&state, &scope(None), state.revision(), after.as_ref(), 10).expect("kept");
            let bytes = page.encode(Object::clone);
            let answer: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            let items = answer["items"].as_array().expect("items");
            assert!(items.len() == 1 || bytes.len() <= PAGE_BYTES_MAX + 200, "{} bytes", bytes.len());
            let names = items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name"));
            pages.push(names.collect::<Vec<_>>().join(" "));
            assert_eq!(answer["metadata"]["revision"], state.revision());
            let next = answer["metadata"]["continue"].as_str().expect("a text");
            let Ok(next) = next.parse::<Continue>() else { break };
            after = Some(next.after);
        }
        assert_eq!(pages, ["a b", "c d", "e", "f"]);
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
