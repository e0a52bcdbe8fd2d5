//! A small world for tests: authorities that sign whatever a test makes of a certificate, a clock that stands where it
//! is put, and handshakes in memory.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of the world")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    identity::{SpiffeId, TrustDomain},
    trust::Distrusted,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, ServerConfig, ServerConnection,
    SideData,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use svid::{
    Accept, Expect, IdentitySlot, Svid, Trust, TrustStore, client_config, provider, refusal, server_config,
};
use time::OffsetDateTime;

pub const DOMAIN: &str = "mesh.internal";
/// Where the clock stands at first, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;
pub const HOUR: u64 = 3_600;
pub const ALPN: &[u8] = b"h2";

/// A clock that stands.
#[derive(Debug)]
pub struct Standing(AtomicU64);

impl Standing {
    pub fn put(&self, secs: u64) {
        self.0.store(secs, Ordering::SeqCst);
    }
}

impl TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.load(Ordering::SeqCst)))
    }
}

pub fn unix(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

fn moment(secs: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(secs.try_into().expect("a small number")).expect("a date")
}

/// A certificate that signs, with its key.
pub struct Authority {
    pub cert: CertificateDer<'static>,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub fn root(name: &str, uri: &str) -> Self {
        let (params, key) = (authority_params(name, uri), KeyPair::generate().expect("a key"));
        let cert = params.self_signed(&key).expect("it signs").der().clone();
        Self { cert, params, key }
    }

    /// An authority below this one, as `change` makes it.
    pub fn authority(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = authority_params(name, &format!("spiffe://{DOMAIN}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let cert = self.sign(&params, &key);
        Self { cert, params, key }
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(key, &issuer).expect("it signs").der().clone()
    }

    /// SHA-256 of the public key, by which it is distrusted.
    pub fn fingerprint(&self) -> String {
        use aws_lc_rs::digest::{SHA256, digest};
        model::token::hex(digest(&SHA256, &self.key.subject_public_key_info()).as_ref())
    }
}

fn authority_params(name: &str, uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = moment(NOW - 1_000 * HOUR);
    params.not_after = moment(NOW + 1_000 * HOUR);
    params.subject_alt_names = vec![uri_name(uri)];
    params
}

pub fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

pub fn unit(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationalUnitName, name);
    subject
}

pub fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

/// An extension as given, byte by byte.
pub fn extension(oid: &[u64], critical: bool, value: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A chain with the leaf's key: what a peer presents.
pub struct Chain {
    pub certs: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Chain {
    pub fn certified(&self) -> Arc<SingleCertAndKey> {
        let key = provider().key_provider.load_private_key(self.key.clone_key()).expect("a key");
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.certs.clone(), key)))
    }

    pub fn svid(&self) -> Svid {
        Svid::new(self.certs.clone(), self.key.clone_key()).expect("an SVID")
    }
}

pub struct World {
    pub root: Authority,
    pub intermediate: Authority,
    pub clock: Arc<Standing>,
}

pub fn world() -> World {
    let root = Authority::root("root", &format!("spiffe://{DOMAIN}"));
    let intermediate = root.authority("meshd-1", |_| {});
    World { root, intermediate, clock: Arc::new(Standing(AtomicU64::new(NOW))) }
}

pub fn id(path: &str) -> SpiffeId {
    format!("spiffe://{DOMAIN}{path}").parse().expect("an id")
}

pub fn domain() -> TrustDomain {
    DOMAIN.parse().expect("a domain")
}

impl World {
    pub fn trust(&self) -> Arc<TrustStore> {
        TrustStore::new(self.trust_but(Distrusted::default()))
    }

    pub fn trust_but(&self, distrusted: Distrusted) -> Trust {
        Trust::new(domain(), 1, vec![self.root.cert.clone()], distrusted).expect("trust")
    }

    /// A good leaf for `path`, signed by the intermediate.
    pub fn leaf(&self, path: &str) -> Chain {
        self.bad_leaf(path, |_| {})
    }

    /// A leaf for `path` as `change` makes it.
    pub fn bad_leaf(&self, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        self.leaf_of(&self.intermediate, path, change)
    }

    /// A leaf that another intermediate of the root signs.
    pub fn leaf_of(&self, by: &Authority, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = unit("host-a");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = moment(NOW - 300);
        params.not_after = moment(NOW + 72 * HOUR);
        params.subject_alt_names = vec![uri_name(&format!("spiffe://{DOMAIN}{path}"))];
        change(&mut params);
        let certs = vec![by.sign(&params, &key), by.cert.clone()];
        Chain { certs, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    /// A listener that is `chain`, whatever that is.
    pub fn server(&self, chain: &Chain, trust: Arc<TrustStore>, accept: Accept) -> ServerConfig {
        server_config(chain.certified(), trust, accept, &[ALPN], self.clock.clone())
    }

    /// A dialler that is `chain`, whatever that is; `None` has no certificate.
    pub fn client(&self, chain: Option<&Chain>, trust: Arc<TrustStore>, expect: Expect) -> ClientConfig {
        let mut config = client_config(None, trust, expect, &[ALPN], self.clock.clone());
        if let Some(chain) = chain {
            config.client_auth_cert_resolver = chain.certified();
        }
        config
    }
}

pub fn slot(chain: &Chain) -> Arc<IdentitySlot> {
    IdentitySlot::new(chain.svid())
}

/// Makes times of a leaf.
pub fn valid(from: u64, to: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.not_before = moment(from);
        params.not_after = moment(to);
    }
}

/// Both ends after a handshake was tried.
pub struct Shaken {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub client_error: Option<rustls::Error>,
    pub server_error: Option<rustls::Error>,
}

impl Shaken {
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!((&self.client_error, &self.server_error), (&None, &None));
        self
    }

    /// Why the server refused, as a caller of tokio-rustls would see it.
    pub fn server_refusal(&self) -> String {
        text(self.server_error.as_ref())
    }

    /// Why the client refused.
    pub fn client_refusal(&self) -> String {
        text(self.client_error.as_ref())
    }

    pub fn resumed(&self) -> bool {
        let kinds = (self.client.handshake_kind(), self.server.handshake_kind());
        match kinds {
            (Some(HandshakeKind::Resumed), Some(HandshakeKind::Resumed)) => true,
            (Some(HandshakeKind::Full), Some(HandshakeKind::Full)) => false,
            other => panic!("the ends disagree: {other:?}"),
        }
    }
}

fn text(error: Option<&rustls::Error>) -> String {
    let Some(error) = error else { return "no error".to_owned() };
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, error.clone());
    refusal(&wrapped).map_or_else(|| format!("not refused by us: {error}"), ToString::to_string)
}

/// Shakes hands in memory until both are done or one has failed and told the other.
pub fn shake(client: &Arc<ClientConfig>, name: &str, server: &Arc<ServerConfig>) -> Shaken {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("a client");
    let mut server = ServerConnection::new(server.clone()).expect("a server");
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let there = pass(&mut client, &mut server, &mut server_error);
        let back = pass(&mut server, &mut client, &mut client_error);
        if !there && !back {
            return Shaken { client, server, client_error, server_error };
        }
    }
}

/// Hands over what `from` has to say; whether it said anything.
fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    error: &mut Option<rustls::Error>,
) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory takes everything");
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).expect("memory gives everything");
        *error = to.process_new_packets().err();
    }
    !wire.is_empty()
}
