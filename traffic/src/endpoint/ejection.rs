//! Pure. Our own experience with one endpoint: one that cannot be reached gets no calls for a short time, then one call
//! to find out, and is back when that reaches it. Only whether it is reached counts here, not what it answers.

use std::time::Duration;

use crate::{Dice, Moment};

/// How long an endpoint gets no calls after the first failure; doubled for each failed attempt to come back.
const FIRST: Duration = Duration::from_millis(500);
/// The longest time without a call: how long a host that is back may wait for its first one.
const EJECTION_MAX: Duration = Duration::from_secs(30);
/// How long one call that finds out keeps others away: a connection attempt takes no longer.
const PROBE: Duration = Duration::from_secs(5);

/// Whether calls reach an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As far as we know.
    Fine,
    /// They did not; whoever calls now finds out.
    Probing,
    /// They did not, a short time ago.
    Ejected,
}

/// What we know of an endpoint.
#[derive(Debug, Clone, Default)]
pub struct Ejection {
    state: State,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Fine,
    Ejected {
        until: Moment,
        next: Duration,
    },
    /// A call is under way that finds out.
    Probing {
        until: Moment,
        next: Duration,
    },
}

impl Ejection {
    /// Whether there is nothing against it.
    pub fn is_fine(&self) -> bool {
        matches!(self.state, State::Fine)
    }

    /// How it stands.
    pub fn standing(&self, now: Moment) -> Standing {
        match self.state {
            State::Fine => Standing::Fine,
            State::Ejected { until, .. } | State::Probing { until, .. } if now < until => Standing::Ejected,
            State::Ejected { .. } | State::Probing { .. } => Standing::Probing,
        }
    }

    /// A call is on its way to it.
    pub fn called(&mut self, now: Moment) {
        if let State::Ejected { until, next } | State::Probing { until, next } = self.state
            && now >= until
        {
            self.state = State::Probing { until: now + PROBE, next };
        }
    }

    /// A call reached it.
    pub fn reached(&mut self) {
        self.state = State::Fine;
    }

    /// A call did not reach it. Those that were under way together count once.
    pub fn missed(&mut self, now: Moment, dice: &mut Dice) {
        let span = match self.state {
            State::Fine => FIRST,
            State::Probing { next, .. } => next,
            State::Ejected { .. } => return,
        };
        let next = span.saturating_mul(2).min(EJECTION_MAX);
        self.state = State::Ejected { until: now + dice.jitter(span), next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script`: `+<ms>` passes time; `called`, `reached`, `missed` happen; `fine`, `probing`, `ejected` must be so.
    #[track_caller]
    fn check(script: &str) {
        let (mut ejection, mut now, mut dice) = (Ejection::default(), Moment::default(), Dice::seeded(1));
        for word in script.split_whitespace() {
            match word {
                "called" => ejection.called(now),
                "reached" => ejection.reached(),
                "missed" => ejection.missed(now, &mut dice),
                "fine" => assert_eq!(ejection.standing(now), Standing::Fine, "at {now:?}"),
                "probing" => assert_eq!(ejection.standing(now), Standing::Probing, "at {now:?}"),
                "ejected" => assert_eq!(ejection.standing(now), Standing::Ejected, "at {now:?}"),
                _ => {
                    now = now + Duration::from_millis(word.trim_start_matches('+').parse().expect("a number"))
                }
            }
        }
    }

    #[test]
    fn one_miss_ejects_for_a_short_time_and_one_call_brings_it_back() {
        check("fine called missed ejected +249 ejected +251 probing called ejected reached fine");
    }

    #[test]
    fn calls_that_miss_together_count_once() {
        check("missed missed missed missed +500 probing");
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_an_end() {
        check("missed +500 called missed ejected +499 ejected +501 probing");
        let again = "called missed ejected +30000 probing ".repeat(10);
        check(&format!("missed +500 {again} called missed +14999 ejected"));
    }

    #[test]
    fn a_probe_that_never_ends_lets_the_next_one_through() {
        check("missed +500 called ejected +4999 ejected +1 probing called ejected missed ejected");
    }

    #[test]
    fn after_coming_back_it_begins_small_again() {
        check("missed +500 called missed +1000 called reached missed +500 probing");
    }
}
