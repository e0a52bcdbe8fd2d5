//! `GET /v1/{kinds}?from=REV&wait=30s`: the list as soon as one of its objects changed after a revision, or word that none
//! did. A watch for clients that know nothing but requests. Local to this member, as every watch is.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use model::{duration::Timespan, resource::Verb};
use registry::{Compacted, State, state::Changed};
use tokio::time::{Instant, timeout_at};

use super::{
    Api, MESH_REVISION,
    auth::{self, Caller},
    error::{ApiError, UNCHANGED},
    gate::Ticket,
    page::{self, PAGE_OBJECTS_MAX, Scope},
    parameters::Parameters,
    watch,
};
use crate::{
    clock,
    wake::{Interest, Topic, Watch},
};

/// How long a poll waits if it does not say.
const WAIT: Duration = Duration::from_secs(30);
/// The longest that a poll may wait: what stands between cuts off silent connections after a few minutes.
pub(crate) const POLL_WAIT_MAX: Duration = Duration::from_secs(120);

/// Whether these parameters ask for a long poll.
pub(super) fn is_asked(parameters: &Parameters) -> bool {
    ["from", "wait"].iter().any(|name| parameters.text(name).is_some())
}

/// Answers when something of `scope` changed, or at the end of the wait. The caller may list it.
pub(super) async fn list(
    api: Api,
    ticket: Ticket,
    caller: Caller,
    scope: Scope,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let parameters = parameters.only(&["namespace", "labelSelector", "limit", "from", "wait"])?;
    let limit = parameters.number("limit", 1, PAGE_OBJECTS_MAX as u64)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_OBJECTS_MAX);
    let from = parameters.number("from", 0, u64::MAX)?;
    let from = from.ok_or_else(|| ApiError::invalid("from", "is required with `wait`"))?;
    let end = clock::now() + wait(&parameters)?;
    let _permit = watch::permit(&api)?;
    let first = watch::resume(&api, from).await?;
    let poll = Poll { watch: api.wake.watch(interest(&scope)), scope, place: from };
    let following = ticket.follow()?;
    let (state, changed) = poll.wait(&first, end).await?;
    drop(following);
    ticket.come_back()?;
    // It may have lost its rights while it waited.
    auth::again(&api, &caller)?.require(Verb::List, poll.scope.kind, poll.scope.namespace.as_ref())?;
    let revision = state.revision();
    // The place to poll from next: not of a moment later, when more may have happened.
    let mut response = if changed {
        let page = page::page(&state, &poll.scope, revision, None, limit)?;
        api.show_page(&state, page)
    } else {
        UNCHANGED.into_response()
    };
    response.headers_mut().insert(MESH_REVISION, HeaderValue::from(revision));
    Ok(response)
}

fn wait(parameters: &Parameters) -> Result<Duration, ApiError> {
    let wait = parameters.parsed::<Timespan>("wait")?.map_or(WAIT, Timespan::duration);
    if wait > POLL_WAIT_MAX {
        let most = POLL_WAIT_MAX.as_secs();
        return Err(ApiError::invalid("wait", format_args!("must be at most {most}s (POLL_WAIT_MAX)")));
    }
    Ok(wait)
}

fn interest(scope: &Scope) -> Interest {
    let topic = match &scope.namespace {
        Some(namespace) => Topic::Within(scope.kind, namespace.clone()),
        None => Topic::Everywhere(scope.kind),
    };
    Interest { topics: [topic].into(), labels: scope.labels.clone() }
}

struct Poll {
    watch: Watch,
    scope: Scope,
    /// Up to this revision its client knows everything.
    place: u64,
}

impl Poll {
    /// The state in which something is new, or that of the end.
    async fn wait(&self, first: &State, end: Instant) -> Result<(Arc<State>, bool), ApiError> {
        loop {
            let look = self.watch.look(self.place);
            if look.state.epoch() != first.epoch() {
                return Err(ApiError::Gone(
                    "the cluster was restored; start again without `from`".to_owned(),
                ));
            }
            if self.is_news(&look.state, look.place)? {
                return Ok((look.state, true));
            }
            self.watch.told(look.state.revision());
            if !matches!(timeout_at(end, self.watch.changed()).await, Ok(Some(()))) {
                // Its client goes on from here: what was the state when it began may be compacted before it comes again.
                let last = self.watch.look(look.state.revision());
                let news = self.is_news(&last.state, last.place)?;
                return Ok((last.state, news));
            }
        }
    }

    fn is_news(&self, state: &State, after: u64) -> Result<bool, Compacted> {
        let selects = |changed: &Changed| {
            let mut objects = changed.before.iter().chain(&changed.after);
            objects.any(|object| self.scope.selects(object))
        };
        Ok(state.history_since(after)?.any(|revision| revision.changes.iter().any(selects)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{delete, object, put, state};

    #[tokio::test(start_paused = true)]
    async fn who_heard_of_nothing_goes_on_from_the_end_of_the_wait() {
        let mut state = state();
        let wake = crate::wake::Wake::new(Arc::new(state.clone()), crate::wake::Counts::default());
        let namespace = Some("mesh-system".parse().expect("a name"));
        let scope = Scope { kind: object("Service a/a").kind, namespace, labels: Default::default() };
        let poll = Poll { watch: wake.watch(interest(&scope)), scope, place: 0 };
        let first = wake.state();
        let waited = tokio::join!(poll.wait(&first, clock::now() + WAIT), async {
            tokio::time::advance(WAIT / 2).await;
            put(&mut state, "Service default/a");
            wake.advance(Arc::new(state.clone()));
        });
        let (seen, news) = waited.0.expect("nothing is compacted");
        assert_eq!((seen.revision(), news), (1, false));
    }

    #[tokio::test]
    async fn only_changes_within_the_scope_are_news() {
        let mut state = state();
        put(&mut state, "Service default/a");
        put(&mut state, "Service mesh-system/b");
        put(&mut state, "Node n");
        delete(&mut state, "Service default/a");
        let wake = crate::wake::Wake::new(Arc::new(state.clone()), crate::wake::Counts::default());
        let check = |namespace: Option<&str>, after, want| {
            let namespace = namespace.map(|name| name.parse().expect("a name"));
            let scope = Scope { kind: object("Service a/a").kind, namespace, labels: Default::default() };
            let poll = Poll { watch: wake.watch(interest(&scope)), scope, place: after };
            assert_eq!(poll.is_news(&state, after), Ok(want), "{:?} after {after}", poll.scope);
        };
        check(None, 0, true);
        check(Some("mesh-system"), 1, true);
        check(Some("mesh-system"), 2, false);
        check(None, 3, true);
        check(None, 4, false);
    }
}
