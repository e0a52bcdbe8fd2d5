//! Pure. The leader's judgement of which sessions are lost. It hears signs of life and ticks, and answers with commands
//! for the log; what follows from a lost session is the state's matter.
//!
//! Only time in which the leader itself ran counts: a leader that was paused, or is new, gives everyone a full time to
//! live. When many are lost at once the fault is likelier between them and us than in all of them: then their endpoints
//! are kept, marked stale, and callers' own checks decide. Once the end of a session is asked for, no sign of life of it
//! is taken any more: nobody is told that he lives while the log says otherwise.

use std::{collections::BTreeMap, time::Duration};

use model::{
    duration::Millis,
    name::Name,
    proxy::{KEEPALIVE_INTERVAL, SESSION_TTL},
};

use crate::{
    command::{Command, SessionRef},
    state::State,
};

pub mod damping;

/// The leader looks this often; twice as fine as anyone could notice.
pub const TICK: Duration = Duration::from_millis(500);
/// A longer gap between two ticks is a pause of ours, in which nobody could be heard.
pub const TICK_GAP_MAX: Duration = Duration::from_secs(1);
/// So many lost at once are a pattern; fewer are single faults, whatever their share.
pub const PRESERVED_MIN: usize = 3;
/// More than this share of all sessions lost at once is a pattern, in percent.
pub const PRESERVED_PERCENT: usize = 40;
/// Endpoints of hosts that nobody hears of are kept so long at most.
pub const STALE_MAX: Duration = Duration::from_secs(600);
/// A leader that was replaced may still have told someone that he lives, for as long as its lease ran.
pub const LEASE_SLACK: Duration = Duration::from_secs(1);
/// Hosts that were not heard since a new leader began are waited for while others keep coming back, so long at most:
/// after a cold start thousands of handshakes stand before the first sign of life of the last one.
pub const RETURN_MAX: Duration = Duration::from_secs(30);
/// An end that the log did not take is asked for again after this.
pub const REPEAT: Duration = Duration::from_secs(2);

/// A sign of life, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The session.
    pub session: SessionRef,
    /// The revision that the node's proxy runs.
    pub acked: u64,
}

/// When the leader looks, and as which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Of a clock that never goes back, from an arbitrary start.
    pub now: Duration,
    /// The wall clock: asked only for how long another leader's stale sessions have been stale.
    pub wall: Millis,
    /// The leader's term.
    pub term: u64,
}

/// What the leader knows of sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    term: u64,
    last_tick: Option<Duration>,
    /// Time in which our tick ran.
    counted: Duration,
    /// When the term began, in counted time.
    began: Duration,
    /// When last a session was heard for the first time in this term, in counted time.
    returned: Duration,
    watched: BTreeMap<Name, Watched>,
    /// When sessions were lost of late, in counted time, and how many at once.
    lost: Vec<(Duration, usize)>,
}

#[derive(Debug, Clone)]
struct Watched {
    generation: u64,
    /// In counted time.
    heard: Duration,
    acked: u64,
    /// Whether it was heard, or came about, in this term.
    returned: bool,
    /// Until when its endpoints are kept although its loss is known, in counted time.
    stale_until: Option<Duration>,
    /// What was asked of the log, and when, in counted time.
    judged: Option<(Verdict, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Over,
    Stale,
}

impl Sessions {
    /// Takes signs of life; answers the nodes that must register anew.
    pub fn hear(&mut self, now: Duration, signs: &[Sign], state: &State) -> Vec<Name> {
        // As the next tick will count it; after a gap that tick forgives everyone.
        let heard = self.counted + self.last_tick.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        signs
            .iter()
            .filter(|sign| !self.lives(sign, heard, state))
            .map(|sign| sign.session.node.clone())
            .collect()
    }

    fn lives(&mut self, sign: &Sign, heard: Duration, state: &State) -> bool {
        let Sign { session: SessionRef { node, generation }, acked } = sign;
        // One whose endpoints are marked stale has to say anew what it runs.
        let present = state.session(node).filter(|session| session.stale_since.is_none());
        if present.is_none_or(|present| present.generation != *generation) {
            return false;
        }
        let watched = self.watched.entry(node.clone()).or_insert_with(|| Watched::new(*generation, heard));
        if watched.generation != *generation {
            *watched = Watched::new(*generation, heard);
        }
        if watched.judged.is_some() {
            return false;
        }
        if !std::mem::replace(&mut watched.returned, true) {
            self.returned = heard;
        }
        (watched.heard, watched.acked) = (heard.max(watched.heard), *acked);
        true
    }

    /// Looks for sessions that are over.
    pub fn tick(&mut self, look: Look, state: &State) -> Option<Command> {
        self.count(look);
        self.follow(look.wall, state);
        let overdue: Vec<Name> = self.overdue().cloned().collect();
        let verdict = if self.many_at_once() { Verdict::Stale } else { Verdict::Over };
        if !overdue.is_empty() {
            self.lost.push((self.counted, overdue.len()));
        }
        let outlived: Vec<Name> = self.outlived().cloned().collect();
        self.judge(&overdue, verdict);
        self.judge(&outlived, Verdict::Over);
        let mut commands = Vec::new();
        for (verdict, command) in [
            (Verdict::Stale, Command::MarkStale as fn(Vec<SessionRef>) -> Command),
            (Verdict::Over, Command::Expire),
        ] {
            let sessions = self.now_due(verdict);
            if !sessions.is_empty() {
                commands.push(command(sessions));
            }
        }
        match commands.len() {
            0 | 1 => commands.pop(),
            _ => Some(Command::Batch(commands)),
        }
    }

    /// The revision that each node's proxy runs, of those heard in this term.
    pub fn acked(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.watched.iter().map(|(name, watched)| (name, watched.acked))
    }

    /// How long a node's session lasts without a further sign of life, at least; `None` if it has none, or its end is
    /// asked for.
    pub fn lasts(&self, now: Duration, node: &Name) -> Option<Duration> {
        let watched = self.watched.get(node).filter(|watched| watched.judged.is_none())?;
        let now = self.counted + now.saturating_sub(self.last_tick?);
        let end = watched.stale_until.unwrap_or(watched.heard + SESSION_TTL.duration());
        Some(end.saturating_sub(now))
    }

    fn count(&mut self, Look { now, term, .. }: Look) {
        let gap = self.last_tick.map(|last| now.saturating_sub(last));
        self.last_tick = Some(now);
        if term != self.term {
            self.begin(term);
        } else {
            match gap {
                Some(gap) if gap <= TICK_GAP_MAX => self.counted += gap,
                _ => self.forgive(self.counted),
            }
        }
        let ttl = SESSION_TTL.duration();
        self.lost.retain(|(at, _)| *at + ttl >= self.counted);
    }

    /// What an earlier term judged came to nothing, or shows in the state.
    fn begin(&mut self, term: u64) {
        (self.term, self.began, self.returned) = (term, self.counted, self.counted);
        self.forgive(self.counted + LEASE_SLACK);
        self.lost.clear();
        for watched in self.watched.values_mut() {
            (watched.returned, watched.stale_until, watched.judged) = (false, None, None);
        }
    }

    fn forgive(&mut self, heard: Duration) {
        self.watched.values_mut().for_each(|watched| watched.heard = heard);
    }

    /// Watches the sessions that the state has, from now on where they are new.
    fn follow(&mut self, wall: Millis, state: &State) {
        self.watched.retain(|name, watched| {
            state.session(name).is_some_and(|session| session.generation == watched.generation)
        });
        let heard = if self.counted == self.began { self.counted + LEASE_SLACK } else { self.counted };
        for (name, session) in state.sessions() {
            let watched = self.watched.entry(name.clone()).or_insert_with(|| {
                // Those that an earlier leader knew have to come back; others came about just now.
                let returned = self.counted > self.began;
                Watched { returned, ..Watched::new(session.generation, heard) }
            });
            let Some(since) = session.stale_since else { continue };
            if watched.stale_until.is_none() {
                let age = Duration::from_millis(wall.max(state.time()).0.saturating_sub(since.0));
                let left = STALE_MAX.saturating_sub(age).max(SESSION_TTL.duration());
                (watched.stale_until, watched.judged) = (Some(self.counted + left), None);
            }
        }
    }

    /// Whether those that are lost, and those that will be unless they are heard soon, are too many for single faults.
    /// Hosts that fell silent together are overdue one by one, so the late ones count as soon as the first is overdue.
    fn many_at_once(&self) -> bool {
        let late = KEEPALIVE_INTERVAL.duration() * 3 / 2;
        let before: usize = self.lost.iter().map(|(_, lost)| lost).sum();
        let silent = |watched: &&Watched| watched.is_live() && watched.heard + late < self.counted;
        let lost = before + self.watched.values().filter(silent).count();
        // Of those that were lost before, the expired are no longer watched once the log has them; the others are.
        let gone = before.saturating_sub(self.watched.values().filter(|watched| !watched.is_live()).count());
        lost >= PRESERVED_MIN && lost * 100 > (self.watched.len() + gone) * PRESERVED_PERCENT
    }

    fn overdue(&self) -> impl Iterator<Item = &Name> {
        let ttl = SESSION_TTL.duration();
        let returning = self.returned + KEEPALIVE_INTERVAL.duration() >= self.counted
            && self.began + RETURN_MAX >= self.counted;
        let over = move |watched: &Watched| {
            watched.is_live() && watched.heard + ttl < self.counted && (watched.returned || !returning)
        };
        self.watched.iter().filter(move |(_, watched)| over(watched)).map(|(name, _)| name)
    }

    fn outlived(&self) -> impl Iterator<Item = &Name> {
        let over = |watched: &Watched| {
            watched.judged.is_none() && watched.stale_until.is_some_and(|until| until < self.counted)
        };
        self.watched.iter().filter(move |(_, watched)| over(watched)).map(|(name, _)| name)
    }

    fn judge(&mut self, names: &[Name], verdict: Verdict) {
        for name in names {
            if let Some(watched) = self.watched.get_mut(name) {
                // Due at once.
                watched.judged = Some((verdict, self.counted.saturating_sub(REPEAT)));
            }
        }
    }

    /// What is to be asked of the log now: what was judged just now, and what it did not take so far.
    fn now_due(&mut self, of: Verdict) -> Vec<SessionRef> {
        let counted = self.counted;
        let due = |watched: &mut Watched| match &mut watched.judged {
            Some((verdict, asked)) if *verdict == of && *asked + REPEAT <= counted => {
                *asked = counted;
                Some(watched.generation)
            }
            _ => None,
        };
        let reference = |(node, watched): (&Name, &mut Watched)| {
            Some(SessionRef { node: node.clone(), generation: due(watched)? })
        };
        self.watched.iter_mut().filter_map(reference).collect()
    }
}

impl Watched {
    fn new(generation: u64, heard: Duration) -> Self {
        Self { generation, heard, acked: 0, returned: false, stale_until: None, judged: None }
    }

    /// Whether nothing says that it is lost.
    fn is_live(&self) -> bool {
        self.stale_until.is_none() && self.judged.is_none()
    }
}

#[cfg(test)]
mod tests;
