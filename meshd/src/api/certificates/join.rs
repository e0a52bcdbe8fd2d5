//! `POST /v1/ca/join`: a host or a server comes in with a token. Whether it may is decided in the log, so that a use is
//! taken once however many ask at once; the certificate is signed after.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use ca::{Csr, token};
use model::{
    ca::{JoinAnswer, JoinRequest},
    join::{JoinAttempt, JoinRefused, JoinRole},
    kind::Kind,
    name::Name,
    object::Key,
    token::{JoinToken, hex},
};
use registry::{Addresses, Admission, Command, Joined, RedeemJoin, Refusal, Reply, TrustChange};
use serde_json::Value;
use tokio::time::sleep;

use super::{Answer, Api, ApiError, Daemon, Json, read, written};
use crate::{
    clock,
    join::{ServerJoinAnswer, ServerJoinRequest},
};

/// As many bytes of a version are kept.
pub(super) const VERSION_BYTES_MAX: usize = 64;
/// How long a host waits for the end of the second in which its name was distrusted: longer only where clocks differ, and
/// that is told.
const DISTRUST_WAIT_MAX: Duration = Duration::from_secs(2);

pub(super) async fn join(
    State(api): State<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let joined = if body.get("server").is_some() {
        server(&api, &daemon, body).await.map(|answer| Answer(answer).into_response())
    } else {
        host(&api, &daemon, body).await.map(|answer| Answer(answer).into_response())
    };
    daemon.metrics.join(joined.is_ok());
    let mut response = joined?;
    *response.status_mut() = written(true);
    Ok(response)
}

async fn host(api: &Api, daemon: &Daemon, body: Value) -> Result<JoinAnswer, ApiError> {
    let JoinRequest { token, node, csr, version } = read(body)?;
    if version.len() > VERSION_BYTES_MAX {
        return Err(ApiError::invalid("version", format!("must have at most {VERSION_BYTES_MAX} bytes")));
    }
    let csr = Csr::from_pem(&csr).map_err(|error| ApiError::invalid("csr", error))?;
    outlast_distrust(api, &node).await?;
    let attempt = |hash| JoinAttempt {
        hash,
        role: JoinRole::Host,
        node: node.clone(),
        fingerprint: csr.fingerprint().to_owned(),
    };
    let joined = redeem(api, daemon, &token, attempt, None).await?;
    let signed = api.authority.issue_joined(&node, &csr, clock::unix());
    let signed = signed.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    daemon.metrics.certificate(true);
    tracing::info!(
        target: "audit", %node, version, first = joined.granted.first, serial = signed.serial, "host joined"
    );
    Ok(came_in(api, node, signed.chain_pem))
}

/// What a host gets that came in.
pub(super) fn came_in(api: &Api, node: Name, certificate: String) -> JoinAnswer {
    let bundle = (*api.authority.bundle()).clone();
    let (trust_domain, epoch) = (bundle.trust_domain.clone(), bundle.epoch.clone());
    JoinAnswer { node, trust_domain, epoch, certificate, bundle }
}

/// A host that comes back at once must not get what is refused with its old certificates: distrust counts in seconds.
pub(super) async fn outlast_distrust(api: &Api, node: &Name) -> Result<(), ApiError> {
    let state = api.registry.applied();
    let distrusted = state.trust().and_then(|trust| trust.bundle.distrusted.nodes.get(node).copied());
    let Some(at) = distrusted else { return Ok(()) };
    let wait = Duration::from_secs((at + 1).saturating_sub(clock::unix().as_secs()));
    if wait > DISTRUST_WAIT_MAX {
        let seconds = wait.as_secs();
        return Err(ApiError::Unavailable(format!(
            "node '{node}' was distrusted {seconds} s ahead of this server's clock: join by another server, or then"
        )));
    }
    sleep(wait).await;
    Ok(())
}

async fn server(api: &Api, daemon: &Daemon, body: Value) -> Result<ServerJoinAnswer, ApiError> {
    let ServerJoinRequest { token, node, csr, server } = read(body)?;
    let csr = Csr::from_pem(&csr).map_err(|error| ApiError::invalid("csr", error))?;
    let attempt = |hash| JoinAttempt {
        hash,
        role: JoinRole::Server,
        node: node.clone(),
        fingerprint: csr.fingerprint().to_owned(),
    };
    let addresses = Addresses { raft: server.raft, api: server.api };
    let admission = Admission { addresses, incarnation: server.incarnation };
    let joined = redeem(api, daemon, &token, attempt, Some(admission)).await?;
    let member =
        joined.member.ok_or_else(|| ApiError::Internal("a server joined without an id".to_owned()))?;
    let state = api.registry.read().await?;
    let signed = api.authority.sign_intermediate(&state, member, csr, clock::unix()).await;
    let certificate = signed.map_err(|error| {
        ApiError::Unavailable(format!("{error}; join again within ten minutes through another member"))
    })?;
    let change = TrustChange::SetIntermediate { member, pem: certificate.clone() };
    if let Reply::Refused(refusal) = api.registry.propose(Command::Trust(change)).await? {
        return Err(refusal.into());
    }
    tracing::info!(target: "audit", %node, member, "server joined");
    let bundle = (*api.authority.bundle()).clone();
    Ok(ServerJoinAnswer { member, cluster: daemon.cluster, certificate, bundle })
}

/// Takes a use of the token. What this member can refuse by itself costs the leader nothing.
async fn redeem(
    api: &Api,
    daemon: &Daemon,
    text: &str,
    attempt: impl Fn(String) -> JoinAttempt,
    server: Option<Admission>,
) -> Result<Joined, ApiError> {
    let parsed = JoinToken::parse_without_pin(text);
    let (id, secret) = parsed.map_err(|error| ApiError::invalid("token", error))?;
    let attempt = attempt(hex(&token::hash(secret)));
    if decide(&api.registry.applied(), id, &attempt).is_err() {
        // The token may have been made a moment ago at another member: ask the leader, but not for everybody.
        if !daemon.guard.fail(clock::now()) {
            return Err(ApiError::TooMany("too many tries with tokens that are not valid".to_owned()));
        }
        decide(&*api.registry.read().await?, id, &attempt).map_err(|refused| {
            tracing::warn!(target: "audit", node = %attempt.node, token = id, %refused, "join refused");
            ApiError::from(Refusal::Join(refused))
        })?;
    }
    let node = attempt.node.clone();
    let redeem = RedeemJoin { token: id.to_owned(), attempt, server };
    match api.registry.propose(Command::RedeemJoin(redeem)).await? {
        Reply::Joined(joined) => Ok(joined),
        Reply::Refused(refusal) => {
            tracing::warn!(target: "audit", %node, token = id, %refusal, "join refused");
            Err(refusal.into())
        }
        other => Err(ApiError::Internal(format!("the registry answered a join with {other}"))),
    }
}

fn decide(state: &registry::State, id: &str, attempt: &JoinAttempt) -> Result<(), JoinRefused> {
    let record = state.join_record(id).ok_or(JoinRefused::Secret)?;
    let node = Key::mesh_wide(Kind::Node, attempt.node.clone());
    let exists = attempt.role == JoinRole::Host && state.get(&node).is_some();
    record.decide(attempt, exists, clock::wall().0).map(drop)
}
