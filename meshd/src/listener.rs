//! The API's listener: connections, their handshakes and their limits. A slow or hostile client costs a bounded amount
//! of memory for a bounded time, and nobody but itself. What is asked over a connection is not its matter.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1 as hyper1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{ServerConfig, pki_types::CertificateDer};
use svid::{Accept, Peer, SvidError, TrustStore};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{api::auth::Connection, clock};

mod chunks;
mod http1;
mod wire;

use wire::{Plain, Tls};

/// The name of HTTP/2 in ALPN: over TLS it is spoken by those alone who asked for it (RFC 9113 §3.2).
const H2: &[u8] = b"h2";
/// ALPN of the API, preferred first.
pub const ALPN: &[&[u8]] = &[H2, b"http/1.1"];
/// Connections at once, those in their handshake included: each may hold some 100 KiB.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Connections of one address at once, so that one client cannot take all of them. A NAT stands for many hosts.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 2_048;
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's head may take to come, and how long a connection of HTTP/1 may idle between requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
pub const HEADERS_MAX: usize = 100;
/// Requests at once on one connection of HTTP/2.
pub const STREAMS_MAX: u32 = 256;
/// A connection of HTTP/2 is asked for a sign of life so often, and has this long to give it.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long requests may go on when the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection's certificate is judged anew: a distrusted one does not live longer than that.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the loop waits when the system has no descriptors or memory left for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Which listener takes whom, and how.
#[derive(Clone)]
pub struct Listening {
    /// Made by `svid::server_config`, with [`ALPN`].
    pub tls: Arc<ServerConfig>,
    /// Against which peers are judged again.
    pub trust: Arc<TrustStore>,
    /// Whom to take.
    pub accept: Accept,
}

/// Serves until `closing`, then lets requests finish for [`DRAIN_TIMEOUT`].
pub async fn serve(socket: TcpListener, listening: Listening, router: Router, closing: CancellationToken) {
    let slots = Slots::default();
    let connections = TaskTracker::new();
    let (http1, http2) = (http1::builder(), http2());
    let shared = Arc::new(Shared { listening, router, closing: closing.clone(), http1, http2 });
    while let Some((stream, remote, slot)) = next(&socket, &slots, &closing).await {
        let shared = shared.clone();
        connections.spawn(async move {
            let _slot = slot;
            // Each stage is set aside while it lasts: thousands of connections wait in what comes last.
            if let Some((tls, connection)) = Box::pin(shared.handshake(stream, remote)).await {
                shared.requests(tls, connection).await;
            }
        });
    }
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
}

/// The next connection that there is room for; `None` when the server stops.
async fn next(
    socket: &TcpListener,
    slots: &Slots,
    closing: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Slot)> {
    loop {
        let all = closing.run_until_cancelled(slots.all.clone().acquire_owned()).await?.ok()?;
        match closing.run_until_cancelled(socket.accept()).await? {
            Ok((stream, remote)) => match slots.take(remote.ip(), all) {
                Some(slot) => return Some((stream, remote, slot)),
                None => tracing::warn!(%remote, "connection refused: its address has too many"),
            },
            // The client is gone already.
            Err(error) if gone(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connections can be accepted");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("64 KiB fit"))
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

/// A connection's requests, one after the other or side by side.
type Serving = Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>>;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("in the middle of an answer: {0}")]
    Streaming(#[from] io::Error),
}

struct Shared {
    listening: Listening,
    router: Router,
    /// Cancelled when the server stops.
    closing: CancellationToken,
    http1: hyper1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Shared {
    async fn handshake(&self, stream: TcpStream, remote: SocketAddr) -> Option<(Box<Tls>, Connection)> {
        // Answers are small and awaited: Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.listening.tls.clone());
        let tls = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(Plain(stream))).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                match svid::refusal(&error) {
                    Some(refusal) => tracing::warn!(%remote, reason = %refusal, "handshake refused"),
                    None => tracing::info!(%remote, %error, "handshake failed"),
                }
                return None;
            }
            Err(_) => {
                tracing::info!(%remote, "handshake timed out");
                return None;
            }
        };
        match self.judge(tls.get_ref().1.peer_certificates()) {
            Ok(peer) => Some((Box::new(tls), Connection { remote, peer: peer.map(Arc::new) })),
            Err(reason) => {
                tracing::warn!(%remote, %reason, "connection refused");
                None
            }
        }
    }

    /// A resumed handshake skips the verifier, and trust changes under living connections.
    fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<Option<Peer>, SvidError> {
        self.listening.accept.recheck(chain, &self.listening.trust.load(), clock::unix())
    }

    fn requests(self: Arc<Self>, tls: Box<Tls>, connection: Connection) -> impl Future<Output = ()> {
        let remote = connection.remote;
        let judged = Arc::new(Judged::new(self.clone(), &tls));
        let asked = Asked { shared: self, connection, judged: judged.clone() };
        let serving: Serving = match tls.get_ref().1.alpn_protocol() {
            Some(H2) => Box::pin(asked.http2(tls)),
            _ => Box::pin(asked.http1(tls)),
        };
        async move {
            tokio::select! {
                ended = serving => {
                    if let Err(error) = ended {
                        tracing::debug!(%remote, %error, "connection ended");
                    }
                }
                reason = judged.refused() => {
                    tracing::warn!(%remote, %reason, "connection cut off");
                }
            }
        }
    }
}

/// Over one connection.
#[derive(Clone)]
struct Asked {
    shared: Arc<Shared>,
    connection: Connection,
    judged: Arc<Judged>,
}

impl Asked {
    async fn http2(self, tls: Box<Tls>) -> Result<(), Ended> {
        let asked = self.clone();
        let service = service_fn(move |request| asked.clone().answer(request));
        let connection = self.shared.http2.serve_connection(TokioIo::new(tls), service);
        let mut connection = Box::pin(connection);
        match self.shared.closing.run_until_cancelled(connection.as_mut()).await {
            Some(ended) => ended?,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await?;
            }
        }
        Ok(())
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, SvidError> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.connection);
        // An error closes the connection: there is nobody left to answer.
        self.judged.still()?;
        Ok(self.shared.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
    }
}

/// A connection's certificate, and against which trust it was last judged.
struct Judged {
    shared: Arc<Shared>,
    chain: Option<Vec<CertificateDer<'static>>>,
    /// [`TrustStore::version`].
    trust: AtomicU64,
}

impl Judged {
    fn new(shared: Arc<Shared>, tls: &Tls) -> Self {
        let chain = tls.get_ref().1.peer_certificates();
        let chain = chain.map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
        // The first request judges once more: trust may have changed since the handshake.
        Self { shared, chain, trust: AtomicU64::new(u64::MAX) }
    }

    /// Judged again if trust changed since: no request is served to who was distrusted before it came.
    fn still(&self) -> Result<(), SvidError> {
        let version = self.shared.listening.trust.version();
        if self.chain.is_some() && self.trust.load(Ordering::Acquire) != version {
            self.shared.judge(self.chain.as_deref())?;
            self.trust.store(version, Ordering::Release);
        }
        Ok(())
    }

    /// When the certificate ends or is distrusted, for the sake of streams; never for who has none.
    async fn refused(&self) -> SvidError {
        if self.chain.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(RECHECK_INTERVAL).await;
            if let Err(reason) = self.shared.judge(self.chain.as_deref()) {
                return reason;
            }
        }
    }
}

/// Room for connections, all together and by address.
#[derive(Clone)]
struct Slots {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's room.
struct Slot {
    _all: OwnedSemaphorePermit,
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(CONNECTIONS_MAX)), by_address: Arc::default() }
    }
}

impl Slots {
    fn take(&self, address: IpAddr, all: OwnedSemaphorePermit) -> Option<Slot> {
        let mut by_address = self.by_address.lock();
        let taken = by_address.entry(address).or_insert(0);
        if *taken >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *taken += 1;
        Some(Slot { _all: all, address, by_address: self.by_address.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.by_address.lock();
        if let Some(taken) = by_address.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_the_room() {
        let slots = Slots::default();
        let take = |last: u8| {
            let permit = slots.all.clone().try_acquire_owned().expect("room for all");
            slots.take(IpAddr::from([127, 0, 0, last]), permit)
        };
        let mut held: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX).map(|_| take(1).expect("room")).collect();
        assert!(take(1).is_none());
        assert!(take(2).is_some(), "another address has its own room");
        held.pop();
        assert!(take(1).is_some());
        drop(held);
        assert!(slots.by_address.lock().is_empty());
        assert_eq!(slots.all.available_permits(), CONNECTIONS_MAX);
    }
}
