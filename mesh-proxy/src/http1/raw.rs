//! Connections that leave HTTP: both sides go on with bytes of their own.

use std::sync::Arc;

use http::Request;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Io;
use crate::{body::Incoming, listener::Rewound};

/// A connection that has left HTTP.
pub type Stream = Rewound<Box<dyn Io>>;

/// A connection that is about to leave HTTP.
pub enum Raw {
    /// It has.
    Left(Stream),
    /// It does once the answer is sent that says so.
    Leaves(oneshot::Receiver<Stream>),
    /// It does not.
    Stays,
}

/// It did not.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The caller went away first.
    #[error("the connection ended before it left HTTP")]
    Gone,
}

impl Raw {
    /// Waits until it has.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stream(self) -> Result<Stream, RawError> {
        match self {
            Self::Left(stream) => Ok(stream),
            Self::Leaves(leaves) => leaves.await.map_err(|_| RawError::Gone),
            Self::Stays => Err(RawError::Gone),
        }
    }
}

/// Where a request keeps its connection until somebody asks for it.
#[derive(Clone)]
pub(crate) struct Kept(Arc<Mutex<Option<oneshot::Receiver<Stream>>>>);

impl Kept {
    pub(crate) fn new(leaves: oneshot::Receiver<Stream>) -> Self {
        Self(Arc::new(Mutex::new(Some(leaves))))
    }
}

/// The connection of a request that may leave HTTP.
pub fn raw(request: &mut Request<Incoming>) -> Raw {
    let kept = request.extensions_mut().remove::<Kept>().and_then(|kept| kept.0.lock().take());
    kept.map_or(Raw::Stays, Raw::Leaves)
}
