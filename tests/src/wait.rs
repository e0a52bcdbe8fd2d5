//! Waiting for a condition: asked again until it holds or the deadline is over. Never for a time alone.

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

/// How often a condition is asked.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// Asks until `condition` has an answer.
///
/// # Errors
/// If there is none within `limit`; the error repeats `what` and the condition's last word.
pub async fn until<T, E: Display, F>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, E>>,
{
    #[expect(clippy::disallowed_methods, reason = "the harness waits in real time")]
    let now = Instant::now;
    let end = now() + limit;
    loop {
        match condition().await {
            Ok(answer) => return Ok(answer),
            Err(last) if now() >= end => anyhow::bail!("{what}: not within {limit:?}; last: {last}"),
            // Poll: until the deadline above.
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}
