//! What this process believes: roots of the trust domain, and what is distrusted although a root vouches for it.
//! Replaced whole when the cluster says so; readers take no lock.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use model::{
    identity::TrustDomain,
    trust::{Distrusted, TrustBundle},
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};

use crate::{error::AuthorityFault, facts::Facts, pem, sound::Sound, tls::provider};

/// The roots of one trust domain, ready for path validation, and its distrust. Never changed, only replaced.
#[derive(Debug, Clone)]
pub struct Trust {
    generation: u64,
    domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    distrusted: Distrusted,
    sound: Sound,
}

/// Why a set of roots is no trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Trusting nobody is never meant.
    #[error("no root certificate for {0}")]
    NoRoots(TrustDomain),
    /// A PEM text that does not hold one certificate.
    #[error("roots[{index}]: {problem}")]
    Unreadable {
        /// Which of the roots.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// A certificate that may not sign.
    #[error("roots[{index}] '{subject}' {fault}")]
    NotAuthority {
        /// Which of the roots.
        index: usize,
        /// Its subject.
        subject: String,
        /// What is wrong.
        fault: AuthorityFault,
    },
}

impl Trust {
    /// Trust in `roots` for `domain`; each must be a signing certificate, with the domain's id or none.
    pub fn new(
        domain: TrustDomain,
        generation: u64,
        roots: Vec<CertificateDer<'static>>,
        distrusted: Distrusted,
    ) -> Result<Self, TrustError> {
        if roots.is_empty() {
            return Err(TrustError::NoRoots(domain));
        }
        let anchors = roots.iter().enumerate().map(|(index, root)| anchor(index, root, &domain));
        let anchors = anchors.collect::<Result<_, _>>()?;
        Ok(Self { generation, domain, roots, anchors, distrusted, sound: Sound::default() })
    }

    /// Trust as the control plane publishes it.
    pub fn from_bundle(bundle: &TrustBundle) -> Result<Self, TrustError> {
        let roots = bundle.roots.iter().enumerate().map(|(index, text)| {
            pem::certificate(text)
                .map_err(|error| TrustError::Unreadable { index, problem: error.to_string() })
        });
        let roots = roots.collect::<Result<_, _>>()?;
        Self::new(bundle.trust_domain.clone(), bundle.generation, roots, bundle.distrusted.clone())
    }

    /// The generation that the control plane gave it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The trust domain whose ids are believed.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// What is refused all the same.
    pub fn distrusted(&self) -> &Distrusted {
        &self.distrusted
    }

    /// Whether both believe and refuse the same; the anchors follow from the roots.
    fn same(&self, other: &Self) -> bool {
        (&self.domain, &self.roots, &self.distrusted) == (&other.domain, &other.roots, &other.distrusted)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Chains that it was asked about before.
    pub(crate) fn sound(&self) -> &Sound {
        &self.sound
    }

    pub(crate) fn algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        provider().signature_verification_algorithms.all
    }
}

fn anchor(
    index: usize,
    root: &CertificateDer<'static>,
    domain: &TrustDomain,
) -> Result<TrustAnchor<'static>, TrustError> {
    let unreadable = |problem: String| TrustError::Unreadable { index, problem };
    let facts = Facts::read(root).map_err(|error| unreadable(error.to_string()))?;
    if let Some(fault) = facts.authority_fault(domain) {
        return Err(TrustError::NotAuthority { index, subject: facts.subject, fault });
    }
    let anchor = webpki::anchor_from_trusted_cert(root).map_err(|error| unreadable(error.to_string()))?;
    Ok(anchor.to_owned())
}

/// The trust of a running process: one value for all listeners, connections and sessions.
#[derive(Debug)]
pub struct TrustStore {
    current: ArcSwap<Trust>,
    version: AtomicU64,
}

impl TrustStore {
    /// Starts with `trust`.
    pub fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(trust), version: AtomicU64::new(0) })
    }

    /// What is believed now. Cheap; do not keep it for longer than one decision.
    pub fn load(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// Believes `trust` from now on, and says whether that is news. If so, TLS sessions of before are no longer
    /// resumed, and the caller rechecks its live connections.
    pub fn replace(&self, trust: Trust) -> bool {
        let before = self.current.swap(Arc::new(trust));
        let news = !before.same(&self.current.load());
        if news {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        news
    }

    /// Counts replacements in this process. A generation cannot tell them apart: it may fall when the cluster was
    /// restored.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
