//! Pure. What is known of the services of a source whose services are asked for one by one: all of them once each has
//! answered or failed, then what becomes another. One that fails is silent for itself; while all of them fail there is no
//! sign of life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    Failure, News,
    found::{Found, FoundKey, Set},
};

/// What they have told so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Which there are; `None` if that was not told yet.
    known: Option<BTreeSet<FoundKey>>,
    /// Those that have not answered yet.
    unanswered: BTreeSet<FoundKey>,
    /// All that they say, until each has answered or failed once; then it was told.
    first: Set,
    told: bool,
    /// What failed last: a service, or the question which there are.
    failing: BTreeMap<Option<FoundKey>, Failure>,
    ready: VecDeque<News>,
}

/// The services that have to be asked for from now on, and those that have not any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turnover {
    pub(crate) new: Vec<FoundKey>,
    pub(crate) gone: Vec<FoundKey>,
}

impl Gathered {
    /// What there is to tell, one after the other.
    pub(crate) fn pop(&mut self) -> Option<News> {
        self.ready.pop_front()
    }

    /// These are the services that there are.
    pub(crate) fn name(&mut self, wanted: BTreeSet<FoundKey>) -> Turnover {
        let known = self.known.take().unwrap_or_default();
        let turnover = Turnover {
            new: wanted.difference(&known).cloned().collect(),
            gone: known.difference(&wanted).cloned().collect(),
        };
        for key in &turnover.gone {
            self.unanswered.remove(key);
            self.failing.remove(&Some(key.clone()));
            self.first.remove(key);
            if self.told {
                self.ready.push_back(News::Changed(key.clone(), None));
            }
        }
        self.unanswered.extend(turnover.new.iter().cloned());
        self.known = Some(wanted);
        self.finish();
        turnover
    }

    /// A service answered: it is so, or as it was before.
    pub(crate) fn hear(&mut self, key: FoundKey, found: Option<Found>) {
        if !self.knows(&key) {
            return;
        }
        self.unanswered.remove(&key);
        let failed = self.failing.remove(&Some(key.clone())).is_some();
        match found {
            Some(found) if self.told => self.ready.push_back(News::Changed(key, Some(found))),
            Some(found) => drop(self.first.insert(key, found)),
            None if failed && self.told => self.ready.push_back(News::Again(key)),
            None => {}
        }
        self.finish();
    }

    /// A service failed, or, without a key, the question which there are. Answers with what was not told before, where it
    /// is more than one service's matter.
    pub(crate) fn fail(&mut self, who: Option<FoundKey>, failure: Failure) -> Option<Failure> {
        if who.as_ref().is_some_and(|key| !self.knows(key)) {
            return None;
        }
        let new = self.failing.insert(who.clone(), failure.clone()).as_ref() != Some(&failure);
        if !new {
            return None;
        }
        if let Some(key) = who.clone().filter(|_| self.told) {
            self.ready.push_back(News::Silent(key, failure.clone()));
        }
        self.finish();
        (who.is_none() || self.all_fail()).then_some(failure)
    }

    /// The question which services there are was answered.
    pub(crate) fn answered(&mut self) {
        self.failing.remove(&None);
    }

    /// The source is there: a sign of life if all was told and not all fails, else what does; `more` may be, too.
    pub(crate) fn alive(&mut self, more: Option<Failure>) -> Option<Failure> {
        let whole = self.failing.get(&None).or(self.failing.values().next().filter(|_| self.all_fail()));
        let failure = whole.cloned().or(more).filter(|_| self.told);
        if self.told && failure.is_none() {
            self.ready.push_back(News::Same);
        }
        failure
    }

    /// Whether there are services, and none of them is heard.
    fn all_fail(&self) -> bool {
        let known = self.known.iter().flatten();
        let mut fail = known.map(|key| self.failing.contains_key(&Some(key.clone()))).peekable();
        fail.peek().is_some() && fail.all(|fails| fails)
    }

    fn knows(&self, key: &FoundKey) -> bool {
        self.known.as_ref().is_some_and(|known| known.contains(key))
    }

    /// Once each has answered or failed, and not all failed, the whole set is told, and which are not known.
    fn finish(&mut self) {
        let waits = self.unanswered.iter().any(|key| !self.failing.contains_key(&Some(key.clone())));
        if self.told || self.known.is_none() || waits || self.all_fail() {
            return;
        }
        self.told = true;
        self.ready.push_back(News::Full(std::mem::take(&mut self.first)));
        let silent = self.failing.iter().filter_map(|(who, failure)| Some((who.clone()?, failure.clone())));
        self.ready.extend(silent.map(|(key, failure)| News::Silent(key, failure)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FoundKey {
        FoundKey { namespace: None, name: name.to_owned() }
    }

    fn keys(names: &[&str]) -> BTreeSet<FoundKey> {
        names.iter().map(|name| key(name)).collect()
    }

    fn told(gathered: &mut Gathered) -> Vec<String> {
        let one = |news| match news {
            News::Full(set) => {
                format!("full {}", set.keys().map(|key| key.name.as_str()).collect::<Vec<_>>().join(" "))
            }
            News::Changed(key, Some(_)) => key.name,
            News::Changed(key, None) => format!("{} gone", key.name),
            News::Silent(key, failure) => format!("{} silent: {failure}", key.name),
            News::Again(key) => format!("{} again", key.name),
            News::Same => "same".to_owned(),
        };
        std::iter::from_fn(|| gathered.pop()).map(one).collect()
    }

    #[test]
    fn all_is_told_once_each_has_answered_and_then_what_changes() {
        let mut gathered = Gathered::default();
        gathered.hear(key("a"), Some(Found::default()));
        let turnover = gathered.name(keys(&["a", "b", "c"]));
        assert_eq!(turnover.new, ["a", "b", "c"].map(key));
        gathered.hear(key("a"), Some(Found::default()));
        gathered.hear(key("b"), Some(Found::default()));
        assert_eq!(gathered.alive(None), None);
        assert_eq!(told(&mut gathered), [""; 0]);
        let turnover = gathered.name(keys(&["a", "b"]));
        assert_eq!((turnover.new, turnover.gone), (Vec::new(), vec![key("c")]));
        assert_eq!(told(&mut gathered), ["full a b"]);
        gathered.hear(key("a"), None);
        gathered.hear(key("b"), Some(Found::default()));
        gathered.hear(key("c"), Some(Found::default()));
        assert_eq!(gathered.alive(None), None);
        assert_eq!(told(&mut gathered), ["b", "same"]);
        gathered.name(keys(&["b"]));
        assert_eq!(told(&mut gathered), ["a gone"]);
    }

    fn failure(what: &str) -> Failure {
        Failure::Source(what.to_owned())
    }

    #[test]
    fn one_that_fails_is_silent_for_itself() {
        let mut gathered = Gathered::default();
        gathered.name(keys(&["a", "b"]));
        gathered.hear(key("a"), Some(Found::default()));
        assert_eq!(gathered.fail(Some(key("x")), failure("no")), None, "there is none such");
        assert_eq!(told(&mut gathered), [""; 0], "b may still answer");
        assert_eq!(gathered.fail(Some(key("b")), failure("no")), None);
        assert_eq!(told(&mut gathered), ["full a", "b silent: no"], "what is known is told without it");
        assert_eq!(gathered.fail(Some(key("b")), failure("no")), None);
        assert_eq!(gathered.alive(None), None);
        assert_eq!(told(&mut gathered), ["same"], "the source is there");
        gathered.hear(key("b"), Some(Found::default()));
        gathered.fail(Some(key("a")), failure("nor I"));
        assert_eq!(told(&mut gathered), ["b", "a silent: nor I"]);
        gathered.hear(key("a"), None);
        gathered.hear(key("a"), None);
        assert_eq!(told(&mut gathered), ["a again"], "as it was before");
        gathered.fail(Some(key("a")), failure("no"));
        gathered.name(keys(&["b"]));
        assert_eq!(told(&mut gathered), ["a silent: no", "a gone"], "what is gone does not fail");
        assert_eq!(gathered.fail(Some(key("a")), failure("no")), None);
    }

    #[test]
    fn there_is_no_sign_of_life_while_all_fail_or_nobody_says_which_there_are() {
        let mut gathered = Gathered::default();
        gathered.name(keys(&["a", "b"]));
        gathered.fail(Some(key("a")), failure("no"));
        assert_eq!(gathered.fail(Some(key("b")), failure("no")), Some(failure("no")));
        assert_eq!(gathered.fail(Some(key("b")), failure("no")), None, "it was told");
        assert_eq!((gathered.alive(None), told(&mut gathered).len()), (None, 0), "nothing is known");
        gathered.hear(key("a"), Some(Found::default()));
        assert_eq!(told(&mut gathered), ["full a", "b silent: no"]);
        gathered.fail(Some(key("a")), failure("no"));
        assert_eq!(told(&mut gathered), ["a silent: no"]);
        assert_eq!(gathered.alive(None), Some(failure("no")));
        gathered.hear(key("a"), None);
        assert_eq!(gathered.fail(None, failure("which")), Some(failure("which")));
        assert_eq!(gathered.alive(None), Some(failure("which")));
        gathered.answered();
        assert_eq!(gathered.alive(None), None);
        assert_eq!(told(&mut gathered), ["a again", "same"]);
        assert_eq!(gathered.alive(Some(failure("more"))), Some(failure("more")));
        assert_eq!(told(&mut gathered), [""; 0]);
        gathered.name(keys(&[]));
        assert_eq!(gathered.alive(None), None, "where there is nothing nothing fails");
    }
}
