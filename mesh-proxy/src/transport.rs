//! The seam between the spines and the wires: how a request or a stream gets to another proxy, and from a proxy to the
//! application behind it. Nothing is decided here; nothing is sent without the proof that it may be.
//!
//! Between proxies there are four protocols, told apart by ALPN inside TLS: `mesh/1` for streams of bytes, many on one
//! connection, and for requests, on streams of which each carries one after the other in HTTP/1.1; `h2` for requests that do
//! not fit there, and with proxies that do not take requests of HTTP/2 on streams; `mesh-tcp/1` for one stream, with proxies that do not know `mesh/1`; and `http/1.1` for a request that wants to leave HTTP (WebSocket): it gets a connection of its own, on which the upgrade is what it is everywhere else, rather than an
//! extended CONNECT (RFC 8441), which would put it behind other streams' flow control and needs a peer that announced it.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use http::{HeaderName, HeaderValue, Request, Response, Version, request};
use model::name::ServiceName;
use tokio::net::TcpStream;
use traffic::{
    admission::{Admitted, Full},
    endpoint::{AppAddress, EndpointKey},
    policy::Permit,
};

use crate::{
    body::{self, Incoming},
    clock, heads,
    http1::{Line, Question},
    http2::{self, Client},
    limits::HEAD_BYTES_MAX,
    telemetry::MuxCounts,
};

mod ahead;
mod app;
pub mod duplex;
mod lacking;
pub mod life;
pub mod mux;
mod pool;
pub mod tcp;
pub mod tls;
mod tunnel;

pub use ahead::Ahead;
use app::Spoken;
use pool::Dialled;
pub use pool::{CONNECTIONS_PER_PEER_MAX, Home, IDLE_MAX};
pub(crate) use pool::{Carrier, Driven};
pub use tunnel::Tunnel;

/// One step of a call from proxy to proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// As whom.
    pub source: ServiceName,
    /// To which instance of which service.
    pub endpoint: EndpointKey,
    /// Who must answer the handshake.
    pub id: model::identity::SpiffeId,
}

/// Few sources call one endpoint, whose own hash is made: that is enough.
impl Hash for Hop {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
    }
}

/// Why something was not sent, or not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// Too many wait for a connection already.
    #[error(transparent)]
    Full(#[from] Full),
    /// The other side did not look at it: the same as not sent.
    #[error("refused unseen: {0}")]
    Refused(String),
    /// The connection broke before an answer came; how much was done is unknown.
    #[error("broke off: {0}")]
    Broken(String),
    /// The request itself broke off: what it was made of came to no end, or was malformed.
    #[error("the request broke off: {0}")]
    Caller(String),
}

/// One runtime thread's connections.
pub struct Transport {
    dialler: Arc<tls::Dialler>,
    peers: pool::Shared<Hop, Client>,
    streams: pool::Shared<Hop, mux::Opener>,
    app_dialler: Arc<app::Dialler>,
    apps: pool::Shared<AppAddress, Client>,
    requests: pool::Exclusive<Hop>,
    lines: pool::Exclusive<AppAddress>,
    counts: Arc<MuxCounts>,
}

impl Transport {
    /// No connection yet; `dialler` makes those to other proxies, and `counts` counts those of many streams.
    pub fn new(dialler: tls::Dialler, counts: Arc<MuxCounts>) -> Self {
        let dialler = Arc::new(dialler);
        Self {
            dialler,
            peers: pool::Shared::default(),
            streams: pool::Shared::default(),
            app_dialler: Arc::default(),
            apps: pool::Shared::default(),
            requests: pool::Exclusive::default(),
            lines: pool::Exclusive::default(),
            counts,
        }
    }

    /// A request to another proxy.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn request(
        &self,
        admitted: &Admitted,
        hop: &Hop,
        head: &request::Parts,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        if rides(head) && !self.lacks(hop) {
            match self.requests.line(hop, || self.dial_requests(admitted, hop)).await {
                Ok(line) if line.takes_http2() || !heads::came_in_http2(head) => {
                    return line.ask(Question::to_peer(head, hop), body).await;
                }
                Ok(line) => line.go_home(),
                Err(_) if self.lacks(hop) => {}
                Err(error) => return Err(error),
            }
        }
        let mut head = head.clone();
        let name = HeaderValue::from_str(hop.endpoint.name().as_str()).expect("a name is ASCII");
        head.headers.insert(heads::ENDPOINT, name);
        let (dialler, patience) = (self.dialler.clone(), admitted.connect_timeout());
        let dial = |hop: Hop| async move { dialler.h2(&hop, patience).await };
        let connection = self.peers.connection(hop, dial, || admitted.wait()).await?;
        connection.send(Request::from_parts(head, body)).await
    }

    /// A request that leaves HTTP, to another proxy: its answer may be a 101.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn upgrade(
        &self,
        admitted: &Admitted,
        hop: &Hop,
        head: &request::Parts,
    ) -> Result<(Response<Incoming>, life::Life), SendError> {
        let (stream, life) = self.dialler.dial(hop, tls::Alpn::Http1, admitted.connect_timeout()).await?;
        let line = Line::new(Box::new(stream), None);
        Ok((line.ask(Question::to_peer(head, hop), body::Request::Empty).await?, life))
    }

    /// A request to an application of another host, past its proxy.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn plain_request(
        &self,
        _: &Admitted,
        app: &AppAddress,
        head: request::Parts,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        self.to_app(app, head, body).await
    }

    /// A request that leaves HTTP, to an application of another host, past its proxy: its answer may be a 101.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn plain_upgrade(
        &self,
        _: &Admitted,
        app: &AppAddress,
        head: &request::Parts,
    ) -> Result<Response<Incoming>, SendError> {
        self.to_app_and_leave(app, head).await
    }

    /// A stream of bytes to an application of another host, past its proxy.
    ///
    /// # Errors
    /// If the application is not reached.
    pub async fn plain_tunnel(&self, _: &Admitted, app: &AppAddress) -> Result<Tunnel, SendError> {
        self.app_dialler.dial(app, Spoken::Bytes).await.map(Tunnel::App)
    }

    /// A stream of bytes to a port of a service, behind another proxy.
    ///
    /// # Errors
    /// If the other proxy, or the application behind it, is not reached.
    pub async fn tunnel(&self, admitted: &Admitted, hop: &Hop, port: u16) -> Result<Tunnel, SendError> {
        if !self.lacks(hop) {
            match self.stream(admitted, hop, port).await {
                Err(_) if self.lacks(hop) => {}
                opened => return opened.map(Tunnel::Stream),
            }
        }
        // Boxed: nearly all go the other way, and would have room for this one.
        Box::pin(self.line(admitted, hop, port)).await
    }

    /// The same on a connection of its own.
    async fn line(&self, admitted: &Admitted, hop: &Hop, port: u16) -> Result<Tunnel, SendError> {
        let (mut stream, life) = self.dialler.dial(hop, tls::Alpn::Tcp, admitted.connect_timeout()).await?;
        tcp::introduce(&mut stream, port).await?;
        Ok(Tunnel::Line(Box::new(stream), Box::new(life)))
    }

    /// The same on a connection that carries others. One that was kept may have ended meanwhile: then a new one.
    async fn stream(&self, admitted: &Admitted, hop: &Hop, port: u16) -> Result<mux::Stream, SendError> {
        let mut again = true;
        loop {
            match self.opener(admitted, hop).await?.tunnel(port).await {
                Ok(stream) => return Ok(stream),
                Err(missed) if again && missed.stale() => again = false,
                Err(missed) => return Err(missed.into()),
            }
        }
    }

    async fn opener(&self, admitted: &Admitted, hop: &Hop) -> Result<Arc<mux::Opener>, SendError> {
        let (dialler, counts, patience) =
            (self.dialler.clone(), self.counts.clone(), admitted.connect_timeout());
        let dial = |hop: Hop| async move { dialler.mesh(&hop, counts, patience).await };
        self.streams.connection(hop, dial, || admitted.wait()).await
    }

    /// A stream for requests.
    async fn dial_requests(&self, admitted: &Admitted, hop: &Hop) -> Result<Dialled, SendError> {
        let opener = self.opener(admitted, hop).await?;
        Ok(Dialled { io: Box::new(opener.requests()?), stream_of: Some(opener) })
    }

    fn lacks(&self, hop: &Hop) -> bool {
        self.dialler.lacking().knows(hop, clock::now)
    }

    /// A request to a local application.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn app_request(
        &self,
        _: &Permit,
        app: SocketAddr,
        head: request::Parts,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        self.to_app(&app.into(), head, body).await
    }

    async fn to_app(
        &self,
        app: &AppAddress,
        head: request::Parts,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        if head.version == Version::HTTP_2 {
            let dialler = self.app_dialler.clone();
            let dial = |app: AppAddress| async move {
                let stream = dialler.dial(&app, Spoken::H2).await?;
                Ok(http2::dialled(stream, None, None))
            };
            let connection = self.apps.connection(app, dial, || Ok(())).await?;
            return connection.send(Request::from_parts(head, body)).await;
        }
        let dial = async || {
            let io = self.app_dialler.dial(app, Spoken::Http1).await?;
            Ok(Dialled { io: Box::new(io), stream_of: None })
        };
        let line = self.lines.line(app, dial).await?;
        line.ask(Question::to_app(&head), body).await
    }

    /// A request that leaves HTTP, to a local application: its answer may be a 101.
    ///
    /// # Errors
    /// If no answer's head came.
    pub async fn app_upgrade(
        &self,
        _: &Permit,
        app: SocketAddr,
        head: &request::Parts,
    ) -> Result<Response<Incoming>, SendError> {
        self.to_app_and_leave(&app.into(), head).await
    }

    async fn to_app_and_leave(
        &self,
        app: &AppAddress,
        head: &request::Parts,
    ) -> Result<Response<Incoming>, SendError> {
        let line = Line::new(Box::new(self.app_dialler.dial(app, Spoken::Http1).await?), None);
        line.ask(Question::to_app(head), body::Request::Empty).await
    }

    /// A stream of bytes to a local application.
    ///
    /// # Errors
    /// If the application is not reached.
    pub async fn app_stream(&self, _: &Permit, app: SocketAddr) -> Result<TcpStream, SendError> {
        tcp::dial_app(app).await
    }

    /// Closes what was idle for long; called every second or so.
    pub fn sweep(&self) {
        let now = clock::now();
        self.peers.sweep(now);
        self.streams.sweep(now);
        self.dialler.lacking().sweep(now);
        self.app_dialler.sweep(now);
        self.apps.sweep(now);
        self.requests.sweep(now, IDLE_MAX);
        self.lines.sweep(now, pool::LINE_IDLE);
    }
}

impl SendError {
    /// How `traffic` calls it.
    pub fn failure(&self) -> traffic::retry::Failure {
        use traffic::retry::Failure;
        match self {
            Self::Connect(_) | Self::Full(_) => Failure::Connect,
            Self::Refused(_) => Failure::Refused,
            Self::Broken(_) | Self::Caller(_) => Failure::Reset,
        }
    }
}

/// Fields of a request that goes over a stream; some are added on the way. Those that have more go over HTTP/2.
const STREAM_FIELDS_MAX: usize = traffic::http1::FIELDS_MAX - 8;

/// The fields of such a request, in bytes: HTTP/2 packs more of them than a head of HTTP/1.1 may have.
const STREAM_HEAD_BYTES_MAX: usize = HEAD_BYTES_MAX - 4 * 1_024;

/// Whether a request to another proxy goes over a stream, in HTTP/1.1. A server as a whole (`OPTIONS *`) has no absolute form,
/// by which streams tell for whom a request is.
fn rides(head: &request::Parts) -> bool {
    head.uri.path() != "*"
        && head.headers.len() <= STREAM_FIELDS_MAX
        && (!heads::came_in_http2(head) || bytes(head) <= STREAM_HEAD_BYTES_MAX)
}

/// What a head takes in HTTP/1.1, but for the target's scheme and the method.
fn bytes(head: &request::Parts) -> usize {
    let field =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    heads::target(head).len() + head.headers.iter().map(field).sum::<usize>()
}
