//! A small mesh in one process: an authority, proxies with both their spines on loopback, and a snapshot made by hand.

#![allow(unreachable_pub, reason = "a part of one program")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use imbl::OrdMap;
use mesh_proxy::{
    inbound,
    outbound::Entry,
    shared::{Config, Shared},
    telemetry::{AccessLog, Counts, Facts, Outlets, Spans},
    worker::Worker,
};
use model::{identity::SpiffeId, name::ServiceName, object::Object, trust::Distrusted};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use svid::{Identities, Svid, Trust, TrustStore};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use traffic::compile::{Inputs, LocalApp, compile};

pub mod app;
pub mod client;

/// No step of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An authority.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    cert: rustls::pki_types::CertificateDer<'static>,
}

fn subject(kind: DnType, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(kind, name);
    subject
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://mesh.internal".try_into().expect("ASCII"))];
        let cert = params.self_signed(&key).expect("it signs").der().clone();
        Self { params, key, cert }
    }

    /// An identity, as our authorities sign them, for `life` from now.
    pub fn svid(&self, id: &str, node: &str, life: Duration) -> Svid {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(DnType::OrganizationalUnitName, node);
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::from(mesh_now());
        params.not_before = now - Duration::from_secs(300);
        params.not_after = now + life;
        let issuer = Issuer::from_params(&self.params, &self.key);
        let cert = params.signed_by(&key, &issuer).expect("it signs").der().clone();
        Svid::new(vec![cert], PrivateKeyDer::Pkcs8(key.serialize_der().into())).expect("an SVID")
    }

    /// A chain for a request's key, as PEM.
    pub fn sign(&self, csr: &str, id: &str) -> String {
        let request = rcgen::CertificateSigningRequestParams::from_pem(csr).expect("a request");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(DnType::OrganizationalUnitName, "host-a");
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let cert = params.signed_by(&request.public_key, &issuer).expect("it signs");
        svid::pem::encode_chain(&[cert.der().clone()])
    }

    /// The root certificate, as PEM.
    pub fn root(&self) -> String {
        svid::pem::encode_chain(std::slice::from_ref(&self.cert))
    }

    pub fn trust(&self, distrusted: Distrusted) -> Trust {
        Trust::new("mesh.internal".parse().expect("a domain"), 1, vec![self.cert.clone()], distrusted)
            .expect("trust")
    }
}

fn mesh_now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(mesh_proxy::clock::wall().0)
}

pub fn service(name: &str) -> ServiceName {
    format!("default/{name}").parse().expect("a name")
}

pub fn id(name: &str) -> SpiffeId {
    format!("spiffe://mesh.internal/ns/default/svc/{name}").parse().expect("an id")
}

/// An application that a proxy stands before.
#[derive(Debug, Clone)]
pub struct Local {
    pub service: &'static str,
    pub port: u16,
    pub protocol: &'static str,
    pub target: SocketAddr,
    pub version: &'static str,
}

pub fn local(service: &'static str, port: u16, protocol: &'static str, target: SocketAddr) -> Local {
    Local { service, port, protocol, target, version: "v1" }
}

/// One proxy: both spines of one thread.
pub struct Proxy {
    pub name: String,
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    pub trust: Arc<TrustStore>,
    pub trust_changed: watch::Sender<u64>,
    pub stop: CancellationToken,
    pub log: Log,
    pub wanted: mpsc::Receiver<ServiceName>,
    pub counts: Arc<Counts>,
    worker: Worker,
    locals: Vec<Local>,
}

/// What a proxy's log of calls says.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// All lines so far.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Throws all lines away.
    pub fn forget(&self) {
        *self.0.lock().expect("whole") = Vec::new();
    }

    /// The first line that `wanted` likes, as soon as there is one.
    pub async fn line(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        until("a line in the log", || {
            let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("text");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).find(&wanted)
        })
        .await
    }
}

/// Looks again and again until `look` sees something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::from_std(mesh_proxy::clock::now()) + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(tokio::time::Instant::from_std(mesh_proxy::clock::now()) < deadline, "{what} did not come");
        // Poll: what is looked for is made by tasks that tell nobody.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Proxies that know each other.
pub struct World {
    pub authority: Authority,
    pub routes: Vec<Object>,
    revision: u64,
    /// Endpoints by name that are said to be other than healthy.
    pub health: BTreeMap<String, &'static str>,
}

impl World {
    pub fn new() -> Self {
        Self { authority: Authority::new(), routes: Vec::new(), revision: 0, health: BTreeMap::new() }
    }

    /// A proxy on a port of its own, with an identity for each of its services and of `callers`.
    pub fn proxy(&self, name: &str, callers: &[&str], locals: Vec<Local>) -> Proxy {
        self.proxy_without(&[], name, callers, locals)
    }

    /// A proxy as one of an earlier version is, which does not speak `protocols` with others.
    pub fn proxy_without(
        &self,
        protocols: &[&[u8]],
        name: &str,
        callers: &[&str],
        locals: Vec<Local>,
    ) -> Proxy {
        let (trust, identities) =
            (TrustStore::new(self.authority.trust(Distrusted::default())), Identities::new());
        let services: BTreeSet<&str> =
            callers.iter().copied().chain(locals.iter().map(|local| local.service)).collect();
        for own in services {
            let svid = self.authority.svid(&id(own).to_string(), name, Duration::from_secs(3_600));
            identities.put(&service(own), svid);
        }
        let trust_changed = watch::Sender::new(0);
        let domain = "mesh.internal".parse().expect("a domain");
        let (shared, wanted) = Shared::new(domain, identities, trust.clone(), trust_changed.subscribe());
        let log = Log::default();
        let mut tls = (*inbound::tls(&shared)).clone();
        tls.alpn_protocols.retain(|known| !protocols.contains(&&known[..]));
        let worker = Worker::new(
            &shared,
            Arc::new(tls),
            Outlets { log: AccessLog::to(log.clone()), spans: Spans::off() },
        );
        let (stop, counts) = (CancellationToken::new(), worker.counts());
        let (address, socket) = bound();
        worker.listen_inbound(socket, stop.clone()).expect("listening");
        worker.keep_house(true);
        let name = name.to_owned();
        Proxy { name, shared, address, trust, trust_changed, stop, log, wanted, counts, worker, locals }
    }

    /// Tells all proxies of all services and endpoints.
    pub fn publish(&mut self, proxies: &[&Proxy]) {
        self.revision += 1;
        let mut objects = OrdMap::new();
        for object in proxies.iter().flat_map(|proxy| self.objects(proxy)).chain(self.routes.clone()) {
            objects.insert(object.key(), Arc::new(object));
        }
        for proxy in proxies {
            proxy.swap(self.revision, objects.clone());
        }
    }

    fn objects(&self, proxy: &Proxy) -> Vec<Object> {
        let mut objects = Vec::new();
        for local in &proxy.locals {
            let ports = proxy.locals.iter().filter(|other| other.service == local.service);
            let ports: BTreeMap<u16, &Local> = ports.map(|local| (local.port, local)).collect();
            let service_ports: Vec<_> = ports
                .values()
                .map(|local| serde_json::json!({"name": format!("p{}", local.port), "port": local.port, "protocol": local.protocol}))
                .collect();
            objects.push(object(serde_json::json!({
                "kind": "Service", "metadata": {"namespace": "default", "name": local.service},
                "spec": {"ports": service_ports, "subsets": [
                    {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]},
            })));
            let name = format!("{}-{}-{}", local.service, proxy.name, local.target.port());
            let health = self.health.get(&name).copied().unwrap_or("Healthy");
            objects.push(object(serde_json::json!({
                "kind": "Endpoint",
                "metadata": {"namespace": "default", "name": name, "labels": {"version": local.version}},
                "spec": {"service": local.service, "node": proxy.name, "address": proxy.address.ip(),
                    "inboundPort": proxy.address.port(), "ports": [{"port": local.port, "targetPort": local.target.port()}]},
                "status": {"health": health, "stale": false},
            })));
        }
        objects
    }
}

pub fn object(value: serde_json::Value) -> Object {
    serde_json::from_value(value).expect("an object")
}

impl Proxy {
    fn swap(&self, revision: u64, objects: OrdMap<model::object::Key, Arc<Object>>) {
        let local = |local: &Local| LocalApp {
            service: service(local.service),
            port: local.port,
            protocol: match local.protocol {
                "http" => model::resource::Protocol::Http,
                "http2" => model::resource::Protocol::Http2,
                "grpc" => model::resource::Protocol::Grpc,
                "tcp" => model::resource::Protocol::Tcp,
                "tls" => model::resource::Protocol::Tls,
                _ => model::resource::Protocol::Auto,
            },
            target: local.target,
        };
        let inputs = Inputs {
            revision,
            domain: "mesh.internal".parse().expect("a domain"),
            trust_generation: 1,
            objects,
            local: self.locals.iter().map(local).collect(),
            callers: BTreeMap::new(),
        };
        let snapshot = compile(None, &inputs).expect("it compiles");
        let name = |local: &Local| format!("{}-{}-{}", local.service, self.name, local.target.port());
        let targets =
            self.locals.iter().map(|local| (name(local).parse().expect("a name"), local.target)).collect();
        let callers = self.shared.identities.services();
        let router_identity = if callers.len() == 1 { callers.into_iter().next() } else { None };
        self.shared.swap(Config { snapshot: Arc::new(snapshot), subscribed: None, targets, router_identity });
    }

    /// An explicit listener.
    pub fn upstream(&self, source: &str, destination: &str, port: Option<u16>) -> SocketAddr {
        self.listener(Entry::Upstream { source: service(source), destination: service(destination), port })
    }

    /// A listener for local applications.
    pub fn listener(&self, entry: Entry) -> SocketAddr {
        let (address, socket) = bound();
        self.worker.listen_outbound(entry, socket, self.stop.clone()).expect("listening");
        address
    }

    /// A listener that routes by Host.
    pub fn host_router(&self) -> SocketAddr {
        let (address, socket) = bound();
        let entry = Entry::HostRouter { port: address.port() };
        self.worker.listen_outbound(entry, socket, self.stop.clone()).expect("listening");
        address
    }

    /// What it counted.
    pub fn metrics(&self) -> String {
        Counts::text([&self.counts].into_iter(), &Facts::default())
    }

    /// Believes something else from now on.
    pub fn believe(&self, trust: Trust) {
        self.trust.replace(trust);
        self.trust_changed.send_modify(|version| *version += 1);
    }
}

fn bound() -> (SocketAddr, std::net::TcpListener) {
    let bound = mesh_proxy::listener::Bound::new("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = bound.address();
    (address, bound.split(1).expect("one").remove(0))
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address")
}
