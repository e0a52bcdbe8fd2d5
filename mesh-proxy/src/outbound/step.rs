//! One step to an endpoint: over mTLS to its proxy, or to its application, in plaintext where the service's mode is
//! `Disabled`, and as its source says where it has no proxy.

use http::{Response, request};
use model::name::ServiceName;
use traffic::{
    admission::Admitted,
    endpoint::{AppAddress, Endpoint},
    snapshot::Backend,
};

use super::Outbound;
use crate::{
    body::{self, Incoming},
    heads,
    transport::{Hop, SendError, Tunnel, life::Life},
};

/// From whom to which endpoint of which back end.
pub(super) struct Step<'a> {
    pub(super) source: &'a ServiceName,
    pub(super) backend: &'a Backend,
    pub(super) endpoint: &'a Endpoint,
}

impl Outbound {
    /// Sends a request whose head was written for another proxy.
    pub(super) async fn step(
        &self,
        admitted: &Admitted,
        step: &Step<'_>,
        head: &request::Parts,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        match step.app()? {
            None => self.transport.request(admitted, &step.hop(), head, body).await,
            Some(app) => {
                let head = step.in_plain(head)?;
                let sent = Box::pin(self.transport.plain_request(admitted, &app, head, body));
                sent.await.map(unmarked)
            }
        }
    }

    /// The same for a request that leaves HTTP: its answer may be a 101.
    pub(super) async fn step_and_leave(
        &self,
        admitted: &Admitted,
        step: &Step<'_>,
        head: &request::Parts,
    ) -> Result<(Response<Incoming>, Option<Life>), SendError> {
        match step.app()? {
            None => {
                let sent = self.transport.upgrade(admitted, &step.hop(), head).await;
                sent.map(|(answer, life)| (answer, Some(life)))
            }
            Some(app) => {
                let head = step.in_plain(head)?;
                let answer = self.transport.plain_upgrade(admitted, &app, &head).await?;
                Ok((unmarked(answer), None))
            }
        }
    }

    /// Opens a stream.
    pub(super) async fn tunnel(&self, admitted: &Admitted, step: &Step<'_>) -> Result<Tunnel, SendError> {
        match step.app()? {
            None => self.transport.tunnel(admitted, &step.hop(), step.backend.name.port).await,
            Some(app) => Box::pin(self.transport.plain_tunnel(admitted, &app)).await,
        }
    }
}

impl Step<'_> {
    /// The application, where it is called itself.
    fn app(&self) -> Result<Option<AppAddress>, SendError> {
        if !self.backend.plain {
            return Ok(None);
        }
        let app = self.backend.app(self.endpoint);
        let unknown = || SendError::Connect(format!("{} has no such port", self.endpoint.key));
        app.map(Some).ok_or_else(unknown)
    }

    fn hop(&self) -> Hop {
        Hop { source: self.source.clone(), endpoint: self.endpoint.key.clone(), id: self.endpoint.id.clone() }
    }

    fn in_plain(&self, head: &request::Parts) -> Result<request::Parts, SendError> {
        let head = heads::to_plain(head.clone(), self.backend.protocol);
        head.map_err(|error| SendError::Connect(error.to_string()))
    }
}

/// Whatever an application says, only proxies can say that it got nothing.
fn unmarked(mut answer: Response<Incoming>) -> Response<Incoming> {
    answer.headers_mut().remove(heads::UNSENT);
    answer
}
