//! Pure. An endpoint: where an instance of a service is reached, and what says whether it is usable. The registry's view
//! stands in it; the caller's own experience is [`Ejection`]; the checks of a host's own applications are [`health`].

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use model::{
    identity::SpiffeId,
    name::{Name, ServiceName},
};

use crate::hash::hash;

mod ejection;
pub mod health;
mod latency;
pub mod outlier;

pub use ejection::{Ejection, Standing};
pub use latency::Latency;
pub use model::resource::Health;

/// One instance of a service: behind its host's proxy, or, where a discovery source brought it, without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What run-time state is kept under.
    pub key: EndpointKey,
    /// Who must answer the handshake, where there is a proxy.
    pub id: SpiffeId,
    /// The host that it runs on; none without a proxy.
    pub node: Option<Name>,
    /// The failure domain it stands in.
    pub zone: Option<Name>,
    /// Its share among its equals.
    pub weight: u32,
    /// Whether it should get traffic, by its own host.
    pub health: Health,
    /// Whether its host's session is lost, and it is kept all the same.
    pub stale: bool,
    /// Where its application listens itself, by the service's port.
    pub apps: Vec<(u16, u16)>,
    /// What its application shows who calls it itself; none in plaintext.
    pub tls: Option<Arc<AppTls>>,
}

/// An application, as it is called past any proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppAddress {
    /// Where it listens.
    pub socket: SocketAddr,
    /// What it shows its callers; none in plaintext.
    pub tls: Option<Arc<AppTls>>,
}

/// What an application shows those who call it over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppTls {
    /// The name in its certificate.
    pub hostname: String,
    /// The file of what its certificate comes from; none for what the host trusts.
    pub ca_file: Option<String>,
}

impl From<SocketAddr> for AppAddress {
    fn from(socket: SocketAddr) -> Self {
        Self { socket, tls: None }
    }
}

impl fmt::Display for AppAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket)?;
        self.tls.iter().try_for_each(|tls| write!(f, " as {}", tls.hostname))
    }
}

impl Endpoint {
    /// Whether it stands behind a proxy. One that does not is called itself, in plaintext or as its source says.
    pub fn has_proxy(&self) -> bool {
        self.node.is_some()
    }

    /// Where its application itself answers for a port of the service.
    pub fn app(&self, port: u16) -> Option<SocketAddr> {
        let (_, own) = self.apps.iter().find(|(known, _)| *known == port)?;
        Some(SocketAddr::new(self.key.address().ip(), *own))
    }
}

/// An endpoint across snapshots: the same key means that connections, counts and experience still hold. An endpoint that
/// moves to another address gets another key.
#[derive(Clone)]
pub struct EndpointKey(Arc<Parts>);

struct Parts {
    service: ServiceName,
    name: Name,
    address: SocketAddr,
    /// Made once: it is looked up several times for each request.
    hash: u64,
    /// The same in every proxy, as it says the name alone.
    id: u64,
}

impl EndpointKey {
    /// The endpoint `name` of a service, whose proxy takes mTLS at `address`.
    pub fn new(service: ServiceName, name: Name, address: SocketAddr) -> Self {
        let mut hasher = DefaultHasher::new();
        (&service, &name, address).hash(&mut hasher);
        let id = hash(format!("{service}/{name}").as_bytes());
        Self(Arc::new(Parts { service, name, address, hash: hasher.finish(), id }))
    }

    /// The service that it is an instance of.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// The Endpoint's name, in the namespace of its service.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// A number that stands for its name, in every proxy alike.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Where its proxy takes mTLS; without one, where it is called.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

impl PartialEq for EndpointKey {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        let same = || a.address == b.address && a.name == b.name && a.service == b.service;
        Arc::ptr_eq(&self.0, &other.0) || (a.hash == b.hash && same())
    }
}

impl Eq for EndpointKey {}

impl Hash for EndpointKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.0.service.namespace, self.0.name, self.0.address)
    }
}
