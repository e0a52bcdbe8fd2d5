//! What all runtime threads of the proxy see: the snapshot, who we are, whether we are going away. Read without locks;
//! replaced whole by the control thread.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use model::{
    identity::TrustDomain,
    name::{Name, ServiceName},
};
use svid::{Identities, TrustStore};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use traffic::snapshot::Snapshot;

use crate::{caller::Bindings, dns::forward::Upstream, experience::Lore, rates::Rates};

/// Destinations that wait to be subscribed: each is a name, asked for by calls that wait for it themselves.
pub const WANTED_MAX: usize = 1_024;

/// What all runtime threads see.
pub struct Shared {
    /// The configuration in force.
    config: ArcSwap<Config>,
    changed: watch::Sender<u64>,
    guarded: watch::Sender<u64>,
    /// Who speaks for which local service.
    bindings: ArcSwap<Bindings>,
    wanted: mpsc::Sender<ServiceName>,
    /// The identities of the local services.
    pub identities: Arc<Identities>,
    /// Whom we believe.
    pub trust: Arc<TrustStore>,
    /// Raised when trust is replaced.
    pub trust_changes: watch::Receiver<u64>,
    /// What the threads know together of whom they call.
    pub lore: Arc<Lore>,
    /// How often the services of this host are called.
    pub rates: Rates,
    /// Who answers for names that are not of the mesh.
    pub upstream: Upstream,
    /// Set when the control plane has once said all that there is, since the start.
    pub in_sync: CancellationToken,
    /// Set when the proxy goes away: answers say so, and connections end with what they carry.
    pub draining: CancellationToken,
    /// Set after that, when connections of applications that carry nothing end, too.
    pub closing: CancellationToken,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
}

/// One configuration, whole.
#[derive(Debug)]
pub struct Config {
    /// What the registry says.
    pub snapshot: Arc<Snapshot>,
    /// The destinations whose endpoints and routes are in it; `None` is all of them.
    pub subscribed: Option<Arc<HashSet<ServiceName>>>,
    /// This host's endpoints: where the application of each listens.
    pub targets: HashMap<Name, SocketAddr>,
    /// In whose name the host router calls where nothing is bound, if that can be told.
    pub router_identity: Option<ServiceName>,
}

/// A call that is under way; drain waits for its end.
pub struct UnderWay(Arc<Shared>);

/// A connection that was taken; who hands over to a successor waits for its end.
pub struct Connected(Arc<Shared>);

impl Shared {
    /// What stands before anything is known. The receiver gets the destinations that calls want to be subscribed.
    pub fn new(
        domain: TrustDomain,
        identities: Arc<Identities>,
        trust: Arc<TrustStore>,
        trust_changes: watch::Receiver<u64>,
    ) -> (Arc<Self>, mpsc::Receiver<ServiceName>) {
        let (wanted, asked) = mpsc::channel(WANTED_MAX);
        let config = ArcSwap::from_pointee(Config::new(Arc::new(Snapshot::empty(domain))));
        let (changed, guarded, bindings) = (watch::Sender::new(0), watch::Sender::new(0), ArcSwap::default());
        let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
        let in_sync = CancellationToken::new();
        let (in_flight, connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (lore, rates, upstream) = (Arc::<Lore>::default(), Rates::default(), Upstream::default());
        let shared = Self {
            config,
            changed,
            guarded,
            bindings,
            wanted,
            identities,
            trust,
            trust_changes,
            lore,
            rates,
            upstream,
            in_sync,
            draining,
            closing,
            in_flight,
            connections,
        };
        (Arc::new(shared), asked)
    }

    /// The configuration in force: one for the whole of a request.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Puts a configuration in force.
    pub fn swap(&self, config: Config) {
        let now = Arc::new(config);
        let before = self.config.swap(Arc::clone(&now));
        self.changed.send_modify(|version| *version += 1);
        if !now.snapshot.inbound().is_guarded_as(before.snapshot.inbound()) {
            self.guarded.send_modify(|version| *version += 1);
        }
    }

    /// Raised with each configuration.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Raised with each configuration by which somebody may not be let in any more: seldom, as each caller's connection and
    /// stream hears of it.
    pub fn guard_changes(&self) -> watch::Receiver<u64> {
        self.guarded.subscribe()
    }

    /// A configuration that has what is looked for, if one comes in time.
    pub async fn configured(&self, within: Duration, has: impl Fn(&Config) -> bool) -> Option<Arc<Config>> {
        let mut changes = self.changes();
        let come = async {
            loop {
                let config = self.config();
                if has(&config) {
                    return config;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(within, come).await.ok()
    }

    /// The configuration in force, as soon as it says whose a virtual IP is, or all is known that there is to know, or
    /// nobody has told in time.
    pub async fn introduced(&self, ip: IpAddr, within: Duration) -> Arc<Config> {
        let knows = |config: &Config| config.snapshot.by_virtual_ip(ip).is_some();
        tokio::select! {
            _ = self.configured(within, knows) => {}
            () = self.in_sync.cancelled() => {}
        }
        self.config()
    }

    /// Who speaks for which local service, from now on: before a listener is opened for one.
    pub fn bind(&self, bindings: Bindings) {
        self.bindings.store(Arc::new(bindings));
    }

    /// Whether anything on this host is bound: asked with each call, so that hosts without it pay next to nothing.
    pub fn binds(&self) -> bool {
        self.bindings.load().table().enforces()
    }

    /// Who speaks for which local service.
    pub fn bindings(&self) -> Arc<Bindings> {
        self.bindings.load_full()
    }

    /// Asks for a destination's endpoints. Whether they came is seen in a later configuration.
    pub fn want(&self, service: &ServiceName) {
        // A full queue is no loss: who waits asks again.
        let _ = self.wanted.try_send(service.clone());
    }

    /// Counts a call until what is returned is dropped.
    pub fn under_way(self: &Arc<Self>) -> UnderWay {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Counts a connection that was taken until what is returned is dropped.
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// Connections that were taken and have not ended.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Calls that are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Config {
    /// A snapshot that holds everything, of a host that runs nothing.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, subscribed: None, targets: HashMap::new(), router_identity: None }
    }

    /// Whether a destination's endpoints and routes are in it.
    pub fn has(&self, service: &ServiceName) -> bool {
        self.subscribed.as_ref().is_none_or(|subscribed| subscribed.contains(service))
    }
}
