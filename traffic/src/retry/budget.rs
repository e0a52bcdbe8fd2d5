//! Pure. How many retries one destination may get: a share of its calls, and some a second besides, over ten seconds.
//! Counted in seconds, so that it needs the same memory whatever the rate.

use std::time::Duration;

use model::resource::RetryBudget;

use crate::Moment;

/// Seconds over which calls and retries are weighed: long enough that an endpoint's death, which fails many calls at
/// once, is covered; short enough that a bad minute is not paid from a good one.
const WINDOW: usize = 10;

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Retries for each hundred calls.
    pub percent: u64,
    /// Retries for each second without regard to calls: a caller with few of them may retry too.
    pub per_second: u64,
}

/// The retry budget of one destination.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// Calls and retries in each second, by that second modulo the window.
    seconds: [Second; WINDOW],
    /// The last second that was counted in.
    at: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    calls: u64,
    retries: u64,
}

impl Allowance {
    /// What holds where nobody says anything.
    pub const DEFAULT: Self = Self { percent: 20, per_second: 3 };
}

impl From<&RetryBudget> for Allowance {
    fn from(spec: &RetryBudget) -> Self {
        Self { percent: spec.percent.value(), per_second: spec.min_per_second.value() }
    }
}

impl Budget {
    /// Counts a call (its first try).
    pub fn deposit(&mut self, now: Moment) {
        self.second(now).calls += 1;
    }

    /// Takes one retry out, if there is one.
    pub fn withdraw(&mut self, allowance: Allowance, now: Moment) -> bool {
        self.second(now);
        let calls: u64 = self.seconds.iter().map(|second| second.calls).sum();
        let retries: u64 = self.seconds.iter().map(|second| second.retries).sum();
        let allowed = retries < allowance.per_second * WINDOW as u64 + calls * allowance.percent / 100;
        if allowed {
            self.second(now).retries += 1;
        }
        allowed
    }

    /// The current second, after those that are over have been cleared.
    fn second(&mut self, now: Moment) -> &mut Second {
        let second = now.since_start().as_secs().max(self.at);
        let passed = (second - self.at).min(WINDOW as u64);
        for over in 0..passed {
            self.seconds[index(second - over)] = Second::default();
        }
        self.at = second;
        &mut self.seconds[index(second)]
    }

    /// The longest time for which a call counts.
    pub const fn window() -> Duration {
        Duration::from_secs(WINDOW as u64)
    }
}

fn index(second: u64) -> usize {
    (second % WINDOW as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    /// How many retries are left.
    fn left(budget: &Budget, now: Moment) -> usize {
        left_of(budget, Allowance::DEFAULT, now)
    }

    fn left_of(budget: &Budget, allowance: Allowance, now: Moment) -> usize {
        let mut budget = budget.clone();
        std::iter::repeat_with(|| budget.withdraw(allowance, now)).take_while(|&given| given).count()
    }

    #[test]
    fn a_fifth_of_the_calls_and_three_a_second() {
        let mut budget = Budget::default();
        assert_eq!(left(&budget, at(0)), 30);
        for _ in 0..1_000 {
            budget.deposit(at(0));
        }
        assert_eq!(left(&budget, at(0)), 230);
        assert_eq!(left(&budget, at(9)), 230);
        assert_eq!(left(&budget, at(10)), 30, "calls count for ten seconds");
    }

    #[test]
    fn the_allowance_is_what_the_policy_says() {
        let mut budget = Budget::default();
        (0..1_000).for_each(|_| budget.deposit(at(0)));
        let left = |percent, per_second| left_of(&budget, Allowance { percent, per_second }, at(0));
        assert_eq!((left(0, 0), left(50, 0), left(0, 1), left(100, 10)), (0, 500, 10, 1_100));
    }

    #[test]
    fn what_was_taken_comes_back_after_the_window() {
        let mut budget = Budget::default();
        while budget.withdraw(Allowance::DEFAULT, at(5)) {}
        assert_eq!((left(&budget, at(14)), left(&budget, at(15)), left(&budget, at(1_000))), (0, 30, 30));
        assert_eq!(left(&budget, at(0)), 0, "a moment before the last one is the last one");
    }
}
