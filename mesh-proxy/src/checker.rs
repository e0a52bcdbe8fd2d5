//! Checks in a row: the loop around `traffic`'s step function, which says when to look and what the results mean.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::sleep};
use traffic::{
    Dice, Moment,
    endpoint::health::{Checker, Input, Output, Plan},
};

use crate::clock;

/// Looks by `look`, and tells `tell` when something is well, or unwell for a reason, for as long as it is polled.
pub async fn watch<F>(plan: Plan, look: impl Fn() -> F, tell: impl Fn(Result<(), String>))
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (start, mut dice) = (clock::now(), Dice::seeded(clock::dice()));
    let (mut checker, mut under_way) = (Checker::new(plan, since(start)), JoinSet::new());
    let (mut input, mut out) = (Input::Tick, Vec::new());
    loop {
        checker.step(since(start), input, &mut dice, &mut out);
        let mut wake = Duration::from_secs(1);
        for output in out.drain(..) {
            match output {
                Output::Check { check: number } => {
                    // One that is still under way is given up.
                    under_way.abort_all();
                    let looked = look();
                    under_way.spawn(async move { (number, looked.await) });
                }
                Output::Well => tell(Ok(())),
                Output::Unwell { reason } => tell(Err(reason)),
                Output::WakeAt(at) => wake = at.since(since(start)),
            }
        }
        input = tokio::select! {
            () = sleep(wake) => Input::Tick,
            Some(done) = under_way.join_next(), if !under_way.is_empty() => match done {
                Ok((check, Ok(()))) => Input::Passed { check },
                Ok((check, Err(reason))) => Input::Failed { check, reason },
                Err(_) => Input::Tick,
            },
        };
    }
}

fn since(start: Instant) -> Moment {
    Moment::after_start(clock::now().saturating_duration_since(start))
}
