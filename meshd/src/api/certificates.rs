//! `/v1/ca/…`: whom to trust, joining with a token or by approval, certificates for hosts and their services, distrust.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Json as Answer, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ca::Csr;
use http::{HeaderMap, header};
use model::{
    ca::{
        CERTIFICATE_REQUESTS_MAX, CertificateAnswer, CertificateRequest, CertificateRequests, Certificates,
    },
    duration::Millis,
    name::Name,
};
use registry::{Command, Refused, Reply, TrustChange};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use svid::{pem, verify::authority};

use super::{
    Api,
    auth::Caller,
    body::Json,
    error::{ApiError, written},
};
use crate::{
    authority::{IssueError, fingerprint},
    clock,
    daemon::Daemon,
    peer::{IntermediateAnswer, IntermediateRequest},
};

mod join;
mod requests;

/// The media type of certificates as PEM.
pub(super) const PEM: &str = "application/x-pem-file";

/// The paths of the certificate authority.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/ca", get(status))
        .route("/v1/ca/bundle", get(bundle))
        .route("/v1/ca/join", post(join::join))
        .route("/v1/ca/requests", get(requests::list).post(requests::file))
        .route("/v1/ca/requests/{id}", get(requests::one))
        .route("/v1/ca/requests/{id}/approve", post(requests::approve))
        .route("/v1/ca/requests/{id}/deny", post(requests::deny))
        .route("/v1/ca/certificates", post(certificates))
        .route("/v1/ca/intermediate", post(intermediate))
        .route("/v1/ca/distrust", post(distrust))
}

/// Whom to trust. Open to everybody: it is what a stranger compares with its pin.
async fn bundle(State(api): State<Api>, headers: HeaderMap) -> Response {
    let wants_pem = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes() == PEM.as_bytes());
    if wants_pem {
        return ([(header::CONTENT_TYPE, PEM)], api.authority.roots_pem()).into_response();
    }
    Answer((*api.authority.bundle()).clone()).into_response()
}

/// Certificates for the host that asks, each judged by itself.
async fn certificates(
    State(api): State<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<Certificates>, ApiError> {
    let node = caller.require_node()?;
    let CertificateRequests { requests } = read(body)?;
    if requests.len() > CERTIFICATE_REQUESTS_MAX {
        let message = format!("must have at most {CERTIFICATE_REQUESTS_MAX} entries, has {}", requests.len());
        return Err(ApiError::invalid("requests", message));
    }
    // A renewal is judged by what this member knows, so that it works without a quorum.
    let renewals_only = requests.iter().all(|request| request.current.is_some());
    let state = if renewals_only { api.registry.applied() } else { api.registry.read().await? };
    let answers = requests.into_iter().map(|request| issue(&api, &daemon, &node, request, &state));
    Ok(Answer(Certificates { certificates: answers.collect() }))
}

fn issue(
    api: &Api,
    daemon: &Daemon,
    node: &Name,
    request: CertificateRequest,
    state: &registry::State,
) -> CertificateAnswer {
    let CertificateRequest { subject, csr, current } = request;
    let now = clock::unix();
    let renewed = current.is_some();
    let checked =
        current.map_or(Ok(()), |current| api.authority.check_current(node, &subject, &current, now));
    let signed: Result<_, IssueError> =
        checked.and_then(|()| api.authority.issue(node, &subject, &csr, state, now));
    daemon.metrics.certificate(signed.is_ok());
    match signed {
        Ok(signed) => {
            let not_after = Millis(signed.not_after.as_secs() * 1_000);
            tracing::info!(target: "audit", %node, ?subject, renewed, serial = signed.serial, "certificate issued");
            let (certificate, not_after) = (Some(signed.chain_pem), Some(not_after));
            CertificateAnswer { subject, certificate, not_after, error: None }
        }
        Err(error) => {
            tracing::warn!(target: "audit", %node, ?subject, renewed, %error, "certificate refused");
            CertificateAnswer { subject, certificate: None, not_after: None, error: Some(error.to_string()) }
        }
    }
}

/// Another member's next intermediate: it has no means to unseal the root itself.
async fn intermediate(
    State(api): State<Api>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<IntermediateAnswer>, ApiError> {
    let member = caller.require_member()?;
    let request: IntermediateRequest = read(body)?;
    let state = api.registry.applied();
    if state.member(member).is_none() {
        return Err(ApiError::Forbidden(format!("meshd {member} is no member of this cluster any more")));
    }
    let csr = Csr::from_pem(&request.csr).map_err(|error| ApiError::invalid("csr", error))?;
    let signed = api.authority.sign_intermediate(&state, member, csr, clock::unix()).await;
    let certificate = signed.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    tracing::info!(target: "audit", member, "intermediate signed");
    Ok(Answer(IntermediateAnswer { certificate }))
}

/// What the mesh trusts, what signs, and until when.
async fn status(State(api): State<Api>, caller: Caller) -> Result<Answer<Value>, ApiError> {
    caller.require_admin()?;
    let state = api.registry.read().await?;
    let trust =
        state.trust().ok_or_else(|| ApiError::Unavailable("the mesh is not founded yet".to_owned()))?;
    let domain = &trust.bundle.trust_domain;
    let certificate = |text: &str| {
        let der = pem::certificate(text).ok()?;
        let facts = authority(&der, domain).ok()?;
        Some((fingerprint(&der), facts))
    };
    let distrusted = &trust.bundle.distrusted;
    let roots = trust.bundle.roots.iter().filter_map(|text| certificate(text)).map(|(print, facts)| {
        json!({
            "subject": facts.subject, "fingerprint": print, "notBefore": millis(facts.not_before),
            "notAfter": millis(facts.not_after), "state": "Active",
        })
    });
    let intermediates = trust.intermediates.iter().filter_map(|(member, text)| {
        let (_, facts) = certificate(text)?;
        let refused = distrusted.intermediate(&facts.key_fingerprint).is_some();
        Some(json!({
            "member": member, "fingerprint": facts.key_fingerprint, "notBefore": millis(facts.not_before),
            "notAfter": millis(facts.not_after), "state": if refused { "Distrusted" } else { "Active" },
        }))
    });
    Ok(Answer(json!({
        "trustDomain": domain, "generation": trust.bundle.generation, "roots": roots.collect::<Vec<_>>(),
        "intermediates": intermediates.collect::<Vec<_>>(), "distrusted": distrusted,
    })))
}

/// What to refuse from now on: one of the three.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DistrustRequest {
    node: Option<Name>,
    id: Option<model::identity::SpiffeId>,
    intermediate: Option<String>,
}

async fn distrust(
    State(api): State<Api>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<Value>, ApiError> {
    caller.require_admin()?;
    let asked: DistrustRequest = read(body)?;
    let refused = match (asked.node, asked.id, asked.intermediate) {
        (Some(node), None, None) => Refused::Node(node),
        (None, Some(id), None) => Refused::Id(id),
        (None, None, Some(fingerprint)) => Refused::Intermediate(known_intermediate(&api, fingerprint)?),
        _ => return Err(ApiError::invalid("", "must have exactly one of node, id and intermediate")),
    };
    tracing::warn!(target: "audit", actor = caller.actor(), ?refused, "distrusted");
    match api.registry.propose(Command::Trust(TrustChange::Distrust(refused))).await? {
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => {
            let state = api.registry.read().await?;
            let bundle = state.trust().map(|trust| &trust.bundle);
            Ok(Answer(json!({
                "generation": bundle.map(|bundle| bundle.generation),
                "distrusted": bundle.map(|bundle| &bundle.distrusted),
            })))
        }
    }
}

/// A fingerprint with a typing error would distrust nobody, silently.
fn known_intermediate(api: &Api, text: String) -> Result<String, ApiError> {
    let state = api.registry.applied();
    let trust =
        state.trust().ok_or_else(|| ApiError::Unavailable("the mesh is not founded yet".to_owned()))?;
    let known: BTreeSet<String> = trust
        .intermediates
        .values()
        .filter_map(|text| authority(&pem::certificate(text).ok()?, &trust.bundle.trust_domain).ok())
        .map(|facts| facts.key_fingerprint)
        .collect();
    // One of a member that was removed is no longer listed, and may be distrusted all the same.
    let well_formed =
        text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if known.contains(&text) || well_formed {
        return Ok(text);
    }
    let known: Vec<String> = known.into_iter().collect();
    Err(ApiError::invalid(
        "intermediate",
        format!("must be a key's fingerprint; known are {}", known.join(", ")),
    ))
}

fn millis(time: rustls_pki_types::UnixTime) -> Millis {
    Millis(time.as_secs() * 1_000)
}

/// A body as its shape.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(|error| ApiError::invalid("", error))
}
