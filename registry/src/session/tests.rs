//! A leader and its sessions on a virtual clock.

use model::{
    duration::Millis,
    kind::Kind,
    object::{Key, Object},
};
use serde_json::{Map, json};

use super::*;
use crate::command::{Change, Entry, Expect, Register, Write};

const TTL: u64 = SESSION_TTL.duration().as_millis() as u64;

struct World {
    state: State,
    sessions: Sessions,
    /// Milliseconds.
    now: u64,
    term: u64,
}

impl World {
    /// So many hosts, `h0` and on, that have just registered.
    fn new(hosts: usize) -> Self {
        let mut world = Self { state: State::new(), sessions: Sessions::default(), now: 1_000_000, term: 1 };
        for host in 0..hosts {
            let node = Key::mesh_wide(Kind::Node, name(host));
            let object = Object::new(node, Map::from_iter([("services".to_owned(), json!(["*/*"]))]));
            let change = Change::Put { object, expect: Expect::Any, credential: None };
            world.apply(Command::Write(Write { actor: "test".to_owned(), changes: vec![change] }));
            world.register(host);
        }
        world.tick();
        world
    }

    fn apply(&mut self, command: Command) {
        self.state.apply(Entry { at: Millis(self.now), command });
        self.state.check().expect("the state keeps its invariants");
    }

    fn register(&mut self, host: usize) {
        let node = name(host);
        self.apply(Command::Register(Register {
            node,
            version: String::new(),
            addresses: vec![],
            services: vec![],
            endpoints: vec![],
        }));
    }

    fn hear(&mut self, hosts: impl IntoIterator<Item = usize>) -> Vec<Name> {
        let generation = |host| self.state.session(&name(host)).map_or(0, |session| session.generation);
        let sign =
            |host| Sign { session: SessionRef { node: name(host), generation: generation(host) }, acked: 9 };
        let signs: Vec<_> = hosts.into_iter().map(sign).collect();
        self.sessions.hear(&signs, &self.state)
    }

    /// What the leader asks for, done at once.
    fn tick(&mut self) -> Option<Command> {
        let command = self.sessions.tick(Duration::from_millis(self.now), self.term, &self.state);
        if let Some(command) = command.clone() {
            self.apply(command);
        }
        command
    }

    /// Lets time pass; these hosts are heard every second. Answers what the leader asked for.
    fn pass(&mut self, millis: u64, heard: std::ops::Range<usize>) -> Vec<Command> {
        let (end, mut asked) = (self.now + millis, Vec::new());
        while self.now < end {
            self.now += 500;
            if self.now.is_multiple_of(1_000) {
                self.hear(heard.clone());
            }
            asked.extend(self.tick());
        }
        asked
    }

    fn alive(&self) -> usize {
        self.state.sessions().filter(|(_, session)| session.stale_since.is_none()).count()
    }
}

fn name(host: usize) -> Name {
    format!("h{host}").parse().expect("a name")
}

#[test]
fn a_host_that_falls_silent_expires_after_its_time_and_no_other() {
    let mut world = World::new(10);
    assert_eq!(world.pass(TTL, 1..10), [], "its time is not over yet");
    let asked = world.pass(1_000, 1..10);
    assert!(
        matches!(&asked[..], [Command::Expire(gone)] if gone.len() == 1 && gone[0].node == name(0)),
        "{asked:?}"
    );
    assert_eq!((world.pass(10 * TTL, 1..10), world.alive()), (vec![], 9));
    assert_eq!(world.sessions.acked().count(), 9);
    assert!(world.sessions.acked().all(|(_, acked)| acked == 9));
}

#[test]
fn signs_of_another_generation_do_not_count() {
    let mut world = World::new(1);
    let old = Sign { session: SessionRef { node: name(0), generation: 1 }, acked: 0 };
    assert_eq!(world.sessions.hear(&[old], &world.state), [name(0)]);
    assert_eq!(world.hear([0]), []);
    assert_eq!(world.hear([7]), [name(7)], "a host that never registered");
    // A registration that the leader was about to expire is another session.
    world.now += TTL;
    let stale = SessionRef {
        node: name(0),
        generation: world.state.session(&name(0)).expect("it is there").generation,
    };
    world.register(0);
    world.apply(Command::Expire(vec![stale]));
    assert_eq!(world.alive(), 1);
}

#[test]
fn time_in_which_the_leader_did_not_run_does_not_count() {
    let mut world = World::new(2);
    assert_eq!(world.pass(TTL - 1_000, 0..0), []);
    world.now += 3_600_000;
    assert_eq!(world.tick(), None, "an hour's pause of the leader");
    assert_eq!(world.pass(TTL, 0..0), [], "everyone has a full time again");
    assert_eq!(world.pass(1_000, 0..0).len(), 1);

    let mut world = World::new(2);
    assert_eq!(world.pass(TTL - 1_000, 0..0), []);
    world.term += 1;
    assert_eq!(world.pass(TTL, 0..0), [], "a new term");
    assert_eq!(world.pass(1_000, 0..0).len(), 1);
}

#[test]
fn many_at_once_are_kept_stale_until_they_are_back_but_not_for_ever() {
    let mut world = World::new(10);
    let asked = world.pass(2 * TTL, 5..10);
    assert!(asked.iter().all(|command| matches!(command, Command::MarkStale(_))), "{asked:?}");
    assert_eq!((world.alive(), world.state.sessions().count()), (5, 10));
    assert_eq!(world.hear([0]), [name(0)], "it has to say anew what it runs");
    world.register(0);
    assert_eq!(world.hear([0]), []);
    assert_eq!(world.alive(), 6);
    let asked = world.pass(u64::try_from(STALE_MAX.as_millis()).expect("it fits"), 0..0);
    assert!(!asked.is_empty());
    world.pass(60_000, 0..0);
    assert!(world.state.session(&name(1)).is_none(), "ten minutes are over");
}

#[test]
fn hosts_that_fell_silent_together_but_spoke_at_different_times_are_all_kept() {
    let mut world = World::new(9);
    // Their last signs are spread over the three seconds between two of them.
    for host in 0..5 {
        world.now += 500;
        world.hear((0..9).filter(|other| *other >= 5 || *other == host));
        world.tick();
    }
    let asked = world.pass(2 * TTL, 5..9);
    assert!(
        !asked.is_empty() && asked.iter().all(|command| matches!(command, Command::MarkStale(_))),
        "{asked:?}"
    );
    assert_eq!(world.state.sessions().count(), 9);
}

#[test]
fn few_or_a_small_share_are_single_faults() {
    let mut world = World::new(2);
    assert!(
        matches!(&world.pass(TTL + 1_000, 0..0)[..], [Command::Expire(gone)] if gone.len() == 2),
        "two are few"
    );
    let mut world = World::new(10);
    let asked = world.pass(TTL + 1_000, 4..10);
    assert!(
        matches!(&asked[..], [Command::Expire(gone)] if gone.len() == 4),
        "4 of 10 are not over 40 %: {asked:?}"
    );
}
