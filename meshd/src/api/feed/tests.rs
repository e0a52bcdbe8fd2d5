use model::watch::Event;
use registry::command::{Change, Expect};

use super::*;
use crate::api::testing::{delete, object, put, state, write};

fn filter(kinds: &[Kind], namespace: Option<&str>, labels: &str) -> Filter {
    Filter {
        kinds: kinds.iter().copied().collect(),
        namespace: namespace.map(|name| name.parse().expect("a name")),
        labels: labels.parse().expect("a selector"),
    }
}

/// All that the feed has to say now, an event a word: `put:orders@3` with `!` on the last of a revision.
fn read(feed: &mut Feed, state: &State) -> String {
    let (encoded, mut lines) = (Encoded::default(), Lines::default());
    loop {
        match feed.step(state, &encoded, &mut lines) {
            Ok(Stepped::More) => {}
            Ok(Stepped::UpToDate) => break,
            Err(Compacted { oldest }) => return format!("compacted:{oldest}"),
        }
    }
    let text = String::from_utf8(lines.bytes().to_vec()).expect("UTF-8");
    let word = |line: &str| match model::watch::parse_line(line.as_bytes()).expect("an event") {
        Event::Put { revision, last, object } => {
            format!("put:{}@{revision}{}", object.metadata.name, mark(last))
        }
        Event::Delete { revision, last, object } => {
            format!("delete:{}@{revision}{}", object.metadata.name, mark(last))
        }
        Event::Bookmark { revision } => format!("bookmark@{revision}"),
        Event::Error { status, .. } => format!("error:{status}"),
    };
    text.lines().map(word).collect::<Vec<_>>().join(" ")
}

fn mark(last: bool) -> &'static str {
    if last { "!" } else { "" }
}

fn labelled(name: &str, value: &str) -> Object {
    let mut object = object(&format!("Service default/{name}"));
    object
        .metadata
        .labels
        .insert("v".parse().expect("a key"), model::shape::Text::new(value).expect("a value"));
    object
}

fn change(object: Object) -> Change {
    Change::Put { object, expect: Expect::Any, credential: None }
}

#[test]
fn state_then_history_revision_by_revision() {
    let mut state = state();
    put(&mut state, "Service default/a");
    put(&mut state, "Service default/b");
    put(&mut state, "Node host-a");
    let mut feed = Feed::from_now(filter(&[Kind::Service, Kind::Node], None, ""), Form::Ndjson, &state);
    assert_eq!(feed.revision(), None);
    assert_eq!(read(&mut feed, &state), "put:host-a@3 put:a@1 put:b@2 bookmark@3");
    let both = vec![change(object("Service default/c")), change(object("Service mesh-system/d"))];
    write(&mut state, both).expect("written");
    delete(&mut state, "Service default/a");
    assert_eq!(read(&mut feed, &state), "put:c@4 put:d@4! delete:a@5!");
    assert_eq!((read(&mut feed, &state).as_str(), feed.revision()), ("", Some(5)));
    let mut again = Feed::from_revision(filter(&[Kind::Service], Some("default"), ""), Form::Ndjson, 2);
    assert_eq!(
        read(&mut again, &state),
        "put:c@4! delete:a@5!",
        "one `last` for each revision as seen through the filter"
    );
}

#[test]
fn what_changes_while_the_initial_state_is_sent_comes_after_it() {
    let mut state = state();
    put(&mut state, "Service default/b");
    put(&mut state, "Node host-a");
    let mut feed = Feed::from_now(filter(&[Kind::Service, Kind::Node], None, ""), Form::Ndjson, &state);
    let (encoded, mut lines) = (Encoded::default(), Lines::default());
    feed.step(&state, &encoded, &mut lines).expect("kept");
    delete(&mut state, "Service default/b");
    put(&mut state, "Service default/a");
    assert_eq!(read(&mut feed, &state), "put:b@1 bookmark@2 delete:b@3! put:a@4!");
}

#[test]
fn an_object_that_leaves_the_labels_is_gone_for_the_watcher() {
    let mut state = state();
    let mut feed = Feed::from_revision(filter(&[Kind::Service], None, "v=1"), Form::Ndjson, 0);
    for (name, value) in [("a", "1"), ("b", "2"), ("a", "2"), ("b", "1")] {
        write(&mut state, vec![change(labelled(name, value))]).expect("written");
    }
    assert_eq!(read(&mut feed, &state), "put:a@1! delete:a@3! put:b@4!");
}

#[test]
fn a_watcher_that_history_went_on_without_is_told() {
    let mut state = State::with_history(3);
    let kinds = filter(&[Kind::Service], None, "");
    put(&mut state, "Service default/a");
    let mut slow = Feed::from_now(kinds.clone(), Form::Ndjson, &state);
    let mut early = Feed::from_revision(kinds.clone(), Form::Ndjson, 0);
    for name in ["b", "c", "d", "e"] {
        put(&mut state, &format!("Service default/{name}"));
    }
    assert_eq!(read(&mut slow, &state), "compacted:2");
    assert_eq!(read(&mut early, &state), "compacted:2");
    assert_eq!(
        read(&mut Feed::from_revision(kinds.clone(), Form::Ndjson, 2), &state),
        "put:c@3! put:d@4! put:e@5!"
    );
    assert_eq!(
        read(&mut Feed::from_revision(kinds, Form::Ndjson, 9), &state),
        "compacted:2",
        "of another history"
    );
}

#[test]
fn a_step_is_bounded() {
    let mut state = state();
    for n in 0..STEP_OBJECTS + 1 {
        put(&mut state, &format!("Service default/s{n}"));
    }
    let (encoded, mut lines) = (Encoded::default(), Lines::default());
    let mut feed = Feed::from_now(filter(&[Kind::Service], None, ""), Form::Ndjson, &state);
    assert_eq!(feed.step(&state, &encoded, &mut lines), Ok(Stepped::More));
    assert_eq!(lines.bytes().iter().filter(|byte| **byte == b'\n').count(), STEP_OBJECTS);
    let mut lines = Lines::default();
    let mut feed = Feed::from_revision(filter(&[Kind::Node], None, ""), Form::Ndjson, 0);
    for n in 0..STEP_REVISIONS {
        put(&mut state, &format!("Service default/t{n}"));
    }
    assert_eq!(feed.step(&state, &encoded, &mut lines), Ok(Stepped::More));
    assert_eq!((lines.len(), feed.revision()), (0, Some(STEP_REVISIONS as u64)));
}

#[test]
fn all_watchers_of_a_change_share_its_bytes() {
    let (mut state, encoded) = (state(), Encoded::default());
    put(&mut state, "Service default/a");
    let told = |filter: Filter| {
        let mut lines = Lines::default();
        let mut feed = Feed::from_revision(filter, Form::Ndjson, 0);
        feed.step(&state, &encoded, &mut lines).expect("kept");
        lines.bytes()
    };
    let (one, other) =
        (told(filter(&[Kind::Service], None, "")), told(filter(&[Kind::Service], Some("default"), "")));
    assert_eq!((one.as_ptr(), encoded.made()), (other.as_ptr(), 1));
}

#[test]
fn who_has_nothing_to_see_passes_on_without_looking() {
    let mut state = State::with_history(2);
    let mut feed = Feed::from_revision(filter(&[Kind::Node], None, ""), Form::Ndjson, 0);
    for name in ["a", "b", "c", "d"] {
        put(&mut state, &format!("Service default/{name}"));
    }
    feed.pass(4);
    assert_eq!((read(&mut feed, &state).as_str(), feed.revision()), ("", Some(4)));
    feed.pass(3);
    assert_eq!(feed.revision(), Some(4), "never back");
}
