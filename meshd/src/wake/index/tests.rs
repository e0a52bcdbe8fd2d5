use super::*;
use crate::api::testing::{delete, object, put, state, write};

type Plain = Arc<Slot<&'static str>>;

/// An index with watches by a small language: `Service`, `Service/default`, `Service/default app=web`, `details default/a`,
/// `trust`, `access Role r`.
struct World {
    state: State,
    index: Index<&'static str>,
    slots: Vec<Plain>,
}

fn topic(text: &str) -> Topic {
    let words: Vec<_> = text.split_whitespace().collect();
    match words[..] {
        ["trust"] => Topic::Trust,
        ["details", service] => Topic::Details(service.parse().expect("a service")),
        ["access", kind, name] => Topic::Access(object(&format!("{kind} {name}")).key()),
        ["object", kind, name] => Topic::Object(object(&format!("{kind} {name}")).key()),
        [one] => match one.split_once('/') {
            Some((kind, namespace)) => {
                Topic::Within(Kind::named(kind).expect("a kind"), namespace.parse().expect("a name"))
            }
            None => Topic::Everywhere(Kind::named(one).expect("a kind")),
        },
        _ => panic!("no topic: {text}"),
    }
}

impl World {
    fn new(watches: &[&'static str]) -> Self {
        let mut state = state();
        put(&mut state, r#"Service default/a {"ports":[{"port":80}]}"#);
        let mut world = Self { index: Index::new(&state), state, slots: Vec::new() };
        watches.iter().for_each(|watch| world.enter(watch));
        world
    }

    fn enter(&mut self, watch: &'static str) {
        let (text, labels) = watch.split_once(" with ").unwrap_or((watch, ""));
        let topics = text.split(',').map(topic).collect();
        let interest = Interest { topics, labels: labels.parse().expect("a selector") };
        let slot = self.index.enter(interest, watch);
        slot.told(self.state.revision());
        self.slots.push(slot);
    }

    /// Judges; who was rung.
    fn rung(&mut self) -> Vec<&'static str> {
        self.index.judge(&self.state).iter().map(|slot| slot.bell).collect()
    }
}

#[track_caller]
fn check(watches: &[&'static str], change: impl FnOnce(&mut State), want: &[&str]) {
    let mut world = World::new(watches);
    change(&mut world.state);
    assert_eq!(world.rung(), want);
    assert_eq!(world.rung(), [""; 0], "nobody twice");
}

#[test]
fn only_who_watches_what_changed_is_woken() {
    let watches = &["Service", "Service/default", "Service/mesh-system", "Role", "Service,Role"];
    check(watches, |state| drop(put(state, "Role r {}")), &["Role", "Service,Role"]);
    check(
        watches,
        |state| drop(put(state, "Service default/b")),
        &["Service", "Service/default", "Service,Role"],
    );
    check(
        watches,
        |state| delete(state, "Service default/a"),
        &["Service", "Service/default", "Service,Role"],
    );
    check(watches, |state| drop(put(state, "Node n {}")), &[]);
}

#[test]
fn labels_count_before_and_after() {
    let labelled = |value: &str| {
        let mut object = object("Service default/l");
        let value = model::shape::Text::new(value).expect("a value");
        object.metadata.labels.insert("v".parse().expect("a key"), value);
        let change = registry::Change::Put { object, expect: registry::Expect::Any, credential: None };
        move |state: &mut State| drop(write(state, vec![change]).expect("written"))
    };
    let watches = &["Service with v=1", "Service with v=2", "Service with v=3", "Service"];
    let mut world = World::new(watches);
    labelled("1")(&mut world.state);
    assert_eq!(world.rung(), ["Service with v=1", "Service"]);
    labelled("2")(&mut world.state);
    assert_eq!(world.rung(), ["Service with v=1", "Service with v=2", "Service"]);
}

#[test]
fn a_proxy_is_woken_for_the_details_of_its_destinations_only() {
    let watches = &["Service", "details default/a", "details default/b"];
    let endpoint = |service: &str| {
        let text = format!(
            r#"Endpoint default/e {{"service":"{service}","source":"discovery/t","address":"10.0.0.1","ports":[{{"port":80,"targetPort":80}}]}}"#
        );
        move |state: &mut State| drop(put(state, &text))
    };
    check(watches, endpoint("a"), &["details default/a"]);
    let moved = |state: &mut State| {
        endpoint("a")(state);
        endpoint("b")(state);
    };
    check(watches, moved, &["details default/a", "details default/b"]);
}

#[test]
fn access_is_told_apart_from_news() {
    let mut world = World::new(&["Service,access Role r", "Service"]);
    put(&mut world.state, "Role r {}");
    assert_eq!(world.rung(), ["Service,access Role r"]);
    let revision = world.state.revision();
    assert_eq!(world.slots[0].look(0, revision), (revision, true));
    assert_eq!(world.slots[0].look(0, revision), (revision, false), "once");
}

#[test]
fn who_was_not_woken_may_go_on_and_who_was_may_not() {
    let mut world = World::new(&["Service", "Role"]);
    put(&mut world.state, "Role r {}");
    put(&mut world.state, "Service default/b");
    put(&mut world.state, "Role s {}");
    world.rung();
    let (services, roles) = (&world.slots[0], &world.slots[1]);
    assert_eq!(services.look(1, 4), (2, false), "revision 3 is the first of interest");
    assert_eq!(roles.look(1, 4), (1, false));
    services.told(3);
    assert_eq!(services.look(3, 4), (4, false), "nothing is left");
    roles.told(2);
    assert_eq!(roles.look(2, 4), (2, false), "revision 4 is left");
    assert_eq!(roles.look(2, 2), (2, false), "never beyond the state that is seen");
}

#[test]
fn a_mark_beyond_the_state_that_was_seen_stays() {
    let mut world = World::new(&["Service"]);
    put(&mut world.state, "Service default/b");
    world.rung();
    // A watcher that still sees revision 1 has been told everything of that.
    world.slots[0].told(1);
    assert_eq!(world.slots[0].look(1, 1), (1, false));
    assert_eq!(world.slots[0].look(1, 2), (1, false), "and looks at revision 2 when it sees it");
}

#[test]
fn who_is_new_looks_at_everything() {
    let mut world = World::new(&[]);
    put(&mut world.state, "Service default/b");
    world.rung();
    let interest = Interest { topics: BTreeSet::from([topic("Service")]), labels: Selector::default() };
    let slot = world.index.enter(interest, "new");
    assert_eq!(slot.look(0, 2), (0, false));
    slot.told(2);
    world.slots.push(slot);
    assert_eq!(world.slots[0].look(0, 2), (2, false));
}

#[test]
fn new_topics_look_again_at_what_came_since() {
    let mut world = World::new(&["details default/a"]);
    put(&mut world.state, "Service default/b");
    world.rung();
    let (from, to) = (BTreeSet::from([topic("details default/a")]), BTreeSet::from([topic("Service")]));
    let slot = world.slots[0].clone();
    assert!(world.index.turn(&slot, &from, &to, 1), "revision 2 was judged by the old topics");
    assert_eq!(slot.look(1, 2), (1, false));
    slot.told(2);
    assert!(!world.index.turn(&slot, &to, &from, 2), "nothing came since");
    put(&mut world.state, "Service default/c");
    assert_eq!(world.rung(), [""; 0], "the old topics are gone");
}

#[test]
fn all_are_woken_by_another_history_and_by_one_that_ran_away() {
    let mut world = World::new(&["Role"]);
    put(&mut world.state, "Service default/b");
    world.rung();
    world.state = state();
    assert_eq!(world.rung(), ["Role"], "revisions went back");
    let mut short = State::with_history(2);
    for name in ["a", "b", "c", "d"] {
        put(&mut short, &format!("Service default/{name}"));
    }
    world.state = short;
    assert_eq!(world.rung(), ["Role"], "revisions 1 and 2 are not kept");
}

#[test]
fn who_left_is_not_woken() {
    let mut world = World::new(&["Service", "Service"]);
    let gone = world.slots.remove(0);
    world.index.leave(&gone, &BTreeSet::from([topic("Service")]));
    put(&mut world.state, "Service default/b");
    assert_eq!(world.rung().len(), 1);
    world.index.leave(&world.slots[0], &BTreeSet::from([topic("Service")]));
    assert!(world.index.by_topic.is_empty(), "and nothing of them stays");
}
