//! How long something may carry nothing: a stream, or a request with its answer.

use std::time::Duration;

use tokio::time::sleep;

/// How often it is looked, in the time that something may carry nothing, whether it does.
const LOOKS: u32 = 4;

/// Waits until `moved`, which only grows, has stayed the same for `span`; noticed a quarter later at the latest. Never,
/// where there is no span. While nobody waits here no time passes.
pub async fn over(span: Option<Duration>, moved: impl Fn() -> u64) -> Duration {
    let Some(span) = span else { return std::future::pending().await };
    let (mut last, mut quiet) = (moved(), 0);
    while quiet < LOOKS {
        sleep(span / LOOKS).await;
        let now = moved();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    span
}
