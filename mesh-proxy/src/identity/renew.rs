//! Pure. When which certificate is asked for: at a point between a quarter and a third of its life, and after a failure
//! again and again with growing pauses. Asking is done elsewhere.

use std::{collections::BTreeMap, time::Duration};

use model::ca::{CERTIFICATE_REQUESTS_MAX, Subject};
use rustls_pki_types::UnixTime;

/// The pause after the first failure, in seconds.
const PAUSE_FIRST: u64 = 1;
/// The longest pause while nothing is held, in seconds: a service that waits for its first identity carries nothing.
const PAUSE_MISSING_MAX: u64 = 8;
/// The longest pause while a valid certificate is held, in seconds: 48 hours hold some 570 of them.
const PAUSE_HELD_MAX: u64 = 300;

/// All certificates that this host needs.
#[derive(Debug, Default)]
pub struct Renewals {
    entries: BTreeMap<Subject, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: u64,
    expires: u64,
    failures: u32,
}

/// The life of a certificate that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When its successor is to be asked for.
    pub renew_at: UnixTime,
    /// Its end.
    pub not_after: UnixTime,
}

impl Renewals {
    /// The certificate is needed from now on; `held` is what there is of it.
    pub fn want(&mut self, subject: Subject, held: Option<Life>, now: UnixTime) {
        self.entries.entry(subject).or_insert_with(|| entry(held, now));
    }

    /// The certificate is no longer needed.
    pub fn forget(&mut self, subject: &Subject) {
        self.entries.remove(subject);
    }

    /// Everything that is needed.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.entries.keys()
    }

    /// What is to be asked for now: at most as many as one request may hold, the longest overdue first.
    pub fn due(&self, now: UnixTime) -> Vec<Subject> {
        let now = now.as_secs();
        let mut due: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.due <= now).collect();
        due.sort_by_key(|(_, entry)| entry.due);
        due.into_iter().take(CERTIFICATE_REQUESTS_MAX).map(|(subject, _)| subject.clone()).collect()
    }

    /// When something is due next; `None` if nothing is needed.
    pub fn next(&self) -> Option<UnixTime> {
        let due = self.entries.values().map(|entry| entry.due).min()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(due)))
    }

    /// It was asked for and came.
    pub fn succeeded(&mut self, subject: &Subject, held: Life, now: UnixTime) {
        if let Some(known) = self.entries.get_mut(subject) {
            *known = entry(Some(held), now);
        }
    }

    /// It was asked for in vain; `dice` is any number.
    pub fn failed(&mut self, subject: &Subject, now: UnixTime, dice: u64) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        let now = now.as_secs();
        let longest = if entry.expires > now { PAUSE_HELD_MAX } else { PAUSE_MISSING_MAX };
        let pause = (PAUSE_FIRST << entry.failures.min(16)).min(longest);
        entry.failures = entry.failures.saturating_add(1);
        entry.due = now + pause + dice % (pause / 2 + 1);
    }
}

fn entry(held: Option<Life>, now: UnixTime) -> Entry {
    match held {
        Some(life) => Entry { due: life.renew_at.as_secs(), expires: life.not_after.as_secs(), failures: 0 },
        None => Entry { due: now.as_secs(), expires: 0, failures: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    fn service(name: &str) -> Subject {
        Subject::Service(format!("default/{name}").parse().expect("a name"))
    }

    fn life(renew_at: u64, not_after: u64) -> Life {
        Life { renew_at: at(renew_at), not_after: at(not_after) }
    }

    #[test]
    fn what_is_missing_is_due_at_once_and_what_is_held_at_its_time() {
        let mut renewals = Renewals::default();
        assert_eq!(renewals.next(), None);
        renewals.want(service("a"), Some(life(500, 1_000)), at(100));
        renewals.want(service("b"), None, at(100));
        assert_eq!((renewals.due(at(100)), renewals.next()), (vec![service("b")], Some(at(100))));
        renewals.succeeded(&service("b"), life(400, 1_000), at(100));
        assert_eq!((renewals.due(at(399)), renewals.next()), (vec![], Some(at(400))));
        assert_eq!(renewals.due(at(600)), [service("b"), service("a")], "the longest overdue first");
        renewals.forget(&service("b"));
        assert_eq!(renewals.due(at(600)), [service("a")]);
    }

    #[test]
    fn wanting_again_forgets_nothing() {
        let mut renewals = Renewals::default();
        renewals.want(service("a"), None, at(100));
        renewals.failed(&service("a"), at(100), 0);
        renewals.want(service("a"), None, at(100));
        assert_eq!(renewals.due(at(100)), []);
    }

    #[test]
    fn pauses_grow_and_stay_short_while_nothing_is_held() {
        let mut renewals = Renewals::default();
        renewals.want(service("missing"), None, at(0));
        renewals.want(service("held"), Some(life(0, 1_000_000)), at(0));
        let pause = |renewals: &mut Renewals, name: &str, dice| {
            renewals.failed(&service(name), at(1_000), dice);
            renewals.entries[&service(name)].due - 1_000
        };
        let missing: Vec<u64> = (0..6).map(|_| pause(&mut renewals, "missing", 0)).collect();
        assert_eq!(missing, [1, 2, 4, 8, 8, 8]);
        let held: Vec<u64> = (0..11).map(|_| pause(&mut renewals, "held", 0)).collect();
        assert_eq!(held, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(&mut renewals, "held", 150), 450, "jitter adds up to a half");
        renewals.succeeded(&service("held"), life(2_000, 9_000), at(1_000));
        assert_eq!(pause(&mut renewals, "held", 0), 1, "a success starts anew");
    }

    #[test]
    fn a_request_holds_only_so_many() {
        let mut renewals = Renewals::default();
        (0..300).for_each(|n| renewals.want(service(&format!("s{n}")), None, at(0)));
        assert_eq!(renewals.due(at(0)).len(), CERTIFICATE_REQUESTS_MAX);
    }
}
