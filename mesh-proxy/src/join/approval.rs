//! Coming back without a token, by an operator's approval. The host files a request for a new key, shows the key's fingerprint
//! for the operator to compare, and waits. A server is believed only by roots that this host kept or was told of; the request
//! outlives this command, and running it again goes on with the same key.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::Method;
use model::{
    ca::{JoinAnswer, Subject},
    duration::Timespan,
    identity::TrustDomain,
    name::Name,
    rejoin::{RejoinRequest, RejoinStatus, Standing},
};
use rustls_pki_types::CertificateDer;
use svid::{Trust, TrustStore, request::fingerprint_of};
use tokio::time::sleep;

use super::{JoinError, keep_answer, learn_roots, of_mesh, pin, pinned, request_for, settled};
use crate::{
    clock,
    control::{Control, ControlError},
    disk,
    identity::{IdentityError, Keep, NodeFile},
    settings::Server,
};

/// How often the host asks how its request stands: seldom enough for the rate that a server lets an address ask at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a server may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const REQUESTS: &str = "/v1/ca/requests";

/// Why nobody let this host in.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// No root is known, and nobody is believed at first sight.
    #[error(
        "{0} does not say whom to trust: add --ca-pin with the fingerprint of the root that `meshctl ca status` shows, \
         --ca with a file of `meshctl ca bundle`, or a token"
    )]
    NoTrust(PathBuf),
    /// The request was not taken, or not answered.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The request is not ours.
    #[error("the server shows a request for another key: {0}")]
    OtherKey(String),
    /// An operator does not want it.
    #[error("the request was denied{}", because(.0))]
    Denied(String),
    /// Nobody said anything in time.
    #[error("nobody approved the request until it expired; run the command again to ask anew")]
    Expired,
    /// It is not there any more.
    #[error(
        "the request is gone: the node was deleted or distrusted meanwhile, or it expired; run the command again to ask anew"
    )]
    Gone,
    /// This command does not wait any longer.
    #[error("not approved within {0}; the request stays: run the command again to go on waiting")]
    Patience(Timespan),
    /// Somebody ended this command.
    #[error("interrupted; the request stays: run the command again to go on waiting")]
    Interrupted,
}

/// By what a server is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The roots that this host kept.
    Kept,
    /// Roots, by SHA-256 over their DER in lower-case hex.
    Pins(Vec<String>),
}

/// Whom a host asks, and how long.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Where it files its request.
    pub server: Server,
    /// Others that it may ask how it stands.
    pub others: Vec<Server>,
    /// By what they are believed.
    pub anchor: Anchor,
    /// How long this command waits; until the request is answered or expires if `None`.
    pub patience: Option<Timespan>,
}

/// What there is to tell meanwhile.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The request is there.
    Filed(&'a RejoinStatus),
    /// Nobody has answered it for so long.
    Waiting(Duration),
    /// No server says how it stands; that is asked again, and not told again before one did.
    Trouble(&'a ControlError),
}

/// Comes back as `node` with a new key once an operator approves it. The identity that stands is replaced when the new one is
/// complete, and until then as it was.
///
/// # Errors
/// Why not.
pub async fn rejoin(
    asking: &Asking,
    node: &Name,
    keep: &Keep,
    mut tell: impl FnMut(Progress<'_>),
) -> Result<NodeFile, JoinError> {
    let known = settled(keep, node)?;
    let trust = asking.trust(keep, known.map(|known| known.trust_domain)).await?;
    let next = keep.next()?;
    let csr = request_for(node, &next)?;
    let filed = asking.file(node, csr, &trust).await?;
    let own = fingerprint(node, &next)?;
    if filed.fingerprint != own || filed.node != *node {
        return Err(ApprovalError::OtherKey(filed.fingerprint).into());
    }
    tell(Progress::Filed(&filed));
    let joined = asking.wait(&filed, trust, tell).await;
    if let Err(ApprovalError::Denied(_)) = &joined {
        // What was denied is denied for this key: the next request is for another.
        disk::remove(&next.path("node.csr")).map_err(IdentityError::from)?;
    }
    let file = keep_answer(&asking.server, node, &next, joined?)?;
    keep.settle()?;
    Ok(file)
}

impl Anchor {
    /// These roots.
    pub fn roots(roots: &[CertificateDer<'_>]) -> Self {
        Self::Pins(roots.iter().map(pin).collect())
    }
}

impl Asking {
    async fn trust(&self, keep: &Keep, known: Option<TrustDomain>) -> Result<Arc<TrustStore>, JoinError> {
        match &self.anchor {
            Anchor::Kept => {
                let bundle = keep.bundle()?.ok_or_else(|| ApprovalError::NoTrust(keep.path("")))?;
                Ok(TrustStore::new(Trust::from_bundle(&bundle).map_err(IdentityError::from)?))
            }
            Anchor::Pins(pins) => {
                let bundle = learn_roots(&self.server).await?;
                let trust = pinned(&bundle, pins, &self.server)?;
                of_mesh(known, &bundle, &self.server)?;
                Ok(trust)
            }
        }
    }

    async fn file(
        &self,
        node: &Name,
        csr: String,
        trust: &Arc<TrustStore>,
    ) -> Result<RejoinStatus, ApprovalError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let body = RejoinRequest { node: node.clone(), csr, version };
        let control = Control::new(vec![self.server.clone()], None, trust.clone(), String::new());
        Ok(control.call(Method::POST, REQUESTS, Some(&body), ANSWER_PATIENCE).await?)
    }

    /// Looks again and again; any member knows how a request stands.
    async fn wait(
        &self,
        filed: &RejoinStatus,
        trust: Arc<TrustStore>,
        mut tell: impl FnMut(Progress<'_>),
    ) -> Result<JoinAnswer, ApprovalError> {
        let servers = [std::slice::from_ref(&self.server), &self.others].concat();
        let control = Control::new(servers, None, trust, String::new());
        let (path, start) = (format!("{REQUESTS}/{}", filed.id), clock::now());
        let mut in_trouble = false;
        loop {
            match look(&control, &path).await {
                Ok(Some(joined)) => return Ok(joined),
                Ok(None) => {
                    in_trouble = false;
                    tell(Progress::Waiting(clock::now() - start));
                }
                Err(ApprovalError::Control(error)) if passes(&error) => {
                    if !std::mem::replace(&mut in_trouble, true) {
                        tell(Progress::Trouble(&error));
                    }
                }
                Err(error) => return Err(error),
            }
            if let Some(patience) = self.patience
                && clock::now() - start >= patience.duration()
            {
                return Err(ApprovalError::Patience(patience));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What the host gets, as soon as it may have it.
async fn look(control: &Control, path: &str) -> Result<Option<JoinAnswer>, ApprovalError> {
    let status: RejoinStatus = match control.call(Method::GET, path, None::<&()>, ANSWER_PATIENCE).await {
        Err(error) if error.status() == Some(404) => return Err(ApprovalError::Gone),
        answer => answer?,
    };
    match status.state {
        Standing::Pending => Ok(None),
        Standing::Approved => Ok(status.joined),
        Standing::Denied => Err(ApprovalError::Denied(status.reason.unwrap_or_default())),
        Standing::Expired => Err(ApprovalError::Expired),
    }
}

/// Whether asking again may help: nobody answered, or had no time.
fn passes(error: &ControlError) -> bool {
    error.status().is_none_or(|status| status == 429 || status >= 500)
}

/// Worked out here: what a server says of it is only compared.
fn fingerprint(node: &Name, next: &Keep) -> Result<String, JoinError> {
    let subject = Subject::Node(node.clone());
    let key = next.pending_key(&subject)?.as_deref().and_then(fingerprint_of);
    Ok(key.ok_or(IdentityError::NoKey(subject))?)
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
