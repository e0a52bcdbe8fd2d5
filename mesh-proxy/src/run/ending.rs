//! How a proxy ends: for good, or beside a successor.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Hub, LEAVE_TIMEOUT};
use crate::register;

/// How long the other proxies get to hear that this host is going away, before its connections say so: a change reaches
/// them within a fraction of this.
const SETTLE: Duration = Duration::from_secs(1);
/// How often it is looked whether calls are still under way.
const LOOK: Duration = Duration::from_millis(20);

impl Hub {
    /// Lets what is under way end, and connections that are idle until their callers leave them: another process of this
    /// host takes the new ones. When that one ends too, there is no more time than `patience_then`.
    pub(super) async fn end_beside_successor(&self, patience: Duration, patience_then: Duration) {
        let (calls, connections) = (self.shared.in_flight(), self.shared.connections());
        tracing::info!(calls, connections, ?patience, "a successor serves; ending what is under way");
        self.shared.draining.cancel();
        let ended = async {
            while self.shared.in_flight() + self.shared.connections() > 0 {
                sleep(LOOK).await;
            }
        };
        let patience_then = tokio::select! {
            () = ended => return tracing::info!("all that was under way has ended"),
            () = sleep(patience) => Duration::ZERO,
            () = self.orders.leave.cancelled() => patience_then,
        };
        self.shared.closing.cancel();
        self.end_calls(patience_then).await;
    }

    async fn end_calls(&self, patience: Duration) {
        let ended = async {
            while self.shared.in_flight() > 0 {
                sleep(LOOK).await;
            }
        };
        if timeout(patience, ended).await.is_err() {
            let calls = self.shared.in_flight();
            tracing::warn!(calls, "calls are cut off: the time for draining is over");
        }
    }

    /// Goes away without losing a call: first the others are told not to send new ones, then connections are asked to
    /// end, then what is under way may end.
    pub(super) async fn drain(&self, patience: Duration) {
        tracing::info!("draining");
        self.leaving.send_replace(true);
        let mut standing = self.standing.subscribe();
        let told = timeout(SETTLE.min(patience), standing.wait_for(|standing| standing.draining)).await;
        if matches!(told, Ok(Ok(_))) {
            sleep(SETTLE.min(patience)).await;
        }
        self.shared.draining.cancel();
        self.shared.closing.cancel();
        self.end_calls(patience).await;
        match timeout(LEAVE_TIMEOUT, register::leave(&self.control)).await {
            Ok(Ok(())) => tracing::info!("left"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not leave the registry; the session will end by itself")
            }
            Err(_) => tracing::warn!("leaving the registry took too long; the session will end by itself"),
        }
    }
}
