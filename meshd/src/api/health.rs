//! Whether this server lives, and whether it can serve; who may not ask otherwise may ask this.

use std::time::Duration;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{Api, auth::Caller, error::ApiError, parameters::Parameters};
use model::{kind::Kind, resource::Verb};

/// How long a server that is ready takes for a read at most.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: there is a leader, and this member has applied what the leader has.
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let leader = api.registry.leadership().borrow().leader;
    if leader.is_none() {
        return Err(ApiError::Unavailable("the control plane has no leader".to_owned()));
    }
    let read = tokio::time::timeout(READY_TIMEOUT, api.registry.read()).await;
    let behind = |_| ApiError::Unavailable("this server has not caught up with the leader".to_owned());
    let state = read.map_err(behind)??;
    Ok(Json(json!({"status": "ok", "leader": leader, "revision": state.revision()})))
}

/// `GET /v1/proxies`: the hosts' proxies.
pub(super) async fn proxies(
    State(api): State<Api>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.require(Verb::List, Kind::Node, None)?;
    parameters.only(&["consistency"])?.linearizable()?;
    let state = api.registry.read().await?;
    let items = api.proxy_states(&state);
    Ok(Json(json!({"items": items, "metadata": {"revision": state.revision()}})))
}
