use model::duration::Millis;
use serde_json::{Map, json};

use super::*;
use crate::command::{Change, Command, Entry, Expect, Write};

fn key(namespace: &str, name: &str) -> Key {
    Key::namespaced(Kind::Service, namespace.parse().expect("a name"), name.parse().expect("a name"))
}

fn write(state: &mut State, changes: Vec<Change>) {
    let command = Command::Write(Write { actor: "test".to_owned(), changes });
    state.apply(Entry { at: Millis(1), command });
}

fn put(namespace: &str, name: &str, port: u16) -> Change {
    let object =
        Object::new(key(namespace, name), Map::from_iter([("ports".to_owned(), json!([{"port": port}]))]));
    Change::Put { object, expect: Expect::Any, credential: None }
}

fn delete(namespace: &str, name: &str) -> Change {
    Change::Delete { key: key(namespace, name), expect: Expect::Any }
}

/// Five revisions in two namespaces.
fn world() -> State {
    let mut state = State::with_history(100);
    write(&mut state, vec![put("default", "a", 1), put("mesh-system", "a", 1)]);
    write(&mut state, vec![put("default", "b", 1)]);
    write(&mut state, vec![put("default", "a", 2), put("default", "b", 2)]);
    write(&mut state, vec![put("default", "c", 1), delete("default", "b")]);
    write(&mut state, vec![delete("default", "c")]);
    state
}

fn told(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| {
        let (sign, object) = match &event.change {
            Seen::Put(object) => ('+', object),
            Seen::Delete(object) => ('-', object),
        };
        format!("{}{sign}{}{}", event.revision, object.metadata.name, if event.last { "." } else { "" })
    };
    events.iter().map(one).collect()
}

fn only(namespace: &str) -> Filter {
    Filter { kinds: vec![Kind::Service], namespace: Some(namespace.parse().expect("a name")) }
}

#[test]
fn a_watcher_gets_revision_by_revision_what_its_filter_wants() {
    let state = world();
    let (events, cursor) = replay(&state, 0, &only("default"), 100).expect("it is kept");
    assert_eq!(told(&events), ["1+a.", "2+b.", "3+a", "3+b.", "4-b", "4+c.", "5-c."]);
    assert_eq!(cursor, 5);
    let (events, cursor) = replay(&state, 1, &only("mesh-system"), 100).expect("it is kept");
    assert_eq!((told(&events), cursor), (vec![], 5), "nothing for it, and yet it is further");
    assert_eq!(replay(&state, 9, &only("default"), 100).expect("the future is empty").1, 9);
}

#[test]
fn a_batch_ends_between_revisions() {
    let state = world();
    let (events, cursor) = replay(&state, 0, &only("default"), 3).expect("it is kept");
    assert_eq!((told(&events), cursor), (vec!["1+a.".to_owned(), "2+b.".to_owned()], 2));
    let (events, cursor) = replay(&state, cursor, &only("default"), 1).expect("it is kept");
    assert_eq!((told(&events).len(), cursor), (2, 3), "a revision is never cut, however large");
}

#[test]
fn the_latest_of_each_is_enough_for_who_only_wants_to_be_up_to_date() {
    let state = world();
    let latest = latest(&state, 1, &only("default")).expect("it is kept");
    let one = |seen: &Seen| match seen {
        Seen::Put(object) => format!("+{} {}", object.metadata.name, object.spec["ports"][0]["port"]),
        Seen::Delete(object) => format!("-{}", object.metadata.name),
    };
    assert_eq!(latest.iter().map(one).collect::<Vec<_>>(), ["+a 2"], "b and c came and went in between");
    assert_eq!(everything(&state, &only("default")).count(), 1);
}

#[test]
fn who_was_away_for_too_long_must_start_over() {
    let mut state = State::with_history(2);
    for port in 1..6 {
        write(&mut state, vec![put("default", "a", port)]);
    }
    assert_eq!(replay(&state, 2, &Filter::default(), 9).expect_err("it is gone"), Compacted { oldest: 3 });
    assert_eq!(told(&replay(&state, 3, &Filter::default(), 9).expect("it is kept").0), ["4+a.", "5+a."]);
}
