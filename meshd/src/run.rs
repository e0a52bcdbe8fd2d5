//! A server: the one place where registry, authority, listeners and duties are constructed, joined and ended.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, middleware::from_fn_with_state};
use registry::{Command, OpenError, Program, ProposeError, ReadError, Registry, Reply};
use svid::Accept;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    apart::Apart,
    api::{self, Api, gate::Gate},
    authority::{Authority, AuthorityError, Opening},
    clock,
    daemon::Daemon,
    discovery, divergence,
    guard::Guard,
    leader,
    listener::{self, Listening},
    load::Limits,
    members::{Dialling, Members},
    proxies::{Batches, Proxies},
    schedule, service,
    settings::Schedule,
    telemetry::{self, Metrics, Sources},
    wake::{self, Wake},
};

/// How long a server waits at its start for a leader before it says that there is none. It goes on waiting.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// How long a server's tasks may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// How long handing leadership over may take when the server stops.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(4);

/// What a server is made of.
pub struct Plan {
    /// For the registry.
    pub registry: registry::Settings,
    /// For the authority.
    pub opening: Opening,
    /// Bound already, so that a port in use is told before anything starts.
    pub sockets: Sockets,
    /// Snapshots that the server saves by itself.
    pub snapshots: Option<Schedule>,
    /// How much it takes on at once.
    pub limits: Limits,
    /// What it does not read for a DiscoverySource, beside its data folder.
    pub own_files: Vec<PathBuf>,
}

/// Where a server listens.
pub struct Sockets {
    /// The API.
    pub api: TcpListener,
    /// Other members; none with `--dev`.
    pub raft: Option<TcpListener>,
    /// Metrics and health.
    pub metrics: TcpListener,
}

/// A running server.
pub struct Server {
    registry: Registry,
    apart: Apart,
    listeners: TaskTracker,
    tasks: TaskTracker,
    /// Ends listeners and streams.
    closing: CancellationToken,
    /// Ends everything else.
    stop: CancellationToken,
}

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port cannot be had.
    #[error("cannot listen on {address} ({what}): {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// What must not wait behind requests has no threads of its own.
    #[error("no threads for the registry: {0}")]
    Threads(io::Error),
    /// Keys, certificates or trust.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The registry's folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The first commands were not done.
    #[error("the cluster could not be founded: {0}")]
    Founding(ProposeError),
    /// The first commands were refused.
    #[error("the cluster could not be founded: {0}")]
    Refused(String),
    /// Nobody leads.
    #[error(transparent)]
    NoLeader(#[from] ReadError),
    /// The other members refuse this one.
    #[error("{0}")]
    Banned(String),
    /// Its disk or the engine failed while it ran. The folder holds what was acknowledged.
    #[error("the registry cannot go on: {0}; what was acknowledged is in its folder, start the server again")]
    Failed(String),
}

/// Binds a listener.
///
/// # Errors
/// If the port cannot be had.
pub async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|cause| RunError::Listen { address, what, cause })
}

impl Server {
    /// Brings a server up. It answers from here on, though it may still wait for a leader: see [`Server::ready`].
    ///
    /// # Errors
    /// If its folder or keys cannot be used.
    pub async fn start(plan: Plan) -> Result<Self, RunError> {
        let Plan { registry: settings, opening, sockets, snapshots, limits, mut own_files } = plan;
        let (cluster, data_dir) = (settings.cluster, settings.data_dir.clone());
        let authority = Authority::open(opening, clock::unix())?;
        let members = Members::new(authority.clone());
        let apart = Apart::start().map_err(RunError::Threads)?;
        let opened = apart.handle().spawn(Registry::open(settings, Arc::new(Dialling(members.clone()))));
        let opened = opened.await.map_err(|error| RunError::Threads(io::Error::other(error)))?;
        let (registry, recovery) = opened?;
        tracing::info!(source = ?recovery.source, replayed = recovery.replayed_entries, boot = recovery.boot, "registry open");
        authority.follow(&registry.applied());
        let (proxies, batches) = Proxies::new();
        let (guard, metrics) = (Guard::new(clock::now()), Metrics::new());
        let daemon = Arc::new(Daemon { cluster, members, proxies, guard, metrics });
        let (listeners, tasks) = (TaskTracker::new(), TaskTracker::new());
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let server = Self { registry, apart, listeners, tasks, closing, stop };
        server.spawn_duties(&authority, &daemon, batches);
        own_files.push(data_dir.clone());
        let files = ::discovery::files::Files::without(own_files);
        let (followed, counts) = (server.registry.clone(), daemon.metrics.discovery());
        server.tasks.spawn(discovery::run(followed, files, counts, server.stop.clone()));
        if let Some(snapshots) = snapshots {
            let (registry, stop) = (server.registry.clone(), server.stop.clone());
            server.tasks.spawn(schedule::run(snapshots, registry, daemon.metrics.backups(), stop));
        }
        let gate = Gate::new(&limits, daemon.metrics.gate());
        server.spawn_listeners(sockets, &authority, &daemon, gate, &data_dir);
        Ok(server)
    }

    fn spawn_duties(&self, authority: &Arc<Authority>, daemon: &Arc<Daemon>, batches: Batches) {
        let (registry, stop) = (&self.registry, &self.stop);
        let (members, followed) = (daemon.members.clone(), registry.clone());
        let recheck = move || members.recheck(&followed.applied());
        self.tasks.spawn(authority.clone().keep_trust(registry.clone(), recheck, stop.clone()));
        self.tasks.spawn(authority.clone().keep_fresh(registry.clone(), stop.clone()));
        self.tasks.spawn(daemon.members.clone().keep_checking(registry.clone(), stop.clone()));
        self.tasks.spawn_on(batches.run(registry.clone(), stop.clone()), self.apart.handle());
        self.tasks.spawn(divergence::watch(registry.clone(), authority.clone(), stop.clone()));
        self.tasks.spawn(leader::run(registry.clone(), stop.clone()));
        self.tasks.spawn(service::stay_alive(self.apart.handle().clone(), stop.clone()));
    }

    fn spawn_listeners(
        &self,
        sockets: Sockets,
        authority: &Arc<Authority>,
        daemon: &Arc<Daemon>,
        gate: Arc<Gate>,
        data_dir: &Path,
    ) {
        let registry = &self.registry;
        if let Some(raft) = sockets.raft {
            let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
            let listen = daemon.members.clone().listen(raft, registry.clone(), tasks, stop);
            self.tasks.spawn_on(listen, self.apart.handle());
        }
        let (proxies, metrics) = (daemon.proxies.clone(), daemon.metrics.clone());
        let wake = Wake::new(registry.applied(), metrics.watches());
        // Where revisions are made: one that concerns nobody here wakes no other thread.
        let (rounds, ringing) = mpsc::channel(1);
        let follow = wake.clone().follow(registry.clone(), self.closing.clone(), rounds);
        self.tasks.spawn_on(follow, self.apart.handle());
        self.tasks.spawn(wake::ring(ringing));
        let closing = self.closing.clone();
        let api =
            Api::new(registry.clone(), authority.clone(), proxies.clone(), wake, gate, data_dir, closing);
        let router = api::router(api)
            .layer(Extension(daemon.clone()))
            .layer(from_fn_with_state(metrics.clone(), telemetry::count));
        let (leaf, trust) = (authority.leaf().clone(), authority.trust().clone());
        let accept = Accept::NodesAndMembers;
        let tls = svid::server_config(leaf, trust.clone(), accept, listener::ALPN, clock::tls());
        let listening = Listening { tls: Arc::new(tls), trust, accept };
        self.listeners.spawn(listener::serve(sockets.api, listening, router, self.closing.clone()));
        let sources = Sources { registry: registry.clone(), proxies, members: daemon.members.clone() };
        let (metrics, closing) = (telemetry::router(metrics, sources), self.closing.clone());
        self.listeners.spawn(async move {
            let served =
                axum::serve(sockets.metrics, metrics).with_graceful_shutdown(closing.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the metrics' listener ended");
            }
        });
    }

    /// Waits until there is a leader and this server has caught up with it; `false` if it is over before, and
    /// [`Server::run_until`] says why.
    pub async fn ready(&self) -> bool {
        tokio::select! {
            ready = self.caught_up() => ready,
            _ = self.registry.failed() => false,
        }
    }

    async fn caught_up(&self) -> bool {
        loop {
            match tokio::time::timeout(LEADER_WAIT, self.registry.read()).await {
                Ok(Ok(_)) => return true,
                Ok(Err(ReadError::Stopped(_))) => return false,
                Ok(Err(error)) => tracing::debug!(%error, "not ready yet"),
                Err(_) => tracing::warn!("no leader yet; still waiting for a majority of the members"),
            }
        }
    }

    /// Runs until `stop`, hands leadership over, lets requests end, and ends.
    ///
    /// # Errors
    /// If the other members refuse this one, or its registry failed.
    pub async fn run_until(&self, stop: CancellationToken) -> Result<(), RunError> {
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            reason = self.registry.refused() => Err(RunError::Banned(reason)),
            reason = self.registry.failed() => Err(RunError::Failed(reason)),
        };
        service::ends();
        let leadership = *self.registry.leadership().borrow();
        if leadership.is_me && self.registry.status().voters.len() > 1 {
            match tokio::time::timeout(HANDOVER_TIMEOUT, self.registry.transfer_leader(None)).await {
                Ok(Ok(())) => tracing::info!("leadership handed over"),
                Ok(Err(error)) => tracing::warn!(%error, "leadership could not be handed over"),
                Err(_) => tracing::warn!("leadership was not handed over in time"),
            }
        }
        self.closing.cancel();
        self.listeners.close();
        self.tasks.close();
        // Requests that are under way need the duties until they are answered.
        let listeners = tokio::time::timeout(END_TIMEOUT, self.listeners.wait());
        if listeners.await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
        }
        self.stop.cancel();
        if tokio::time::timeout(END_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time and are cut off");
        }
        self.registry.clone().shutdown().await;
        ended
    }
}

/// Does the first commands of a new cluster.
///
/// # Errors
/// If one was refused.
pub async fn found(registry: &Registry, genesis: Vec<Command>) -> Result<(), RunError> {
    let replies = registry.bootstrap(genesis).await.map_err(RunError::Founding)?;
    match replies.into_iter().find(|reply| matches!(reply, Reply::Refused(_))) {
        Some(refused) => Err(RunError::Refused(refused.to_string())),
        None => Ok(()),
    }
}

/// What runs here, for the others.
pub fn program(node: String) -> Program {
    Program { node, version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// Names under which every server answers to programs on its own host.
pub fn loopback_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}
