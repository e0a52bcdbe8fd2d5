//! `/v1/ca/requests…`: a host without a token asks to come back, and operators approve or deny. Anybody may ask, so that what
//! can be refused is refused here, before it costs the leader anything. An approval is for the key that was asked for, and
//! the certificate is signed by whichever member its host asks for it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use ca::Csr;
use model::{
    ca::JoinAnswer,
    kind::Kind,
    rejoin::{
        Approval, Denial, REASON_BYTES_MAX, RejoinRecord, RejoinRequest, RejoinRequests, RejoinStatus,
        Standing, ungrouped,
    },
    resource::Verb,
};
use registry::{Command, Filing, Judgement, Refusal, RejoinStep, Reply};

use super::{
    Answer, Api, ApiError, Daemon, Json,
    join::{VERSION_BYTES_MAX, came_in, outlast_distrust},
    read, written,
};
use crate::{
    api::{
        auth::{Caller, Connection},
        gate::network,
    },
    clock,
};

/// A host asks. Asking again with the same key shows how its request stands.
pub(super) async fn file(
    State(api): State<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    Extension(connection): Extension<Connection>,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let filing = filing(read(body)?, &connection)?;
    if let Some(record) = may_file(&api, &daemon, &filing).await? {
        let id = registry::state::rejoin_request_id(&filing.node, &filing.fingerprint);
        return Ok(Answer(record.status(&id, clock::wall())).into_response());
    }
    let (node, from) = (filing.node.clone(), filing.from.clone());
    let (id, record) = propose(&api, RejoinStep::File(Box::new(filing))).await?;
    tracing::warn!(target: "audit", %node, from, key = record.fingerprint, id, "a host asks to come back");
    let mut response = Answer(record.status(&id, clock::wall())).into_response();
    *response.status_mut() = written(true);
    Ok(response)
}

/// How the request of a host stands. Who polls shows by the id that it knows the key.
pub(super) async fn one(
    State(api): State<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    Path(id): Path<String>,
) -> Result<Answer<RejoinStatus>, ApiError> {
    let applied = api.registry.applied();
    let known = match applied.rejoin_request(&id) {
        Some(known) if known.standing(clock::wall()) != Standing::Approved => known.clone(),
        Some(_) => fresh(&api, &id).await?,
        None => {
            // It may have been filed a moment ago at another member: ask the leader, but not for everybody.
            not_too_often(&daemon)?;
            fresh(&api, &id).await?
        }
    };
    let mut status = known.status(&id, clock::wall());
    if status.state == Standing::Approved {
        status.joined = Some(sign(&api, &daemon, &known).await?);
    }
    Ok(Answer(status))
}

/// All requests, for operators.
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Result<Answer<RejoinRequests>, ApiError> {
    caller.require(Verb::List, Kind::Node, None)?;
    let (state, now) = (api.registry.read().await?, clock::wall());
    let mut items: Vec<_> =
        state.rejoin_requests().map(|(id, record)| record.status_in_full(id, now)).collect();
    items.sort_by_key(|status| status.filed_at);
    Ok(Answer(RejoinRequests { at: now, items }))
}

/// Lets a host come back, with the key that was asked for and no other.
pub(super) async fn approve(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json,
) -> Result<Answer<RejoinStatus>, ApiError> {
    caller.require(Verb::Approve, Kind::Node, None)?;
    let Approval { fingerprint } = read(body)?;
    let known = fresh(&api, &id).await?;
    if let Some(text) = fingerprint {
        same_key(&known, &text)?;
    }
    judge(&api, &caller, &id, &known, None).await
}

/// Does not let it come back.
pub(super) async fn deny(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json,
) -> Result<Answer<RejoinStatus>, ApiError> {
    caller.require(Verb::Approve, Kind::Node, None)?;
    let reason = read::<Denial>(body)?.reason.unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let message = format!("must have at most {REASON_BYTES_MAX} bytes, in one line");
        return Err(ApiError::invalid("reason", message));
    }
    let known = fresh(&api, &id).await?;
    judge(&api, &caller, &id, &known, Some(reason)).await
}

/// What is asked for, with the proof that whoever asks holds the key.
fn filing(request: RejoinRequest, connection: &Connection) -> Result<Filing, ApiError> {
    let RejoinRequest { node, csr, version } = request;
    // An operator's terminal shows it.
    if version.len() > VERSION_BYTES_MAX || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("must have at most {VERSION_BYTES_MAX} characters of ASCII, and no spaces");
        return Err(ApiError::invalid("version", message));
    }
    let key = Csr::from_pem(&csr).map_err(|error| ApiError::invalid("csr", error))?;
    let address = connection.remote.ip().to_canonical();
    let (from, network) = (address.to_string(), network(address).to_string());
    Ok(Filing { node, fingerprint: key.fingerprint().to_owned(), csr, from, network, version })
}

/// What this member can refuse by itself costs the leader nothing.
async fn may_file(
    api: &Api,
    daemon: &Daemon,
    filing: &Filing,
) -> Result<Option<Arc<RejoinRecord>>, ApiError> {
    match api.registry.applied().may_file(filing, clock::wall()) {
        Ok(known) => return Ok(known),
        Err(refusal @ Refusal::Crowded { .. }) => return Err(refusal.into()),
        Err(_) => not_too_often(daemon)?,
    }
    // The Node may have been made a moment ago at another member.
    Ok(api.registry.read().await?.may_file(filing, clock::wall())?)
}

fn not_too_often(daemon: &Daemon) -> Result<(), ApiError> {
    match daemon.guard.fail(clock::now()) {
        true => Ok(()),
        false => Err(ApiError::TooMany("too many requests of hosts that are not known".to_owned())),
    }
}

/// A request, as all members know it.
async fn fresh(api: &Api, id: &str) -> Result<Arc<RejoinRecord>, ApiError> {
    let state = api.registry.read().await?;
    // What is no id is not repeated.
    let plain = |id: &str| id.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    state.rejoin_request(id).cloned().ok_or_else(|| Refusal::NoRequest { id: plain(id) }.into())
}

fn same_key(known: &RejoinRecord, text: &str) -> Result<(), ApiError> {
    let shown = ungrouped(text);
    let shown = shown.ok_or_else(|| ApiError::invalid("fingerprint", "must be all 64 hex digits of it"))?;
    if shown == known.fingerprint {
        return Ok(());
    }
    Err(ApiError::Conflict(format!(
        "the request is for another key: its fingerprint is {}; it is not from the host that shows you {shown}: deny it",
        known.fingerprint
    )))
}

/// Says it in the log, which decides; with a reason, if only an empty one, it is a denial.
async fn judge(
    api: &Api,
    caller: &Caller,
    id: &str,
    known: &RejoinRecord,
    denied: Option<String>,
) -> Result<Answer<RejoinStatus>, ApiError> {
    let (id, node, fingerprint) = (id.to_owned(), known.node.clone(), known.fingerprint.clone());
    let (approved, reason, actor) = (denied.is_none(), denied.unwrap_or_default(), caller.actor());
    tracing::warn!(target: "audit", actor, %node, key = fingerprint, id, approved, "a request to come back is judged");
    let judgement = Judgement { id, node, fingerprint, approved, reason, actor };
    let (id, record) = propose(api, RejoinStep::Judge(Box::new(judgement))).await?;
    Ok(Answer(record.status_in_full(&id, clock::wall())))
}

async fn propose(api: &Api, step: RejoinStep) -> Result<(String, Arc<RejoinRecord>), ApiError> {
    match api.registry.propose(Command::Rejoin(step)).await? {
        Reply::Requested { id, record } => Ok((id, record)),
        Reply::Refused(refusal) => Err(refusal.into()),
        other => Err(ApiError::Internal(format!("the registry answered a request to rejoin with {other}"))),
    }
}

/// The certificate for the key that was approved, as for one that joins.
async fn sign(api: &Api, daemon: &Daemon, record: &RejoinRecord) -> Result<JoinAnswer, ApiError> {
    let node = record.node.clone();
    outlast_distrust(api, &node).await?;
    let csr = Csr::from_pem(&record.csr).map_err(|error| ApiError::Internal(error.to_string()))?;
    let signed = api.authority.issue_joined(&node, &csr, clock::unix());
    let signed = signed.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    daemon.metrics.join(true);
    daemon.metrics.certificate(true);
    let approved_by = record.verdict.as_ref().map(|verdict| verdict.by.as_str());
    tracing::info!(target: "audit", %node, approved_by, serial = signed.serial, "host rejoined");
    Ok(came_in(api, node, signed.chain_pem))
}
