//! Whether this server lives, and whether it can serve; who may not ask otherwise may ask this.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use model::{kind::Kind, proxy::ProxyState, resource::Verb};
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    cluster::ask_leader,
    error::ApiError,
    parameters::{FRESHNESS, Parameters},
};

/// How long a server that is ready takes for a read at most.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers, and whether its disk has room.
pub(super) async fn alive(State(api): State<Api>) -> Json<Value> {
    Json(json!({"status": "ok", "disk": disk(&api)}))
}

/// `ok`, or that there is no room.
pub(super) fn disk(api: &Api) -> &'static str {
    if api.registry.disk().borrow().any() { "full" } else { "ok" }
}

/// `GET /readyz`: there is a leader, this member has applied what the leader has, and its disk has room for more.
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    if disk(&api) != "ok" {
        return Err(ApiError::Unavailable(
            "the disk of this server is full: it takes no writes until there is room".to_owned(),
        ));
    }
    let leader = api.registry.leadership().borrow().leader;
    if leader.is_none() {
        return Err(ApiError::Unavailable("the control plane has no leader".to_owned()));
    }
    let read = tokio::time::timeout(READY_TIMEOUT, api.registry.read()).await;
    let behind = |_| ApiError::Unavailable("this server has not caught up with the leader".to_owned());
    let state = read.map_err(behind)??;
    Ok(Json(json!({"status": "ok", "leader": leader, "revision": state.revision()})))
}

/// `GET /v1/proxies`: the hosts' proxies. The leader knows what each of them runs, other members only what they heard.
pub(super) async fn proxies(
    State(api): State<Api>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let by_member = caller.require_member().is_ok();
    if !by_member {
        caller.require(Verb::List, Kind::Node, None)?;
    }
    let freshness = parameters.only(FRESHNESS)?.freshness()?;
    let state = api.registry.read_as(freshness).await?;
    let mut items = api.proxy_states(&state);
    if !by_member
        && let Some(answer) = ask_leader(&api, |leader| async move { leader.get("/v1/proxies").await }).await
    {
        let led: Vec<ProxyState> = serde_json::from_value(answer["items"].clone()).unwrap_or_default();
        join(&mut items, led);
    }
    Ok(Json(json!({"items": items, "metadata": {"revision": state.revision()}})))
}

/// What this member and the leader know, joined: the later revision, and with it why there is no later one; and what its
/// proxy leaves alone, as whoever heard it knows.
fn join(items: &mut [ProxyState], led: Vec<ProxyState>) {
    let mut led: BTreeMap<_, _> = led.into_iter().map(|proxy| (proxy.node.clone(), proxy)).collect();
    for item in items {
        let Some(led) = led.remove(&item.node) else { continue };
        if item.left_alone.is_empty() {
            item.left_alone = led.left_alone;
        }
        if led.revision > item.revision {
            (item.revision, item.nack) = (led.revision, led.nack);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::proxy::Nack;

    use super::*;

    #[test]
    fn the_later_revision_counts() {
        let proxy = |node: &str, revision: u64, nack: Option<u64>| ProxyState {
            node: node.parse().expect("a name"),
            session: "Live".to_owned(),
            version: String::new(),
            revision,
            nack: nack.map(|revision| Nack { revision, reason: String::new() }),
            left_alone: Vec::new(),
            services: Vec::new(),
            addresses: Vec::new(),
        };
        let mut items = vec![proxy("a", 0, None), proxy("b", 5, Some(6)), proxy("c", 5, Some(6))];
        join(&mut items, vec![proxy("a", 7, None), proxy("b", 5, None), proxy("d", 1, None)]);
        assert_eq!(items, [proxy("a", 7, None), proxy("b", 5, Some(6)), proxy("c", 5, Some(6))]);
    }
}
