//! Pure. Holds what a proxy was told against the truth: at each `sync` it knows exactly what stood at that revision, of
//! each object the last, whatever was left out on the way.

use std::collections::BTreeMap;

use model::object::Key;

use super::{Fault, Truth, What};

/// One line of a proxy's stream, or what became of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A stream began: from nothing, or after a revision.
    Opened(Option<u64>),
    /// An object, with its value.
    Put(Key, String),
    /// An object is gone.
    Delete(Key),
    /// The set is whole as of this revision.
    Sync(u64),
}

/// Everything that is wrong with what a proxy was told of the objects that `concerns` takes, up to `end`.
pub fn check(
    watcher: &str,
    truth: &Truth,
    lines: &[Line],
    concerns: impl Fn(&Key) -> bool,
    end: u64,
) -> Vec<Fault> {
    let (mut known, mut synced, mut faults) = (BTreeMap::new(), 0, Vec::new());
    let mut fault = |entry, what| faults.push(Fault { watcher: watcher.to_owned(), entry, what });
    for (at, line) in lines.iter().enumerate() {
        match line {
            Line::Opened(None) => known.clear(),
            Line::Opened(Some(_)) => {}
            Line::Put(key, value) => drop(known.insert(key.clone(), value.clone())),
            Line::Delete(key) => drop(known.remove(key)),
            Line::Sync(revision) => {
                if *revision < synced {
                    fault(at, What::Back(*revision));
                }
                synced = *revision;
                if let Some(key) = differs(truth, synced, &known, &concerns) {
                    fault(at, What::State(synced, key));
                }
            }
        }
    }
    if synced < end {
        fault(lines.len(), What::Back(synced));
    }
    faults
}

fn differs(
    truth: &Truth,
    revision: u64,
    known: &BTreeMap<Key, String>,
    concerns: &impl Fn(&Key) -> bool,
) -> Option<Key> {
    let want = truth.state(revision);
    let keys = want.keys().chain(known.keys()).filter(|key| concerns(key));
    keys.filter(|key| want.get(*key).map(|(value, _)| value) != known.get(*key)).min().cloned()
}

#[cfg(test)]
mod tests {
    use model::kind::Kind;

    use super::*;
    use crate::exact::{At, Change, Write};

    fn key(name: &str) -> Key {
        Key::namespaced(Kind::Service, "default".parse().expect("a name"), name.parse().expect("a name"))
    }

    /// Lines by a small language: `open`, `from3`, `+a=1`, `-a`, `sync3`; the truth is `+a=1`, `+b=2`, `+a=3`, `-b`.
    #[track_caller]
    fn check(lines: &str, want: &[What]) {
        let change = |put, name: &str, value: &str| Change { key: key(name), put, value: value.to_owned() };
        let changes =
            [change(true, "a", "1"), change(true, "b", "2"), change(true, "a", "3"), change(false, "b", "2")];
        let writes: Vec<_> = (1..)
            .zip(changes)
            .map(|(revision, change)| Write { changes: vec![change], at: At::Revision(revision) })
            .collect();
        let (truth, _) = Truth::resolve(&writes, &[]);
        let line = |word: &str| match word.split_at(1) {
            ("+", rest) => {
                let (name, value) = rest.split_once('=').expect("+a=1");
                Line::Put(key(name), value.to_owned())
            }
            ("-", name) => Line::Delete(key(name)),
            ("f", rest) => Line::Opened(rest.strip_prefix("rom").and_then(|rest| rest.parse().ok())),
            ("s", rest) => Line::Sync(rest[3..].parse().expect("a revision")),
            _ => Line::Opened(None),
        };
        let lines: Vec<_> = lines.split_whitespace().map(line).collect();
        let faults = super::check("p", &truth, &lines, |key| key.kind == Kind::Service, 4);
        assert_eq!(faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>(), want, "{lines:?}");
    }

    #[test]
    fn what_is_left_out_on_the_way_is_no_fault() {
        check("open +a=1 sync1 +a=3 sync4", &[]);
        check("open +a=1 +b=2 sync2 +a=3 from2 +a=3 -b sync4 sync4", &[]);
        check("open +a=1 +b=2 sync2 open +a=3 sync4", &[]);
    }

    #[test]
    fn a_sync_that_is_not_whole_is_found() {
        check("open +a=1 sync2 +b=2 +a=3 -b sync4", &[What::State(2, key("b"))]);
        check("open +a=1 sync1 +a=1 sync4", &[What::State(4, key("a"))]);
        check("open +a=1 +b=2 sync2 +a=3 sync4", &[What::State(4, key("b"))]);
        check("open +a=1 +b=2 sync2 from3 -b sync4", &[What::State(4, key("a"))]);
    }

    #[test]
    fn one_that_goes_back_or_stays_behind_is_found() {
        check("open +a=1 sync1 +a=3 sync4 +a=1 sync1 +a=3 sync4", &[What::Back(1)]);
        check("open +a=1 +b=2 sync2", &[What::Back(2)]);
    }
}
