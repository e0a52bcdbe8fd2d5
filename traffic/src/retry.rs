//! Pure. Whether what failed is tried again, and when. A call that never reached the application may always be; one that
//! may have reached it only if doing it twice does no harm (RFC 9110 §9.2.2). A budget keeps retries from becoming the
//! load that makes everything fail.

use std::time::Duration;

use model::{
    duration::Millis,
    resource::{PolicyRetry, Retry},
};

use crate::{Dice, Moment};

mod budget;
mod cause;

pub use budget::{Allowance, Budget};
pub use cause::Causes;

/// The longest wait before a retry: longer ones only hold the caller's memory.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// When requests are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Tries after the first.
    pub attempts: u32,
    /// What is tried again.
    pub causes: Causes,
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
    /// gRPC's status of an answer that has nothing else.
    Grpc(u16),
}

/// What an answer's head says that bears on a retry.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// `grpc-status`, where it stands in the head.
    pub grpc_status: Option<u16>,
    /// `Retry-After` (RFC 9110 §10.2.3).
    pub retry_after: Option<&'a str>,
}

impl Answer<'_> {
    /// Whether the status of a call of gRPC is still to come, in the trailers.
    pub fn is_open(&self, grpc: bool) -> bool {
        grpc && self.status == 200 && self.grpc_status.is_none()
    }
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
    /// The wait that the answer asks for.
    pub asked: Option<Duration>,
    /// The time that is left for it, if it has an end.
    pub left: Option<Duration>,
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
    /// As many retries for this destination are under way as may be.
    #[error("as many retries are under way as the destination's limit allows")]
    Limit,
    /// The answer asks for a wait that is too long, or its time is over before.
    #[error("there is no time for another try")]
    Time,
}

impl Settings {
    /// What holds where nobody says anything.
    pub const DEFAULT: Self =
        Self { attempts: 1, causes: Causes::DEFAULT, backoff: Duration::from_millis(25) };

    /// The failure that an answer is, if it is one that is tried again, and the wait that it asks for.
    pub fn failure(
        &self,
        answer: Answer<'_>,
        now: impl FnOnce() -> Millis,
    ) -> Option<(Failure, Option<Duration>)> {
        let grpc = answer.grpc_status.map(Failure::Grpc).filter(|failure| self.causes.have(*failure));
        let status = || Some(Failure::Status(answer.status)).filter(|failure| self.causes.have(*failure));
        let failure = grpc.or_else(status)?;
        Some((failure, answer.retry_after.and_then(|value| wait(value, now()))))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<&Retry> for Settings {
    fn from(spec: &Retry) -> Self {
        let codes = spec.codes.iter().map(|code| code.value() as u16);
        Self {
            attempts: spec.attempts.value() as u32,
            causes: Causes::new(&spec.conditions, codes, &spec.grpc_codes),
            backoff: spec.backoff.duration().min(BACKOFF_MAX),
        }
    }
}

impl From<&PolicyRetry> for Settings {
    fn from(spec: &PolicyRetry) -> Self {
        let codes = spec.codes.iter().map(|code| code.value() as u16);
        Self {
            attempts: spec.attempts.value() as u32,
            causes: Causes::new(&spec.conditions, codes, &spec.grpc_codes),
            backoff: spec.backoff.duration().min(BACKOFF_MAX),
        }
    }
}

/// The wait that a `Retry-After` asks for: seconds, or until a date. What is neither asks for nothing.
fn wait(value: &str, now: Millis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = Millis::of_http_date(value)?;
    Some(Duration::from_millis(date.0.saturating_sub(now.0)))
}

/// Decides about a try that failed so. Takes from the budget if it says to try again.
pub fn decide(
    settings: &Settings,
    call: Call<'_>,
    failure: Failure,
    budget: (&mut Budget, Allowance),
    now: Moment,
    dice: &mut Dice,
) -> Decision {
    if let Some(reason) = refusal(settings, call, failure) {
        return Decision::GiveUp(reason);
    }
    let backoff = settings.backoff.saturating_mul(1 << call.retries.min(16)).min(BACKOFF_MAX);
    // Another endpoint is there at once: the first retry of a call that nobody saw does not wait.
    let unseen = matches!(failure, Failure::Connect | Failure::Refused) && call.retries == 0;
    let own = if unseen { Duration::ZERO } else { dice.jitter(backoff) };
    // Who says when to come again is not asked before.
    let wait = call.asked.map_or(own, |asked| asked.max(own));
    if wait > BACKOFF_MAX || call.left.is_some_and(|left| wait >= left) {
        return Decision::GiveUp(Reason::Time);
    }
    let (budget, allowance) = budget;
    if budget.withdraw(allowance, now) { Decision::Again(wait) } else { Decision::GiveUp(Reason::Budget) }
}

/// Whether a call with this method may be made twice (RFC 9110 §9.2.2). Methods that we do not know may not.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

fn refusal(settings: &Settings, call: Call<'_>, failure: Failure) -> Option<Reason> {
    if !settings.causes.have(failure) {
        return Some(Reason::Answered);
    }
    // Calls of gRPC are all POSTs: who lists a status says that what ended so may be done again.
    let harmless = matches!(failure, Failure::Connect | Failure::Refused | Failure::Grpc(_));
    if !harmless && !is_idempotent(call.method) {
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
mod tests;
