//! Pure. Whether what failed is tried again, and when. A call that never reached the application may always be; one that
//! may have reached it only if doing it twice does no harm (RFC 9110 §9.2.2). A budget keeps retries from becoming the
//! load that makes everything fail.

use std::time::Duration;

use model::resource::Retry;

use crate::{Dice, Moment};

mod budget;

pub use budget::Budget;

/// The longest wait before a retry: longer ones only hold the caller's memory.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Answers that are tried again unless a route says others.
pub const CODES: [u16; 3] = [502, 503, 504];

/// When the requests of a rule are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Tries after the first.
    pub attempts: u32,
    /// Answers that are tried again.
    pub codes: Vec<u16>,
    /// The wait before the first retry; doubled for each further one.
    pub backoff: Duration,
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection to the endpoint: nothing was sent.
    Connect,
    /// The other side says that it did not look at the call: REFUSED_STREAM, GOAWAY below its id, or its proxy says that
    /// the call did not reach the application ([`crate::headers::UNSENT`]).
    Refused,
    /// The connection broke after the call was sent, before an answer came.
    Reset,
    /// The try took longer than the rule allows.
    Timeout,
    /// The answer's status.
    Status(u16),
}

/// What is known of a call whose try failed.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The request's method.
    pub method: &'a str,
    /// How many retries there were.
    pub retries: u32,
    /// Whether its body can be sent again from the start.
    pub replayable: bool,
}

/// What to do about a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait.
    Again(Duration),
    /// Give the failure to the caller.
    GiveUp(Reason),
}

/// Why a call is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The answer is not among the codes.
    #[error("it is no failure that is tried again")]
    Answered,
    /// The application may have seen the call, and its method is not idempotent.
    #[error("the application may have seen it, and its method is not idempotent")]
    NotIdempotent,
    /// The body is gone.
    #[error("its body was not kept")]
    BodyGone,
    /// It was tried as often as the rule says.
    #[error("it was tried as often as the rule allows")]
    Attempts,
    /// Too many retries for this destination just now.
    #[error("the destination's retry budget is spent")]
    Budget,
}

impl Default for Settings {
    fn default() -> Self {
        Self { attempts: 1, codes: CODES.to_vec(), backoff: Duration::from_millis(25) }
    }
}

impl From<&Retry> for Settings {
    fn from(spec: &Retry) -> Self {
        let codes: Vec<u16> = spec.codes.iter().map(|code| code.value() as u16).collect();
        Self {
            attempts: spec.attempts.value() as u32,
            codes: if codes.is_empty() { CODES.to_vec() } else { codes },
            backoff: spec.backoff.duration().min(BACKOFF_MAX),
        }
    }
}

/// Decides about a try that failed so. Takes from the budget if it says to try again.
pub fn decide(
    settings: &Settings,
    call: Call<'_>,
    failure: Failure,
    budget: &mut Budget,
    now: Moment,
    dice: &mut Dice,
) -> Decision {
    if let Some(reason) = refusal(settings, call, failure) {
        return Decision::GiveUp(reason);
    }
    if !budget.withdraw(now) {
        return Decision::GiveUp(Reason::Budget);
    }
    let backoff = settings.backoff.saturating_mul(1 << call.retries.min(16)).min(BACKOFF_MAX);
    // Another endpoint is there at once: the first retry of a call that nobody saw does not wait.
    let unseen = matches!(failure, Failure::Connect | Failure::Refused) && call.retries == 0;
    Decision::Again(if unseen { Duration::ZERO } else { dice.jitter(backoff) })
}

/// Whether a call with this method may be made twice (RFC 9110 §9.2.2). Methods that we do not know may not.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

fn refusal(settings: &Settings, call: Call<'_>, failure: Failure) -> Option<Reason> {
    let seen = match failure {
        Failure::Connect | Failure::Refused => false,
        Failure::Reset | Failure::Timeout => true,
        Failure::Status(code) if settings.codes.contains(&code) => true,
        Failure::Status(_) => return Some(Reason::Answered),
    };
    if seen && !is_idempotent(call.method) {
        Some(Reason::NotIdempotent)
    } else if !call.replayable {
        Some(Reason::BodyGone)
    } else if call.retries >= settings.attempts {
        Some(Reason::Attempts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `settings` is `attempts codes…`, `call` is `METHOD retries` and perhaps `gone`.
    #[track_caller]
    fn check(settings: Settings, call: &str, failure: Failure, want: Result<(), Reason>) {
        let words: Vec<&str> = call.split(' ').collect();
        let retries = words[1].parse().expect("a number");
        let call = Call { method: words[0], retries, replayable: words.get(2) != Some(&"gone") };
        let now = Moment::default();
        let got = decide(&settings, call, failure, &mut Budget::default(), now, &mut Dice::seeded(1));
        match (got, want) {
            (Decision::Again(_), Ok(())) => {}
            (Decision::GiveUp(got), Err(want)) => assert_eq!(got, want, "{words:?} {failure:?}"),
            (got, want) => panic!("{words:?} {failure:?}: {got:?}, not {want:?}"),
        }
    }

    #[test]
    fn what_nobody_saw_is_tried_again_whatever_its_method() {
        for call in ["GET 0", "POST 0", "PATCH 0", "PURGE 0"] {
            check(Settings::default(), call, Failure::Connect, Ok(()));
            check(Settings::default(), call, Failure::Refused, Ok(()));
        }
    }

    #[test]
    fn what_may_have_been_seen_is_tried_again_if_idempotent() {
        for failure in [
            Failure::Reset,
            Failure::Timeout,
            Failure::Status(502),
            Failure::Status(503),
            Failure::Status(504),
        ] {
            for call in ["GET 0", "HEAD 0", "PUT 0", "DELETE 0", "OPTIONS 0"] {
                check(Settings::default(), call, failure, Ok(()));
            }
            for call in ["POST 0", "PATCH 0", "PURGE 0", "get 0", "CONNECT 0"] {
                check(Settings::default(), call, failure, Err(Reason::NotIdempotent));
            }
        }
        check(Settings::default(), "GET 0", Failure::Status(500), Err(Reason::Answered));
        let only_500 = Settings { codes: vec![500], ..Settings::default() };
        check(only_500.clone(), "GET 0", Failure::Status(500), Ok(()));
        check(only_500, "GET 0", Failure::Status(503), Err(Reason::Answered));
    }

    #[test]
    fn attempts_and_bodies_end_it() {
        check(Settings::default(), "GET 1", Failure::Connect, Err(Reason::Attempts));
        check(Settings { attempts: 3, ..Settings::default() }, "GET 2", Failure::Connect, Ok(()));
        check(
            Settings { attempts: 0, ..Settings::default() },
            "GET 0",
            Failure::Connect,
            Err(Reason::Attempts),
        );
        check(Settings::default(), "POST 0 gone", Failure::Connect, Err(Reason::BodyGone));
    }

    #[test]
    fn waits_double_with_jitter_and_have_an_end() {
        let settings = Settings { attempts: 40, ..Settings::default() };
        let (mut budget, mut dice) = (Budget::default(), Dice::seeded(3));
        let mut wait = |retries, failure| {
            let call = Call { method: "GET", retries, replayable: true };
            match decide(&settings, call, failure, &mut budget, Moment::default(), &mut dice) {
                Decision::Again(wait) => wait,
                Decision::GiveUp(reason) => panic!("{reason}"),
            }
        };
        assert_eq!(wait(0, Failure::Connect), Duration::ZERO);
        for (retries, most) in [(0, 25), (1, 50), (2, 100), (9, 10_000), (30, 10_000)] {
            let most = Duration::from_millis(most);
            let wait = wait(retries, Failure::Reset);
            assert!(wait >= most / 2 && wait <= most, "{retries}: {wait:?}");
        }
    }

    #[test]
    fn a_spent_budget_ends_it() {
        let (settings, mut budget, mut dice) = (Settings::default(), Budget::default(), Dice::seeded(4));
        let now = Moment::default();
        while budget.withdraw(now) {}
        let call = Call { method: "GET", retries: 0, replayable: true };
        let got = decide(&settings, call, Failure::Connect, &mut budget, now, &mut dice);
        assert_eq!(got, Decision::GiveUp(Reason::Budget));
    }
}
