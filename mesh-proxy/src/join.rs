//! A host joins, or comes back under its name: it learns the roots from anybody, believes those whose pin its token carries, and only then, to
//! a server that such a root vouches for, says its secret. Its key is made here and stays here. Without a token it comes back
//! by an operator's approval: [`approval`].

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use http_body_util::{BodyExt, Limited};
use model::{
    ca::{JoinAnswer, JoinRequest, Subject},
    identity::{SpiffeId, TrustDomain},
    name::Name,
    problem::Problem,
    token::{JoinToken, hex},
    trust::TrustBundle,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::de::DeserializeOwned;
use svid::{Expect, Svid, Trust, TrustStore};
use tokio::time::timeout;

use crate::{
    clock,
    control::{connector, dial, request},
    disk,
    identity::{IdentityError, Keep, NodeFile},
    settings::Server,
};

pub mod approval;

/// How long each of the two calls may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes: a bundle of a few roots and two certificates.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;

/// Why a host could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined before.
    #[error(
        "this host is node '{0}' already: `mesh-proxy rejoin` gets it a new certificate, `mesh-proxy leave` ends it"
    )]
    Joined(Name),
    /// It has another name.
    #[error("this host is node '{known}', not '{asked}': `mesh-proxy leave` first")]
    OtherNode {
        /// The name that it has.
        known: Name,
        /// The one that was said.
        asked: Name,
    },
    /// It belongs to another mesh.
    #[error("this host is of {known}, and {server} of {other}: `mesh-proxy leave` first")]
    OtherMesh {
        /// The trust domain that it is of.
        known: TrustDomain,
        /// Who was asked.
        server: Server,
        /// The trust domain of that.
        other: TrustDomain,
    },
    /// The server did not answer.
    #[error("{server}: {cause}")]
    Unreachable {
        /// Who was asked.
        server: Server,
        /// Why it failed.
        cause: String,
    },
    /// Whoever answered does not have a root that is pinned.
    #[error("{server} is not the control plane that is meant: none of its roots has the fingerprint {pin}")]
    Pin {
        /// Who was asked.
        server: Server,
        /// The pins.
        pin: String,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// An answer is not what the API promises.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// By approval only.
    #[error(transparent)]
    Approval(#[from] approval::ApprovalError),
    /// The identity could not be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Joins as `node` by `server`, and keeps what the control plane gives in `keep`. May be repeated after a failure: the
/// key is kept, and the token's use is bound to it.
///
/// # Errors
/// Why not; nothing is secret in it.
pub async fn join(
    server: &Server,
    token: &JoinToken,
    node: &Name,
    keep: &Keep,
) -> Result<NodeFile, JoinError> {
    keep.settle()?;
    if let Some(known) = keep.node()? {
        return Err(JoinError::Joined(known.node));
    }
    come_in(server, token, node, keep, None).await
}

/// Comes back as `node` with a new key, whatever became of the old certificate. The identity that stands is replaced when
/// the new one is complete, and until then as it was. May be repeated as [`join`] may.
///
/// # Errors
/// Why not; nothing is secret in it.
pub async fn rejoin(
    server: &Server,
    token: &JoinToken,
    node: &Name,
    keep: &Keep,
) -> Result<NodeFile, JoinError> {
    let known = settled(keep, node)?;
    let file = come_in(server, token, node, &keep.next()?, known.map(|known| known.trust_domain)).await?;
    keep.settle()?;
    Ok(file)
}

/// Who this host is, if it is anybody: nobody but `node`.
fn settled(keep: &Keep, node: &Name) -> Result<Option<NodeFile>, JoinError> {
    keep.settle()?;
    match keep.node()? {
        Some(known) if known.node != *node => {
            Err(JoinError::OtherNode { known: known.node, asked: node.clone() })
        }
        known => Ok(known),
    }
}

/// Joins the mesh of whoever is asked, or only that of the trust domain `known`.
async fn come_in(
    server: &Server,
    token: &JoinToken,
    node: &Name,
    keep: &Keep,
    known: Option<TrustDomain>,
) -> Result<NodeFile, JoinError> {
    let bundle: TrustBundle = learn_roots(server).await?;
    let trust = pinned(&bundle, std::slice::from_ref(&token.pin), server)?;
    of_mesh(known, &bundle, server)?;
    let csr = request_for(node, keep)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let body = JoinRequest { token: token.without_pin(), node: node.clone(), csr, version };
    let answer = ask(server, &body, trust).await?;
    keep_answer(server, node, keep, answer)
}

/// Whether it is the mesh that this host knows, if it knows one.
fn of_mesh(known: Option<TrustDomain>, bundle: &TrustBundle, server: &Server) -> Result<(), JoinError> {
    let (server, other) = (server.clone(), bundle.trust_domain.clone());
    match known {
        Some(known) if known != other => Err(JoinError::OtherMesh { known, server, other }),
        _ => Ok(()),
    }
}

/// The bundle of whoever answers: worth nothing until the pin is found in it.
async fn learn_roots(server: &Server) -> Result<TrustBundle, JoinError> {
    let builder = ClientConfig::builder_with_provider(svid::provider().clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider has suites of TLS 1.3");
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let call = call(server, config, None, Method::GET, "/v1/ca/bundle", None);
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late(server)))
}

/// Trust in the pinned roots alone: what else the unverified answer says counts for nothing.
fn pinned(bundle: &TrustBundle, pins: &[String], server: &Server) -> Result<Arc<TrustStore>, JoinError> {
    let claimed = Trust::from_bundle(bundle).map_err(|error| JoinError::Answer(error.to_string()))?;
    let pinned = |root: &&CertificateDer<'_>| pins.contains(&pin(root));
    let roots: Vec<_> = claimed.roots().iter().filter(pinned).cloned().collect();
    if roots.is_empty() {
        return Err(JoinError::Pin { server: server.clone(), pin: pins.join(" or ") });
    }
    let trust = Trust::new(bundle.trust_domain.clone(), bundle.generation, roots, Default::default());
    Ok(TrustStore::new(trust.map_err(|error| JoinError::Answer(error.to_string()))?))
}

/// By what a root is pinned: SHA-256 over its DER, lower-case hex.
fn pin(root: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, root).as_ref())
}

async fn ask(server: &Server, body: &JoinRequest, trust: Arc<TrustStore>) -> Result<JoinAnswer, JoinError> {
    let config = svid::client_config(None, trust.clone(), Expect::Meshd, &[b"http/1.1"], clock::tls());
    let body = serde_json::to_vec(body).map_err(|error| JoinError::Answer(error.to_string()))?;
    let call = call(server, config, Some(&trust), Method::POST, "/v1/ca/join", Some(body));
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late(server)))
}

async fn call<T: DeserializeOwned>(
    server: &Server,
    config: ClientConfig,
    trust: Option<&TrustStore>,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<T, JoinError> {
    let failed = |cause: String| JoinError::Unreachable { server: server.clone(), cause };
    let mut sender = dial(server, &connector(config), trust).await.map_err(failed)?;
    let response = sender.send_request(request(server, &method, path, body, None)).await;
    let (head, body) = response.map_err(|error| failed(error.to_string()))?.into_parts();
    let body =
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(error.to_string()))?;
    let body = body.to_bytes();
    if head.status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| JoinError::Answer(error.to_string()));
    }
    let title = head.status.canonical_reason().unwrap_or("error");
    let text = || String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
    let problem =
        serde_json::from_slice(&body).unwrap_or_else(|_| Problem::new(head.status.as_u16(), title, text()));
    Err(JoinError::Refused(Box::new(problem)))
}

/// The request of the key that an earlier try made, or of a new one.
fn request_for(node: &Name, keep: &Keep) -> Result<String, JoinError> {
    let (subject, path) = (Subject::Node(node.clone()), keep.path("node.csr"));
    let kept = disk::read(&path).map_err(IdentityError::from)?;
    if let (Some(csr), Some(_)) = (kept, keep.pending_key(&subject)?) {
        return Ok(csr);
    }
    let csr = keep.fresh_key(&subject)?.csr_pem;
    disk::write(&path, csr.as_bytes()).map_err(IdentityError::from)?;
    Ok(csr)
}

fn keep_answer(server: &Server, node: &Name, keep: &Keep, answer: JoinAnswer) -> Result<NodeFile, JoinError> {
    Trust::from_bundle(&answer.bundle).map_err(|error| JoinError::Answer(error.to_string()))?;
    let subject = Subject::Node(node.clone());
    let asked = SpiffeId::node(&answer.trust_domain, node);
    let key = keep.pending_key(&subject)?.ok_or_else(|| IdentityError::NoKey(subject.clone()))?;
    let svid = Svid::from_pem(&answer.certificate, &key).map_err(IdentityError::from)?;
    if svid.id != asked {
        return Err(IdentityError::Another { asked, got: svid.id }.into());
    }
    keep.put_bundle(&answer.bundle)?;
    keep.certified(&subject, &answer.certificate)?;
    let file = NodeFile {
        node: answer.node,
        trust_domain: answer.trust_domain,
        epoch: answer.epoch,
        servers: vec![server.to_string()],
    };
    // Last of all: with this file the host has joined.
    keep.put_node(&file)?;
    Ok(file)
}

fn late(server: &Server) -> JoinError {
    let cause = format!("no answer within {} s", CALL_TIMEOUT.as_secs());
    JoinError::Unreachable { server: server.clone(), cause }
}

/// Believes whoever answers. Only for learning what a pin is then held against.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &svid::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        svid::provider().signature_verification_algorithms.supported_schemes()
    }
}
