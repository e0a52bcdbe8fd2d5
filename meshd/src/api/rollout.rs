//! `?wait=applied`: a write is answered when the proxies that it concerns run it. Each member knows the proxies that watch
//! at it; whoever was asked asks all of them, again and again, until enough of the proxies have it or the time is over.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json as Answer, Router,
    extract::{FromRequestParts, State as Shared},
    routing::post,
};
use futures_util::future::join_all;
use http::{StatusCode, request::Parts};
use model::{answer, duration::Timespan, rollout::Rollout};
use registry::Member;
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Api,
    auth::Caller,
    body::Json,
    error::{self, ApiError},
    gate::Ticket,
    parameters::Parameters,
};
use crate::{
    clock,
    peer::Peer,
    rollout::{Counted, Watching, concerned, join},
};

/// The query parameters of a write.
pub(super) const WRITE_PARAMETERS: &[&str] = &["dryRun", "wait", "quorum", "timeout"];
/// So many writes may wait at one server at once; each asks all servers some times a second.
pub(super) const ROLLOUT_WAITS_MAX: usize = 64;
/// How many of a hundred proxies must run it where nothing is said.
const QUORUM: u64 = 100;
/// How long a write waits where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a write may wait: what stands between cuts off silent connections after a few minutes.
pub(super) const ROLLOUT_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long a member may take to say what its proxies run.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks, at first and at last: most proxies run a revision within some milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(25);
const LOOK_LAST: Duration = Duration::from_secs(1);
const APPLIED: &str = "applied";

/// That and how a write is to wait. While it lives it counts as one of [`ROLLOUT_WAITS_MAX`].
pub(super) struct Wait {
    quorum: u64,
    timeout: Duration,
    _permit: OwnedSemaphorePermit,
}

/// A write's query, and its ticket.
pub(super) struct Waits {
    parameters: Parameters,
    pub(super) ticket: Ticket,
}

/// What members ask each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    revision: u64,
}

answer! {
    /// What they answer: who watches at this member.
    #[derive(Debug)]
    pub(super) struct Said {
        /// Each proxy, with what it runs.
        "watching" watching: Vec<Watching>,
    }
}

/// The path by which members ask each other.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/cluster/rollout", post(said))
}

impl Wait {
    /// Reads `wait`, `quorum` and `timeout`; `None` where the write does not wait. Asked before anything is written.
    ///
    /// # Errors
    /// A value that is none, one without `wait`, or a dry run that waits; too many wait already.
    pub(super) fn of(api: &Api, parameters: &Parameters, dry_run: bool) -> Result<Option<Self>, ApiError> {
        let most = ROLLOUT_TIMEOUT_MAX.as_secs();
        match parameters.text("wait") {
            None => {
                let alone = ["quorum", "timeout"].into_iter().find(|name| parameters.text(name).is_some());
                return alone.map_or(Ok(None), |name| Err(ApiError::invalid(name, "needs wait=applied")));
            }
            Some(APPLIED) if dry_run => {
                return Err(ApiError::invalid("wait", "a dry run changes nothing that could be waited for"));
            }
            Some(APPLIED) => {}
            Some(other) => {
                return Err(ApiError::invalid("wait", format_args!("must be {APPLIED}, is '{other}'")));
            }
        }
        let quorum = parameters.number("quorum", 1, 100)?.unwrap_or(QUORUM);
        let timeout = parameters.parsed::<Timespan>("timeout")?.map_or(TIMEOUT, Timespan::duration);
        if timeout > ROLLOUT_TIMEOUT_MAX {
            let message = format_args!("must be at most {most}s (ROLLOUT_TIMEOUT_MAX)");
            return Err(ApiError::invalid("timeout", message));
        }
        let permit = api.rollouts.clone().try_acquire_owned().map_err(|_| {
            let most = ROLLOUT_WAITS_MAX;
            ApiError::Unavailable(format!(
                "{most} writes wait for proxies at this server, its most (ROLLOUT_WAITS_MAX); nothing was written"
            ))
        })?;
        Ok(Some(Self { quorum, timeout, _permit: permit }))
    }

    /// Waits for the proxies that `revision` concerns; whether enough of them run it, and how far it is. Ends early where
    /// too many have refused it.
    pub(super) async fn for_proxies(&self, api: &Api, ticket: &Ticket, revision: u64) -> (bool, Rollout) {
        // Who waits holds no place of those who write. Where there is no room for it either, it keeps its place.
        let _following = ticket.follow().ok();
        let (end, mut pause) = (clock::now() + self.timeout, LOOK_FIRST);
        loop {
            let counted = look(api, revision).await;
            let reached = counted.rollout.has_reached(self.quorum);
            let over = clock::now() >= end || api.closing.is_cancelled();
            if reached || over || !counted.may_reach(self.quorum) {
                return (reached, counted.rollout);
            }
            // Poll: what proxies say reaches the members one by one.
            tokio::time::sleep_until(end.min(clock::now() + pause)).await;
            pause = (pause * 2).min(LOOK_LAST);
        }
    }
}

impl Waits {
    /// Whether it is a dry run, and whether it waits.
    ///
    /// # Errors
    /// Parameters that are none of a write's, and those of [`Wait::of`].
    pub(super) fn of(&self, api: &Api) -> Result<(bool, Option<Wait>), ApiError> {
        let parameters = self.parameters.clone().only(WRITE_PARAMETERS)?;
        let dry_run = parameters.flag("dryRun")?;
        Ok((dry_run, Wait::of(api, &parameters, dry_run)?))
    }
}

impl FromRequestParts<Api> for Waits {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let parameters = Parameters::from_request_parts(parts, api).await?;
        let ticket = Extension::<Ticket>::from_request_parts(parts, api).await;
        let Extension(ticket) =
            ticket.map_err(|_| ApiError::Internal("a request without a ticket".to_owned()))?;
        Ok(Self { parameters, ticket })
    }
}

/// The status of a write that waited.
pub(super) fn status(created: bool, reached: bool) -> StatusCode {
    if reached { error::written(created) } else { StatusCode::ACCEPTED }
}

async fn look(api: &Api, revision: u64) -> Counted {
    let state = api.at_least(revision).await;
    let own = api.authority.member();
    let others = state.members().filter(|member| member.id != own).map(|member| ask(api, member, revision));
    let (others, here) = (join_all(others).await, here(api, revision).await);
    let watching = join(others.into_iter().flatten().chain(here));
    let heard = api.heard();
    Counted::of(&api.registry.applied(), revision, &watching, |node| {
        heard(node).map_or(0, |heard| heard.revision)
    })
}

/// Who watches at this member.
async fn here(api: &Api, revision: u64) -> Vec<Watching> {
    let state = api.at_least(revision).await;
    let heard = api.heard();
    let told = concerned(&state, revision, api.proxies.subscriptions());
    let watching = told.into_iter().map(|(node, concerned)| {
        let heard = heard(&node);
        let (revision, nack) = heard.map_or((0, None), |heard| (heard.revision, heard.nack));
        Watching { node, concerned, revision, nack }
    });
    watching.collect()
}

/// Who watches at another member; nobody where it does not answer, or is of a version that cannot.
async fn ask(api: &Api, member: &Arc<Member>, revision: u64) -> Vec<Watching> {
    let Ok(peer) = Peer::member(&api.authority, &member.addresses.api) else { return Vec::new() };
    match timeout(MEMBER_TIMEOUT, peer.post::<Said>("/v1/cluster/rollout", &Question { revision })).await {
        Ok(Ok(said)) => said.watching,
        Ok(Err(error)) => {
            tracing::debug!(member = member.id, %error, "a member does not say what its proxies run");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

async fn said(Shared(api): Shared<Api>, caller: Caller, Json(body): Json) -> Result<Answer<Said>, ApiError> {
    caller.require_member()?;
    let Question { revision } = serde_json::from_value(body).map_err(|error| ApiError::invalid("", error))?;
    Ok(Answer(Said { watching: here(&api, revision).await }))
}
