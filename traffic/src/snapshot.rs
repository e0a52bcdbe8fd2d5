//! Pure. Everything one request may consult, at one revision. Never changed: replaced whole by what [`crate::compile`]
//! makes. A request looks things up here; nothing is parsed, locked or counted.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use model::{
    identity::{SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    object::Labels,
    resource::Protocol,
};

use crate::{
    Dice,
    balancer::Pool,
    compile::Sources,
    conduct::Conduct,
    endpoint::{AppAddress, AppTls, Endpoint},
    policy::PolicySet,
    request::{Caller, RequestHead},
    retry,
    route::{BackendName, Copied, RouteTable, Routed, Rule, Timeouts, Unroutable},
};

mod directory;

pub(crate) use directory::Directory;

/// Everything one request may consult.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision of the registry that it shows.
    pub revision: u64,
    /// The trust domain of all identities in it.
    pub domain: TrustDomain,
    /// The generation of the trust bundle that belongs to it.
    pub trust_generation: u64,
    /// Where this host stands, once that is known.
    pub place: Option<Place>,
    pub(crate) directory: Directory,
    pub(crate) inbound: Inbound,
    pub(crate) callers: BTreeMap<ServiceName, Labels>,
    pub(crate) sources: Sources,
}

/// Where a host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub node: Name,
    /// Its failure domain.
    pub zone: Option<Name>,
}

/// A service as callers see it.
#[derive(Debug)]
pub struct Destination {
    pub(crate) name: ServiceName,
    pub(crate) hostname: Arc<str>,
    pub(crate) virtual_ips: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
}

/// A port of a destination.
#[derive(Debug)]
pub struct Port {
    pub(crate) name: Option<Name>,
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    pub(crate) backend: Arc<Backend>,
    /// There are none where no route is for this port.
    pub(crate) routes: Option<RouteTable>,
    /// What a route says of streams.
    pub(crate) stream: Option<Rule>,
    /// Holds where no route does.
    pub(crate) default: Rule,
}

/// A set of endpoints that requests are sent to, and how.
#[derive(Debug)]
pub struct Backend {
    /// As routes name it.
    pub name: BackendName,
    /// The SNI for its endpoints: `<service>.<namespace>.mesh`.
    pub hostname: Arc<str>,
    /// Who must answer the handshake.
    pub id: SpiffeId,
    /// What its port speaks.
    pub protocol: Protocol,
    /// Its applications are called themselves: its mode is `Disabled`, or they have no proxy.
    pub plain: bool,
    /// How callers treat its service.
    pub conduct: Arc<Conduct>,
    /// Its endpoints.
    pub pool: Pool,
}

/// The services that this host runs.
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    pub(crate) services: Arc<HashMap<Arc<str>, OwnService>>,
}

/// A service that this host runs.
#[derive(Debug)]
pub struct OwnService {
    /// Its name.
    pub name: ServiceName,
    /// Its identity.
    pub id: SpiffeId,
    /// Who may call it.
    pub policies: Arc<PolicySet>,
    /// How it is treated, of which how often it may be called is this host's to see to.
    pub conduct: Arc<Conduct>,
    /// Its ports here.
    pub apps: Vec<App>,
}

/// Where this host's applications answer for a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The service's port.
    pub port: u16,
    /// What the applications speak.
    pub protocol: Protocol,
    /// Where they listen; more than one where the host runs several of the same service.
    pub targets: Vec<SocketAddr>,
}

// === impl Snapshot ===

impl Snapshot {
    /// What stands before anything is known: no service is.
    pub fn empty(domain: TrustDomain) -> Self {
        Self {
            revision: 0,
            domain,
            trust_generation: 0,
            place: None,
            directory: Directory::default(),
            inbound: Inbound::default(),
            callers: BTreeMap::new(),
            sources: Sources::default(),
        }
    }

    /// The service of that name, if the mesh has it. Its endpoints are here only if it is subscribed.
    pub fn destination(&self, service: &ServiceName) -> Option<&Arc<Destination>> {
        self.directory.services.get(service)
    }

    /// The service that a request's authority names: `orders.default.mesh`, in any case, a port and a final dot aside.
    pub fn by_hostname(&self, authority: &str) -> Option<&Arc<Destination>> {
        let host = authority.split_once(':').map_or(authority, |(host, _)| host);
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.directory.hostnames.get(host.to_ascii_lowercase().as_str());
        }
        self.directory.hostnames.get(host)
    }

    /// The service that has this virtual IP.
    pub fn by_virtual_ip(&self, ip: IpAddr) -> Option<&Arc<Destination>> {
        self.directory.virtual_ips.get(&ip)
    }

    /// Whether a service of the mesh is in that namespace.
    pub fn has_services_in(&self, namespace: &Name) -> bool {
        self.directory.namespaces.contains_key(namespace)
    }

    /// All services of the mesh, in no order.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.directory.services.values()
    }

    /// A service that calls from this host, as routes look at it.
    pub fn caller<'a>(&'a self, service: &'a ServiceName) -> Caller<'a> {
        Caller { service: Some(service), labels: self.callers.get(service) }
    }

    /// The services that this host runs.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }
}

// === impl Destination ===

impl Destination {
    /// Its name.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Its host name: `<service>.<namespace>.mesh`.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Its virtual IPs; none where the registry gave it none.
    pub fn virtual_ips(&self) -> &[IpAddr] {
        &self.virtual_ips
    }

    /// Its ports, in the order of the Service.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The port that callers dial as `number`. 80 is, unless it is taken, the first port for HTTP.
    pub fn port(&self, number: u16) -> Option<&Port> {
        let own = self.ports.iter().find(|port| port.number == number);
        own.or_else(|| if number == 80 { self.first_for_http() } else { None })
    }

    /// The port for callers who name none: 80, else the first for HTTP, else the first that may be, else the first.
    pub fn default_port(&self) -> Option<&Port> {
        let undeclared = || self.ports.iter().find(|port| port.protocol == Protocol::Auto);
        self.port(80).or_else(undeclared).or(self.ports.first())
    }

    /// The port for callers who name the service by their ClientHello alone: 443 if it is for TLS, else the first that is.
    pub fn tls_port(&self) -> Option<&Port> {
        let mut ports = self.ports.iter().filter(|port| port.protocol == Protocol::Tls);
        ports.clone().find(|port| port.number == 443).or_else(|| ports.next())
    }

    fn first_for_http(&self) -> Option<&Port> {
        self.ports.iter().find(|port| port.protocol.is_http())
    }
}

// === impl Port ===

impl Port {
    /// Its name, which a service's only port may lack.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// What callers dial.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// All endpoints of this port: where what goes for which no route stands.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Where a stream goes: drawn for each of them.
    pub fn stream(&self, dice: &mut Dice) -> Routed<'_> {
        self.stream.as_ref().unwrap_or(&self.default).routed(dice)
    }

    /// Where a request goes.
    pub fn route(&self, head: &RequestHead<'_>, caller: Caller<'_>, dice: &mut Dice) -> Routed<'_> {
        match &self.routes {
            None => self.default.routed(dice),
            Some(routes) => {
                routes.find(head, caller).map_or_else(|| self.unmatched(), |rule| rule.routed(dice))
            }
        }
    }

    fn unmatched(&self) -> Routed<'_> {
        let Rule { name, filters, .. } = &self.default;
        let (backend, timeouts) = (Err(&Unroutable::NoRule), Timeouts::default());
        let copied = [Copied { mirrors: &[], filters }; 2];
        Routed { rule: name, backend, filters, copied, timeouts, retry: &retry::Settings::DEFAULT }
    }
}

impl Backend {
    /// Its endpoints, draining ones too.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        self.pool.endpoints()
    }

    /// Where and how an endpoint's application is called itself, past any proxy.
    pub fn app(&self, endpoint: &Endpoint) -> Option<AppAddress> {
        let socket = endpoint.app(self.name.port)?;
        Some(AppAddress { socket, tls: self.tls(endpoint) })
    }

    /// What an endpoint's application shows, where it is called itself; none in plaintext. What callers wrap in TLS
    /// themselves is not wrapped again.
    pub fn tls(&self, endpoint: &Endpoint) -> Option<Arc<AppTls>> {
        endpoint.tls.clone().filter(|_| self.plain && self.protocol != Protocol::Tls)
    }
}

// === impl Inbound ===

impl Inbound {
    /// The own service that a TLS client asked for by SNI (lower case).
    pub fn by_server_name(&self, name: &str) -> Option<&OwnService> {
        self.services.get(name)
    }

    /// The own service and its application for which a connection to an address of this host is, and where the
    /// application listens: by the port, and by the address where two listen on that port.
    pub fn by_address(&self, address: SocketAddr) -> Option<(&OwnService, &App, SocketAddr)> {
        let apps = self.services.values().flat_map(|own| own.apps.iter().map(move |app| (own, app)));
        let targets = apps.flat_map(|(own, app)| app.targets.iter().map(move |target| (own, app, *target)));
        let same_port = targets.filter(|(.., target)| target.port() == address.port());
        same_port.max_by_key(|(own, app, target)| {
            (target.ip() == address.ip(), std::cmp::Reverse((own.name.clone(), app.port)))
        })
    }

    /// The own service of that name.
    pub fn service(&self, service: &ServiceName) -> Option<&OwnService> {
        self.services.values().find(|own| own.name == *service)
    }

    /// All of them, in no order.
    pub fn services(&self) -> impl Iterator<Item = &OwnService> {
        self.services.values()
    }

    /// Whether who may call is said by the very policies of `before`, for all services: what was let in then still is.
    pub fn is_guarded_as(&self, before: &Self) -> bool {
        let same = |(name, own): (&Arc<str>, &OwnService)| {
            let before = before.services.get(name);
            before.is_some_and(|before| Arc::ptr_eq(&before.policies, &own.policies))
        };
        self.services.iter().all(same)
    }
}

impl OwnService {
    /// Where a port of the service is answered.
    pub fn app(&self, port: u16) -> Option<&App> {
        self.apps.iter().find(|app| app.port == port)
    }
}

impl BackendName {
    /// All endpoints of a port.
    pub(crate) fn whole(service: &ServiceName, port: u16) -> Self {
        Self { service: service.clone(), port, subset: None }
    }

    /// The endpoints of one subset.
    pub(crate) fn part(service: &ServiceName, port: u16, subset: &Name) -> Self {
        Self { service: service.clone(), port, subset: Some(subset.clone()) }
    }
}
