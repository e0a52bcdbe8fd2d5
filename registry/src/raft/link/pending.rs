//! Who waits for which answer on one connection.

use std::{collections::HashMap, io, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::CallError;
use crate::raft::frame::Response;

/// Requests under way on one connection.
const PENDING_MAX: usize = 4_096;

/// By the request's number.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<u64, oneshot::Sender<Response>>>);

impl Pending {
    /// One more, until what is answered is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        id: u64,
        answer: oneshot::Sender<Response>,
    ) -> Result<Forget, CallError> {
        let mut pending = self.0.lock();
        if pending.len() >= PENDING_MAX {
            return Err(CallError::NotSent(io::Error::other("too many requests wait for this peer")));
        }
        pending.insert(id, answer);
        Ok(Forget { pending: self.clone(), id })
    }

    /// Whoever waits for this one, if somebody does.
    pub(super) fn take(&self, id: u64) -> Option<oneshot::Sender<Response>> {
        self.0.lock().remove(&id)
    }

    /// Nobody will be answered any more.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Takes a request that nobody waits for any more off the list.
pub(super) struct Forget {
    pending: Arc<Pending>,
    id: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.pending.0.lock().remove(&self.id);
    }
}
