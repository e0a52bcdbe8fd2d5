//! TLS to other proxies: one configuration for each source identity, destination and protocol, so that no session is
//! ever resumed by another; the peer's identity is checked after each handshake, resumed ones too.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::BytesMut;
use model::name::ServiceName;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use svid::{Expect, Identities, IdentitySlot, TrustStore};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use traffic::{http2::Patience, mesh1};

use super::{
    Ahead, Hop, SendError,
    lacking::Lacking,
    life::{Life, Rule},
    mux::{self, Opener},
    pool::Driven,
    tcp,
};
use crate::{
    clock,
    http2::{self, Client},
    listener::Rewound,
    server::Ends,
    telemetry::MuxCounts,
};

/// Configurations that are kept; each holds the sessions of one destination.
const CONFIGS_MAX: usize = 4_096;
/// When a connection of HTTP/2 with open streams asks whether its other side is there, and how long that may take to say so.
const PATIENCE: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// What is spoken inside TLS between proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Requests.
    H2,
    /// A stream of bytes.
    Tcp,
    /// One request that leaves HTTP.
    Http1,
    /// Many streams of bytes.
    Mesh,
}

/// Dials other proxies.
pub struct Dialler {
    identities: Arc<Identities>,
    trust: Arc<TrustStore>,
    changes: watch::Receiver<u64>,
    configs: Mutex<HashMap<(ServiceName, ServiceName, Alpn), Config>>,
    lacking: Lacking,
}

struct Config {
    identity: Arc<IdentitySlot>,
    connector: TlsConnector,
}

impl Alpn {
    /// What a listener for other proxies offers; of what a caller offers, the first of these is taken.
    pub const ALL: [&[u8]; 4] = [mesh1::ALPN, b"h2", b"mesh-tcp/1", b"http/1.1"];

    /// Its name in the handshake.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Tcp => b"mesh-tcp/1",
            Self::Http1 => b"http/1.1",
            Self::Mesh => mesh1::ALPN,
        }
    }

    /// What a caller offers that wants this: who does not know `mesh/1` takes `h2`, and is known by that.
    fn offer(self) -> &'static [&'static [u8]] {
        match self {
            Self::H2 => &[b"h2"],
            Self::Tcp => &[b"mesh-tcp/1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Mesh => &[mesh1::ALPN, b"h2"],
        }
    }

    /// The one of that name.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::H2, Self::Tcp, Self::Http1, Self::Mesh].into_iter().find(|alpn| alpn.name() == name)
    }
}

impl Dialler {
    /// Dials as `identities`, believing `trust`, whose changes `changes` announces.
    pub fn new(identities: Arc<Identities>, trust: Arc<TrustStore>, changes: watch::Receiver<u64>) -> Self {
        Self { identities, trust, changes, configs: Mutex::default(), lacking: Lacking::default() }
    }

    /// A verified connection, as all of them with so much patience.
    pub(super) async fn dial(
        &self,
        hop: &Hop,
        alpn: Alpn,
        patience: Duration,
    ) -> Result<(TlsStream<Ahead<TcpStream>>, Life), SendError> {
        in_time(hop, patience, self.handshake(hop, alpn)).await
    }

    /// A verified connection on which the other side has spoken. In TLS 1.3 it may refuse our certificate after our
    /// side of the handshake is done: only its first word says that it did not.
    async fn accepted(&self, hop: &Hop) -> Result<(Rewound<TlsStream<Ahead<TcpStream>>>, Life), SendError> {
        let (mut stream, life) = self.handshake(hop, Alpn::H2).await?;
        let mut first = BytesMut::new();
        let failed = |cause: String| SendError::Connect(format!("{}: {cause}", hop.endpoint));
        match stream.read_buf(&mut first).await {
            Ok(0) => Err(failed("the connection was closed at once".to_owned())),
            Ok(_) => Ok((Rewound::new(first, stream), life)),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    async fn handshake(
        &self,
        hop: &Hop,
        alpn: Alpn,
    ) -> Result<(TlsStream<Ahead<TcpStream>>, Life), SendError> {
        let failed = |cause: &dyn std::fmt::Display| SendError::Connect(format!("{}: {cause}", hop.endpoint));
        let (identity, connector) = self.config(hop, alpn)?;
        let expect = Expect::Id(hop.id.clone());
        let name = ServerName::try_from(hop.endpoint.service().hostname()).map_err(|error| failed(&error))?;
        let tcp = TcpStream::connect(hop.endpoint.address()).await.map_err(|error| failed(&error))?;
        tcp::tune(&tcp);
        let stream = connector.connect(name.clone(), Ahead::new(tcp)).await;
        let stream = stream.map_err(|error| match svid::refusal(&error) {
            Some(refused) => {
                // The call may well succeed elsewhere, and then nobody else would tell.
                tracing::warn!(endpoint = %hop.endpoint, "another proxy is refused: {refused}");
                failed(refused)
            }
            None => failed(&error),
        })?;
        let (_, tls) = stream.get_ref();
        if !tls.alpn_protocol().is_some_and(|spoken| alpn.offer().contains(&spoken)) {
            return Err(failed(&"it does not speak the protocol of proxies"));
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let peer = expect.recheck(Some(chain), &name, &self.trust.load(), clock::unix());
        let peer = peer.map_err(|refused| failed(&refused))?;
        let own = identity.load().not_after;
        let ends = if own.as_secs() < peer.not_after.as_secs() { own } else { peer.not_after };
        let life =
            Life::new(Rule::Server(expect, name), chain, ends, self.trust.clone(), self.changes.clone());
        Ok((stream, life))
    }

    /// A connection for many requests.
    pub(super) async fn h2(&self, hop: &Hop, patience: Duration) -> Result<Driven<Client>, SendError> {
        let (stream, life) = in_time(hop, patience, self.accepted(hop)).await?;
        Ok(http2::dialled(stream, Some(PATIENCE), Some(life)))
    }

    /// A connection for many streams.
    pub(super) async fn mesh(
        &self,
        hop: &Hop,
        counts: Arc<MuxCounts>,
        patience: Duration,
    ) -> Result<Driven<Opener>, SendError> {
        let dialled = async {
            let (stream, life) = self.handshake(hop, Alpn::Mesh).await?;
            if stream.get_ref().1.alpn_protocol() != Some(Alpn::Mesh.name()) {
                self.lacking.found(hop, clock::now());
                return Err(SendError::Connect(format!("{}: it does not speak mesh/1", hop.endpoint)));
            }
            let ends = Ends { draining: CancellationToken::new(), idle_until: None, life: Some(life) };
            mux::dialled(stream, ends, counts).await
        };
        in_time(hop, patience, dialled).await
    }

    /// Proxies that lack `mesh/1`.
    pub(super) fn lacking(&self) -> &Lacking {
        &self.lacking
    }

    fn config(&self, hop: &Hop, alpn: Alpn) -> Result<(Arc<IdentitySlot>, TlsConnector), SendError> {
        let nobody = || SendError::Connect(format!("{} has no certificate (yet)", hop.source));
        let identity = self.identities.slot(&hop.source).ok_or_else(nobody)?;
        let mut configs = self.configs.lock();
        let key = (hop.source.clone(), hop.endpoint.service().clone(), alpn);
        if let Some(config) = configs.get(&key)
            && Arc::ptr_eq(&config.identity, &identity)
        {
            return Ok((identity, config.connector.clone()));
        }
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        let expect = Expect::Id(hop.id.clone());
        let config = svid::client_config(
            Some(identity.clone()),
            self.trust.clone(),
            expect,
            alpn.offer(),
            clock::tls(),
        );
        let connector = TlsConnector::from(Arc::new(config));
        configs.insert(key, Config { identity: identity.clone(), connector: connector.clone() });
        Ok((identity, connector))
    }
}

async fn in_time<T>(
    hop: &Hop,
    patience: Duration,
    dialled: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    let late = |_| SendError::Connect(format!("{}: not within {patience:?}", hop.endpoint));
    timeout(patience, dialled).await.map_err(late)?
}
