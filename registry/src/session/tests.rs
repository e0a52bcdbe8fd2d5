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
        // The leader is there before them.
        world.tick();
        world.now += 500;
        world.tick();
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
        self.sessions.hear(Duration::from_millis(self.now), &signs, &self.state)
    }

    /// What the leader asks for.
    fn look(&mut self) -> Option<Command> {
        let look = Look { now: Duration::from_millis(self.now), wall: Millis(self.now), term: self.term };
        self.sessions.tick(look, &self.state)
    }

    /// What the leader asks for, done at once.
    fn tick(&mut self) -> Option<Command> {
        let command = self.look();
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
    assert_eq!(world.sessions.hear(Duration::from_millis(world.now), &[old], &world.state), [name(0)]);
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
    assert_eq!(
        world.pass(TTL + 1_000, 0..0),
        [],
        "a new term, and what the old leader's lease may have let through"
    );
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

#[test]
fn a_sign_between_two_ticks_counts_from_when_it_came() {
    let mut world = World::new(1);
    world.now += 499;
    assert_eq!(world.hear([0]), []);
    let heard = world.now;
    world.now += 1;
    world.tick();
    // Ticks that come a little late, so that one falls just behind the time of the tick before the sign.
    while world.now + 510 <= heard + TTL {
        world.now += 510;
        assert_eq!(world.tick(), None, "{} ms after its sign", world.now - heard);
    }
    world.now = heard + TTL;
    assert_eq!(world.tick(), None, "its time is over only behind its end");
    world.now += 1;
    assert!(matches!(world.tick(), Some(Command::Expire(_))));
}

#[test]
fn nobody_is_told_that_he_lives_while_his_end_is_on_its_way_to_the_log() {
    let mut world = World::new(1);
    world.pass(TTL, 0..0);
    world.now += 500;
    let Some(command) = world.look() else { panic!("its time is over") };
    assert_eq!(world.hear([0]), [name(0)], "the entry may be on disk already");
    assert_eq!(world.sessions.lasts(Duration::from_millis(world.now), &name(0)), None);
    world.register(0);
    world.apply(command);
    assert_eq!((world.alive(), world.hear([0])), (1, vec![]), "it came again under another generation");
}

#[test]
fn an_end_that_the_log_did_not_take_is_asked_for_again() {
    let mut world = World::new(1);
    world.pass(TTL, 0..0);
    world.now += 500;
    let asked = world.look().expect("its time is over");
    for _ in 0..3 {
        world.now += 500;
        assert_eq!(world.look(), None);
    }
    world.now += 500;
    assert_eq!(world.look(), Some(asked));
}

#[test]
fn hosts_on_their_way_to_a_new_leader_are_waited_for_while_others_come_back() {
    // A cold start: 20 hosts, one in every second comes back, the last one never.
    let mut world = World::new(20);
    world.pass(1_000, 0..20);
    world.term += 1;
    let mut asked = Vec::new();
    for back in 1..20 {
        asked.extend(world.pass(1_000, 0..back));
    }
    assert_eq!((asked, world.alive()), (vec![], 20));
    let asked = world.pass(5_000, 0..19);
    assert!(matches!(&asked[..], [Command::Expire(gone)] if gone[0].node == name(19)), "{asked:?}");

    // The wait has an end.
    let mut world = World::new(60);
    world.term += 1;
    let mut asked = Vec::new();
    for back in 1..40 {
        asked.extend(world.pass(1_000, 0..back));
    }
    assert!(!asked.is_empty());
}

#[test]
fn ten_minutes_are_ten_minutes_under_several_leaders() {
    let mut world = World::new(10);
    world.pass(2 * TTL, 5..10);
    let stale = 4 * 60_000;
    world.pass(stale, 5..10);
    world.term += 1;
    world.pass(stale, 5..10);
    world.term += 1;
    assert_eq!(world.state.sessions().count(), 10, "eight minutes");
    world.pass(2 * 60_000, 5..10);
    assert_eq!(world.state.sessions().count(), 5, "ten");

    // A leader that comes when they are over gives a time to live, to come back in.
    let mut world = World::new(10);
    world.pass(2 * TTL, 5..10);
    world.now += 3_600_000;
    world.term += 1;
    world.pass(TTL, 5..10);
    assert_eq!(world.state.sessions().count(), 10);
    world.pass(1_000, 5..10);
    assert_eq!(world.state.sessions().count(), 5);
}
