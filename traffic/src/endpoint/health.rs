//! Pure. Is an application of this host well? A step function: it says when to check and what the results mean; how a
//! check is made (HTTP, TCP, command) is the caller's matter.

use std::time::Duration;

use crate::{Dice, Moment};

/// How an application is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// From one check to the next; each is up to a tenth early or late, so that many do not fall together.
    pub interval: Duration,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// So many passes in a row make it well.
    pub healthy_after: u32,
    /// So many failures in a row make it unwell.
    pub unhealthy_after: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The time of the last [`Output::WakeAt`] has come.
    Tick,
    /// A check passed.
    Passed {
        /// Which.
        check: u64,
    },
    /// A check failed.
    Failed {
        /// Which.
        check: u64,
        /// Why, for people.
        reason: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Make a check now and say how it went. One that is still under way is given up: its result no longer counts.
    Check {
        /// Its number.
        check: u64,
    },
    /// The application is well now.
    Well,
    /// The application is unwell now.
    Unwell {
        /// Why the last check failed.
        reason: String,
    },
    /// Come back at this time; replaces what was said before.
    WakeAt(Moment),
}

/// The checks of one application.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    /// `None` until the first result, which alone decides: a host that starts should not wait for a row of them.
    well: Option<bool>,
    /// Results in a row that contradict `well`.
    streak: u32,
    /// The number of the last check.
    last: u64,
    /// Until when the last check may take, if it is under way.
    deadline: Option<Moment>,
    next: Moment,
}

impl Default for Plan {
    fn default() -> Self {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        Self { interval, timeout, healthy_after: 2, unhealthy_after: 3 }
    }
}

impl Checker {
    /// Checks that begin now: the caller ticks at once.
    pub fn new(plan: Plan, now: Moment) -> Self {
        Self { plan, well: None, streak: 0, last: 0, deadline: None, next: now }
    }

    /// Whether the application is well; not known before the first result.
    pub fn is_well(&self) -> Option<bool> {
        self.well
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, now: Moment, input: Input, dice: &mut Dice, out: &mut Vec<Output>) {
        match input {
            Input::Passed { check } if self.is_current(check) => self.result(None, out),
            Input::Failed { check, reason } if self.is_current(check) => self.result(Some(reason), out),
            Input::Tick | Input::Passed { .. } | Input::Failed { .. } => {}
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.result(Some(format!("no answer within {:?}", self.plan.timeout)), out);
        }
        if now >= self.next && self.deadline.is_none() {
            self.begin(now, dice, out);
        }
        out.push(Output::WakeAt(self.deadline.unwrap_or(self.next)));
    }

    fn is_current(&self, check: u64) -> bool {
        self.deadline.is_some() && check == self.last
    }

    fn begin(&mut self, now: Moment, dice: &mut Dice, out: &mut Vec<Output>) {
        self.last += 1;
        self.deadline = Some(now + self.plan.timeout);
        let tenth = self.plan.interval / 10;
        self.next = now + (self.plan.interval - tenth) + dice.up_to(2 * tenth);
        out.push(Output::Check { check: self.last });
    }

    /// A result, with the reason if it is a failure.
    fn result(&mut self, failure: Option<String>, out: &mut Vec<Output>) {
        self.deadline = None;
        let passed = failure.is_none();
        if self.well == Some(passed) {
            self.streak = 0;
            return;
        }
        self.streak += 1;
        let needed = if passed { self.plan.healthy_after } else { self.plan.unhealthy_after };
        if self.well.is_some() && self.streak < needed {
            return;
        }
        (self.well, self.streak) = (Some(passed), 0);
        out.push(failure.map_or(Output::Well, |reason| Output::Unwell { reason }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script` over a check every 5 s with 2 s, 2 passes, 3 failures: `tick` at the time last asked for, `pass` and
    /// `fail` of the current check, `late` the pass of one before it. Each word but those says what came out of the last.
    #[track_caller]
    fn check(script: &str) {
        let mut checker = Checker::new(Plan::default(), Moment::default());
        let (mut dice, mut now, mut wake, mut current) =
            (Dice::seeded(1), Moment::default(), Moment::default(), 0);
        let mut happened: Vec<&str> = Vec::new();
        for word in script.split_whitespace() {
            let reason = "refused".to_owned();
            let input = match word {
                "tick" => {
                    now = wake;
                    Input::Tick
                }
                "pass" => Input::Passed { check: current },
                "late" => Input::Passed { check: current - 1 },
                "fail" => Input::Failed { check: current, reason },
                want => {
                    assert!(
                        !happened.is_empty() && happened.remove(0) == want,
                        "{want} did not come in {script:?}"
                    );
                    continue;
                }
            };
            assert!(happened.is_empty(), "{happened:?} came too in {script:?}");
            let mut out = Vec::new();
            checker.step(now, input, &mut dice, &mut out);
            for output in out {
                match output {
                    Output::Check { check } => (current, ()) = (check, happened.push("check")),
                    Output::Well => happened.push("well"),
                    Output::Unwell { reason } => {
                        happened.push(if reason == "refused" { "unwell" } else { "silent" })
                    }
                    Output::WakeAt(at) => wake = at,
                }
            }
        }
        assert!(happened.is_empty(), "{happened:?} came too in {script:?}");
    }

    #[test]
    fn the_first_result_decides_alone() {
        check("tick check pass well");
        check("tick check fail unwell");
    }

    #[test]
    fn afterwards_it_takes_a_row() {
        check(
            "tick check pass well tick check fail tick check fail tick check fail unwell tick check pass tick check pass well",
        );
        check(
            "tick check pass well tick check fail tick check fail tick check pass tick check fail tick check fail",
        );
    }

    #[test]
    fn silence_is_a_failure_and_a_late_answer_nothing() {
        check("tick check tick silent tick check late pass tick check pass well");
        check("tick check tick silent pass");
    }

    #[test]
    fn checks_are_apart_by_the_interval_give_or_take_a_tenth() {
        let (mut checker, mut dice) = (Checker::new(Plan::default(), Moment::default()), Dice::seeded(7));
        let (mut now, mut spans) = (Moment::default(), Vec::new());
        for check in 1..=200 {
            let mut out = Vec::new();
            checker.step(now, Input::Tick, &mut dice, &mut out);
            checker.step(now, Input::Passed { check }, &mut dice, &mut out);
            let Some(Output::WakeAt(next)) = out.pop() else { panic!("{out:?}") };
            spans.push(next.since(now));
            now = next;
        }
        let (least, most) = (spans.iter().min().expect("some"), spans.iter().max().expect("some"));
        assert!(*least >= Duration::from_millis(4_500) && *least < Duration::from_millis(4_650), "{least:?}");
        assert!(*most <= Duration::from_millis(5_500) && *most > Duration::from_millis(4_850), "{most:?}");
    }
}
