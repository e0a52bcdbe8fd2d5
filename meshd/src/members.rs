//! The other members: the listener for them (8444) and dialling them. Both ends prove who they are; a connection ends
//! as soon as its other end would no longer be let in.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use model::identity::{Identity, SpiffeId};
use parking_lot::Mutex;
use registry::{Dial, MemberId, Registry, State, Stream};
use rustls_pki_types::{CertificateDer, ServerName};
use svid::{Accept, Expect, SvidError};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{authority::Authority, clock};

mod dampened;
mod guarded;
mod pending;

use dampened::Dampened;
use guarded::{Guarded, Hooks};
use pending::{Handshake, PENDING_PER_ADDRESS_MAX, Pending};

/// The protocol that members speak, as negotiated in the handshake.
pub const ALPN: &[u8] = b"mesh-raft/1";
/// A handshake that takes longer is given up: a member's takes milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Dialling a member that is not there must not take longer than an election.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// As many connections as the listener holds: a few for each of at most seven members, and room for strangers that
/// are about to be refused, from several addresses.
const CONNECTIONS_MAX: usize = 512;
/// After an error of `accept` (too many open files) the listener rests, instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often live connections are looked at though trust did not change: a certificate may have ended.
const RECHECK_EVERY: Duration = Duration::from_secs(30);

/// Connections from and to the other members.
pub struct Members {
    authority: Arc<Authority>,
    /// One for each member that is dialled: TLS sessions are kept in it.
    dialling: Mutex<HashMap<MemberId, TlsConnector>>,
    live: Arc<Mutex<HashMap<u64, Live>>>,
    next: AtomicU64,
    /// Who is refused, or refuses, tries again and again.
    complaints: Arc<Dampened>,
}

/// A connection whose other end proved to be a member.
struct Live {
    member: MemberId,
    chain: Vec<CertificateDer<'static>>,
    /// The name that was dialled; `None` where the other end dialled.
    dialled: Option<ServerName<'static>>,
    cut: CancellationToken,
}

/// Why a caller was not let in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Identity(SvidError),
    #[error("{0} is no member of this cluster any more")]
    NotAMember(SpiffeId),
    #[error("{0}")]
    Handshake(io::Error),
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error("{0} has {PENDING_PER_ADDRESS_MAX} handshakes under way")]
    Pending(IpAddr),
}

impl Members {
    /// Nobody yet.
    pub fn new(authority: Arc<Authority>) -> Arc<Self> {
        let (dialling, live, complaints) = (Mutex::default(), Arc::default(), Arc::default());
        Arc::new(Self { authority, dialling, live, next: AtomicU64::new(0), complaints })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.live.lock().len()
    }

    /// Takes members' connections until `stop`.
    pub async fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        registry: Registry,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let (leaf, trust) = (self.authority.leaf().clone(), self.authority.trust().clone());
        let config = svid::server_config(leaf, trust, Accept::Members, &[ALPN], clock::tls());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (room, pending) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Pending::default());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            let Some((stream, from, permit)) = accepted else { continue };
            let Some(handshake) = pending.begin(from.ip()) else {
                self.complain_of(from, &Refused::Pending(from.ip()));
                continue;
            };
            let (this, acceptor, registry, stop) =
                (self.clone(), acceptor.clone(), registry.clone(), stop.clone());
            tasks.spawn(async move {
                stop.run_until_cancelled(this.serve(stream, from, acceptor, registry, handshake)).await;
                drop(permit);
            });
        }
    }

    async fn serve(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        acceptor: TlsAcceptor,
        registry: Registry,
        handshake: Handshake,
    ) {
        let admitted = self.admit(stream, acceptor, &registry).await;
        drop(handshake);
        let (stream, member) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return self.complain_of(from, &refused),
        };
        tracing::debug!(%from, member, "member connected");
        if let Err(error) = registry.serve_peer(Box::new(stream), member).await {
            tracing::debug!(%from, member, %error, "member's connection ended");
        }
    }

    fn complain_of(&self, from: SocketAddr, refused: &Refused) {
        let reason = refused.to_string();
        if let Some(before) = self.complaints.count(&reason, clock::now()) {
            tracing::warn!(%from, %reason, before, "refused a member's connection");
        }
    }

    async fn admit(
        &self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        registry: &Registry,
    ) -> Result<(impl Stream + use<>, MemberId), Refused> {
        stream.set_nodelay(true).map_err(Refused::Handshake)?;
        let shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.map_err(|_| Refused::Slow)?;
        let tls = shaken.map_err(|error| match svid::refusal(&error) {
            Some(refusal) => Refused::Identity(refusal.clone()),
            None => Refused::Handshake(error),
        })?;
        let chain = owned(tls.get_ref().1.peer_certificates());
        let live = Live { member: 0, chain, dialled: None, cut: CancellationToken::new() };
        let member = self.judge(&live, &registry.applied())?;
        Ok((self.guard(tls, Live { member, ..live }), member))
    }

    /// Looks at every live connection anew, when trust or members changed.
    pub fn recheck(&self, state: &State) {
        for live in self.live.lock().values() {
            if let Err(reason) = self.judge(live, state) {
                tracing::warn!(member = live.member, %reason, "cut a member's connection");
                live.cut.cancel();
            }
        }
    }

    /// Rechecks now and then until `stop`: certificates end without anything changing.
    pub async fn keep_checking(self: Arc<Self>, registry: Registry, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(RECHECK_EVERY)).await.is_some() {
            self.recheck(&registry.applied());
        }
    }

    /// Who is at the other end, judged from scratch (a resumed handshake skips the verifier).
    fn judge(&self, live: &Live, state: &State) -> Result<MemberId, Refused> {
        let (trust, now) = (self.authority.trust().load(), clock::unix());
        let id = match &live.dialled {
            None => {
                Accept::Members.recheck(Some(&live.chain), &trust, now).map(|peer| peer.map(|peer| peer.id))
            }
            Some(name) => {
                let expect = Expect::Id(SpiffeId::meshd(trust.domain(), live.member));
                expect.recheck(Some(&live.chain), name, &trust, now).map(|peer| Some(peer.id))
            }
        };
        let id = id.map_err(Refused::Identity)?.ok_or(Refused::Identity(SvidError::NoCertificate))?;
        match id.identity() {
            // A new member's state is filled by the leader over this very connection, and may not have come to the
            // leader's own admission yet: only who was let in and is not there any more is refused.
            &Identity::Meshd(member)
                if state.trust().is_none()
                    || state.member(member).is_some()
                    || !state.id_was_given(member) =>
            {
                Ok(member)
            }
            _ => Err(Refused::NotAMember(id)),
        }
    }

    fn guard<S: Stream>(&self, stream: S, live: Live) -> Guarded<S> {
        let (number, cut) = (self.next.fetch_add(1, Ordering::Relaxed), live.cut.clone());
        let (all, complaints) = (self.live.clone(), self.complaints.clone());
        let member = live.member;
        self.live.lock().insert(number, live);
        let gone = move || {
            all.lock().remove(&number);
        };
        let refused = move |alert: &str| {
            if complaints.count(&format!("{member} {alert}"), clock::now()).is_some() {
                tracing::error!(
                    member,
                    alert,
                    "a member refuses this server's certificate; was this server removed, or is its clock wrong?"
                );
            }
        };
        Guarded::new(stream, cut, Hooks { gone: Box::new(gone), refused: Box::new(refused) })
    }

    fn connector(&self, member: MemberId) -> TlsConnector {
        let mut dialling = self.dialling.lock();
        let connector = dialling.entry(member).or_insert_with(|| {
            let (leaf, trust) = (self.authority.leaf().clone(), self.authority.trust().clone());
            let expect = Expect::Id(SpiffeId::meshd(self.authority.domain(), member));
            TlsConnector::from(Arc::new(svid::client_config(
                Some(leaf),
                trust,
                expect,
                &[ALPN],
                clock::tls(),
            )))
        });
        connector.clone()
    }

    async fn connect(&self, member: MemberId, address: &str) -> io::Result<Box<dyn Stream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let tls = self.connector(member).connect(name.clone(), stream).await?;
        let chain = owned(tls.get_ref().1.peer_certificates());
        let live = Live { member, chain, dialled: Some(name), cut: CancellationToken::new() };
        let trust = self.authority.trust().load();
        let expect = Expect::Id(SpiffeId::meshd(trust.domain(), member));
        let name = live.dialled.as_ref().expect("set just above");
        expect.recheck(Some(&live.chain), name, &trust, clock::unix()).map_err(io::Error::other)?;
        Ok(Box::new(self.guard(tls, live)))
    }
}

/// The registry's way to the other members. A value of its own, so that it can outlive its borrower.
pub struct Dialling(pub Arc<Members>);

impl Dial for Dialling {
    fn dial(&self, member: MemberId, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (members, address) = (self.0.clone(), address.to_owned());
        async move {
            let connected = timeout(DIAL_TIMEOUT, members.connect(member, &address)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            connected
                .inspect_err(|error| tracing::debug!(member, %address, %error, "a member cannot be reached"))
        }
        .boxed()
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, from)) => Some((stream, from, permit)),
        Err(error) => {
            tracing::warn!(%error, "the members' listener cannot accept");
            tokio::time::sleep(ACCEPT_REST).await;
            None
        }
    }
}

fn owned(chain: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    chain.unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect()
}
