//! One simulated proxy: a session and a stream, with the pauses of `mesh-proxy`.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::Method;
use http_body_util::BodyExt;
use model::proxy::{KEEPALIVE_INTERVAL, KeepAlive, Registered, STREAM_SILENCE_MAX};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{
    Orders,
    link::{Failed, Links},
    seen::Seen,
};
use crate::steady::now;

/// How long a server may take to write a registration, keep a session alive, begin a stream: as `mesh-proxy` waits.
const PATIENCE: (Duration, Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(2), Duration::from_secs(5));
/// The first pause before another try, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A stream's line is not longer, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A simulated proxy.
pub(super) struct Host {
    pub(super) index: usize,
    pub(super) node: String,
    pub(super) service: String,
    pub(super) follows: String,
    pub(super) link: Links,
    pub(super) seen: Arc<Seen>,
}

/// As much of a line as the fleet reads.
#[derive(Deserialize)]
struct Head {
    r#type: String,
    #[serde(default)]
    revision: u64,
}

impl Host {
    /// Does as it is told, for as long as it is polled.
    pub(super) async fn run(self, mut orders: watch::Receiver<Orders>) {
        let (acks, acked) = watch::channel(0);
        let mut watching = orders.clone();
        let session = async {
            if orders.wait_for(|orders| orders.register).await.is_ok() {
                self.session(acked).await;
            }
        };
        let stream = async {
            if watching.wait_for(|orders| orders.watch).await.is_ok() {
                self.stream(&acks).await;
            }
        };
        tokio::join!(session, stream);
    }

    async fn session(&self, mut acked: watch::Receiver<u64>) {
        let mut pause = PAUSES.0;
        loop {
            let body = registration(&self.node, &self.service, self.index);
            let path = "/v1/proxy/registration";
            match self.link.call(Method::PUT, path, &body, PATIENCE.0).await {
                Ok(answer) => {
                    pause = PAUSES.0;
                    self.seen.registrations.fetch_add(1, Relaxed);
                    let Ok(registered) = serde_json::from_slice::<Registered>(&answer) else { continue };
                    self.keep(registered.generation, &mut acked).await;
                    self.seen.lost.fetch_add(1, Relaxed);
                }
                Err(Failed::Status(_, Some(after))) => {
                    self.seen.refused.fetch_add(1, Relaxed);
                    // Pace: as the server says.
                    sleep(after.max(jittered(pause))).await;
                }
                // Pace: as `mesh-proxy` does.
                Err(_) => sleep(jittered(pause)).await,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Until the session is over.
    async fn keep(&self, generation: u64, acked: &mut watch::Receiver<u64>) {
        let every = KEEPALIVE_INTERVAL.duration();
        let mut beat = interval_at(now().into(), every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                changed = acked.changed() => if changed.is_err() { return },
            }
            let round = self.seen.round.load(Relaxed);
            let body = KeepAlive {
                generation,
                revision: *acked.borrow_and_update(),
                nack: None,
                left_alone: Vec::new(),
            };
            let path = "/v1/proxy/keepalive";
            match self.link.call(Method::POST, path, &body, PATIENCE.1).await {
                Ok(_) => self.seen.kept_alive(self.index, round),
                Err(Failed::Status(status, _)) if status == 410 => return,
                Err(_) => drop(self.seen.missed.fetch_add(1, Relaxed)),
            }
        }
    }

    async fn stream(&self, acks: &watch::Sender<u64>) {
        let (mut pause, mut from) = (PAUSES.0, None);
        loop {
            let before = from;
            if self.follow(&mut from, acks).await == Some(410) {
                from = None;
            }
            pause = if from == before { (pause * 2).min(PAUSES.1) } else { PAUSES.0 };
            // Pace: as `mesh-proxy` does.
            sleep(jittered(pause)).await;
        }
    }

    /// One stream to its end; answers the status that ended it.
    async fn follow(&self, from: &mut Option<u64>, acks: &watch::Sender<u64>) -> Option<u16> {
        let subscribe = format!("default/{}", self.follows);
        let path = match *from {
            Some(from) => format!("/v1/proxy/watch?subscribe={subscribe}&from={from}"),
            None => format!("/v1/proxy/watch?subscribe={subscribe}"),
        };
        let (mut body, _sender, round) = match self.link.stream(&path, PATIENCE.2).await {
            Ok(stream) => stream,
            Err(Failed::Status(status, _)) => return Some(status.as_u16()),
            Err(Failed::Unreachable(_)) => return None,
        };
        self.seen.streams.fetch_add(1, Relaxed);
        let mut rest = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout(STREAM_SILENCE_MAX.duration(), body.frame()).await {
            let Some(data) = frame.data_ref() else { continue };
            rest.extend_from_slice(data);
            let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.seen.lines.fetch_add(1, Relaxed);
                let Ok(head) = serde_json::from_slice::<Head>(line) else { return None };
                match head.r#type.as_str() {
                    "sync" => {
                        *from = Some(head.revision);
                        self.seen.synced(self.index, round, head.revision);
                        acks.send_if_modified(|acked| {
                            std::mem::replace(acked, head.revision) != head.revision
                        });
                    }
                    "error" => return Some(410),
                    _ => {}
                }
            }
            rest.drain(..end);
            if rest.len() > LINE_BYTES_MAX {
                return None;
            }
        }
        None
    }
}

/// What a host with one instance of one service says.
pub fn registration(node: &str, service: &str, index: usize) -> Value {
    let port = 10_000 + index % 50_000;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "addresses": ["127.0.0.1"],
        "services": [{"service": format!("default/{service}"), "ports": [{"port": 80, "protocol": "http"}]}],
        "endpoints": [{
            "kind": "Endpoint",
            "metadata": {"namespace": "default", "name": format!("{service}-{node}")},
            "spec": {
                "service": service,
                "node": node,
                "source": "registration",
                "address": "127.0.0.1",
                "ports": [{"port": 80, "targetPort": port}],
            },
            "status": {"health": "Healthy"},
        }],
    })
}

/// Between half of it and all of it.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1_000;
    pause / 2 + pause / 2 * u32::try_from(random).expect("below 1,000") / 1_000
}
