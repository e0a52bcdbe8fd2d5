//! `/v1/cluster…`: the members of the control plane. What only the leader knows or does is asked of it, by whichever
//! member was called.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Answer, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use futures_util::future::join_all;
use registry::{ClusterStatus, Command, Member, MemberChange, MemberId, MembershipError, Reply};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, auth::Caller, body::Json, error::ApiError};
use crate::peer::{Peer, PeerError};

/// How long a member may take to say that it lives.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the leader may take to answer for another member: handing leadership over takes up to three seconds. One
/// that is frozen must not freeze those who ask for it.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The paths of the cluster.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/cluster", get(status))
        .route("/v1/cluster/members/{id}", delete(remove))
        .route("/v1/cluster/transfer", post(transfer))
}

/// Who is a member, who leads, who is behind.
async fn status(State(api): State<Api>, caller: Caller) -> Result<Answer<Value>, ApiError> {
    if caller.require_member().is_err() {
        caller.require_admin()?;
        if let Some(answer) = ask_leader(&api, |peer| async move { peer.get("/v1/cluster").await }).await {
            return Ok(Answer(answer));
        }
    }
    let (state, status) = (api.registry.applied(), api.registry.status());
    let probes = state.members().map(|member| describe(&api, member, &status));
    Ok(Answer(json!({
        "epoch": state.epoch(), "leader": status.leader, "term": status.term, "revision": state.revision(),
        "members": join_all(probes).await,
    })))
}

async fn describe(api: &Api, member: &Arc<Member>, status: &ClusterStatus) -> Value {
    let id = member.id;
    let host = member.addresses.api.rsplit_once(':').map_or("", |(host, _)| host);
    let applied = match status.matched.iter().find(|(other, _)| *other == id) {
        _ if id == status.member => status.applied_index,
        Some((_, matched)) => *matched,
        None => None,
    };
    json!({
        "id": id, "name": host, "api": member.addresses.api, "raft": member.addresses.raft,
        "role": if status.voters.contains(&id) { "voter" } else { "learner" },
        "leader": status.leader == Some(id), "applied": applied,
        "version": format!("commands/{}", member.command_version),
        "reachable": id == status.member || lives(api, &member.addresses.api).await,
    })
}

/// Whether a member answers, and is one.
async fn lives(api: &Api, address: &str) -> bool {
    let Ok(peer) = Peer::member(&api.authority, address) else { return false };
    tokio::time::timeout(PROBE_TIMEOUT, peer.get::<Value>("/healthz"))
        .await
        .is_ok_and(|answer| answer.is_ok())
}

/// Takes a member out for good. The leader makes the voters follow.
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<Value>, ApiError> {
    caller.require_admin()?;
    let id: MemberId = id.parse().map_err(|_| ApiError::NotFound(format!("there is no member '{id}'")))?;
    let (state, status) = (api.registry.read().await?, api.registry.status());
    if state.member(id).is_none() {
        return Err(ApiError::NotFound(format!("there is no member {id}")));
    }
    if status.voters == [id] {
        return Err(ApiError::Conflict(format!(
            "member {id} is the only one that votes; let another one join first"
        )));
    }
    tracing::warn!(target: "audit", actor = caller.actor(), member = id, "member removed");
    match api.registry.propose(Command::Member(MemberChange::Forget { id })).await? {
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => Ok(Answer(json!({"id": id, "removed": true}))),
    }
}

/// To whom leadership is handed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: Option<MemberId>,
}

async fn transfer(
    State(api): State<Api>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<Value>, ApiError> {
    if caller.require_member().is_err() {
        caller.require_admin()?;
    }
    let Transfer { to } =
        serde_json::from_value(body.clone()).map_err(|error| ApiError::invalid("", error))?;
    let status = api.registry.status();
    if to.is_some_and(|to| !status.voters.contains(&to)) {
        return Err(ApiError::invalid(
            "to",
            format!("must be a member that votes: one of {:?}", status.voters),
        ));
    }
    tracing::info!(target: "audit", actor = caller.actor(), ?to, "leadership is handed over");
    let asked = ask_leader(&api, |peer| async move { peer.post("/v1/cluster/transfer", &body).await }).await;
    if let Some(answer) = asked.filter(|_| caller.require_member().is_err()) {
        return Ok(Answer(answer));
    }
    api.registry.transfer_leader(to).await.map_err(|error| match error {
        MembershipError::NotLeader { .. } | MembershipError::Timeout(_) => {
            ApiError::Unavailable(error.to_string())
        }
        MembershipError::Unknown(_) | MembershipError::Refused(_) => ApiError::Conflict(error.to_string()),
    })?;
    Ok(Answer(json!({"leader": api.registry.leadership().borrow().leader})))
}

/// What the leader says; `None` where this member leads itself, or the leader does not answer.
pub(super) async fn ask_leader<F>(api: &Api, ask: impl FnOnce(Peer) -> F) -> Option<Value>
where
    F: Future<Output = Result<Value, PeerError>>,
{
    let leadership = *api.registry.leadership().borrow();
    let leader = leadership.leader.filter(|_| !leadership.is_me)?;
    let state = api.registry.applied();
    let peer = Peer::member(&api.authority, &state.member(leader)?.addresses.api).ok()?;
    match tokio::time::timeout(LEADER_TIMEOUT, ask(peer)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the leader did not answer");
            None
        }
        Err(_) => {
            tracing::debug!("the leader did not answer in time");
            None
        }
    }
}
