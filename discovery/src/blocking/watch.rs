//! The tasks: one asks which services there are, one for each of these how it is. What is as before is not told again, but
//! that it was answered.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};

use super::{Dialect, Told, query::Queries};
use crate::found::FoundKey;

/// The longest wait for one service.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The shortest: a directory is not asked without a pause.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Where services share queries, each has its turn within so long: a change is to be seen soon.
const TURN: Duration = Duration::from_millis(1_500);
/// Between two answers that did not wait, whatever their index.
const PAUSE: Duration = Duration::from_millis(100);
/// After an answer without an index to wait for.
const BLIND: Duration = Duration::from_secs(1);
/// After a failure, and twice as much after each further one.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// But never more.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// How long a question about one of so many services waits, where so many queries are open at once.
pub(super) fn wait(beat: Duration, services: usize, queries_max: usize) -> Duration {
    let share = |services: usize| TURN.mul_f64(queries_max as f64 / services as f64).max(WAIT_MIN);
    if services > queries_max { share(services) } else { beat.max(Duration::from_secs(1)).min(WAIT_MAX) }
}

/// Asks which services there are, without end.
pub(super) async fn services<D: Dialect>(queries: Arc<Queries<D>>, wait: Duration, tell: mpsc::Sender<Told>) {
    let (mut index, mut before, mut pace) = (0, None, Pace::new("catalog"));
    let question = queries.dialect.catalog();
    loop {
        let asked = queries.ask(&question, index, wait).await;
        let told = asked.and_then(|answer| {
            index = answer.index;
            let services = queries.dialect.read_catalog(&answer.body);
            let services = services.ok_or_else(|| queries.odd("list of services"))?;
            Ok((before.as_ref() != Some(&services)).then(|| before.insert(services).clone()))
        });
        let failed = told.is_err();
        if failed {
            index = 0;
        }
        if tell.send(Told::Services(told)).await.is_err() {
            return;
        }
        pace.rest(failed, index).await;
    }
}

/// One service.
pub(super) struct Watch<D> {
    pub(super) queries: Arc<Queries<D>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) key: FoundKey,
}

impl<D: Dialect> Watch<D> {
    /// Asks how it is, without end.
    pub(super) async fn run(self, tell: mpsc::Sender<Told>) {
        let (mut index, mut before, mut pace) = (0, None, Pace::new(&self.key.name));
        let mut failed_before = false;
        let question = self.queries.dialect.service(&self.key);
        loop {
            let Ok(permit) = self.permits.acquire().await else { return };
            let asked = self.queries.ask(&question, index, self.queries.wait()).await;
            drop(permit);
            let told = asked.and_then(|answer| {
                index = answer.index;
                let found = self.queries.dialect.read_service(&answer.body);
                let found = found.ok_or_else(|| self.queries.odd("list of instances"))?;
                Ok((before.as_ref() != Some(&found)).then(|| before.insert(found).clone()))
            });
            let (failed, changed) = (told.is_err(), matches!(told, Ok(Some(_))));
            if failed {
                index = 0;
            }
            // That one which failed is as it was before has to be told, too.
            let tells = failed || changed || failed_before;
            failed_before = failed;
            if tells && tell.send(Told::Service(self.key.clone(), told)).await.is_err() {
                return;
            }
            pace.rest(failed, index).await;
        }
    }
}

/// How soon it is asked again.
struct Pace {
    retry: Duration,
    /// From three quarters to five quarters of what all rest, so that they do not come back as one.
    share: f64,
}

impl Pace {
    fn new(name: &str) -> Self {
        let sum = name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Self { retry: RETRY_AFTER, share: 0.75 + f64::from(sum % 512) / 1_024.0 }
    }

    async fn rest(&mut self, failed: bool, index: u64) {
        let span = match (failed, index) {
            (true, _) => self.retry,
            (false, 0) => BLIND,
            (false, _) => PAUSE,
        };
        self.retry = if failed { (self.retry * 2).min(RETRY_AFTER_MAX) } else { RETRY_AFTER };
        tokio::time::sleep(span.mul_f64(self.share)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_wait_long_and_many_have_their_turn_soon() {
        let (beat, max) = (Duration::from_secs(10), 128);
        assert_eq!(wait(beat, 1, max), beat);
        assert_eq!(wait(beat, max, max), beat);
        for services in [max + 1, 500, 700] {
            let turn = wait(beat, services, max).mul_f64(services as f64 / max as f64);
            assert!(turn <= TURN + WAIT_MIN, "{services}: {turn:?}");
        }
        assert_eq!(wait(beat, 4_096, max), WAIT_MIN, "a directory is not asked without a pause");
        assert_eq!(wait(Duration::from_secs(600), 1, max), WAIT_MAX);
    }
}
