//! Pure. How an authority's key is followed by the next: prepare, publish, activate, drop. Says what is due; whoever
//! holds the keys does it. The clock is an argument, times are seconds since 1970.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::profile::TTL_MAX;

/// One authority with its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenure<T> {
    /// What signs: a certificate, or a name for it.
    pub value: T,
    /// From when it is valid.
    pub not_before: u64,
    /// Until when it is valid.
    pub not_after: u64,
}

/// The authority that signs, the one that will, and the one that did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot<T> {
    current: Tenure<T>,
    next: Option<Next<T>>,
    previous: Option<Previous<T>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Next<T> {
    tenure: Tenure<T>,
    published: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Previous<T> {
    tenure: Tenure<T>,
    /// When nothing that it signed can be valid any more.
    until: u64,
}

/// What is to be done for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing now.
    Nothing,
    /// Make the next authority: [`Slot::prepare`].
    Prepare,
    /// Tell all who verify about the next: [`Slot::publish`].
    Publish,
    /// Sign with the next from now on: [`Slot::activate`].
    Activate,
    /// Forget the one before: [`Slot::drop_previous`].
    Drop,
}

impl<T> Tenure<T> {
    /// The middle of its life: when the next is prepared.
    fn half(&self) -> u64 {
        self.not_before + self.not_after.saturating_sub(self.not_before) / 2
    }
}

impl<T> Slot<T> {
    /// A slot whose first authority signs already.
    pub fn new(current: Tenure<T>) -> Self {
        Self { current, next: None, previous: None }
    }

    /// What is due at `now`; `known` says whether all who verify have acknowledged what was published. It waits for
    /// those who have not, however long.
    pub fn due(&self, now: u64, known: bool) -> Due {
        match &self.next {
            Some(next) if now >= next.tenure.not_after => Due::Prepare,
            Some(next) if !next.published => Due::Publish,
            Some(_) if known => Due::Activate,
            Some(_) => Due::Nothing,
            None if self.previous.as_ref().is_some_and(|previous| now >= previous.until) => Due::Drop,
            None if now >= self.current.half() => Due::Prepare,
            None => Due::Nothing,
        }
    }

    /// The next authority is made, and nobody knows of it yet.
    pub fn prepare(&mut self, tenure: Tenure<T>) {
        self.next = Some(Next { tenure, published: false });
    }

    /// The next authority is among what is published.
    pub fn publish(&mut self) {
        if let Some(next) = &mut self.next {
            next.published = true;
        }
    }

    /// The next authority signs; the one before is kept until what it signed has ended.
    pub fn activate(&mut self, now: u64) {
        if let Some(next) = self.next.take_if(|next| next.published) {
            let before = std::mem::replace(&mut self.current, next.tenure);
            let until = before.not_after.min(now + self.longest_leaf());
            self.previous = Some(Previous { tenure: before, until });
        }
    }

    /// The one before is needed no more.
    pub fn drop_previous(&mut self) {
        self.previous = None;
    }

    /// The authority that signs.
    pub fn current(&self) -> &T {
        &self.current.value
    }

    /// The authority that is prepared, if any.
    pub fn next(&self) -> Option<&T> {
        self.next.as_ref().map(|next| &next.tenure.value)
    }

    /// All that must be trusted now: the current one, the next once it is published, the one before until dropped.
    pub fn trusted(&self) -> impl Iterator<Item = &T> {
        let next = self.next.as_ref().filter(|next| next.published).map(|next| &next.tenure.value);
        let previous = self.previous.as_ref().map(|previous| &previous.tenure.value);
        [Some(&self.current.value), next, previous].into_iter().flatten()
    }

    /// Clocks differ by some minutes: a leaf of the longest life signed in the last moment has ended then everywhere.
    fn longest_leaf(&self) -> u64 {
        (TTL_MAX + Duration::from_secs(15 * 60)).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600;

    fn tenure(value: &'static str, from: u64, days: u64) -> Tenure<&'static str> {
        Tenure { value, not_before: from, not_after: from + days * DAY }
    }

    fn trusted(slot: &Slot<&'static str>) -> Vec<&'static str> {
        slot.trusted().copied().collect()
    }

    #[test]
    fn one_follows_the_other_at_half_its_life() {
        let mut slot = Slot::new(tenure("a", 0, 30));
        assert_eq!(slot.due(15 * DAY - 1, true), Due::Nothing);
        assert_eq!(slot.due(15 * DAY, true), Due::Prepare);
        slot.prepare(tenure("b", 15 * DAY, 30));
        assert_eq!((slot.due(15 * DAY, true), trusted(&slot)), (Due::Publish, vec!["a"]));
        slot.publish();
        assert_eq!((slot.due(29 * DAY, false), trusted(&slot)), (Due::Nothing, vec!["a", "b"]), "it waits");
        assert_eq!(slot.due(16 * DAY, true), Due::Activate);
        slot.activate(16 * DAY);
        assert_eq!((*slot.current(), slot.next(), trusted(&slot)), ("b", None, vec!["b", "a"]));
        assert_eq!(slot.due(23 * DAY, true), Due::Nothing, "a leaf of seven days may still be alive");
        assert_eq!(slot.due(23 * DAY + 15 * 60, true), Due::Drop);
        slot.drop_previous();
        assert_eq!((slot.due(24 * DAY, true), trusted(&slot)), (Due::Nothing, vec!["b"]));
        assert_eq!(slot.due(30 * DAY, true), Due::Prepare);
    }

    #[test]
    fn what_nobody_knows_of_never_signs() {
        let mut slot = Slot::new(tenure("a", 0, 30));
        slot.activate(0);
        assert_eq!(*slot.current(), "a");
        slot.prepare(tenure("b", 0, 30));
        slot.activate(0);
        assert_eq!((*slot.current(), slot.next()), ("a", Some(&"b")));
    }

    #[test]
    fn a_next_one_that_ended_while_it_waited_is_made_anew() {
        let mut slot = Slot::new(tenure("a", 0, 90));
        slot.prepare(tenure("b", 45 * DAY, 30));
        slot.publish();
        assert_eq!(slot.due(75 * DAY, false), Due::Prepare);
    }

    #[test]
    fn one_that_ends_first_is_dropped_at_its_end() {
        let mut slot = Slot::new(tenure("a", 0, 30));
        slot.prepare(tenure("b", 15 * DAY, 30));
        slot.publish();
        slot.activate(29 * DAY);
        assert_eq!((slot.due(30 * DAY - 1, true), slot.due(30 * DAY, true)), (Due::Nothing, Due::Drop));
    }

    #[test]
    fn a_slot_survives_a_restart() {
        let mut slot = Slot::new(tenure("a", 0, 30));
        slot.prepare(tenure("b", 15 * DAY, 30));
        let json = serde_json::to_string(&slot).expect("it serialises");
        assert_eq!(serde_json::from_str::<Slot<&str>>(&json).expect("it parses"), slot);
    }
}
