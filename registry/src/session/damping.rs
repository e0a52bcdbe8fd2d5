//! Pure. How often a node may bring news. A host that comes and goes costs a revision each time, and its callers a new
//! set of endpoints; so news that brings something in is rationed, and held back for longer each time it is too much.
//! Bad news is never held back.
//!
//! The ration is time: a node has [`ALLOWANCE`] of it, which fills as time passes. What it brings in costs
//! [`CHANGE_COST`], coming back without a session [`COMEBACK_COST`]. When it has too little it is held for [`HOLD_MIN`],
//! twice as long each further time up to [`HOLD_MAX`]; then one piece of news is let through whatever it costs. Once the
//! allowance is full again, all is forgotten. A new leader knows nothing of it.

use std::{collections::BTreeMap, time::Duration};

use model::{
    name::Name,
    object::Object,
    resource::{EndpointStatus, Health},
};

use crate::{command::Register, state::State};

/// What a calm node may spend at once: four comebacks, or forty changes.
pub const ALLOWANCE: Duration = Duration::from_secs(160);
/// What a change within a session costs: one every four seconds is never too much.
pub const CHANGE_COST: Duration = Duration::from_secs(4);
/// What coming back without a session costs: callers see endpoints appear that had gone.
pub const COMEBACK_COST: Duration = Duration::from_secs(40);
/// The first time that a node is held.
pub const HOLD_MIN: Duration = Duration::from_secs(10);
/// The longest time that a node is held: so long a host that was mended waits at most.
pub const HOLD_MAX: Duration = Duration::from_secs(300);

/// What a registration says, beside what is known of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Only that less is there than before.
    Bad,
    /// Something else, in a living session.
    Change,
    /// That the node is here, which had no session.
    Comeback,
}

/// What the nodes have left that registered of late.
#[derive(Debug, Default)]
pub struct Damping(BTreeMap<Name, Restless>);

#[derive(Debug)]
struct Restless {
    left: Duration,
    /// Up to when `left` was filled.
    filled: Duration,
    held_until: Option<Duration>,
    holds: u32,
}

impl News {
    /// What this registration brings.
    pub fn of(register: &Register, state: &State) -> Self {
        let Some(session) = state.session(&register.node) else { return Self::Comeback };
        let worse_or_same = |object: &Object| {
            let before = state.get(&object.key());
            before.is_some_and(|before| {
                before.same_input(object) && (before.status == object.status || !is_healthy(object))
            })
        };
        let changed =
            |object: &Object| state.get(&object.key()).is_none_or(|before| before.status != object.status);
        let known: usize = session
            .claims
            .iter()
            .map(|claim| state.endpoints_of(&claim.service).filter(|one| is_on(one, &register.node)).count())
            .sum();
        let less = register.endpoints.len() < known || register.endpoints.iter().any(changed);
        let bad = session.stale_since.is_none()
            && less
            && register.endpoints.iter().all(worse_or_same)
            && register.services.iter().all(|claim| session.claims.contains(claim));
        if bad { Self::Bad } else { Self::Change }
    }

    fn cost(self) -> Duration {
        match self {
            Self::Bad => Duration::ZERO,
            Self::Change => CHANGE_COST,
            Self::Comeback => COMEBACK_COST,
        }
    }
}

impl Damping {
    /// Whether the node may say it now; `now` is of a clock that never goes back.
    ///
    /// # Errors
    /// It may after so long.
    pub fn admit(&mut self, now: Duration, node: &Name, news: News) -> Result<(), Duration> {
        if news == News::Bad {
            return Ok(());
        }
        let calm = || Restless { left: ALLOWANCE, filled: now, held_until: None, holds: 0 };
        let restless = self.0.entry(node.clone()).or_insert_with(calm);
        restless.fill(now);
        restless.spend(now, news.cost())
    }

    /// Forgets the calm: then it holds as many as registered within the time that an allowance takes to fill.
    pub fn forget_calm(&mut self, now: Duration) {
        self.0.retain(|_, restless| {
            restless.fill(now);
            restless.left < ALLOWANCE || restless.held_until.is_some_and(|until| until > now)
        });
    }

    /// How many nodes it remembers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Restless {
    /// Time in which it is held fills nothing: it is no sign of calm.
    fn fill(&mut self, now: Duration) {
        let from = self.filled.max(self.held_until.unwrap_or_default());
        self.left = (self.left + now.saturating_sub(from)).min(ALLOWANCE);
        self.filled = self.filled.max(now);
        if self.left == ALLOWANCE {
            self.holds = 0;
        }
    }

    fn spend(&mut self, now: Duration, cost: Duration) -> Result<(), Duration> {
        match self.held_until {
            Some(until) if until > now => return Err(until - now),
            Some(_) => {
                self.held_until = None;
                self.left = self.left.saturating_sub(cost);
                return Ok(());
            }
            None => {}
        }
        if let Some(left) = self.left.checked_sub(cost) {
            self.left = left;
            return Ok(());
        }
        let hold = HOLD_MIN.saturating_mul(1 << self.holds.min(16)).min(HOLD_MAX);
        self.holds += 1;
        self.held_until = Some(now + hold);
        Err(hold)
    }
}

fn is_healthy(endpoint: &Object) -> bool {
    let said =
        endpoint.status.as_ref().and_then(|status| model::object::status::<EndpointStatus>(status).ok());
    said.is_none_or(|said| said.health == Health::Healthy)
}

fn is_on(endpoint: &Object, node: &Name) -> bool {
    endpoint.spec.get("node").and_then(|of| of.as_str()) == Some(node.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "a".parse().expect("a name")
    }

    /// When a node's news come through that has some every `every` seconds, or as soon as it may; over an hour.
    fn through(news: News, every: u64) -> Vec<u64> {
        let (mut damping, mut admitted, mut at) = (Damping::default(), Vec::new(), 0);
        while at < 3_600 {
            match damping.admit(Duration::from_secs(at), &name(), news) {
                Ok(()) => {
                    admitted.push(at);
                    at += every;
                }
                Err(after) => at += after.as_secs(),
            }
        }
        admitted
    }

    #[test]
    fn a_host_that_comes_and_goes_is_held_for_longer_each_time() {
        let admitted = through(News::Comeback, 15);
        let pauses: Vec<_> = admitted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..4], [15; 4], "a few times it may");
        assert_eq!(pauses[4..11], [25, 35, 55, 95, 175, 315, 315]);
        assert!(admitted.len() < 25, "{} in an hour", admitted.len());
    }

    #[test]
    fn a_loop_of_restarts_makes_no_storm() {
        let admitted = through(News::Change, 1);
        let first_minute = admitted.iter().filter(|at| **at < 60).count();
        assert!(
            first_minute <= 54 && admitted.len() < 120,
            "{first_minute} in a minute, {} in all",
            admitted.len()
        );
    }

    #[test]
    fn what_is_rare_is_never_held_and_calm_is_forgotten() {
        assert_eq!(through(News::Change, 4).len(), 900);
        assert_eq!(through(News::Comeback, 40).len(), 90);
        let mut damping = Damping::default();
        for _ in 0..1_000 {
            assert_eq!(damping.admit(Duration::ZERO, &name(), News::Bad), Ok(()));
        }
        assert!(damping.is_empty(), "bad news costs nothing");
        for _ in 0..5 {
            let _ = damping.admit(Duration::ZERO, &name(), News::Comeback);
        }
        damping.forget_calm(Duration::from_secs(9));
        assert_eq!(damping.len(), 1);
        damping.forget_calm(HOLD_MIN + ALLOWANCE);
        assert!(damping.is_empty());
    }

    #[test]
    fn calm_after_a_hold_starts_from_the_shortest_again() {
        let mut damping = Damping::default();
        let mut at = Duration::ZERO;
        let over = |damping: &mut Damping, at| loop {
            if let Err(hold) = damping.admit(at, &name(), News::Comeback) {
                return hold;
            }
        };
        for hold in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(over(&mut damping, at), Duration::from_secs(hold));
            at += Duration::from_secs(hold);
        }
        at += ALLOWANCE + HOLD_MAX;
        assert_eq!(over(&mut damping, at), HOLD_MIN);
    }
}
