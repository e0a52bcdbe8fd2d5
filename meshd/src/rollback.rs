//! Pure. What has to be written so that operators' objects stand as they did at an earlier revision. Nothing else is
//! touched: no token, role, node, endpoint or discovery source, and no Service that registration or a source made.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use model::{
    kind::Kind,
    object::{Key, Object},
};
use registry::{
    Change, Compacted, Expect, State,
    state::{MANAGED_BY, REGISTRATION},
};

/// One object that does not stand as it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which.
    pub key: Key,
    /// As it stands; `None` if it does not exist.
    pub now: Option<Arc<Object>>,
    /// As it stood; `None` if it did not exist.
    pub then: Option<Arc<Object>>,
}

/// Whether objects of a kind are what operators configure; others are facts, or say who may do what.
pub fn configured(kind: Kind) -> bool {
    match kind {
        Kind::Namespace
        | Kind::Service
        | Kind::HTTPRoute
        | Kind::GRPCRoute
        | Kind::TCPRoute
        | Kind::AuthorizationPolicy
        | Kind::TrafficPolicy
        | Kind::PeerAuthentication => true,
        Kind::Node | Kind::Endpoint | Kind::Role | Kind::AccessToken | Kind::JoinToken => false,
        // Whom the servers call is said by who may say so, each time.
        Kind::DiscoverySource => false,
    }
}

/// What stands otherwise than at `revision`, in the order in which it can be written.
///
/// # Errors
/// The history does not go back so far.
pub fn plan(state: &State, revision: u64) -> Result<Vec<Step>, Compacted> {
    let mut then: BTreeMap<Key, Option<Arc<Object>>> = BTreeMap::new();
    for kept in state.history_since(revision)? {
        for changed in kept.changes.iter().filter(|changed| configured(changed.key.kind)) {
            then.entry(changed.key.clone()).or_insert_with(|| changed.before.clone());
        }
    }
    let step = |(key, then)| Step { now: state.get(&key).cloned(), key, then };
    let mut steps: Vec<_> = then.into_iter().map(step).filter(Step::matters).collect();
    // A namespace comes before what is in it, and goes after. Of two traffic policies for one service the one that goes
    // makes way first.
    steps.sort_by_key(|step| (!step.makes_way(), step.then.is_none(), step.order()));
    Ok(steps)
}

impl Step {
    /// What is written; only if the object still stands as it was seen.
    pub fn change(&self) -> Change {
        let revision = self.now.as_ref().map(|now| now.metadata.revision);
        let expect = revision.map_or(Expect::Absent, Expect::Revision);
        match &self.then {
            Some(then) => Change::Put { object: input(then), expect, credential: None },
            None => Change::Delete { key: self.key.clone(), expect },
        }
    }

    /// In a word.
    pub fn outcome(&self) -> &'static str {
        match (&self.now, &self.then) {
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "replaced",
        }
    }

    fn matters(&self) -> bool {
        match (&self.now, &self.then) {
            (None, None) => false,
            (Some(now), Some(then)) => !(now.same_input(then) || registered(now) && registered(then)),
            // What registration makes of a Service is its own matter.
            (Some(only), None) | (None, Some(only)) => !registered(only),
        }
    }

    fn makes_way(&self) -> bool {
        self.then.is_none() && self.key.kind == Kind::TrafficPolicy
    }

    fn order(&self) -> (Option<Reverse<bool>>, Option<bool>) {
        let namespace = self.key.kind == Kind::Namespace;
        if self.then.is_some() { (Some(Reverse(namespace)), None) } else { (None, Some(namespace)) }
    }
}

/// How the annotation begins of what a discovery source made.
const DISCOVERY: &str = "discovery/";

/// The part of an object that users write.
fn input(object: &Object) -> Object {
    Object { status: None, ..object.clone() }
}

fn registered(object: &Object) -> bool {
    let by = object.metadata.annotations.iter().find(|(key, _)| key.as_str() == MANAGED_BY);
    by.is_some_and(|(_, by)| by.as_str() == REGISTRATION || by.as_str().starts_with(DISCOVERY))
}

#[cfg(test)]
mod tests {
    use registry::Command;

    use super::*;
    use crate::api::testing::{apply, delete, object, put, state, write};

    /// What no rollback may touch, if a change does.
    fn trespass(changes: &[Change]) -> Option<Key> {
        let key = |change: &Change| match change {
            Change::Put { object, .. } => object.key(),
            Change::Delete { key, .. } => key.clone(),
        };
        changes.iter().map(key).find(|key| !configured(key.kind))
    }

    fn furnished() -> State {
        let mut state = state();
        put(&mut state, "Namespace shop {}");
        put(&mut state, r#"Service shop/web {"ports":[{"port":80}]}"#);
        put(&mut state, r#"Service shop/old {"ports":[{"port":1}]}"#);
        state
    }

    fn disturb(state: &mut State) {
        put(state, r#"Service shop/web {"ports":[{"port":81}]}"#);
        put(state, r#"AccessToken t {"roles":["viewer"]}"#);
        put(state, r#"Role r {"rules":[]}"#);
        put(state, "Node n {}");
        delete(state, "Service shop/old");
        put(state, "Namespace new {}");
        put(state, r#"Service new/thing {"ports":[{"port":5}]}"#);
        put(state, r#"Service shop/web {"ports":[{"port":82}]}"#);
    }

    fn told(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.outcome(), step.key)).collect()
    }

    #[test]
    fn what_stood_is_written_back_and_nothing_else_is_touched() {
        let mut state = furnished();
        let (then, before) = (state.revision(), state.clone());
        disturb(&mut state);
        let steps = plan(&state, then).expect("kept");
        assert_eq!(
            told(&steps),
            [
                "created Service shop/old",
                "replaced Service shop/web",
                "deleted Service new/thing",
                "deleted Namespace new"
            ]
        );
        let changes: Vec<_> = steps.iter().map(Step::change).collect();
        assert_eq!(trespass(&changes), None);
        let revision = state.revision();
        write(&mut state, changes).expect("it can be written in this order");
        assert_eq!(state.revision(), revision + 1, "in one revision");
        for kind in [Kind::Namespace, Kind::Service] {
            let (old, new): (Vec<_>, Vec<_>) =
                (before.list(kind, None).collect(), state.list(kind, None).collect());
            assert_eq!(old.len(), new.len());
            assert!(old.iter().zip(&new).all(|(old, new)| old.same_input(new)));
        }
        for text in ["AccessToken t", "Role r", "Node n"] {
            assert!(state.get(&object(text).key()).is_some(), "{text} stands");
        }
        assert!(plan(&state, then).expect("kept").is_empty(), "nothing is left to do");
    }

    #[test]
    fn virtual_ips_are_never_rolled_back() {
        let mut state = furnished();
        let then = state.revision();
        let services = ["shop/web", "shop/old"].map(|name| name.parse().expect("a service"));
        apply(&mut state, Command::Number(services.to_vec()));
        let given = services.clone().map(|service| state.virtual_ips(&service));
        put(&mut state, r#"Service shop/web {"ports":[{"port":81}]}"#);
        delete(&mut state, "Service shop/old");
        put(&mut state, r#"Service shop/late {"ports":[{"port":1}]}"#);
        let changes: Vec<_> = plan(&state, then).expect("kept").iter().map(Step::change).collect();
        write(&mut state, changes).expect("it can be written");
        assert_eq!(
            services.map(|service| state.virtual_ips(&service)),
            given,
            "also of what was gone meanwhile"
        );
        state.check().expect("the state keeps its invariants");
        assert!(plan(&state, then).expect("kept").is_empty(), "none of them is something to take back");
    }

    #[test]
    fn a_namespace_comes_back_before_what_was_in_it() {
        let mut state = furnished();
        let then = state.revision();
        delete(&mut state, "Service shop/web");
        delete(&mut state, "Service shop/old");
        delete(&mut state, "Namespace shop");
        let steps = plan(&state, then).expect("kept");
        assert_eq!(told(&steps)[0], "created Namespace shop");
        write(&mut state, steps.iter().map(Step::change).collect()).expect("in this order");
    }

    #[test]
    fn a_traffic_policy_makes_way_for_the_one_before_it() {
        let mut state = furnished();
        put(&mut state, r#"TrafficPolicy shop/before {"targetRefs":[{"name":"web"}]}"#);
        let then = state.revision();
        delete(&mut state, "TrafficPolicy shop/before");
        put(&mut state, r#"TrafficPolicy shop/after {"targetRefs":[{"name":"web"}]}"#);
        let steps = plan(&state, then).expect("kept");
        assert_eq!(told(&steps), ["deleted TrafficPolicy shop/after", "created TrafficPolicy shop/before"]);
    }

    #[test]
    fn what_was_written_meanwhile_is_not_lost() {
        let mut state = furnished();
        let then = state.revision();
        disturb(&mut state);
        let changes: Vec<_> = plan(&state, then).expect("kept").iter().map(Step::change).collect();
        put(&mut state, r#"Service shop/web {"ports":[{"port":83}]}"#);
        let revision = state.revision();
        write(&mut state, changes).expect_err("another one wrote");
        assert_eq!(state.revision(), revision, "all or nothing");
    }

    #[test]
    fn services_of_registration_are_left_to_it() {
        let mut state = furnished();
        let then = state.revision();
        let mut managed = object(r#"Service shop/auto {"ports":[{"port":7}]}"#);
        let (key, value) = (MANAGED_BY.parse().expect("a key"), "registration");
        managed.metadata.annotations.insert(key, model::shape::Text::new(value).expect("short"));
        write(&mut state, vec![Change::Put { object: managed, expect: Expect::Any, credential: None }])
            .expect("written");
        assert!(plan(&state, then).expect("kept").is_empty());
    }

    #[test]
    fn what_is_no_longer_kept_names_the_oldest() {
        let mut state = State::with_history(3);
        for port in 1..10 {
            put(&mut state, &format!(r#"Service default/a {{"ports":[{{"port":{port}}}]}}"#));
        }
        assert_eq!(plan(&state, 2), Err(Compacted { oldest: 6 }));
        assert_eq!(plan(&state, 6).expect("kept").len(), 1);
    }

    /// The planted fault: a rollback that takes every kind for configuration. The check must see it.
    #[test]
    fn a_rollback_that_touches_a_token_is_seen() {
        let mut state = furnished();
        let then = state.revision();
        disturb(&mut state);
        let changed = state.history_since(then).expect("kept").flat_map(|kept| kept.changes.clone());
        let careless: Vec<_> = changed
            .map(|changed| Step { now: changed.after, then: changed.before, key: changed.key }.change())
            .collect();
        assert!(matches!(trespass(&careless), Some(Key { kind: Kind::AccessToken, .. })));
    }
}
