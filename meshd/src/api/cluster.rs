//! `/v1/cluster…`: the members of the control plane. What only the leader knows or does is asked of it, by whichever
//! member was called.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Answer, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use futures_util::future::join_all;
use model::duration::Timespan;
use registry::{ClusterStatus, Command, Member, MemberChange, MemberId, MembershipError, Refusal, Reply};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, auth::Caller, body::Json, error::ApiError, health};
use crate::{
    divergence::Checkpoints,
    peer::{Peer, PeerError},
};

/// How long a member may take to say that it lives.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the leader may take to answer for another member: handing leadership over takes up to three seconds. One
/// that is frozen must not freeze those who ask for it.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the leader may take to change the membership for another member: handing over, and two entries that must be
/// acknowledged.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// The paths of the cluster.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/cluster", get(status))
        .route("/v1/cluster/checkpoints", get(checkpoints))
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
    let applied = match status.matched.iter().find(|(other, _)| *other == id) {
        _ if id == status.member => status.applied_index,
        Some((_, matched)) => *matched,
        None => None,
    };
    let heard =
        status.heard.iter().find(|(other, _)| *other == id).map(|(_, ago)| Timespan::from_millis(*ago));
    let (name, version) = called(member);
    let health = if id == status.member {
        Some(json!({"disk": health::disk(api)}))
    } else {
        health_of(api, &member.addresses.api).await
    };
    json!({
        "id": id, "name": name, "api": member.addresses.api, "raft": member.addresses.raft,
        "role": if status.voters.contains(&id) { "voter" } else { "learner" },
        "leader": status.leader == Some(id), "applied": applied, "lag": status.lag(id),
        "lastContact": heard.map(|ago| ago.to_string()),
        "version": version, "commandVersion": member.command_version,
        "reachable": health.is_some(), "disk": health.map(|health| health["disk"].clone()),
        "divergedAt": api.registry.diverged().get(&id),
    })
}

/// A member's name and version, as it says; where it did not say yet, its host, and the commands that it understands.
fn called(member: &Member) -> (String, String) {
    match &member.program {
        Some(program) => (program.node.clone(), program.version.clone()),
        None => {
            let host = member.addresses.api.rsplit_once(':').map_or("", |(host, _)| host);
            (host.to_owned(), format!("commands/{}", member.command_version))
        }
    }
}

/// What a member says of itself, if it answers and is one.
async fn health_of(api: &Api, address: &str) -> Option<Value> {
    let peer = Peer::member(&api.authority, address).ok()?;
    tokio::time::timeout(PROBE_TIMEOUT, peer.get::<Value>("/healthz")).await.ok()?.ok()
}

/// What this member's state added up to, for another member to compare: only the same version must agree.
async fn checkpoints(State(api): State<Api>, caller: Caller) -> Result<Answer<Checkpoints>, ApiError> {
    caller.require_member()?;
    Ok(Answer(Checkpoints::of(&api.registry)))
}

/// Takes a member out for good. Only the leader knows whom it can do without; it makes the voters follow. One that leads
/// hands over first.
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<Value>, ApiError> {
    if caller.require_member().is_err() {
        caller.require_admin()?;
    }
    let id: MemberId = id.parse().map_err(|_| ApiError::NotFound(format!("there is no member '{id}'")))?;
    let state = api.registry.read().await?;
    if state.member(id).is_none() {
        return Err(ApiError::NotFound(format!("there is no member {id}")));
    }
    tracing::warn!(target: "audit", actor = caller.actor(), member = id, "a member is removed");
    if api.registry.status().leader == Some(api.registry.status().member) {
        return taken_out(&api, id).await.map(Answer);
    }
    match delete_at_leader(&api, id).await? {
        Some(answer) => Ok(Answer(answer)),
        None => forgotten(&api, id).await.map(Answer),
    }
}

async fn delete_at_leader(api: &Api, id: MemberId) -> Result<Option<Value>, ApiError> {
    let path = format!("/v1/cluster/members/{id}");
    ask_leader_to(api, |peer| async move { peer.delete(&path).await }).await
}

/// As the leader: first out of the vote, which may need the member's own, and only then forgotten and distrusted.
async fn taken_out(api: &Api, id: MemberId) -> Result<Value, ApiError> {
    let status = api.registry.status();
    if status.voters == [id] {
        let only = format!("member {id} is the only one that votes; let another one join first");
        return Err(ApiError::Conflict(only));
    }
    if status.voters.contains(&id) || status.learners.contains(&id) {
        match api.registry.remove(id).await {
            Err(MembershipError::NotLeader { .. }) if status.member == id => {
                let again = || ApiError::Unavailable("leadership was handed over; ask again".to_owned());
                return delete_at_leader(api, id).await?.ok_or_else(again);
            }
            done => done.map_err(not_handed_over)?,
        }
    }
    forgotten(api, id).await
}

async fn forgotten(api: &Api, id: MemberId) -> Result<Value, ApiError> {
    match api.registry.propose(Command::Member(MemberChange::Forget { id })).await? {
        // It was a member above: somebody removed it since. That may have been this very command, whose first answer was
        // lost with the leader.
        Reply::Refused(Refusal::UnknownMember { .. }) => Ok(json!({"id": id, "removed": true})),
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => Ok(json!({"id": id, "removed": true})),
    }
}

fn not_handed_over(error: MembershipError) -> ApiError {
    match error {
        MembershipError::NotLeader { .. } | MembershipError::Timeout(_) => {
            ApiError::Unavailable(error.to_string())
        }
        MembershipError::Unknown(_) | MembershipError::Refused(_) => ApiError::Conflict(error.to_string()),
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
    if caller.require_member().is_err() {
        let asked = ask_leader_to(&api, |peer| async move { peer.post("/v1/cluster/transfer", &body).await });
        if let Some(answer) = asked.await? {
            return Ok(Answer(answer));
        }
    }
    api.registry.transfer_leader(to).await.map_err(not_handed_over)?;
    Ok(Answer(json!({"leader": api.registry.leadership().borrow().leader})))
}

/// Has the leader do something; `None` where this member leads itself, or the leader lets no other member ask for it, as
/// 0.1.0 does not. What it will not do is told on.
async fn ask_leader_to<F>(api: &Api, ask: impl FnOnce(Peer) -> F) -> Result<Option<Value>, ApiError>
where
    F: Future<Output = Result<Value, PeerError>>,
{
    let leadership = *api.registry.leadership().borrow();
    let state = api.registry.applied();
    let leader = leadership.leader.filter(|_| !leadership.is_me).and_then(|leader| state.member(leader));
    let Some(leader) = leader else { return Ok(None) };
    let unavailable =
        |error: &dyn std::fmt::Display| ApiError::Unavailable(format!("the leader did not do it: {error}"));
    let peer = Peer::member(&api.authority, &leader.addresses.api).map_err(|error| unavailable(&error))?;
    match tokio::time::timeout(CHANGE_TIMEOUT, ask(peer)).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(PeerError::Refused { problem, .. })) if problem.status == ApiError::CONFLICT => {
            Err(ApiError::Conflict(problem.detail))
        }
        Ok(Err(PeerError::Refused { problem, .. })) if problem.status == ApiError::FORBIDDEN => Ok(None),
        Ok(Err(error)) => Err(unavailable(&error)),
        Err(_) => Err(unavailable(&format!("no answer within {CHANGE_TIMEOUT:?}"))),
    }
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
