//! Who this host and its services are, and whom they believe: loaded from disk, asked for, renewed in time, replaced
//! while connections go on. Keys are made here and never leave; certificates are signed by the control plane.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use model::{
    ca::{CertificateAnswer, CertificateRequest, CertificateRequests, Certificates, Subject},
    identity::{SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    trust::{Distrusted, TrustBundle},
};
use svid::{Identities, IdentitySlot, Svid, Trust, TrustStore};
use tokio::{sync::watch, time::timeout};

use crate::{
    clock,
    control::Control,
    disk::DiskError,
    settings::{Server, Settings},
};

mod keep;
mod renew;
mod settle;
mod shut_out;

pub use keep::{Keep, NodeFile};
pub use renew::{Life, Renewals};
pub use shut_out::ShutOut;

/// How long a server may take to sign what is asked for.
const SIGNING_PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait before the wall clock, which may jump, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// This host's identities, shared by all that accept and dial.
pub struct Identity {
    keep: Keep,
    node: NodeFile,
    slot: Arc<IdentitySlot>,
    services: Arc<Identities>,
    trust: Arc<TrustStore>,
    bundle: Mutex<TrustBundle>,
    trust_changed: watch::Sender<u64>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The host never joined.
    #[error("{0} holds no identity: run `mesh-proxy join` first")]
    NotJoined(PathBuf),
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file's content.
    #[error("{path}: {problem}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A chain without its key.
    #[error("there is no key for the certificate of {0:?}")]
    NoKey(Subject),
    /// Key and chain make no identity.
    #[error(transparent)]
    Svid(#[from] svid::identity::IdentityError),
    /// The roots make no trust.
    #[error(transparent)]
    Trust(#[from] svid::TrustError),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] svid::request::KeyRequestError),
    /// The certificate is another's.
    #[error("asked for {asked}, and got {got}")]
    Another {
        /// Whose was asked for.
        asked: SpiffeId,
        /// Whose came.
        got: SpiffeId,
    },
    /// The control plane did not sign.
    #[error("not signed: {0}")]
    NotSigned(String),
}

impl Identity {
    /// What the disk holds of this host.
    ///
    /// # Errors
    /// If the host has not joined, or a file of it cannot be used.
    pub fn load(keep: Keep) -> Result<Self, IdentityError> {
        let absent = || IdentityError::NotJoined(keep.path(""));
        let node = keep.node()?.ok_or_else(absent)?;
        let svid = keep.load(&Subject::Node(node.node.clone()))?.ok_or_else(absent)?;
        let bundle = keep.bundle()?.ok_or_else(absent)?;
        let trust = TrustStore::new(Trust::from_bundle(&bundle)?);
        let (slot, services) = (IdentitySlot::new(svid), Identities::new());
        let (bundle, trust_changed) = (Mutex::new(bundle), watch::Sender::new(0));
        Ok(Self { keep, node, slot, services, trust, bundle, trust_changed })
    }

    /// Who this host is.
    pub fn node(&self) -> &NodeFile {
        &self.node
    }

    /// The servers that it asks: those of the settings, or else the one that it joined by.
    pub fn servers(&self, settings: &Settings) -> Vec<Server> {
        match settings.servers.is_empty() {
            true => Keep::servers(&self.node),
            false => settings.servers.clone(),
        }
    }

    /// Why the control plane does not listen to this host any more, if so, by what this host last heard.
    pub fn shut_out(&self) -> Option<ShutOut> {
        self.shut_out_by(self.trust.load().distrusted())
    }

    /// As [`Self::shut_out`], by what is distrusted now.
    pub fn shut_out_by(&self, distrusted: &Distrusted) -> Option<ShutOut> {
        shut_out::judge(&self.node.node, &self.slot.load(), distrusted, clock::unix())
    }

    /// This host's own identity, towards the control plane.
    pub fn slot(&self) -> Arc<IdentitySlot> {
        self.slot.clone()
    }

    /// The identities of the local services.
    pub fn services(&self) -> Arc<Identities> {
        self.services.clone()
    }

    /// Whom this host believes.
    pub fn trust(&self) -> Arc<TrustStore> {
        self.trust.clone()
    }

    /// Raised whenever trust is replaced: live connections are judged again.
    pub fn trust_changes(&self) -> watch::Receiver<u64> {
        self.trust_changed.subscribe()
    }

    /// Takes up what the control plane says of trust; what was believed before stands if it cannot be used.
    pub fn believe(&self, bundle: &TrustBundle) {
        let mut held = self.bundle.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == *bundle {
            return;
        }
        let trust = match Trust::from_bundle(bundle) {
            Ok(trust) => trust,
            Err(error) => {
                return tracing::error!(%error, "the control plane's trust bundle is unusable; the old one stays");
            }
        };
        tracing::info!(generation = bundle.generation, roots = bundle.roots.len(), "trust replaced");
        *held = bundle.clone();
        if let Err(error) = self.keep.put_bundle(bundle) {
            tracing::error!(%error, "trust could not be written down: it is lost at a restart");
        }
        self.trust.replace(trust);
        self.trust_changed.send_modify(|version| *version += 1);
    }

    /// Takes up the identities of these services that the disk holds, and drops those of others.
    pub fn adopt(&self, services: &BTreeSet<ServiceName>) {
        for gone in self.services.services().iter().filter(|service| !services.contains(*service)) {
            self.services.remove(gone);
        }
        for service in services.iter().filter(|service| self.services.slot(service).is_none()) {
            match self.keep.load(&Subject::Service(service.clone())) {
                Ok(Some(svid)) => drop(self.services.put(service, svid)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%service, %error, "the identity on disk is unusable; a new one is asked for")
                }
            }
        }
    }

    /// Keeps all identities fresh, for as long as it is polled. `wanted` are the local services.
    pub async fn keep_fresh(&self, control: &Control, mut wanted: watch::Receiver<BTreeSet<ServiceName>>) {
        let mut renewals = Renewals::default();
        loop {
            let services = wanted.borrow_and_update().clone();
            self.adopt(&services);
            self.plan(&mut renewals, &services);
            let now = clock::unix();
            let due = renewals.due(now);
            if !due.is_empty() {
                self.renew(control, &due, &mut renewals).await;
                continue;
            }
            let wait = renewals
                .next()
                .map_or(LOOK_AGAIN.as_secs(), |next| next.as_secs().saturating_sub(now.as_secs()));
            let wait = Duration::from_secs(wait).min(LOOK_AGAIN);
            if let Ok(Err(_)) = timeout(wait, wanted.changed()).await {
                return;
            }
        }
    }

    fn plan(&self, renewals: &mut Renewals, services: &BTreeSet<ServiceName>) {
        let now = clock::unix();
        let node = Subject::Node(self.node.node.clone());
        let gone =
            |subject: &&Subject| matches!(subject, Subject::Service(service) if !services.contains(service));
        let gone: Vec<Subject> = renewals.subjects().filter(gone).cloned().collect();
        gone.iter().for_each(|subject| renewals.forget(subject));
        renewals.want(node, Some(life(&self.slot.load())), now);
        for service in services {
            let held = self.services.slot(service).map(|slot| life(&slot.load()));
            renewals.want(Subject::Service(service.clone()), held, now);
        }
    }

    async fn renew(&self, control: &Control, due: &[Subject], renewals: &mut Renewals) {
        let answers = self.ask(control, due).await;
        if let Some(reason) = self.shut_out().filter(|_| answers.is_err()) {
            tracing::error!(remedy = reason.remedy(), "{reason}");
        }
        let now = clock::unix();
        for subject in due {
            let answer = match &answers {
                Ok(answers) => answers.iter().find(|answer| answer.subject == *subject),
                Err(error) => {
                    tracing::warn!(?subject, error, "no certificate");
                    renewals.failed(subject, now, clock::dice());
                    continue;
                }
            };
            match self.take(subject, answer) {
                Ok(life) => renewals.succeeded(subject, life, now),
                Err(error) => {
                    tracing::warn!(?subject, %error, "no certificate");
                    renewals.failed(subject, now, clock::dice());
                }
            }
        }
    }

    async fn ask(&self, control: &Control, due: &[Subject]) -> Result<Vec<CertificateAnswer>, String> {
        let requests = due.iter().map(|subject| self.request(subject)).collect::<Result<_, _>>();
        let body = CertificateRequests { requests: requests.map_err(|error| error.to_string())? };
        let call = control.call(Method::POST, "/v1/ca/certificates", Some(&body), SIGNING_PATIENCE);
        call.await.map(|answer: Certificates| answer.certificates).map_err(|error| error.to_string())
    }

    fn request(&self, subject: &Subject) -> Result<CertificateRequest, IdentityError> {
        let csr = self.keep.fresh_key(subject)?.csr_pem;
        // An expired certificate proves nothing: without it the request is judged as one for a new identity.
        let held = match subject {
            Subject::Node(_) => Some(self.slot.load()),
            Subject::Service(service) => self.services.slot(service).map(|slot| slot.load()),
        };
        let valid = held.is_some_and(|svid| svid.not_after.as_secs() > clock::unix().as_secs());
        let current = if valid { self.keep.chain(subject)? } else { None };
        Ok(CertificateRequest { subject: subject.clone(), csr, current })
    }

    fn take(&self, subject: &Subject, answer: Option<&CertificateAnswer>) -> Result<Life, IdentityError> {
        let answer =
            answer.ok_or_else(|| IdentityError::NotSigned("the answer passes over it".to_owned()))?;
        let reason = || IdentityError::NotSigned(answer.error.clone().unwrap_or_default());
        let chain = answer.certificate.as_deref().ok_or_else(reason)?;
        let asked = spiffe_id(&self.node.trust_domain, subject);
        let svid = self.keep.certified(subject, chain)?;
        if svid.id != asked {
            return Err(IdentityError::Another { asked, got: svid.id });
        }
        tracing::info!(id = %svid.id, not_after = svid.not_after.as_secs(), "certificate received");
        let life = life(&svid);
        match subject {
            Subject::Node(_) => self.slot.replace(svid),
            Subject::Service(service) => drop(self.services.put(service, svid)),
        }
        Ok(life)
    }
}

/// The SPIFFE id of a subject.
pub(crate) fn spiffe_id(domain: &TrustDomain, subject: &Subject) -> SpiffeId {
    match subject {
        Subject::Service(service) => SpiffeId::service(domain, service),
        Subject::Node(node) => SpiffeId::node(domain, node),
    }
}

fn life(svid: &Svid) -> Life {
    let dice = u32::try_from(clock::dice() >> 32).expect("32 bits are left");
    Life { renew_at: svid.renew_at(dice), not_after: svid.not_after }
}

/// A node's name from a host name: its first label, in lower case.
pub fn node_name(host: &str) -> Option<Name> {
    host.split('.').next()?.to_ascii_lowercase().parse().ok()
}
