//! `mesh-proxy run`: the one place where everything is made and joined. Each runtime thread has its own spines and
//! sockets; one more, this one, follows the control plane, keeps identities fresh, checks and registers.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use model::{name::ServiceName, resource::NodeSpec};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin},
    capture,
    config::{
        cache::Cache,
        watch::{Ack, Follower},
    },
    control::Control,
    handover::{Orders, Post},
    identity::{Identity, IdentityError, Keep},
    listener::{BindError, Sockets},
    register::{Place, Registrar, Standing, checks, checks::memory::Memory, follow_address, route_to},
    services::{Followed, Services},
    settings::{DnsUpstream, Server, Settings},
    shared::Shared,
    telemetry::{AccessLog, Exporter, Outlets, open_spans},
};

mod ending;
mod local;
mod threads;
mod upstreams;

use threads::{Socket, Threads};
use upstreams::Upstreams;

/// Where a host names its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a worker that starts waits to hear what the control plane has to say beyond what stands on the disk.
const SYNC_PATIENCE: Duration = Duration::from_secs(2);
/// How long leaving the registry may take, at the very end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Identity or trust.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The settings and the identity contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// What the process is told from outside, and what it was handed.
#[derive(Clone)]
pub struct Surroundings {
    /// What it is told.
    pub orders: Orders,
    /// Where its listening sockets come from.
    pub sockets: Sockets,
    /// Its supervisor, if it has one.
    pub post: Option<Post>,
}

/// Runs the proxy until it is told to leave. To be called on a runtime of one thread.
///
/// # Errors
/// If it cannot start.
pub async fn run(settings: Settings, surroundings: Surroundings) -> Result<(), RunError> {
    let Surroundings { orders, sockets, post } = surroundings;
    let keep = Keep::open(&settings.data_dir)?;
    keep.settle()?;
    let identity = Arc::new(Identity::load(keep)?);
    check_name(&settings, &identity)?;
    let mut followed = Followed::new(&settings.services_dir);
    let services = local::read(&settings.services_dir, &Services::default())?;
    identity.adopt(&services.names());
    let (shared, wanted) = Shared::new(
        identity.node().trust_domain.clone(),
        identity.services(),
        identity.trust(),
        identity.trust_changes(),
    );
    local::bind(&shared, &settings, &services);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (outlets, exporter) = open_outlets(&settings)?;
    let threads = Threads::start(&shared, &outlets, settings.threads(cores), sockets)?;
    let stop = CancellationToken::new();
    let inbound = threads.listen(&settings, &stop).await?;
    let mut upstreams = Upstreams::default();
    upstreams.reconcile(&threads, &services).await;
    let (services, watched) = watch::channel(Arc::new(services));
    let control = control(&settings, &identity);
    let hub = Hub::new(&settings, identity, shared, control, watched, orders.clone());
    let tasks = hub.spawn(&settings, inbound, wanted, &threads, &outlets, &stop)?;
    let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(stop.clone())));
    tracing::info!(node = %hub.identity.node().node, threads = threads.senders.len(), "running");
    if post.is_some() {
        hub.catch_up().await;
    }
    threads.open();
    if let Some(post) = &post {
        post.ready();
        threads.sockets.close_rest();
    }
    let (mut reload, mut pings) = (orders.reload.subscribe(), orders.pings.subscribe());
    let mut hand_over = orders.hand_over.subscribe();
    let successor = loop {
        tokio::select! {
            () = orders.leave.cancelled() => break None,
            Ok(patience) = hand_over.wait_for(Option::is_some) => break *patience,
            Ok(()) = reload.changed() => hub.reload(&settings, &services, &threads, &mut upstreams).await,
            () = followed.changed() => hub.reload(&settings, &services, &threads, &mut upstreams).await,
            Ok(()) = pings.changed() => if threads.all_there().await { post.iter().for_each(Post::pong) },
        }
    };
    match successor {
        Some(patience) => {
            // Where connections wait to be taken is the successor's now.
            stop.cancel();
            upstreams.leave();
            hub.end_beside_successor(patience, settings.drain()).await;
        }
        None => {
            hub.drain(settings.drain()).await;
            stop.cancel();
            upstreams.leave();
        }
    }
    drop(tasks);
    drop(threads);
    if let Some(exporting) = exporting {
        // The last spans may be lost, as any may.
        drop(timeout(LEAVE_TIMEOUT, exporting).await);
    }
    Ok(())
}

/// Where calls are told of, and what sends the spans among it away, if anybody wants them.
fn open_outlets(settings: &Settings) -> Result<(Outlets, Option<Exporter>), RunError> {
    let log = AccessLog::open(&settings.access_log.output);
    let log = log.map_err(|source| RunError::Io { what: "access_log.output".to_owned(), source })?;
    let (spans, exporter) = open_spans(&settings.tracing);
    Ok((Outlets { log, spans }, exporter))
}

fn check_name(settings: &Settings, identity: &Identity) -> Result<(), RunError> {
    let joined = &identity.node().node;
    match &settings.node {
        Some(node) if node != joined => Err(RunError::Settings(format!(
            "proxy.toml says node = \"{node}\", but this host joined as \"{joined}\""
        ))),
        _ => Ok(()),
    }
}

fn control(settings: &Settings, identity: &Identity) -> Arc<Control> {
    let epoch = identity.node().epoch.clone();
    Arc::new(Control::new(identity.servers(settings), Some(identity.slot()), identity.trust(), epoch))
}

/// Everything of the control thread.
struct Hub {
    identity: Arc<Identity>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    services: watch::Receiver<Arc<Services>>,
    names: watch::Sender<std::collections::BTreeSet<ServiceName>>,
    acks: watch::Sender<Ack>,
    node: watch::Sender<Option<NodeSpec>>,
    standing: watch::Sender<Standing>,
    leaving: watch::Sender<bool>,
    orders: Orders,
    /// One of the control plane, by the way to which this host's address is known.
    server: Option<Server>,
}

impl Hub {
    /// Better not the successor of one that knows more, nor one that takes a call before it knows whom it is for; but a
    /// control plane that is away holds up nobody.
    async fn catch_up(&self) {
        drop(timeout(SYNC_PATIENCE, self.shared.in_sync.cancelled()).await);
    }

    fn new(
        settings: &Settings,
        identity: Arc<Identity>,
        shared: Arc<Shared>,
        control: Arc<Control>,
        services: watch::Receiver<Arc<Services>>,
        orders: Orders,
    ) -> Self {
        let names = watch::Sender::new(services.borrow().names());
        let server = identity.servers(settings).into_iter().next();
        Self {
            identity,
            shared,
            control,
            services,
            names,
            acks: watch::Sender::new(Ack::default()),
            node: watch::Sender::new(None),
            standing: watch::Sender::new(Standing::default()),
            leaving: watch::Sender::new(false),
            orders,
            server,
        }
    }

    fn spawn(
        &self,
        settings: &Settings,
        inbound: Option<SocketAddr>,
        wanted: mpsc::Receiver<ServiceName>,
        threads: &Threads,
        outlets: &Outlets,
        stop: &CancellationToken,
    ) -> Result<JoinSet<()>, RunError> {
        let mut tasks = JoinSet::new();
        let (identity, control, names) =
            (self.identity.clone(), self.control.clone(), self.names.subscribe());
        self.speak(&mut tasks, async move { identity.keep_fresh(&control, names).await });
        let mut follower = Follower {
            control: self.control.clone(),
            identity: self.identity.clone(),
            shared: self.shared.clone(),
            cache: Cache::of(&settings.data_dir),
            services: self.services.clone(),
            wanted,
            acks: self.acks.clone(),
            node: self.node.clone(),
            router_identity: settings.host_router_identity.clone(),
            orders: self.orders.clone(),
        };
        let position = follower.begin();
        tasks.spawn(follower.run(position));
        self.speak(&mut tasks, capture::tell(self.shared.clone(), settings.data_dir.clone()));
        self.resolve_for_others(settings, &mut tasks);
        let memory = Memory::of_runtime_folder();
        let health = watch::Sender::new(memory.recall());
        tasks.spawn(checks::run(self.identity.node().node.clone(), self.services.clone(), health.clone()));
        self.speak(&mut tasks, memory.keep(health.subscribe()));
        let place = self.place(settings, inbound, &mut tasks);
        self.speak(&mut tasks, self.registrar(health.subscribe(), place).run());
        let admin = Arc::new(Admin {
            identity: self.identity.clone(),
            shared: self.shared.clone(),
            services: self.services.clone(),
            standing: self.standing.subscribe(),
            acks: self.acks.subscribe(),
            counts: threads.counts.clone(),
            outlets: outlets.clone(),
        });
        for &address in &settings.listen.admin.0 {
            let bound = threads.sockets.bind(address)?;
            tracing::info!(address = %bound.address(), "admin");
            for socket in bound.split(1)? {
                let (admin, stop) = (admin.clone(), stop.clone());
                tasks.spawn(async move {
                    if let Err(error) = admin::serve(admin, socket, stop).await {
                        tracing::error!(%error, "the admin listener cannot be used");
                    }
                });
            }
        }
        Ok(tasks)
    }

    /// Does what only one process of a host may do, for as long as this is the one.
    fn speak(&self, tasks: &mut JoinSet<()>, work: impl Future<Output = ()> + Send + 'static) {
        let (go, mut hand_over) = (self.orders.go.clone(), self.orders.hand_over.subscribe());
        tasks.spawn(async move {
            go.cancelled().await;
            tokio::select! {
                () = work => {}
                _ = hand_over.wait_for(Option::is_some) => {}
            }
        });
    }

    /// Says who answers for names that are not of the mesh.
    fn resolve_for_others(&self, settings: &Settings, tasks: &mut JoinSet<()>) {
        let (shared, own) = (self.shared.clone(), settings.listen.dns.0.clone());
        match &settings.dns_upstream {
            DnsUpstream::Nobody => {}
            DnsUpstream::These(resolvers) => shared.upstream.set(resolvers.clone()),
            DnsUpstream::System => {
                tasks.spawn(async move { shared.upstream.follow(Path::new(RESOLV_CONF), &own).await });
            }
        }
    }

    /// Where others dial this host; where the settings do not say it, its address may change.
    fn place(
        &self,
        settings: &Settings,
        inbound: Option<SocketAddr>,
        tasks: &mut JoinSet<()>,
    ) -> watch::Receiver<Place> {
        let specified = inbound.map(|address| address.ip()).filter(|address| !address.is_unspecified());
        let found = settings.advertise.or_else(|| route_to(self.server.as_ref()?)).or(specified);
        let address = found.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let place = Place { address, port: inbound.map_or(15_008, |address| address.port()) };
        let (place, followed) = watch::channel(place);
        if let Some(server) = self.server.clone().filter(|_| settings.advertise.is_none()) {
            tasks.spawn(follow_address(server, place));
        }
        followed
    }

    fn registrar(
        &self,
        health: watch::Receiver<std::collections::BTreeMap<model::name::Name, model::resource::Health>>,
        place: watch::Receiver<Place>,
    ) -> Registrar {
        Registrar {
            control: self.control.clone(),
            node: self.identity.node().node.clone(),
            place,
            services: self.services.clone(),
            health,
            granted: self.node.subscribe(),
            acks: self.acks.subscribe(),
            leaving: self.leaving.subscribe(),
            lore: self.shared.lore.clone(),
            standing: self.standing.clone(),
        }
    }

    async fn reload(
        &self,
        settings: &Settings,
        services: &watch::Sender<Arc<Services>>,
        threads: &Threads,
        upstreams: &mut Upstreams,
    ) {
        let before = services.borrow().clone();
        match local::read_again(settings, &before).await {
            Err(error) => tracing::error!(%error, "the services stay as they were"),
            // Listeners that could not be opened may be opened now.
            Ok(read) if read == *before => upstreams.reconcile(threads, &read).await,
            Ok(read) => {
                local::bind(&self.shared, settings, &read);
                tracing::info!(services = read.names().len(), "services.d was read again");
                upstreams.reconcile(threads, &read).await;
                self.names.send_replace(read.names());
                services.send_replace(Arc::new(read));
            }
        }
    }
}
