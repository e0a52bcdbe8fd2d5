//! Each fault that there can be is planted into what an honest server told, and must be found; without it nothing is.

use model::kind::Kind;

use super::*;
use crate::exact::At;

fn key(name: &str) -> Key {
    Key::namespaced(Kind::Service, "default".parse().expect("a name"), name.parse().expect("a name"))
}

fn change(text: &str) -> Change {
    let (put, rest) = text.split_at(1);
    let (name, value) = rest.split_once('=').expect("+name=value or -name=value");
    Change { key: key(name), put: put == "+", value: value.to_owned() }
}

/// Six revisions, `+a=1 +b=2` in one.
fn writes() -> Vec<Write> {
    let script = ["+a=1", "+b=2 +c=3", "+a=4", "-b=2", "+b=5 +d=6 -c=3", "+a=7"];
    let write = |(index, text): (usize, &&str)| Write {
        changes: text.split(' ').map(change).collect(),
        at: At::Revision(index as u64 + 1),
    };
    script.iter().enumerate().map(write).collect()
}

fn end() -> BTreeMap<Key, String> {
    [("a", "7"), ("b", "5"), ("d", "6")].map(|(name, value)| (key(name), value.to_owned())).into()
}

/// Entries by a small language: `open`, `from3`, `2+b=2`, `2+c=3!` (the last), `mark3`, `unchanged3`, `gone3`, `cut`, `end`,
/// `list3(+a=4@3,+b=2@2)`.
fn entry(word: &str) -> Entry {
    let number = |prefix: &str| word.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
    if let Some(revision) = number("from") {
        return Entry::Opened(Some(revision));
    }
    if let Some(revision) = number("mark") {
        return Entry::Bookmark(revision);
    }
    if let Some(revision) = number("unchanged") {
        return Entry::Unchanged(revision);
    }
    if let Some(revision) = number("gone") {
        return Entry::Gone(revision);
    }
    if let Some(list) = word.strip_prefix("list").or_else(|| word.strip_prefix("polled")) {
        let (revision, objects) = list.trim_end_matches(')').split_once('(').expect("list3(…)");
        let object = |text: &str| {
            let (text, at) = text.split_once('@').expect("+a=4@3");
            (change(text), at.parse().expect("a revision"))
        };
        let objects = objects.split(',').filter(|text| !text.is_empty()).map(object).collect();
        let polled = word.starts_with("polled");
        return Entry::List { revision: revision.parse().expect("a revision"), polled, objects };
    }
    match word {
        "open" => Entry::Opened(None),
        "cut" => Entry::Ended(false),
        "end" => Entry::Ended(true),
        event => {
            let at = event.find(['+', '-']).expect("an event");
            let text = event[at..].trim_end_matches('!');
            let revision = event[..at].parse().expect("a revision");
            Entry::Event { revision, last: event.ends_with('!'), change: change(text) }
        }
    }
}

#[track_caller]
fn check_journal(journal: &str, want: &[&str]) {
    let scope = Scope { kinds: vec![Kind::Service], namespace: None };
    let entries = journal.split_whitespace().map(entry).collect();
    let journal = Journal { watcher: "w".to_owned(), scope, entries };
    let faults = check(&writes(), &[journal], (6, &end()));
    let told = |fault: &Fault| {
        let name = |change: &Change| change.key.name.to_string();
        match &fault.what {
            What::Missing(revision, change) => format!("missing {revision} {}", name(change)),
            What::Doubled(revision, change) => format!("doubled {revision} {}", name(change)),
            What::OutOfOrder(revision, change) => format!("late {revision} {}", name(change)),
            What::Invented(revision, change) => format!("invented {revision} {}", name(change)),
            What::Split(revision) => format!("split {revision}"),
            What::Back(revision) => format!("back {revision}"),
            What::State(revision, key) => format!("state {revision} {}", key.name),
            What::Needless(revision) => format!("needless {revision}"),
            What::Dismissed(oldest) => format!("dismissed {oldest}"),
            What::Unwritten(key) => format!("unwritten {}", key.name),
        }
    };
    assert_eq!(faults.iter().map(told).collect::<Vec<_>>(), want, "{:?}", faults);
}

const TAIL: &str = "3+a=4! 4-b=2! 5+b=5 5-c=3 5+d=6! 6+a=7!";

#[test]
fn what_an_honest_server_tells_is_exact() {
    check_journal(&format!("from0 1+a=1! 2+b=2 2+c=3! {TAIL}"), &[]);
    check_journal(&format!("open 1+a=1 2+b=2 2+c=3 mark2 {TAIL} mark9"), &[]);
    check_journal("open 3+a=4 2+b=2 2+c=3 mark3 4-b=2! end from4 5-c=3 5+d=6 5+b=5! 6+a=7!", &[]);
    check_journal(&format!("from2 3+a=4! 4-b=2! 5+b=5 cut from4 {}", "5+b=5 5-c=3 5+d=6! 6+a=7!"), &[]);
    check_journal("from2 3+a=4! gone5 open 6+a=7 5+b=5 5+d=6 mark6", &[]);
    check_journal(
        "list1(+a=1@1) polled3(+a=4@3,+b=2@2,+c=3@2) unchanged3 polled6(+a=7@6,+b=5@5,+d=6@5) unchanged8",
        &[],
    );
}

#[test]
fn an_event_that_is_missing_is_found() {
    check_journal("from2 3+a=4! 5+b=5 5-c=3 5+d=6! 6+a=7!", &["missing 4 b"]);
    check_journal("from2 3+a=4! 4-b=2! 5+b=5 5+d=6! 6+a=7!", &["missing 5 c"]);
    check_journal("from4 5+b=5 5-c=3 5+d=6!", &["missing 6 a"]);
    check_journal("from3 unchanged4 polled6(+a=7@6,+b=5@5,+d=6@5)", &["missing 4 b"]);
}

#[test]
fn an_event_that_comes_twice_is_found() {
    check_journal("from4 5+b=5 5-c=3 5+d=6! 6+a=7! 6+a=7!", &["doubled 6 a"]);
    check_journal("from4 5+b=5 5+b=5 5-c=3 5+d=6! 6+a=7!", &["doubled 5 b"]);
    check_journal("open 3+a=4 2+b=2 2+c=3 2+c=3 mark3 4-b=2! 5-c=3 5+d=6 5+b=5! 6+a=7!", &["doubled 2 c"]);
}

#[test]
fn events_out_of_order_are_found() {
    check_journal("from3 5+b=5 5-c=3 5+d=6! 4-b=2! 6+a=7!", &["missing 4 b", "late 4 b"]);
    check_journal("from3 4-b=2! mark4 5+b=5 5-c=3 5+d=6! mark4 6+a=7!", &["back 4"]);
}

#[test]
fn a_revision_in_part_is_found() {
    check_journal("from4 5+b=5 5-c=3 6+a=7!", &["split 5"]);
    check_journal("from4 5+b=5 mark5 6+a=7!", &["split 5"]);
    check_journal("from4 5+b=5 end from5 6+a=7!", &["split 5"]);
    check_journal("from4 5+b=5 gone9 open 6+a=7 5+b=5 5+d=6 mark6", &["split 5"]);
}

#[test]
fn an_event_that_nobody_made_is_found() {
    check_journal("from4 5+b=5 5-c=3 5+d=6! 6+a=7! 7+a=9!", &["invented 7 a"]);
    check_journal("from5 7+a=7!", &["invented 7 a", "missing 6 a"]);
}

#[test]
fn a_bookmark_that_skips_is_found() {
    check_journal("from4 mark6", &["missing 5 b", "missing 5 c", "missing 5 d", "missing 6 a"]);
    check_journal("open 3+a=4 2+b=2 mark3 4-b=2! 5-c=3 5+d=6 5+b=5! 6+a=7!", &["state 3 c"]);
}

#[test]
fn a_stream_that_goes_on_elsewhere_than_it_stopped_is_found() {
    check_journal(&format!("from2 3+a=4! cut from3 {TAIL}"), &["doubled 3 a"]);
    check_journal("from2 3+a=4! cut from3 5+b=5 5-c=3 5+d=6! 6+a=7!", &["missing 4 b"]);
    check_journal(&format!("from2 gone2 from2 {TAIL}"), &["dismissed 2"]);
}

#[test]
fn lists_of_another_time_are_found() {
    check_journal("list5(+a=4@3,+b=2@2,+d=6@5) polled6(+a=7@6,+b=5@5,+d=6@5)", &["state 5 b"]);
    check_journal("list6(+a=7@6,+b=5@5,+d=6@5) polled6(+a=7@6,+b=5@5,+d=6@5)", &["needless 6"]);
    check_journal("list6(+a=7@6,+b=5@5,+d=6@5) unchanged5", &["back 5"]);
}

fn journal(watcher: &str, entries: &str) -> Journal {
    let scope = Scope { kinds: vec![Kind::Service], namespace: None };
    Journal { watcher: watcher.to_owned(), scope, entries: entries.split_whitespace().map(entry).collect() }
}

#[test]
fn a_write_of_unknown_outcome_is_what_all_saw_of_it() {
    let unknown = |text: &str| Write { changes: text.split(' ').map(change).collect(), at: At::Unknown(0) };
    let acked = Write { changes: vec![change("+a=1")], at: At::Revision(1) };
    let writes = [acked, unknown("+b=2 +c=3"), unknown("+d=4"), unknown("-a=")];
    let end = [("b", "2"), ("c", "3")].map(|(name, value)| (key(name), value.to_owned())).into();
    let whole = "from0 1+a=1! 3+b=2 3+c=3! 4-a=1!";
    let judge =
        |other: &str| check(&writes, &[journal("one", whole), journal("other", other)], (4, &end)).len();
    assert_eq!(judge(whole), 0);
    assert_eq!(judge("from0 1+a=1! 3+c=3! 4-a=1!"), 1, "half of a write");
    assert_eq!(judge("from0 1+a=1! 4-a=1!"), 2, "one saw what the other did not");
    assert_eq!(judge("from0 1+a=1! 2+b=2 2+c=3! 4-a=1!"), 4, "they disagree on when");
    assert_eq!(
        check(&writes, &[journal("one", "from0 1+a=1! 3+b=2 3+c=3!")], (4, &end)).len(),
        1,
        "a stands, and yet it does not"
    );
}

#[test]
fn a_removal_that_was_acknowledged_has_its_time() {
    let put = Write { changes: vec![change("+a=1")], at: At::Revision(1) };
    let removed = Write { changes: vec![change("-a=1")], at: At::Within(1, 3) };
    let faults = |entries: &str| {
        check(&[put.clone(), removed.clone()], &[journal("w", entries)], (5, &BTreeMap::new())).len()
    };
    assert_eq!(faults("from0 1+a=1! 3-a=1!"), 0);
    assert_eq!(faults("from0 1+a=1! 4-a=1!"), 2, "after it was acknowledged; and then it still stands");
    assert_eq!(faults("from0 1+a=1!"), 1, "nobody was told, and yet it is gone");
}
