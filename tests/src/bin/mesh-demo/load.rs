//! Steady traffic from plain clients: a call every so often, whatever became of those before.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_tests::{plain::Plain, wait};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    app::{Answer, ask, clock, now_millis},
    stats::{Failure, Stats},
};

/// As many calls may be under way; beyond it the clients wait, as they would.
const CALLS_MAX: usize = 512;
/// As many answers are remembered for watching the split.
const ANSWERS_MAX: usize = 200_000;

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Counts and failures, as each service has them.
    pub(crate) stats: Stats,
    /// Which version of orders answered a call that started then; milliseconds since 1970.
    pub(crate) answers: Vec<(u64, bool)>,
}

/// The clients at work.
pub(crate) struct Load {
    /// What they saw so far.
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Load {
    /// Starts `rate` calls per second to `web`, from the clients' host.
    pub(crate) fn start(client: Plain, rate: u32) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(drive(Arc::new(client), rate, seen.clone(), stopped));
        Self { seen, task, stop }
    }

    /// Stops calling, waits for the calls under way, and says what was seen, the answers in the order of their calls.
    pub(crate) async fn stop(self) -> Seen {
        self.stop.send_replace(true);
        let _ = self.task.await;
        let mut seen = std::mem::take(&mut *self.seen.lock().expect("nothing panics while it is held"));
        // They came in another order: a slow one would stand among those of the next weights.
        seen.answers.sort_by_key(|(started, _)| *started);
        seen
    }
}

async fn drive(
    client: Arc<Plain>,
    rate: u32,
    seen: Arc<Mutex<Seen>>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            _ = tick.tick(), if calls.len() < CALLS_MAX => { calls.spawn(call(client.clone(), seen.clone())); }
            Some(_) = calls.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn call(client: Arc<Plain>, seen: Arc<Mutex<Seen>>) {
    let (started, running) = (now_millis(), clock());
    let result = ask(&client).await;
    let mut seen = seen.lock().expect("nothing panics while it is held");
    seen.stats.ended("web", clock().duration_since(running));
    match result {
        Ok(Answer::Good(versions)) if seen.answers.len() < ANSWERS_MAX => {
            seen.answers.push((started, versions.contains("orders:v2")));
        }
        Ok(Answer::Good(_) | Answer::FailedBelow(_)) => {}
        Err(error) => {
            let (source, destination) = ("clients".to_owned(), "web".to_owned());
            seen.stats.failed(Failure {
                source,
                destination,
                started,
                ended: now_millis(),
                reason: format!("{error:#}"),
            });
        }
    }
}

/// Waits until calls go through: the mesh has heard of everything.
pub(crate) async fn first_answer(client: &Plain) -> anyhow::Result<()> {
    wait::until("a first call goes through", Duration::from_secs(60), || async {
        match ask(client).await {
            Ok(Answer::Good(versions)) => Ok(versions),
            Ok(Answer::FailedBelow(failure)) => Err(format!("{failure:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .map(drop)
}
