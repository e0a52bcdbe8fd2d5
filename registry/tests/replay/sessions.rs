//! The leader's judgement of sessions, through random ticks, pauses, terms, lost keep-alives and lost commands, on a
//! clock of numbers: nobody ends early, nobody outlives his time, nobody is told that he lives while he does not.

use std::{collections::BTreeMap, time::Duration};

use model::{
    duration::Millis,
    kind::Kind,
    name::Name,
    object::{Key, Object},
};
use registry::{
    Change, Command, Entry, Expect, Register, SessionRef, State, Write,
    session::{
        LEASE_SLACK, Look, PRESERVED_MIN, PRESERVED_PERCENT, REPEAT, RETURN_MAX, STALE_MAX, Sessions, Sign,
        TICK_GAP_MAX,
    },
};
use serde_json::{Map, json};

use crate::{WORLDS, dice::Dice, found, worlds};

/// `model::proxy::SESSION_TTL`, in milliseconds.
const TTL: u64 = 10_000;
/// How finely the world moves, in milliseconds.
const STEP: u64 = 50;

/// Who judges: the real one, or a double with a planted fault.
trait Judge {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool;
    fn tick(&mut self, look: Look, state: &State) -> Option<Command>;
}

impl Judge for Sessions {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        self.hear(now, &[sign], state).is_empty()
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.tick(look, state)
    }
}

#[test]
fn nobody_ends_early_and_nobody_outlives_his_time() {
    worlds("sessions", 2 * WORLDS.0, |seed| World::new(seed, Box::<Sessions>::default()).play());
}

#[test]
fn judges_with_a_planted_fault_are_found() {
    let play = |seed, judge: Box<dyn Judge>| World::new(seed, judge).play();
    found("a clock that runs fast", |seed| play(seed, Box::<Fast>::default()));
    found("signs that count from the tick before", |seed| play(seed, Box::<Coarse>::default()));
    found("a pause that counts as silence", |seed| play(seed, Box::<Sleepless>::default()));
    found("a new term that forgives nothing", |seed| play(seed, Box::<Termless>::default()));
    found("a sign that is taken while the end is asked for", |seed| play(seed, Box::<Lenient>::default()));
    found("a judge who seldom looks", |seed| play(seed, Box::<Lazy>::default()));
}

/// Runs a quarter fast.
#[derive(Default)]
struct Fast(Sessions);

impl Judge for Fast {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        Judge::hear(&mut self.0, now * 5 / 4, sign, state)
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.0.tick(Look { now: look.now * 5 / 4, ..look }, state)
    }
}

/// Hears as if at its last tick.
#[derive(Default)]
struct Coarse(Sessions, Duration);

impl Judge for Coarse {
    fn hear(&mut self, _: Duration, sign: Sign, state: &State) -> bool {
        Judge::hear(&mut self.0, self.1, sign, state)
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.1 = look.now;
        self.0.tick(look, state)
    }
}

/// Makes up the ticks that it missed.
#[derive(Default)]
struct Sleepless(Sessions, Duration);

impl Judge for Sleepless {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        Judge::hear(&mut self.0, now, sign, state)
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        while self.1 + TICK_GAP_MAX < look.now {
            self.1 += TICK_GAP_MAX;
            let asked = self.0.tick(Look { now: self.1, ..look }, state);
            if asked.is_some() {
                return asked;
            }
        }
        self.1 = look.now;
        self.0.tick(look, state)
    }
}

/// Does not see that the term is another.
#[derive(Default)]
struct Termless(Sessions);

impl Judge for Termless {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        Judge::hear(&mut self.0, now, sign, state)
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.0.tick(Look { term: 1, ..look }, state)
    }
}

/// Sends nobody away whose session the state has.
#[derive(Default)]
struct Lenient(Sessions);

impl Judge for Lenient {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        let known = state.session(&sign.session.node).is_some();
        Judge::hear(&mut self.0, now, sign, state) || known
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.0.tick(look, state)
    }
}

/// Looks only every tenth time.
#[derive(Default)]
struct Lazy(Sessions, u32);

impl Judge for Lazy {
    fn hear(&mut self, now: Duration, sign: Sign, state: &State) -> bool {
        Judge::hear(&mut self.0, now, sign, state)
    }

    fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.1 += 1;
        self.1.is_multiple_of(10).then(|| self.0.tick(look, state)).flatten()
    }
}

/// A host, and what it was told.
struct Host {
    name: Name,
    generation: u64,
    dies_at: u64,
    next_beat: u64,
    /// When it last sent what was answered with life, or registered.
    alive: u64,
    /// When its end was last asked for.
    asked: Option<u64>,
}

struct World {
    dice: Dice,
    judge: Box<dyn Judge>,
    state: State,
    hosts: Vec<Host>,
    now: u64,
    end: u64,
    term: u64,
    /// Time of this term in which the leader ran.
    counted: u64,
    next_tick: u64,
    last_tick: u64,
    /// From here on everyone has a full time to live.
    forgiven: u64,
    paused_until: u64,
    /// Percent of keep-alives that are lost.
    loss: u64,
    log: Vec<(u64, Command)>,
}

impl World {
    fn new(seed: u64, judge: Box<dyn Judge>) -> Self {
        let mut dice = Dice::new(seed);
        let start = 1_000_000;
        let length = if dice.percent(3) { 700_000 } else { 30_000 + dice.below(60_000) };
        let hosts = 1 + dice.below(9);
        let loss = *dice.pick(&[0, 0, 10, 40]);
        let mut world = Self {
            judge,
            state: State::new(),
            hosts: Vec::new(),
            now: start,
            end: start + length,
            term: 1,
            counted: 0,
            next_tick: start,
            last_tick: start,
            forgiven: start,
            paused_until: 0,
            loss,
            log: Vec::new(),
            dice: Dice::new(seed ^ 1),
        };
        let together = dice.percent(30).then(|| start + dice.below(30_000));
        for n in 0..hosts {
            let alone = start + dice.below(2 * length);
            let dies_at = together.filter(|_| dice.percent(60)).unwrap_or(alone);
            world.found(n, dies_at);
        }
        world
    }

    fn found(&mut self, n: u64, dies_at: u64) {
        let name: Name = format!("h{n}").parse().expect("a name");
        let key = Key::mesh_wide(Kind::Node, name.clone());
        let spec = Map::from_iter([("services".to_owned(), json!(["*/*"]))]);
        let change = Change::Put { object: Object::new(key, spec), expect: Expect::Any, credential: None };
        self.apply(Command::Write(Write { actor: "test".to_owned(), changes: vec![change] }));
        let next_beat = self.now + self.dice.below(3_000);
        self.hosts.push(Host { name, generation: 0, dies_at, next_beat, alive: self.now, asked: None });
        self.register(self.hosts.len() - 1);
    }

    fn play(&mut self) -> Result<(), String> {
        while self.now < self.end {
            self.now += STEP;
            self.carry_out();
            if self.now < self.paused_until {
                continue;
            }
            for host in 0..self.hosts.len() {
                self.beat(host)?;
            }
            if self.now >= self.next_tick {
                self.tick()?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, command: Command) {
        self.state.apply(Entry { at: Millis(self.now), command });
    }

    /// What the log has by now.
    fn carry_out(&mut self) {
        let (now, log) = (self.now, std::mem::take(&mut self.log));
        let (due, later) = log.into_iter().partition(|(at, _)| *at <= now);
        self.log = later;
        let due: Vec<(u64, Command)> = due;
        due.into_iter().for_each(|(_, command)| self.apply(command));
    }

    fn register(&mut self, host: usize) {
        let node = self.hosts[host].name.clone();
        let (services, endpoints, addresses) = (vec![], vec![], vec![]);
        let version = String::new();
        self.apply(Command::Register(Register { node, version, addresses, services, endpoints }));
        let host = &mut self.hosts[host];
        host.generation = self.state.session(&host.name).map_or(0, |session| session.generation);
        (host.alive, host.asked) = (self.now, None);
    }

    fn beat(&mut self, host: usize) -> Result<(), String> {
        let (now, lost) = (self.now, self.dice.percent(self.loss));
        let next = now + 2_900 + self.dice.below(200);
        let Host { name, generation, dies_at, next_beat, asked, .. } = &mut self.hosts[host];
        if now < *next_beat || now >= *dies_at {
            return Ok(());
        }
        *next_beat = next;
        if lost {
            return Ok(());
        }
        let session = SessionRef { node: name.clone(), generation: *generation };
        let stale = self
            .state
            .session(name)
            .is_none_or(|session| session.stale_since.is_some() || session.generation != *generation);
        let asked = asked.is_some();
        let lives = self.judge.hear(Duration::from_millis(now), Sign { session, acked: 0 }, &self.state);
        match (lives, asked || stale) {
            (true, true) => {
                Err(format!("{} was told that it lives, and its end is asked for", self.hosts[host].name))
            }
            (true, false) => {
                self.hosts[host].alive = now;
                Ok(())
            }
            (false, _) => {
                self.register(host);
                Ok(())
            }
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        let gap = self.now - self.last_tick;
        let another = self.dice.below(300) == 0;
        if another {
            (self.term, self.counted) = (self.term + 1, 0);
            self.hosts.iter_mut().for_each(|host| host.asked = None);
            // What the old leader asked for is in the log by then, or never will be.
            self.log.clear();
        }
        match another || gap > millis(TICK_GAP_MAX) {
            true => self.forgiven = self.now,
            false => self.counted += gap,
        }
        self.last_tick = self.now;
        let look = Look { now: Duration::from_millis(self.now), wall: Millis(self.now), term: self.term };
        let asked = self.judge.tick(look, &self.state);
        if let Some(command) = asked {
            self.check(&command)?;
            if !self.dice.percent(10) {
                self.log.push((self.now + self.dice.below(900), command));
            }
        }
        self.outlived()?;
        self.next_tick = self.now + 400 + self.dice.below(350);
        if self.dice.below(200) == 0 {
            self.paused_until = self.now + 1_500 + self.dice.below(30_000);
        }
        Ok(())
    }

    /// What is asked for is neither too early nor too much.
    fn check(&mut self, command: &Command) -> Result<(), String> {
        let (sessions, over): (&[SessionRef], bool) = match command {
            Command::Batch(commands) => return commands.iter().try_for_each(|command| self.check(command)),
            Command::Expire(sessions) => (sessions, true),
            Command::MarkStale(sessions) => (sessions, false),
            other => return Err(format!("{other} was asked for")),
        };
        let mut fresh = 0;
        let since: BTreeMap<_, _> =
            self.state.sessions().map(|(name, one)| (name.clone(), one.stale_since)).collect();
        for SessionRef { node, .. } in sessions {
            let Some(host) = self.hosts.iter_mut().find(|host| host.name == *node) else { continue };
            let again = host.asked.replace(self.now).is_some();
            match since.get(node) {
                Some(Some(since)) => {
                    if self.now - since.0 < millis(STALE_MAX) {
                        return Err(format!("{node} was stale for {} ms only", self.now - since.0));
                    }
                }
                _ if again => {}
                _ => {
                    fresh += usize::from(over);
                    let silent = self.now - host.alive.max(self.forgiven);
                    if silent <= TTL {
                        return Err(format!("{node} expired early: after {silent} ms"));
                    }
                }
            }
        }
        match fresh >= PRESERVED_MIN && fresh * 100 > since.len() * PRESERVED_PERCENT {
            true => Err(format!("{fresh} of {} expired at once", since.len())),
            false => Ok(()),
        }
    }

    /// Nobody is there whose time is over.
    fn outlived(&self) -> Result<(), String> {
        let most = TTL + millis(TICK_GAP_MAX + LEASE_SLACK);
        let returning = self.counted <= millis(RETURN_MAX + TICK_GAP_MAX);
        for (name, session) in self.state.sessions().filter(|(_, session)| session.stale_since.is_none()) {
            let Some(host) = self.hosts.iter().find(|host| host.name == *name) else { continue };
            let silent = self.now - host.alive.max(self.forgiven).max(session.registered_at.0);
            let asked = host.asked.is_some_and(|at| self.now - at <= millis(REPEAT + TICK_GAP_MAX));
            if silent > most && !asked && !returning {
                return Err(format!("{name} outlived its time: {silent} ms"));
            }
        }
        Ok(())
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("it fits")
}
