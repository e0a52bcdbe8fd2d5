//! Calls to the control plane, as this node: any member will do, the next one is asked when one does not answer.
//! Every server is verified as a member before a byte is sent. What is asked, and what an answer means, is others' matter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use model::problem::Problem;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use svid::{Expect, IdentitySlot, TrustStore};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{clock, settings::Server};

mod lines;

pub use lines::Lines;

/// How long a connection to a server may take to come about, TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest answer that is read whole, in bytes: 256 certificates with their chains have less than 1 MiB.
const ANSWER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

const EPOCH: &str = "mesh-epoch";

/// The control plane, as this node sees it.
pub struct Control {
    servers: Vec<Server>,
    tls: TlsConnector,
    trust: Arc<TrustStore>,
    epoch: ArcSwap<String>,
    preferred: AtomicUsize,
    idle: Mutex<Option<(usize, Sender)>>,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server is configured.
    #[error("no servers: set `servers` in proxy.toml, or join first")]
    NoServers,
    /// A server did not answer, or its answer broke off.
    #[error("{server}: {cause}")]
    Unreachable {
        /// Who was asked.
        server: Server,
        /// Why it failed.
        cause: String,
    },
    /// A server refused.
    #[error("{server} refused: {problem}")]
    Refused {
        /// Who was asked.
        server: Server,
        /// Its reason.
        problem: Box<Problem>,
        /// When it wants to be asked again (`Retry-After`), if it said so.
        after: Option<Duration>,
    },
    /// An answer is not what the API promises.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

impl ControlError {
    /// The HTTP status, where a server refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { problem, .. } => Some(problem.status),
            _ => None,
        }
    }

    /// How long a server holds us back: a node that came and went too often.
    pub fn held(&self) -> Option<Duration> {
        match self {
            Self::Refused { problem, after, .. } if problem.status == 429 => *after,
            _ => None,
        }
    }
}

impl Control {
    /// The control plane at `servers`; `identity` is this node's, or nobody's while it joins.
    pub fn new(
        servers: Vec<Server>,
        identity: Option<Arc<IdentitySlot>>,
        trust: Arc<TrustStore>,
        epoch: String,
    ) -> Self {
        let config =
            svid::client_config(identity, trust.clone(), Expect::Meshd, &[b"http/1.1"], clock::tls());
        let (epoch, preferred) = (ArcSwap::from_pointee(epoch), first(servers.len()));
        Self { servers, tls: connector(config), trust, epoch, preferred, idle: Mutex::new(None) }
    }

    /// The history that this node follows.
    pub fn epoch(&self) -> Arc<String> {
        self.epoch.load_full()
    }

    /// One call with a JSON body; each server that is asked gets `patience` to answer.
    ///
    /// # Errors
    /// The last server's, if none answered with a success.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        patience: Duration,
    ) -> Result<T, ControlError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| ControlError::Answer(error.to_string()))?;
        let bytes = self.each(|server| self.exchange(server, &method, path, body.clone(), patience)).await?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|error| ControlError::Answer(error.to_string()))
    }

    /// An answer that does not end, line by line; a server that does not begin it within `patience` is passed over.
    ///
    /// # Errors
    /// The last server's, if none answered with a success.
    pub async fn stream(&self, path: &str, patience: Duration) -> Result<Lines, ControlError> {
        self.each(|server| self.begin(server, path, patience)).await
    }

    /// Asks one server after the other, first the one that answered last.
    async fn each<T, F: Future<Output = Result<T, ControlError>>>(
        &self,
        ask: impl Fn(usize) -> F,
    ) -> Result<T, ControlError> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.servers.len());
        let mut last = ControlError::NoServers;
        for server in (0..count).map(|n| (first + n) % count) {
            match ask(server).await {
                Ok(answer) => {
                    self.preferred.store(server, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if error.status().is_some_and(|status| status < 500) => return Err(error),
                Err(error) => last = error,
            }
        }
        self.preferred.store(first.wrapping_add(1), Ordering::Relaxed);
        Err(last)
    }

    async fn exchange(
        &self,
        server: usize,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Bytes, ControlError> {
        let kept = self.idle.lock().take().filter(|(of, sender)| *of == server && !sender.is_closed());
        let answer = async {
            if let Some((_, mut sender)) = kept
                && let Ok(response) =
                    sender.send_request(self.request(server, method, path, body.clone())).await
            {
                return self.finish(server, sender, response).await;
            }
            let mut sender = self.connect(server).await?;
            let response = sender.send_request(self.request(server, method, path, body)).await;
            let response = response.map_err(|error| self.unreachable(server, &error))?;
            self.finish(server, sender, response).await
        };
        let late = |_| self.failed(server, format!("no answer within {} ms", patience.as_millis()));
        timeout(patience, answer).await.map_err(late)?
    }

    async fn begin(&self, server: usize, path: &str, patience: Duration) -> Result<Lines, ControlError> {
        let answer = async {
            let mut sender = self.connect(server).await?;
            let response = sender.send_request(self.request(server, &Method::GET, path, None)).await;
            let response = response.map_err(|error| self.unreachable(server, &error))?;
            if response.status().is_success() {
                return Ok(Lines::new(response.into_body(), self.servers[server].clone(), sender));
            }
            self.finish(server, sender, response).await?;
            Err(self.failed(server, "no stream".to_owned()))
        };
        let late = |_| self.failed(server, format!("no answer within {} ms", patience.as_millis()));
        timeout(patience, answer).await.map_err(late)?
    }

    /// Reads an answer whole, and keeps its connection for the next call.
    async fn finish(
        &self,
        server: usize,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<Bytes, ControlError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.failed(server, error.to_string()))?.to_bytes();
        if !sender.is_closed() {
            *self.idle.lock() = Some((server, sender));
        }
        if head.status.is_success() {
            return Ok(body);
        }
        if head.status == StatusCode::GONE {
            self.adopt(head.headers.get(EPOCH));
        }
        let title = head.status.canonical_reason().unwrap_or("error");
        let text = || String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
        let problem = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Problem::new(head.status.as_u16(), title, text()));
        let after = head.headers.get(header::RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let (server, problem) = (self.servers[server].clone(), Box::new(problem));
        Err(ControlError::Refused { server, problem, after })
    }

    /// The cluster was restored: its history is another from now on.
    fn adopt(&self, epoch: Option<&HeaderValue>) {
        let Some(epoch) = epoch.and_then(|epoch| epoch.to_str().ok()) else { return };
        if **self.epoch.load() != epoch {
            tracing::warn!(%epoch, "the control plane has another history now");
            self.epoch.store(Arc::new(epoch.to_owned()));
        }
    }

    async fn connect(&self, server: usize) -> Result<Sender, ControlError> {
        let address = &self.servers[server];
        let dialled = timeout(CONNECT_TIMEOUT, dial(address, &self.tls, Some(&self.trust))).await;
        dialled
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
            .map_err(|cause| self.failed(server, cause))
    }

    fn request(
        &self,
        server: usize,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Request<Full<Bytes>> {
        let epoch = self.epoch.load();
        request(&self.servers[server], method, path, body, (!epoch.is_empty()).then_some(epoch.as_str()))
    }

    fn unreachable(&self, server: usize, error: &hyper::Error) -> ControlError {
        self.failed(server, cause(error))
    }

    fn failed(&self, server: usize, cause: String) -> ControlError {
        ControlError::Unreachable { server: self.servers[server].clone(), cause }
    }
}

/// Hosts that start together do not all begin with the first server.
fn first(servers: usize) -> AtomicUsize {
    let drawn = usize::try_from(clock::dice() % 1_024).unwrap_or(0);
    AtomicUsize::new(drawn % servers.max(1))
}

/// A connector that dials one server at a time.
pub(crate) fn connector(config: ClientConfig) -> TlsConnector {
    TlsConnector::from(Arc::new(config))
}

/// A request to a server.
pub(crate) fn request(
    server: &Server,
    method: &Method,
    path: &str,
    body: Option<Vec<u8>>,
    epoch: Option<&str>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    let host = server.to_string();
    request = request.header(header::HOST, host.trim_start_matches("https://"));
    request = request.header(header::USER_AGENT, concat!("mesh-proxy/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(epoch) = epoch {
        request = request.header(EPOCH, epoch);
    }
    request.body(Full::from(body.unwrap_or_default())).expect("method, path and headers are well-formed")
}

/// A connection to a server; with `trust` the server is judged again, as a resumed session skips the verifier.
pub(crate) async fn dial(
    server: &Server,
    tls: &TlsConnector,
    trust: Option<&TrustStore>,
) -> Result<Sender, String> {
    let tcp =
        TcpStream::connect((server.host.as_str(), server.port)).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(server.host.clone()).map_err(|error| error.to_string())?;
    let stream = tls.connect(name.clone(), tcp).await.map_err(|error| match svid::refusal(&error) {
        Some(refused) => refused.to_string(),
        None => error.to_string(),
    })?;
    if let Some(trust) = trust {
        let judged = Expect::Meshd.recheck(
            stream.get_ref().1.peer_certificates(),
            &name,
            &trust.load(),
            clock::unix(),
        );
        judged.map_err(|refused| refused.to_string())?;
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the control plane ended");
        }
    });
    Ok(sender)
}

/// The innermost cause: «connection refused» rather than «error sending request».
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
