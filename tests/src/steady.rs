//! Steady plain calls without retries, counted by who answered; a failure is kept with the time that it took.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, JoinSet};

use crate::plain::Plain;

/// As many calls may be under way at once.
const CALLS_AT_ONCE: usize = 64;
/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What the calls became.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Answers with 200, by body.
    pub answers: BTreeMap<String, u64>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// A call that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it began.
    pub started: Instant,
    /// When it had failed.
    pub ended: Instant,
    /// Why.
    pub reason: String,
}

impl Failure {
    /// Whether it was under way at that moment.
    pub fn spans(&self, moment: Instant) -> bool {
        self.started <= moment && moment <= self.ended
    }
}

impl Seen {
    /// How many were answered with 200.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }
}

/// Calls that go on until they are stopped.
#[derive(Debug)]
pub struct Steady {
    seen: Arc<Mutex<Seen>>,
    stop: tokio::sync::watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Steady {
    /// Starts `rate` calls per second.
    pub fn start(client: Plain, rate: u32) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(drive(Arc::new(client), rate, seen.clone(), stopped));
        Self { seen, stop, task }
    }

    /// What was seen so far.
    ///
    /// # Panics
    /// Never: nothing panics while it is held.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("nothing panics while it is held").clone()
    }

    /// Stops calling, waits for the calls under way, and says what was seen.
    pub async fn stop(self) -> Seen {
        self.stop.send_replace(true);
        let _ = self.task.await;
        std::mem::take(&mut *self.seen.lock().expect("nothing panics while it is held"))
    }
}

/// This moment, for comparing with failures.
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the harness runs in real time")]
    Instant::now()
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
            _ = tick.tick(), if calls.len() < CALLS_AT_ONCE => { calls.spawn(call(client.clone(), seen.clone())); }
            Some(_) = calls.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn call(client: Arc<Plain>, seen: Arc<Mutex<Seen>>) {
    let started = now();
    let result = tokio::time::timeout(CALL_TIMEOUT, client.get("/")).await;
    let ended = now();
    let mut seen = seen.lock().expect("nothing panics while it is held");
    let reason = match result {
        Ok(Ok(response)) if response.status() == 200 => {
            let body = String::from_utf8_lossy(response.body()).into_owned();
            *seen.answers.entry(body).or_default() += 1;
            return;
        }
        Ok(Ok(response)) => format!("{}: {}", response.status(), String::from_utf8_lossy(response.body())),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
    };
    seen.failures.push(Failure { started, ended, reason });
}
