//! Pure. A tiny language for states in tests of this crate: `Service default/orders {"ports":[{"port":80}]}`.

use model::{
    duration::Millis,
    kind::Kind,
    object::{Key, Object},
};
use registry::{
    command::{Change, Command, Entry, Expect, Refusal, Register, Reply, Write, Written},
    state::State,
};
use serde_json::Value;

/// Log time of all that tests write: 2026-11-23T04:00:00Z.
pub(crate) const THEN: Millis = Millis(1_795_406_400_000);

/// A state with the built-in namespaces.
pub(crate) fn state() -> State {
    State::new()
}

/// `Kind [namespace/]name [spec]`.
pub(crate) fn object(text: &str) -> Object {
    let mut words = text.splitn(3, ' ');
    let (kind, name) = (words.next().expect("a kind"), words.next().expect("a name"));
    let kind = Kind::named(kind).expect("a kind");
    let key = match name.split_once('/') {
        Some((namespace, name)) => {
            Key::namespaced(kind, namespace.parse().expect("a namespace"), name.parse().expect("a name"))
        }
        None => Key::mesh_wide(kind, name.parse().expect("a name")),
    };
    let spec = words.next().map(|spec| serde_json::from_str::<Value>(spec).expect("JSON"));
    Object::new(key, spec.and_then(|spec| spec.as_object().cloned()).unwrap_or_default())
}

/// Puts an object in.
#[track_caller]
pub(crate) fn put(state: &mut State, text: &str) -> Written {
    let change = Change::Put { object: object(text), expect: Expect::Any, credential: None };
    write(state, vec![change]).expect("written").remove(0)
}

/// Takes an object out.
#[track_caller]
pub(crate) fn delete(state: &mut State, text: &str) {
    write(state, vec![Change::Delete { key: object(text).key(), expect: Expect::Any }]).expect("deleted");
}

/// A session of a node that lives.
#[track_caller]
pub(crate) fn register(state: &mut State, node: &str) {
    put(state, &format!(r#"Node {node} {{"services":[]}}"#));
    let command = Command::Register(Register {
        node: node.parse().expect("a name"),
        version: String::new(),
        addresses: Vec::new(),
        services: Vec::new(),
        endpoints: Vec::new(),
    });
    let reply = apply(state, command);
    assert!(matches!(reply, Reply::Registered { .. }), "{reply}");
}

/// One entry.
pub(crate) fn apply(state: &mut State, command: Command) -> Reply {
    state.apply(Entry { at: THEN, command })
}

/// One entry of several changes: one revision.
pub(crate) fn write(state: &mut State, changes: Vec<Change>) -> Result<Vec<Written>, Refusal> {
    match apply(state, Command::Write(Write { actor: "test".to_owned(), changes })) {
        Reply::Written(written) => Ok(written),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("no answer to a write: {other:?}"),
    }
}
