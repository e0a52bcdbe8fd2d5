//! This member's part of the certificate authority: its intermediate, whose key never leaves it, its own leaf, and
//! whom it trusts. Signs what was granted; who may be whom is decided by the crate `ca`, with what the registry knows.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use ca::{
    Csr, CsrError, Grant, Intermediate, Root, SealError, Sealed, Serial, Signed, SignerError, Ttl, Unlock,
};
use model::{identity::TrustDomain, trust::TrustBundle};
use parking_lot::Mutex;
use registry::{MemberId, State};
use rustls_pki_types::UnixTime;
use svid::{
    IdentitySlot, KeyRequest, Svid, Trust, TrustError, TrustStore, identity::IdentityError,
    request::KeyRequestError,
};

mod folder;
pub mod found;
pub mod issue;
mod renew;
pub mod succeed;
pub mod unlock;

pub use folder::Folder;
pub use issue::{Budget, IssueError};

/// Key and certificate of the intermediate: one file, so that they cannot part.
pub const INTERMEDIATE_FILE: &str = "intermediate.pem";
/// The trust that was last believed: a server starts with it, before it has looked into its log.
pub const BUNDLE_FILE: &str = "bundle.json";

/// The sealed root, as the log holds it: for a start after so long an outage that the intermediate has ended.
pub const SEALED_FILE: &str = "root.sealed";

/// This member's keys and its trust. Shared by all listeners.
pub struct Authority {
    member: MemberId,
    domain: TrustDomain,
    /// Under which this member is dialled: its leaf is for these.
    names: Vec<String>,
    ttl: Ttl,
    folder: Folder,
    /// Opens the sealed root, where this server was given the means.
    unlock: Option<Unlock>,
    intermediate: ArcSwap<Intermediate>,
    leaf: Arc<IdentitySlot>,
    trust: Arc<TrustStore>,
    /// What `trust` was made of.
    bundle: ArcSwap<TrustBundle>,
    budget: Mutex<Budget>,
}

/// What an authority is opened with.
pub struct Opening {
    /// Which member this is.
    pub member: MemberId,
    /// Names and addresses under which it is dialled.
    pub names: Vec<String>,
    /// How long certificates for hosts and services live.
    pub ttl: Ttl,
    /// Where its keys are.
    pub folder: Folder,
    /// Opens the sealed root, if this server has the means.
    pub unlock: Option<Unlock>,
}

/// Why the authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the folder.
    #[error(transparent)]
    Folder(#[from] io::Error),
    /// There is no intermediate.
    #[error("{0} is missing: this server was neither initialised nor did it join")]
    NoIntermediate(String),
    /// The intermediate does not read back.
    #[error(
        "{path}: {reason}. Put it back from a copy, or remove this member from the cluster (meshctl cluster remove), move \
         its data folder away and let it join anew"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no trust to start with.
    #[error(
        "{0} is missing or unreadable: this server was neither initialised nor did it join, or the file is damaged; copy it \
         from another server, or let this one join anew"
    )]
    NoBundle(String),
    /// The roots make no trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A certificate request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// Signing.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The leaf does not work.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No key could be drawn.
    #[error(transparent)]
    Key(#[from] KeyRequestError),
    /// Sealing or opening the root.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// This server has no means to open the root.
    #[error("this server cannot open the sealed root: no seal secret was given to it")]
    NoSeal,
    /// The blob is no sealed key.
    #[error("the sealed root cannot be read: {0}")]
    SealedRoot(String),
    /// The log holds no root yet.
    #[error("the log holds no root yet")]
    NoRoot,
    /// A task of this server failed.
    #[error("unsealing was cut off")]
    CutOff,
    /// The registry did not take the new intermediate.
    #[error("the new intermediate was not recorded: {0}")]
    NotRecorded(String),
    /// No other member signed.
    #[error("no member signed a new intermediate: {0}")]
    NobodySigned(String),
}

impl Authority {
    /// Opens the keys in the folder, and signs this member a leaf, whose key is never written down.
    ///
    /// # Errors
    /// If keys or trust are missing or damaged.
    pub fn open(opening: Opening, now: UnixTime) -> Result<Arc<Self>, AuthorityError> {
        let Opening { member, names, ttl, folder, unlock } = opening;
        let bundle = starting_trust(&folder)?;
        let domain = bundle.trust_domain.clone();
        let text = folder.read(INTERMEDIATE_FILE)?;
        let text = text.ok_or_else(|| missing(&folder, INTERMEDIATE_FILE, AuthorityError::NoIntermediate))?;
        let damaged = |error: SignerError| AuthorityError::Damaged {
            path: folder.path(INTERMEDIATE_FILE).display().to_string(),
            reason: error.to_string(),
        };
        let mut intermediate = Intermediate::from_pem(&domain, &text, &text).map_err(damaged)?;
        if now > intermediate.validity().1 {
            intermediate = revive(&folder, &bundle, member, unlock.as_ref(), now)?;
        }
        let leaf = sign_leaf(&intermediate, member, &names, now)?;
        Ok(Arc::new(Self {
            trust: TrustStore::new(Trust::from_bundle(&bundle)?),
            bundle: ArcSwap::from_pointee(bundle),
            leaf: IdentitySlot::new(leaf),
            intermediate: ArcSwap::from_pointee(intermediate),
            budget: Mutex::default(),
            member,
            domain,
            names,
            ttl,
            folder,
            unlock,
        }))
    }

    /// Which member this is.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// The mesh's trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// This member's identity, for listeners and dialling.
    pub fn leaf(&self) -> &Arc<IdentitySlot> {
        &self.leaf
    }

    /// Whom this member trusts.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.trust
    }

    /// The same, as it is published.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.bundle.load_full()
    }

    /// What join tokens pin: SHA-256 over the first root's DER, lower-case hex.
    pub fn pin(&self) -> String {
        let trust = self.trust.load();
        let root = trust.roots().first().expect("a trust has at least one root");
        fingerprint(root)
    }

    /// The roots as PEM, one after the other.
    pub fn roots_pem(&self) -> String {
        self.bundle.load().roots.concat()
    }

    /// The intermediate that signs now.
    pub fn intermediate(&self) -> Arc<Intermediate> {
        self.intermediate.load_full()
    }

    /// Believes what the log says, if that is other than before. Returns whether it was.
    pub fn follow(&self, state: &State) -> bool {
        let Some(trust) = state.trust() else { return false };
        if trust.bundle == **self.bundle.load() || trust.bundle.roots.is_empty() {
            return false;
        }
        match Trust::from_bundle(&trust.bundle) {
            Ok(usable) => {
                self.trust.replace(usable);
                self.bundle.store(Arc::new(trust.bundle.clone()));
                tracing::info!(generation = trust.bundle.generation, "trust replaced");
                if let Err(error) = keep_trust(&self.folder, &trust.bundle) {
                    tracing::error!(%error, "the trust could not be kept for the next start");
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "the log's trust cannot be used; the one before is kept");
                false
            }
        }
    }

    /// Signs what was granted.
    ///
    /// # Errors
    /// If the intermediate is not valid at `now`, or randomness fails.
    pub fn sign(&self, grant: &Grant, csr: &Csr, now: UnixTime) -> Result<Signed, SignerError> {
        self.intermediate.load().sign(grant, csr, self.ttl, serial(), now)
    }

    /// Signs the intermediate of `member` with the root, which is unsealed for this one signature.
    ///
    /// # Errors
    /// If this server cannot open the root.
    pub async fn sign_intermediate(
        self: &Arc<Self>,
        state: &State,
        member: MemberId,
        csr: Csr,
        now: UnixTime,
    ) -> Result<String, AuthorityError> {
        let trust = state.trust().ok_or(AuthorityError::NoRoot)?.clone();
        let this = self.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let root = unseal(&trust.bundle, &trust.sealed_root, this.unlock.as_ref())?;
            Ok(root.sign_intermediate(&csr, member, serial(), now)?)
        });
        signed.await.map_err(|_| AuthorityError::CutOff)?
    }

    /// Keeps the sealed root of the log beside the keys.
    fn keep_sealed(&self, state: &State) {
        let Some(sealed) = state.trust().map(|trust| String::from_utf8_lossy(&trust.sealed_root)) else {
            return;
        };
        let kept = self.folder.read(SEALED_FILE).ok().flatten();
        if !sealed.is_empty()
            && kept.as_deref() != Some(&*sealed)
            && let Err(error) = self.folder.write(SEALED_FILE, &sealed)
        {
            tracing::error!(%error, "the sealed root could not be kept for a start after a long outage");
        }
    }
}

/// A serial number from the system's dice.
fn serial() -> Serial {
    Serial::from_random(crate::clock::random())
}

fn read_csr(pem: &str) -> Result<Csr, CsrError> {
    Csr::from_pem(pem)
}

/// A fresh key with a leaf for this member; nobody is asked, since its own intermediate signs it.
fn sign_leaf(
    intermediate: &Intermediate,
    member: MemberId,
    names: &[String],
    now: UnixTime,
) -> Result<Svid, AuthorityError> {
    let key = KeyRequest::generate()?;
    let csr = read_csr(&key.csr_pem)?;
    let signed = intermediate.sign(&Grant::member(member, names), &csr, Ttl::default(), serial(), now)?;
    Ok(Svid::from_pem(&signed.chain_pem, &key.key_pem)?)
}

/// The root, opened. Slow on purpose.
fn unseal(bundle: &TrustBundle, sealed: &[u8], unlock: Option<&Unlock>) -> Result<Root, AuthorityError> {
    let root_pem = bundle.roots.first().ok_or(AuthorityError::NoRoot)?;
    let sealed: Sealed =
        serde_json::from_slice(sealed).map_err(|error| AuthorityError::SealedRoot(error.to_string()))?;
    let secret = sealed.open(unlock.ok_or(AuthorityError::NoSeal)?)?;
    Ok(Root::from_parts(&bundle.trust_domain, root_pem, &secret)?)
}

/// A new intermediate for a member whose old one has ended: nobody could be asked with that one.
fn revive(
    folder: &Folder,
    bundle: &TrustBundle,
    member: MemberId,
    unlock: Option<&Unlock>,
    now: UnixTime,
) -> Result<Intermediate, AuthorityError> {
    tracing::warn!("the intermediate ended while this server was away; signing a new one with the root");
    let sealed = folder.read(SEALED_FILE)?.unwrap_or_default();
    let root = unseal(bundle, sealed.as_bytes(), unlock)?;
    let key = KeyRequest::generate()?;
    let pem = root.sign_intermediate(&read_csr(&key.csr_pem)?, member, serial(), now)?;
    let text = format!("{}{pem}", key.key_pem);
    folder.write(INTERMEDIATE_FILE, &text)?;
    Ok(Intermediate::from_pem(&bundle.trust_domain, &text, &text)?)
}

/// Keeps `bundle` for the next start.
fn keep_trust(folder: &Folder, bundle: &TrustBundle) -> io::Result<()> {
    folder.write(BUNDLE_FILE, &serde_json::to_string(bundle).expect("a bundle is made of texts and numbers"))
}

fn starting_trust(folder: &Folder) -> Result<TrustBundle, AuthorityError> {
    let text = folder.read(BUNDLE_FILE)?;
    text.and_then(|text| serde_json::from_str(&text).ok())
        .ok_or_else(|| missing(folder, BUNDLE_FILE, AuthorityError::NoBundle))
}

fn missing(folder: &Folder, name: &str, error: fn(String) -> AuthorityError) -> AuthorityError {
    error(folder.path(name).display().to_string())
}

/// SHA-256 over a DER, lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    model::token::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
}

#[cfg(test)]
mod tests;
