//! A simulated proxy's connections, as `mesh-proxy` has them: one for calls, kept open, one for its stream; the next
//! server is asked when one does not answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName, time_provider::DefaultTimeProvider};
use svid::{Expect, IdentitySlot, Svid, TrustStore};
use tokio::{net::TcpSocket, sync::Mutex, task::JoinHandle, time::timeout};
use tokio_rustls::TlsConnector;

use super::{papers::Papers, seen::Seen};

/// How long a connection may take to come about: as long as a server gives a handshake.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

type Sender = http1::SendRequest<Full<Bytes>>;

/// A connection that is being made.
type Dial = JoinHandle<Result<Sender, Failed>>;

/// A host's way to the control plane.
pub(super) struct Links {
    servers: Vec<SocketAddr>,
    source: Option<IpAddr>,
    tls: Arc<ClientConfig>,
    epoch: String,
    preferred: AtomicUsize,
    idle: Mutex<Option<(usize, Sender)>>,
    /// For each server the connection that is coming about: it goes on when a call gives up, so that no handshake is
    /// done in vain.
    dialling: Vec<Mutex<Option<Dial>>>,
    seen: Arc<Seen>,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// A server said no.
    Status(StatusCode, Option<Duration>),
    /// None answered; why the last one did not.
    Unreachable(#[expect(dead_code, reason = "read in the debugger's and the tests' Debug form")] String),
}

impl Links {
    pub(super) fn new(
        servers: Vec<SocketAddr>,
        source: Option<IpAddr>,
        papers: &Papers,
        trust: &Arc<TrustStore>,
        seen: Arc<Seen>,
    ) -> Self {
        let svid = Svid::from_pem(&papers.chain_pem, &papers.key_pem).expect("the control plane signs SVIDs");
        let (slot, clock) = (IdentitySlot::new(svid), Arc::new(DefaultTimeProvider));
        let tls = svid::client_config(Some(slot), trust.clone(), Expect::Meshd, &[b"http/1.1"], clock);
        let preferred = AtomicUsize::new(usize::from(papers.node.bytes().fold(0_u8, u8::wrapping_add)));
        let dialling = servers.iter().map(|_| Mutex::default()).collect();
        let (tls, idle) = (Arc::new(tls), Mutex::new(None));
        Self { servers, source, tls, epoch: papers.epoch.clone(), preferred, idle, dialling, seen }
    }

    /// A call; each server gets `patience` to answer.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
        patience: Duration,
    ) -> Result<Bytes, Failed> {
        let body = Bytes::from(serde_json::to_vec(body).expect("bodies are made of texts and numbers"));
        self.each(|server| {
            let (method, body) = (method.clone(), body.clone());
            async move {
                let late = |_| Failed::Unreachable("late".to_owned());
                timeout(patience, self.exchange(server, method, path, body)).await.map_err(late)?
            }
        })
        .await
    }

    /// A stream of lines, and the round in which it was asked for: what is said before that is of a server that may be gone.
    pub(super) async fn stream(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<(Incoming, Sender, u64), Failed> {
        self.each(|server| async move {
            let begin = async {
                let mut sender = self.connected(server).await?;
                let round = self.seen.round.load(Relaxed);
                let request = self.request(server, Method::GET, path, Bytes::new());
                let response = sender.send_request(request).await.map_err(unreachable)?;
                match response.status() {
                    StatusCode::OK => Ok((response.into_body(), sender, round)),
                    status => Err(Failed::Status(status, retry_after(&response))),
                }
            };
            timeout(patience, begin).await.map_err(|_| Failed::Unreachable("late".to_owned()))?
        })
        .await
    }

    /// One server after the other, first the one that answered last.
    async fn each<T, F: Future<Output = Result<T, Failed>>>(
        &self,
        ask: impl Fn(usize) -> F,
    ) -> Result<T, Failed> {
        let (first, count) = (self.preferred.load(Relaxed), self.servers.len());
        let mut last = Failed::Unreachable("no servers".to_owned());
        for server in (0..count).map(|n| first.wrapping_add(n) % count) {
            match ask(server).await {
                Ok(answer) => {
                    self.preferred.store(server, Relaxed);
                    return Ok(answer);
                }
                Err(Failed::Status(status, after)) if !status.is_server_error() => {
                    return Err(Failed::Status(status, after));
                }
                Err(error) => last = error,
            }
        }
        self.preferred.store(first.wrapping_add(1), Relaxed);
        Err(last)
    }

    async fn exchange(
        &self,
        server: usize,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Failed> {
        let kept = self.idle.lock().await.take().filter(|(of, sender)| *of == server && !sender.is_closed());
        if let Some((_, mut sender)) = kept
            && let Ok(response) =
                sender.send_request(self.request(server, method.clone(), path, body.clone())).await
        {
            return self.finish(server, sender, response).await;
        }
        let mut sender = self.connected(server).await?;
        let response =
            sender.send_request(self.request(server, method, path, body)).await.map_err(unreachable)?;
        self.finish(server, sender, response).await
    }

    async fn finish(
        &self,
        server: usize,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<Bytes, Failed> {
        let (status, after) = (response.status(), retry_after(&response));
        let body = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
        if !sender.is_closed() {
            *self.idle.lock().await = Some((server, sender));
        }
        if status.is_success() { Ok(body) } else { Err(Failed::Status(status, after)) }
    }

    /// A new connection: the one that an earlier call gave up waiting for, if there is one.
    async fn connected(&self, server: usize) -> Result<Sender, Failed> {
        let mut slot = self.dialling[server].lock().await;
        let dialling = slot.get_or_insert_with(|| {
            let dial = dial(self.servers[server], self.source, self.tls.clone(), self.seen.clone());
            tokio::spawn(async move { timeout(DIAL_LIMIT, dial).await.map_err(unreachable)? })
        });
        let dialled = dialling.await.map_err(unreachable);
        *slot = None;
        dialled?
    }

    fn request(&self, server: usize, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.servers[server].to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("mesh-epoch", &self.epoch)
            .body(Full::new(body))
            .expect("method, path and headers are well-formed")
    }
}

async fn dial(
    address: SocketAddr,
    source: Option<IpAddr>,
    tls: Arc<ClientConfig>,
    seen: Arc<Seen>,
) -> Result<Sender, Failed> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(unreachable)?;
    if let Some(source) = source {
        socket.bind((source, 0).into()).map_err(unreachable)?;
    }
    let tcp = socket.connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let stream =
        TlsConnector::from(tls).connect(ServerName::from(address.ip()), tcp).await.map_err(unreachable)?;
    seen.handshakes.fetch_add(1, Relaxed);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    // Its end shows in the calls over it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn unreachable(error: impl std::fmt::Display) -> Failed {
    Failed::Unreachable(error.to_string())
}

fn retry_after<T>(response: &Response<T>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
