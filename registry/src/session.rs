//! Pure. The leader's judgement of which sessions are lost. It hears signs of life and ticks, and answers with commands
//! for the log; what follows from a lost session is the state's matter.
//!
//! Only time in which the leader itself ran counts: a leader that was paused, or is new, gives everyone a full time to
//! live. When many are lost at once the fault is likelier between them and us than in all of them: then their endpoints
//! are kept, marked stale, and callers' own checks decide.

use std::{collections::BTreeMap, time::Duration};

use model::{
    name::Name,
    proxy::{KEEPALIVE_INTERVAL, SESSION_TTL},
};

use crate::{
    command::{Command, SessionRef},
    state::State,
};

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

/// A sign of life, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The session.
    pub session: SessionRef,
    /// The revision that the node's proxy runs.
    pub acked: u64,
}

/// What the leader knows of sessions. Time is counted from an arbitrary start.
#[derive(Debug, Default)]
pub struct Sessions {
    term: u64,
    last_tick: Option<Duration>,
    /// Time in which our tick ran.
    counted: Duration,
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
    /// Since when its loss is known and its endpoints are kept, in counted time.
    stale_since: Option<Duration>,
}

impl Sessions {
    /// Takes signs of life; answers the nodes that must register anew.
    pub fn hear(&mut self, signs: &[Sign], state: &State) -> Vec<Name> {
        let mut gone = Vec::new();
        for Sign { session, acked } in signs {
            let present =
                state.session(&session.node).filter(|present| present.generation == session.generation);
            match present {
                // One whose endpoints are marked stale has to say anew what it runs.
                Some(present) if present.stale_since.is_none() => {
                    let watched = Watched {
                        generation: session.generation,
                        heard: self.counted,
                        acked: *acked,
                        stale_since: None,
                    };
                    self.watched.insert(session.node.clone(), watched);
                }
                _ => gone.push(session.node.clone()),
            }
        }
        gone
    }

    /// Looks for sessions that are over. `now` is of a clock that never goes back; `term` is the leader's.
    pub fn tick(&mut self, now: Duration, term: u64, state: &State) -> Option<Command> {
        self.count(now, term);
        self.follow(state);
        let overdue: Vec<Name> = self.silent_for(SESSION_TTL.duration()).cloned().collect();
        let outlived: Vec<Name> = self.stale_for(STALE_MAX).cloned().collect();
        let preserve = !overdue.is_empty() && self.many_at_once();
        let mut commands = Vec::new();
        if !overdue.is_empty() {
            self.lost.push((self.counted, overdue.len()));
            let sessions = self.references(&overdue);
            commands.push(if preserve { Command::MarkStale(sessions) } else { Command::Expire(sessions) });
        }
        if !outlived.is_empty() {
            commands.push(Command::Expire(self.references(&outlived)));
        }
        // Asked again after a while, should the command be lost on its way.
        for name in overdue.iter().chain(&outlived) {
            if let Some(watched) = self.watched.get_mut(name) {
                watched.heard = self.counted;
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

    fn count(&mut self, now: Duration, term: u64) {
        let gap = self.last_tick.map(|last| now.saturating_sub(last));
        self.last_tick = Some(now);
        match gap {
            Some(gap) if gap <= TICK_GAP_MAX && term == self.term => self.counted += gap,
            _ => {
                self.term = term;
                for watched in self.watched.values_mut() {
                    watched.heard = self.counted;
                }
            }
        }
        let ttl = SESSION_TTL.duration();
        self.lost.retain(|(at, _)| *at + ttl >= self.counted);
    }

    /// Watches the sessions that the state has, from now on where they are new.
    fn follow(&mut self, state: &State) {
        self.watched.retain(|name, watched| {
            state.session(name).is_some_and(|session| session.generation == watched.generation)
        });
        for (name, session) in state.sessions() {
            let (generation, heard) = (session.generation, self.counted);
            let watched = self.watched.entry(name.clone()).or_insert(Watched {
                generation,
                heard,
                acked: 0,
                stale_since: None,
            });
            watched.stale_since = session.stale_since.map(|_| watched.stale_since.unwrap_or(heard));
        }
    }

    /// Whether those that are lost, and those that will be unless they are heard soon, are too many for single faults.
    /// Hosts that fell silent together are overdue one by one, so the late ones count as soon as the first is overdue.
    fn many_at_once(&self) -> bool {
        let late = KEEPALIVE_INTERVAL.duration() * 3 / 2;
        let before: usize = self.lost.iter().map(|(_, lost)| lost).sum();
        let lost = before + self.silent_for(late).count();
        let stale = self.watched.values().filter(|watched| watched.stale_since.is_some()).count();
        // Those expired of late are no longer watched; those marked stale are, and were counted when they were lost.
        let all = (self.watched.len() + before).saturating_sub(stale.min(before));
        lost >= PRESERVED_MIN && lost * 100 > all * PRESERVED_PERCENT
    }

    fn silent_for(&self, span: Duration) -> impl Iterator<Item = &Name> {
        let silent =
            move |watched: &Watched| watched.stale_since.is_none() && watched.heard + span < self.counted;
        self.watched.iter().filter(move |(_, watched)| silent(watched)).map(|(name, _)| name)
    }

    fn stale_for(&self, span: Duration) -> impl Iterator<Item = &Name> {
        let over =
            move |watched: &Watched| watched.stale_since.is_some_and(|since| since + span < self.counted);
        self.watched.iter().filter(move |(_, watched)| over(watched)).map(|(name, _)| name)
    }

    fn references(&self, names: &[Name]) -> Vec<SessionRef> {
        let reference = |name: &Name| {
            Some(SessionRef { node: name.clone(), generation: self.watched.get(name)?.generation })
        };
        names.iter().filter_map(reference).collect()
    }
}

#[cfg(test)]
mod tests;
