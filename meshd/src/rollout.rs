//! Pure. How far a revision has come among the proxies that it concerns. Each member knows what the proxies that watch
//! at it are told of; a proxy that watches nowhere just now may be told of it when it is back, and counts as concerned.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    answer,
    name::Name,
    proxy::Nack,
    rollout::{Nacked, Rollout},
};
use registry::State;

use crate::{
    proxy_scope::{Scope, Subscription},
    wake::{Topic, topics},
};

/// As many names of proxies stand in an answer: who has more to look at asks `GET /v1/proxies`.
pub const LISTED_MAX: usize = 100;

answer! {
    /// A proxy that watches at some member.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Watching {
        /// Its host.
        "node" pub node: Name,
        /// Whether it is told of the revision.
        "concerned" pub concerned: bool,
        /// The revision that it runs.
        "revision" pub revision: u64,
        /// What it could not take.
        "nack" #[serde(default, skip_serializing_if = "Option::is_none")] pub nack: Option<Nack>,
    }
}

/// How far it has come, and how many have refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// As it is answered; [`LISTED_MAX`] names at most in each list.
    pub rollout: Rollout,
    refused: usize,
}

/// What proxies with these subscriptions are told of `revision`. What is no longer kept of it may concern everybody.
pub fn concerned(state: &State, revision: u64, watching: Vec<(Name, Subscription)>) -> Vec<(Name, bool)> {
    let about = about(state, revision);
    let concerns = |node: &Name, subscription| {
        let Some(about) = &about else { return true };
        Scope::new(node.clone(), subscription, state).is_ok_and(|scope| !scope.topics().is_disjoint(about))
    };
    let judged = |(node, subscription)| {
        let concerned = concerns(&node, subscription);
        (node, concerned)
    };
    watching.into_iter().map(judged).collect()
}

fn about(state: &State, revision: u64) -> Option<BTreeSet<Topic>> {
    let mut since = state.history_since(revision.saturating_sub(1)).ok()?;
    let changed = since.next().filter(|first| first.revision == revision)?;
    Some(changed.changes.iter().flat_map(topics).collect())
}

/// What several members said, joined: the later revision counts, and the refusal that came with it.
pub fn join(said: impl IntoIterator<Item = Watching>) -> BTreeMap<Name, Watching> {
    let mut joined: BTreeMap<Name, Watching> = BTreeMap::new();
    for one in said {
        let Some(known) = joined.get_mut(&one.node) else {
            joined.insert(one.node.clone(), one);
            continue;
        };
        known.concerned |= one.concerned;
        if one.revision > known.revision || known.nack.is_none() {
            known.nack = one.nack;
        }
        known.revision = known.revision.max(one.revision);
    }
    joined
}

impl Counted {
    /// As the members tell of it. `runs` says what a proxy runs that watches at none of them.
    pub fn of(
        state: &State,
        revision: u64,
        watching: &BTreeMap<Name, Watching>,
        runs: impl Fn(&Name) -> u64,
    ) -> Self {
        let rollout = Rollout { revision, concerned: 0, acked: 0, nacked: Vec::new(), lagging: Vec::new() };
        let mut counted = Self { rollout, refused: 0 };
        let live = state.sessions().filter(|(_, session)| session.stale_since.is_none());
        for (node, _) in live {
            match watching.get(node) {
                Some(one) if one.concerned => counted.count(node, one.revision, one.nack.as_ref()),
                Some(_) => {}
                None => counted.count(node, runs(node), None),
            }
        }
        counted
    }

    fn count(&mut self, node: &Name, runs: u64, nack: Option<&Nack>) {
        let rollout = &mut self.rollout;
        rollout.concerned += 1;
        let nack = nack.filter(|nack| nack.revision >= rollout.revision);
        match nack {
            _ if runs >= rollout.revision => rollout.acked += 1,
            Some(nack) => {
                self.refused += 1;
                if rollout.nacked.len() < LISTED_MAX {
                    rollout.nacked.push(Nacked { node: node.clone(), reason: nack.reason.clone() });
                }
            }
            None if rollout.lagging.len() < LISTED_MAX => rollout.lagging.push(node.clone()),
            None => {}
        }
    }

    /// Whether so many of a hundred may still come to run it, as things stand.
    pub fn may_reach(&self, quorum: u64) -> bool {
        let acked = self.rollout.concerned - self.refused;
        Rollout { acked, ..self.rollout.clone() }.has_reached(quorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{delete, put, register, state};

    fn named(name: &str) -> Name {
        name.parse().expect("a name")
    }

    fn watching(node: &str, concerned: bool, revision: u64, nack: Option<u64>) -> Watching {
        let nack = nack.map(|revision| Nack { revision, reason: "no".to_owned() });
        Watching { node: named(node), concerned, revision, nack }
    }

    #[test]
    fn a_revision_concerns_those_who_are_told_of_it() {
        let mut state = state();
        let watching = || {
            let of =
                |node: &str, services: &str| (named(node), Subscription::parse(services).expect("services"));
            vec![of("a", "default/orders"), of("b", "default/other"), of("c", "")]
        };
        let check = |state: &State, want: [bool; 3]| {
            let got = concerned(state, state.revision(), watching());
            assert_eq!(got.into_iter().map(|(_, concerned)| concerned).collect::<Vec<_>>(), want);
        };
        put(&mut state, r#"Service default/orders {"ports":[{"port":80}]}"#);
        check(&state, [true, true, true]);
        let route = r#"HTTPRoute default/r {"parentRefs":[{"name":"orders"}],"rules":[{"directResponse":{"status":204}}]}"#;
        put(&mut state, route);
        check(&state, [true, false, false]);
        delete(&mut state, "HTTPRoute default/r");
        check(&state, [true, false, false]);
        put(&mut state, r#"Role ops {"rules":[]}"#);
        check(&state, [false, false, false]);
        let long_ago = concerned(&state, 0, watching());
        assert!(long_ago.iter().all(|(_, concerned)| *concerned), "it is not known what it was");
    }

    #[test]
    fn those_who_watch_nowhere_and_those_who_refuse_are_told_apart() {
        let mut state = state();
        for node in ["a", "b", "c", "d"] {
            register(&mut state, node);
        }
        let said = join([
            watching("a", true, 4, None),
            watching("a", false, 9, None),
            watching("b", false, 1, None),
            watching("c", true, 8, Some(9)),
        ]);
        let counted = Counted::of(&state, 9, &said, |node| if node.as_str() == "d" { 3 } else { 99 });
        let rollout = &counted.rollout;
        assert_eq!((rollout.concerned, rollout.acked), (3, 1));
        assert_eq!(rollout.nacked, [Nacked { node: named("c"), reason: "no".to_owned() }]);
        assert_eq!(rollout.lagging, [named("d")]);
        assert!(rollout.has_reached(33) && !rollout.has_reached(34));
        assert!(counted.may_reach(66) && !counted.may_reach(67), "c has refused it");
        let before = Counted::of(&state, 8, &said, |_| 0).rollout;
        assert_eq!((before.acked, before.nacked.len()), (2, 0), "c runs what came before");
    }

    #[test]
    fn where_nobody_is_concerned_all_is_done() {
        let state = state();
        let counted = Counted::of(&state, 7, &BTreeMap::new(), |_| 0);
        assert!(counted.rollout.has_reached(100) && counted.may_reach(100));
    }
}
