//! Pure. What the writers were promised, and whether what is there after a power cut keeps it.
//!
//! A slot is one object, or several that are always applied together. It is written by one writer, one operation at a
//! time; after an operation whose outcome nobody told, it rests until the next look. So there are at most two values that
//! it may have, and everything else is a breach.

use std::collections::BTreeMap;

/// Objects that one apply writes.
pub(crate) const GROUP_OBJECTS: usize = 3;

/// What an object holds: a count; `None` where it is not there.
pub(crate) type Value = Option<u64>;

/// What was promised.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: BTreeMap<String, Slot>,
    /// The highest revision that was acknowledged.
    revision: u64,
    /// The power is off, or about to be: answers no longer count.
    closed: bool,
    pub(crate) acknowledged: u64,
}

#[derive(Debug, Default, Clone)]
struct Slot {
    objects: Vec<String>,
    value: Value,
    /// At which revision; `None` for what was deleted.
    revision: Option<u64>,
    /// Asked for, and not answered.
    open: Option<Value>,
}

/// What an object was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) count: u64,
    pub(crate) revision: u64,
}

impl Ledger {
    /// Notes an operation before it is sent; `false` if the slot rests.
    pub(crate) fn begin(&mut self, slot: &str, objects: &[String], value: Value) -> bool {
        let slot = self.slots.entry(slot.to_owned()).or_default();
        if slot.open.is_some() {
            return false;
        }
        slot.objects = objects.to_vec();
        slot.open = Some(value);
        true
    }

    /// It was acknowledged, at a revision if it left something.
    pub(crate) fn acknowledge(&mut self, slot: &str, revision: Option<u64>) {
        let Some(slot) = self.slots.get_mut(slot).filter(|_| !self.closed) else { return };
        if let Some(value) = slot.open.take() {
            (slot.value, slot.revision) = (value, revision);
            self.revision = self.revision.max(revision.unwrap_or(0));
            self.acknowledged += 1;
        }
    }

    /// From here on answers do not count any more, until the next look.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Compares with a whole list at a revision; from then on what is there is what was promised. Answers the breaches.
    pub(crate) fn look(&mut self, list: &BTreeMap<String, Seen>, revision: u64) -> Vec<String> {
        let mut breaches = Vec::new();
        if revision < self.revision {
            breaches.push(format!("revision {} was acknowledged, and now it is {revision}", self.revision));
        }
        for (name, slot) in &mut self.slots {
            breaches.extend(slot.breach(list).map(|breach| format!("{name}: {breach}")));
            slot.settle(list);
        }
        self.closed = false;
        self.revision = self.revision.max(revision);
        breaches
    }
}

impl Slot {
    fn breach(&self, list: &BTreeMap<String, Seen>) -> Option<String> {
        let seen: Vec<_> = self.objects.iter().map(|name| list.get(name).copied()).collect();
        let first = seen.first().copied().flatten();
        let count = first.map(|seen| seen.count);
        if seen.iter().any(|seen| seen.map(|seen| seen.count) != count) {
            return Some(format!("an apply is there in part: {seen:?}"));
        }
        if Some(count) == self.open {
            return None;
        }
        if count != self.value {
            return Some(format!("acknowledged {self:?}, and now it is {first:?}"));
        }
        let moved = first.is_some_and(|seen| self.revision.is_some_and(|was| was != seen.revision));
        moved.then(|| format!("acknowledged at {:?}, and now it is {first:?}", self.revision))
    }

    fn settle(&mut self, list: &BTreeMap<String, Seen>) {
        let first = self.objects.first().and_then(|name| list.get(name));
        (self.value, self.revision) = (first.map(|seen| seen.count), first.map(|seen| seen.revision));
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` holds 2 since revision 7, `b` was deleted, of `c` (three objects) 5 at revision 9 is known and 6 was asked for.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let group = ["c0", "c1", "c2"].map(str::to_owned);
        let mut done = |slot: &str, objects: &[String], value, revision| {
            assert!(ledger.begin(slot, objects, value));
            ledger.acknowledge(slot, revision);
        };
        done("a", &["a".to_owned()], Some(1), Some(6));
        done("a", &["a".to_owned()], Some(2), Some(7));
        done("b", &["b".to_owned()], Some(1), Some(8));
        done("b", &["b".to_owned()], None, None);
        done("c", &group, Some(5), Some(9));
        assert!(ledger.begin("c", &group, Some(6)));
        assert!(!ledger.begin("c", &group, Some(7)), "it rests");
        ledger.close();
        ledger.acknowledge("c", Some(10));
        assert_eq!(ledger.acknowledged, 5, "answers after the cut do not count");
        ledger
    }

    fn list(text: &str) -> BTreeMap<String, Seen> {
        let object = |word: &str| {
            let mut parts = word.split([':', '@']);
            let mut part = || parts.next().expect("name:count@revision");
            let name = part().to_owned();
            let mut number = || part().parse().expect("a number");
            (name, Seen { count: number(), revision: number() })
        };
        text.split_whitespace().map(object).collect()
    }

    #[track_caller]
    fn check(there: &str, revision: u64, want: &str) {
        let breaches = ledger().look(&list(there), revision);
        let said = breaches.join("; ");
        assert!(if want.is_empty() { said.is_empty() } else { said.contains(want) }, "{said}");
    }

    #[test]
    fn what_was_promised_is_there_and_what_nobody_answered_may_be() {
        check("a:2@7 c0:5@9 c1:5@9 c2:5@9", 9, "");
        check("a:2@7 c0:6@10 c1:6@10 c2:6@10", 10, "");
    }

    #[test]
    fn every_kind_of_loss_is_seen() {
        check("a:1@6 c0:5@9 c1:5@9 c2:5@9", 9, "a: acknowledged");
        check("c0:5@9 c1:5@9 c2:5@9", 9, "a: acknowledged");
        check("a:2@8 c0:5@9 c1:5@9 c2:5@9", 9, "a: acknowledged at Some(7)");
        check("a:2@7 b:1@8 c0:5@9 c1:5@9 c2:5@9", 9, "b: acknowledged");
        check("a:2@7 c0:6@10 c1:5@9 c2:5@9", 10, "c: an apply is there in part");
        check("a:2@7 c0:5@9 c1:5@9 c2:5@9", 8, "revision 9 was acknowledged");
        check("a:2@7 c0:4@5 c1:4@5 c2:4@5", 9, "c: acknowledged");
    }

    #[test]
    fn a_look_settles_what_was_open() {
        let mut ledger = ledger();
        let there = list("a:2@7 c0:6@10 c1:6@10 c2:6@10");
        assert!(ledger.look(&there, 10).is_empty());
        let before = list("a:2@7 c0:5@9 c1:5@9 c2:5@9");
        assert!(!ledger.look(&before, 10).is_empty(), "what was seen once must stay");
    }
}
