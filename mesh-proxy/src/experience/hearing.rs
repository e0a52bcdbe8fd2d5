//! What comes of a call of gRPC after its answer's head: its status stands in the trailers, after the last message. It says
//! what the endpoint answers, as an HTTP status does in the head, so that it is heard when they come.

use std::{sync::Arc, time::Duration};

use traffic::{endpoint::outlier::Heard, snapshot::Backend};

use super::{Experience, OnItsWay};
use crate::body::BodyError;

/// A call whose answer's end is still to be heard. Dropped, it is what its head was: fine.
pub struct Hearing {
    experience: Arc<Experience>,
    backend: Arc<Backend>,
    on_its_way: OnItsWay,
    /// Until the head: how fast an endpoint answers is not how long a stream lasts.
    took: Duration,
    heard: Option<Heard>,
}

impl Hearing {
    /// Of a try whose answer's head has just come.
    pub fn new(experience: &Arc<Experience>, backend: &Arc<Backend>, on_its_way: OnItsWay) -> Self {
        let took = experience.moment().since(on_its_way.began);
        let (experience, backend) = (experience.clone(), backend.clone());
        Self { experience, backend, on_its_way, took, heard: None }
    }

    /// The answer came to its end, with this status if with any.
    pub fn ended(mut self, grpc_status: Option<u16>) {
        self.heard = Some(Heard::of(200, grpc_status));
    }

    /// The answer broke off. What the other side broke is no answer; what was ended here says nothing of it.
    pub fn broke(mut self, error: &BodyError) {
        self.heard = match error {
            BodyError::Http1(_) | BodyError::Http2(_) | BodyError::Reset(_) => Some(Heard::GatewayError),
            BodyError::Superseded | BodyError::Late | BodyError::Idle(_) | BodyError::Cut(_) => None,
        };
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let heard = self.heard.unwrap_or(Heard::Fine);
        self.experience.heard_after(&self.on_its_way, &self.backend, heard, self.took);
    }
}
