//! One step to an endpoint: over mTLS to its proxy, or, where the service's mode is `Disabled`, in plaintext to its
//! application.

use std::net::SocketAddr;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use model::name::ServiceName;
use traffic::{admission::Admitted, endpoint::Endpoint, snapshot::Backend};

use super::Outbound;
use crate::{
    body, heads,
    transport::{Hop, Lease, SendError, Tunnel, life::Life},
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
        request: Request<body::Request>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        match step.app()? {
            None => self.transport.request(admitted, &step.hop(), step.named(request)).await,
            Some(app) => {
                let request = step.in_plain(request)?;
                let (answer, lease) = self.transport.plain_request(admitted, app, request).await?;
                Ok((unmarked(answer), lease))
            }
        }
    }

    /// The same for a request that leaves HTTP: its answer may be a 101.
    pub(super) async fn step_and_leave(
        &self,
        admitted: &Admitted,
        step: &Step<'_>,
        request: Request<body::Request>,
    ) -> Result<(Response<Incoming>, Option<Life>), SendError> {
        match step.app()? {
            None => {
                let sent = self.transport.upgrade(admitted, &step.hop(), step.named(request)).await;
                sent.map(|(answer, life)| (answer, Some(life)))
            }
            Some(app) => {
                let request = step.in_plain(request)?;
                let answer = self.transport.plain_upgrade(admitted, app, request).await?;
                Ok((unmarked(answer), None))
            }
        }
    }

    /// Opens a stream.
    pub(super) async fn tunnel(&self, admitted: &Admitted, step: &Step<'_>) -> Result<Tunnel, SendError> {
        match step.app()? {
            None => self.transport.tunnel(admitted, &step.hop(), step.backend.name.port).await,
            Some(app) => self.transport.plain_tunnel(admitted, app).await,
        }
    }
}

impl Step<'_> {
    /// The application, where it is called itself.
    fn app(&self) -> Result<Option<SocketAddr>, SendError> {
        if !self.backend.plain {
            return Ok(None);
        }
        let app = self.endpoint.app(self.backend.name.port);
        let unknown = || SendError::Connect(format!("{} has no such port", self.endpoint.key));
        app.map(Some).ok_or_else(unknown)
    }

    fn hop(&self) -> Hop {
        Hop { source: self.source.clone(), endpoint: self.endpoint.key.clone(), id: self.endpoint.id.clone() }
    }

    /// Which of the host's applications it is for.
    fn named(&self, mut request: Request<body::Request>) -> Request<body::Request> {
        let name = HeaderValue::from_str(self.endpoint.key.name().as_str()).expect("a name is ASCII");
        request.headers_mut().insert(heads::ENDPOINT, name);
        request
    }

    fn in_plain(&self, request: Request<body::Request>) -> Result<Request<body::Request>, SendError> {
        let (head, body) = request.into_parts();
        let head = heads::to_plain(head, self.backend.protocol);
        let head = head.map_err(|error| SendError::Connect(error.to_string()))?;
        Ok(Request::from_parts(head, body))
    }
}

/// Whatever an application says, only proxies can say that it got nothing.
fn unmarked(mut answer: Response<Incoming>) -> Response<Incoming> {
    answer.headers_mut().remove(heads::UNSENT);
    answer
}
