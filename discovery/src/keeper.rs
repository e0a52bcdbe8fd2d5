//! Pure. What one source said last, what of it is not in the registry yet, and how the source stands. A new leader begins
//! with what the registry says of it: silence is counted anew, and nothing goes before a first full set.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use model::{
    duration::Millis,
    resource::{DiscoverySourceStatus, DiscoveryState, StalePolicy},
};

use crate::{
    Failure, News,
    found::{FoundKey, Set},
};

/// What has to be compared with the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Everything.
    All,
    /// These services.
    Some(BTreeSet<FoundKey>),
}

/// What becomes of the endpoints of a service that cannot be told while others of its source can: by the source's own rule,
/// counted from the first time that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// As it was.
    Kept,
    /// Marked stale.
    Stale,
    /// Removed.
    Lost,
}

/// A service that cannot be told.
#[derive(Debug)]
struct Silence {
    since: Instant,
    why: Failure,
    /// As it was compared last.
    stands: Stands,
}

/// One source, as its leader knows it.
#[derive(Debug)]
pub struct Keeper {
    policy: StalePolicy,
    began: Instant,
    /// When it was heard last, by this leader.
    heard: Option<Instant>,
    /// As it stood when this leader began.
    before: DiscoveryState,
    /// What is stale since another leader goes so long after this one began.
    left: Duration,
    set: Option<Set>,
    due: Due,
    silences: BTreeMap<FoundKey, Silence>,
}

impl Keeper {
    /// Nothing was heard yet; `status` is what the registry says of the source, `wall` what time it is there.
    pub fn new(
        policy: StalePolicy,
        status: Option<&DiscoverySourceStatus>,
        (now, wall): (Instant, Millis),
    ) -> Self {
        let keep = policy.keep.duration();
        // Another leader's clock may be ahead of this one's, or behind: never longer than the policy says, nor negative.
        let since = status.and_then(|status| status.since).unwrap_or(wall);
        let passed = Duration::from_millis(wall.0.saturating_sub(since.0));
        Self {
            policy,
            began: now,
            heard: None,
            before: status.map_or(DiscoveryState::Pending, |status| status.state),
            left: keep.saturating_sub(passed),
            set: None,
            due: Due::Some(BTreeSet::new()),
            silences: BTreeMap::new(),
        }
    }

    /// The source told something.
    pub fn hear(&mut self, news: News, now: Instant) {
        if let News::Silent(key, why) = news {
            return self.miss(key, why, now);
        }
        // What it brought is removed where it was lost: all has to be brought again, though it says the same as before.
        let lost = self.state(now) == DiscoveryState::Lost;
        self.heard = Some(now);
        self.take(news);
        if lost {
            self.due = Due::All;
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Full(set) => {
                match &self.set {
                    None => self.due = Due::All,
                    Some(before) => differing(before, &set).for_each(|key| self.due.add(key.clone())),
                }
                self.set = Some(set);
                std::mem::take(&mut self.silences).into_keys().for_each(|key| self.due.add(key));
            }
            News::Changed(key, found) => {
                // Before a full set, what is not in it is not known.
                let Some(set) = &mut self.set else { return };
                if self.silences.remove(&key).is_some() {
                    self.due.add(key.clone());
                }
                let before = match found {
                    Some(found) if set.get(&key) == Some(&found) => return,
                    Some(found) => set.insert(key.clone(), found),
                    None => set.remove(&key),
                };
                if before.is_some() || set.contains_key(&key) {
                    self.due.add(key);
                }
            }
            News::Again(key) => {
                if self.silences.remove(&key).is_some() {
                    self.due.add(key);
                }
            }
            News::Same | News::Silent(..) => {}
        }
    }

    /// One service cannot be told; that says nothing of the source.
    fn miss(&mut self, key: FoundKey, why: Failure, now: Instant) {
        let silence = Silence { since: now, why: why.clone(), stands: Stands::Kept };
        self.silences.entry(key).or_insert(silence).why = why;
    }

    /// The services that cannot be told, how each stands, and why.
    pub fn silences(&self) -> impl Iterator<Item = (&FoundKey, Stands, &Failure)> {
        self.silences.iter().map(|(key, silence)| (key, silence.stands, &silence.why))
    }

    /// What it says, once it said everything.
    pub fn set(&self) -> Option<&Set> {
        self.set.as_ref()
    }

    /// Takes what has to be compared with the registry; `None` if there is nothing, or nothing is known yet, or what was
    /// known is lost: that nothing of it is in the registry is as it should be.
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        self.set.as_ref()?;
        match self.state(now) {
            DiscoveryState::Lost => return None,
            // What is silent as a whole is marked as a whole.
            DiscoveryState::Synced => self.age(now),
            _ => {}
        }
        let due = std::mem::replace(&mut self.due, Due::Some(BTreeSet::new()));
        (due != Due::Some(BTreeSet::new())).then_some(due)
    }

    /// What has been silent for so long that it stands otherwise now is due.
    fn age(&mut self, now: Instant) {
        let (after, keep) = (self.policy.after.duration(), self.policy.keep.duration());
        for (key, silence) in &mut self.silences {
            let stands = match now.saturating_duration_since(silence.since) {
                silent if silent < after => Stands::Kept,
                silent if silent < after.saturating_add(keep) => Stands::Stale,
                _ => Stands::Lost,
            };
            if silence.stands != stands {
                silence.stands = stands;
                self.due.add(key.clone());
            }
        }
    }

    /// What is silent for itself has to be marked again: the whole source was said to be well.
    pub fn look_at_silences(&mut self) {
        let keys: Vec<_> = self.silences.keys().cloned().collect();
        self.look_at(keys);
    }

    /// All has to be compared again: the registry may stand otherwise than was written.
    pub fn look_again(&mut self) {
        self.due = Due::All;
    }

    /// These have to be compared again: another wrote or removed something of theirs.
    pub fn look_at(&mut self, keys: impl IntoIterator<Item = FoundKey>) {
        keys.into_iter().for_each(|key| self.due.add(key));
    }

    /// How the source stands.
    pub fn state(&self, now: Instant) -> DiscoveryState {
        use DiscoveryState::{Lost, Pending, Stale, Synced};
        let silent = now.saturating_duration_since(self.heard.unwrap_or(self.began));
        let (after, keep) = (self.policy.after.duration(), self.policy.keep.duration());
        match (self.heard, self.before) {
            (None, Pending) => Pending,
            (None, Lost) => Lost,
            (None, Stale) if silent < self.left => Stale,
            (None, Stale) => Lost,
            (Some(_), _) | (None, Synced) if silent < after => Synced,
            (Some(_), _) | (None, Synced) if silent < after.saturating_add(keep) => Stale,
            (Some(_), _) | (None, Synced) => Lost,
        }
    }

    /// For how long nothing was heard, by this leader.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }
}

impl Due {
    fn add(&mut self, key: FoundKey) {
        if let Self::Some(keys) = self {
            keys.insert(key);
        }
    }
}

/// The services that are in one set only, or otherwise in the other.
fn differing<'a>(before: &'a Set, now: &'a Set) -> impl Iterator<Item = &'a FoundKey> {
    let changed = now.iter().filter(|(key, found)| before.get(key) != Some(found)).map(|(key, _)| key);
    changed.chain(before.keys().filter(|key| !now.contains_key(key)))
}

#[cfg(test)]
mod tests {
    use model::duration::Timespan;

    use super::*;
    use crate::found::Found;

    fn key(name: &str) -> FoundKey {
        FoundKey { namespace: None, name: name.to_owned() }
    }

    fn full(names: &[&str]) -> News {
        News::Full(names.iter().map(|name| (key(name), Found::default())).collect())
    }

    fn keeper(status: Option<DiscoverySourceStatus>, now: Instant, wall: Millis) -> Keeper {
        let policy = StalePolicy { after: Timespan::from_secs(30), keep: Timespan::from_secs(3_600) };
        Keeper::new(policy, status.as_ref(), (now, wall))
    }

    fn status(state: DiscoveryState, since: u64) -> DiscoverySourceStatus {
        let object = serde_json::json!({"state": state, "since": Millis(since)});
        model::object::status(&object).expect("a status")
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_makes_stale_and_then_lost_and_a_word_undoes_it() {
        let zero = crate::clock::now();
        let mut keeper = keeper(None, zero, Millis(0));
        let state = |keeper: &Keeper, at| keeper.state(zero + seconds(at));
        assert_eq!(state(&keeper, 10_000), DiscoveryState::Pending, "it brought nothing that could be stale");
        keeper.hear(full(&["a"]), zero + seconds(10_000));
        assert_eq!(keeper.take_due(zero + seconds(10_000)), Some(Due::All));
        for (at, want) in [
            (10_029, DiscoveryState::Synced),
            (10_030, DiscoveryState::Stale),
            (13_629, DiscoveryState::Stale),
            (13_630, DiscoveryState::Lost),
        ] {
            assert_eq!(state(&keeper, at), want, "{at}");
        }
        keeper.hear(News::Same, zero + seconds(13_629));
        assert_eq!(keeper.take_due(zero + seconds(13_629)), None, "what is stale is there");
        keeper.look_again();
        assert_eq!(keeper.take_due(zero + seconds(19_999)), None, "what is lost is to be gone");
        keeper.hear(News::Same, zero + seconds(20_000));
        assert_eq!(state(&keeper, 20_000), DiscoveryState::Synced);
        assert_eq!(
            keeper.take_due(zero + seconds(20_000)),
            Some(Due::All),
            "what it brought was removed meanwhile"
        );
    }

    #[test]
    fn a_new_leader_counts_anew_but_not_what_was_stale_before() {
        let (zero, wall) = (crate::clock::now(), Millis(10_000_000));
        let synced = keeper(Some(status(DiscoveryState::Synced, 0)), zero, wall);
        assert_eq!(synced.state(zero + seconds(29)), DiscoveryState::Synced);
        assert_eq!(synced.state(zero + seconds(30)), DiscoveryState::Stale);
        let stale = keeper(Some(status(DiscoveryState::Stale, 10_000_000 - 3_000_000)), zero, wall);
        assert_eq!(stale.state(zero + seconds(599)), DiscoveryState::Stale);
        assert_eq!(stale.state(zero + seconds(600)), DiscoveryState::Lost);
        let ahead = keeper(Some(status(DiscoveryState::Stale, 99_000_000)), zero, wall);
        assert_eq!(
            ahead.state(zero + seconds(3_599)),
            DiscoveryState::Stale,
            "no longer than the policy says"
        );
        assert_eq!(ahead.state(zero + seconds(3_600)), DiscoveryState::Lost);
    }

    #[test]
    fn nothing_is_due_before_a_full_set_and_then_what_changed() {
        let now = crate::clock::now();
        let mut keeper = keeper(None, now, Millis(0));
        let some = |names: &[&str]| Some(Due::Some(names.iter().map(|name| key(name)).collect()));
        keeper.hear(News::Changed(key("a"), Some(Found::default())), now);
        keeper.look_again();
        assert_eq!(keeper.take_due(now), None);
        keeper.hear(full(&["a", "b"]), now);
        assert_eq!(keeper.take_due(now), Some(Due::All));
        keeper.hear(full(&["a", "b"]), now);
        assert_eq!(keeper.take_due(now), None);
        keeper.hear(full(&["b", "c"]), now);
        assert_eq!(keeper.take_due(now), some(&["a", "c"]));
        keeper.hear(News::Changed(key("b"), None), now);
        keeper.hear(News::Changed(key("x"), None), now);
        keeper.hear(News::Changed(key("c"), Some(Found::default())), now);
        assert_eq!(keeper.take_due(now), some(&["b"]));
        keeper.look_at([key("c")]);
        assert_eq!(keeper.take_due(now), some(&["c"]));
        keeper.look_again();
        keeper.look_at([key("c")]);
        assert_eq!(keeper.take_due(now), Some(Due::All));
    }

    #[test]
    fn a_service_that_is_silent_for_itself_becomes_stale_and_lost_and_comes_back() {
        let zero = crate::clock::now();
        let mut keeper = keeper(None, zero, Millis(0));
        let some = |names: &[&str]| Some(Due::Some(names.iter().map(|name| key(name)).collect()));
        let stands = |keeper: &Keeper| keeper.silences().map(|(_, stands, _)| stands).collect::<Vec<_>>();
        keeper.hear(full(&["a", "b"]), zero);
        keeper.take_due(zero);
        let silent = || News::Silent(key("a"), Failure::Source("no".to_owned()));
        // Whoever only says of one that it is silent is not heard by that.
        keeper.hear(silent(), zero + seconds(29));
        assert_eq!(keeper.state(zero + seconds(30)), DiscoveryState::Stale);
        assert_eq!(keeper.take_due(zero + seconds(30)), None);
        for (at, due, want) in [
            (58, None, Stands::Kept),
            (59, some(&["a"]), Stands::Stale),
            (3_658, None, Stands::Stale),
            (3_659, some(&["a"]), Stands::Lost),
            (3_660, None, Stands::Lost),
        ] {
            (0..at).step_by(20).for_each(|at| keeper.hear(News::Same, zero + seconds(at)));
            keeper.hear(News::Same, zero + seconds(at));
            keeper.hear(silent(), zero + seconds(at));
            assert_eq!(keeper.take_due(zero + seconds(at)), due, "{at}");
            assert_eq!(stands(&keeper), [want], "{at}");
        }
        keeper.look_at_silences();
        assert_eq!(keeper.take_due(zero + seconds(3_661)), some(&["a"]));
        keeper.hear(News::Again(key("a")), zero + seconds(3_662));
        assert_eq!(keeper.take_due(zero + seconds(3_662)), some(&["a"]));
        assert_eq!(stands(&keeper), []);
        for back in [News::Changed(key("a"), Some(Found::default())), full(&["a", "b"])] {
            keeper.hear(silent(), zero + seconds(3_663));
            keeper.hear(back, zero + seconds(3_663));
            assert_eq!(keeper.take_due(zero + seconds(3_663)), some(&["a"]), "though it says the same");
        }
        keeper.hear(silent(), zero + seconds(3_664));
        keeper.hear(News::Changed(key("a"), None), zero + seconds(3_664));
        assert_eq!((keeper.take_due(zero + seconds(3_664)), stands(&keeper)), (some(&["a"]), Vec::new()));
    }
}
