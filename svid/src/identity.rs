//! Who we are: certificates with their keys, replaced while connections go on, and found by the name that was dialled.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use model::{identity::SpiffeId, name::ServiceName};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::{
    error::SvidError,
    facts::Facts,
    pem::{self, PemError},
    tls::provider,
    verify::{only_id, unix},
};

/// An X.509-SVID with its key. Not verified: it is ours.
pub struct Svid {
    /// The id in it.
    pub id: SpiffeId,
    /// Leaf first, then what signs it, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
    /// From when the leaf is valid.
    pub not_before: UnixTime,
    /// Until when the leaf is valid.
    pub not_after: UnixTime,
    certified: Arc<CertifiedKey>,
}

/// Why PEM texts are not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The chain cannot be read.
    #[error("certificate chain {0}")]
    Chain(PemError),
    /// The key cannot be read.
    #[error("private key {0}")]
    Key(PemError),
    /// The leaf is no SVID.
    #[error(transparent)]
    Leaf(#[from] SvidError),
    /// The key is of an unknown kind, or belongs to another certificate.
    #[error("the private key does not fit the certificate of {id}: {problem}")]
    Mismatch {
        /// The id in the certificate.
        id: SpiffeId,
        /// What rustls says.
        problem: String,
    },
}

impl Svid {
    /// Reads a chain (leaf first) and its key, and checks that they belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IdentityError> {
        let chain = pem::certificates(chain).map_err(IdentityError::Chain)?;
        Self::new(chain, pem::private_key(key).map_err(IdentityError::Key)?)
    }

    /// A chain (leaf first) with its key; checks that they belong together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let leaf = Facts::read(chain.first().ok_or(SvidError::NoCertificate)?)?;
        let id = only_id(&leaf)?;
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), provider())
            .map_err(|error| IdentityError::Mismatch { id: id.clone(), problem: error.to_string() })?;
        let certified = Arc::new(certified);
        Ok(Self { id, chain, key, not_before: leaf.not_before, not_after: leaf.not_after, certified })
    }

    /// When to ask for its successor: a point between a quarter and a third of its life, which `dice` (any number)
    /// picks, so that hosts set up together do not renew together and two thirds are left when nobody answers.
    pub fn renew_at(&self, dice: u32) -> UnixTime {
        let (start, life) =
            (self.not_before.as_secs(), self.not_after.as_secs().saturating_sub(self.not_before.as_secs()));
        let spread = u64::try_from(u128::from(life / 3 - life / 4) * u128::from(dice) / u128::from(u32::MAX));
        unix(start + life / 4 + spread.expect("no more than a twelfth of a life"))
    }

    /// What is left of its life at `now`.
    pub fn left(&self, now: UnixTime) -> Duration {
        Duration::from_secs(self.not_after.as_secs().saturating_sub(now.as_secs()))
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The place of one identity: handshakes take what is in it now, renewal replaces it.
#[derive(Debug)]
pub struct IdentitySlot {
    current: ArcSwap<Svid>,
    version: AtomicU64,
}

impl IdentitySlot {
    /// A slot that holds `svid`.
    pub fn new(svid: Svid) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(svid), version: AtomicU64::new(0) })
    }

    /// What it holds.
    pub fn load(&self) -> Arc<Svid> {
        self.current.load_full()
    }

    /// Handshakes from now on use `svid`; sessions of before are no longer resumed by clients.
    pub fn replace(&self, svid: Svid) {
        self.current.store(Arc::new(svid));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts replacements.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        self.current.load().certified.clone()
    }
}

impl ResolvesServerCert for IdentitySlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ResolvesClientCert for IdentitySlot {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The services of one host, each with its slot: the inbound listener answers as the one that was dialled, by the SNI
/// `<service>.<namespace>.mesh`, and refuses all other names.
#[derive(Debug, Default)]
pub struct Identities {
    slots: ArcSwap<HashMap<ServiceName, Arc<IdentitySlot>>>,
}

impl Identities {
    /// No service yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The slot of a service.
    pub fn slot(&self, service: &ServiceName) -> Option<Arc<IdentitySlot>> {
        self.slots.load().get(service).cloned()
    }

    /// All services that have an identity.
    pub fn services(&self) -> Vec<ServiceName> {
        self.slots.load().keys().cloned().collect()
    }

    /// Gives `service` the identity `svid`: into its slot if it has one, so that all who hold the slot see it.
    pub fn put(&self, service: &ServiceName, svid: Svid) -> Arc<IdentitySlot> {
        if let Some(slot) = self.slot(service) {
            slot.replace(svid);
            return slot;
        }
        let slot = IdentitySlot::new(svid);
        self.slots.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            slots.insert(service.clone(), slot.clone());
            slots
        });
        slot
    }

    /// The service is no longer here.
    pub fn remove(&self, service: &ServiceName) {
        self.slots.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            slots.remove(service);
            slots
        });
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let slot =
            hello.server_name().and_then(ServiceName::from_hostname).and_then(|service| self.slot(&service));
        if slot.is_none() {
            tracing::debug!(sni = hello.server_name().unwrap_or("none"), "no identity for this name");
        }
        Some(slot?.certified())
    }
}
