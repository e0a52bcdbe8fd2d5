//! `GET /v1/watch`: the lines of a [`Feed`], sent as the state goes on. Local to this member: it needs no leader, but
//! for a place in history that this member has not reached yet.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use model::{kind::Kind, name::Name, resource::Verb, watch::Event};
use tokio::{
    sync::{OwnedSemaphorePermit, watch::Receiver},
    time::{Instant, sleep_until},
};

use super::{
    Api,
    auth::{self, Caller},
    error::{ApiError, WATCH_DENIED, WATCH_GONE},
    feed::{self, Feed, Filter, Stepped},
    parameters::Parameters,
};
use crate::clock;

/// A stream has a line at least this often, so that a client can tell a quiet one from a dead one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);
/// How long a watch waits for this member to reach the revision that it starts from.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Follows the changes of some kinds.
pub(super) async fn watch(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream") {
        let detail = "server-sent events are not supported by this version; ask for application/x-ndjson";
        return Err(ApiError::NotAcceptable(detail.to_owned()));
    }
    let parameters = parameters.only(&["kinds", "namespace", "labelSelector", "from"])?;
    let filter = filter(&parameters)?;
    may_watch(&caller, &filter)?;
    let permit = api.watches.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::TooMany("too many watches at this server".to_owned()))?;
    let revisions = api.registry.revisions();
    let feed = match parameters.number("from", 0, u64::MAX)? {
        Some(from) => resume(&api, filter, from).await?,
        None => Feed::from_now(filter, &api.registry.applied()),
    };
    let watcher =
        Watcher { api, caller, feed, revisions, spoke: clock::now(), ended: false, _permit: permit };
    let lines = futures_util::stream::unfold(watcher, |mut watcher| async {
        let lines = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(lines), watcher))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn filter(parameters: &Parameters) -> Result<Filter, ApiError> {
    let kinds = match parameters.text("kinds") {
        None => Kind::ALL.iter().copied().collect(),
        Some(names) => names.split(',').map(|name| kind(name.trim())).collect::<Result<BTreeSet<_>, _>>()?,
    };
    let namespace = parameters.parsed::<Name>("namespace")?;
    Ok(Filter { kinds, namespace, labels: parameters.parsed("labelSelector")?.unwrap_or_default() })
}

fn kind(name: &str) -> Result<Kind, ApiError> {
    Kind::named(name).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        ApiError::invalid("kinds", format_args!("must be of {}; '{name}' is not", known.join(", ")))
    })
}

fn may_watch(caller: &Caller, filter: &Filter) -> Result<(), ApiError> {
    filter.kinds.iter().try_for_each(|kind| caller.require(Verb::Watch, *kind, filter.namespace.as_ref()))
}

/// A place in history. One that this member has not reached yet it may reach soon: another one has shown it already.
async fn resume(api: &Api, filter: Filter, from: u64) -> Result<Feed, ApiError> {
    let mut state = api.registry.applied();
    if from > state.revision() {
        let read = tokio::time::timeout(CATCH_UP_TIMEOUT, api.registry.read()).await;
        let slow = || ApiError::Unavailable("this server did not catch up in time".to_owned());
        state = read.map_err(|_| slow())??;
    }
    if from > state.revision() {
        return Err(ApiError::Gone(format!(
            "the present revision is {}, so that {from} is of another history; start again without `from`",
            state.revision()
        )));
    }
    // Said at once, while the status can still say so.
    drop(state.history_since(from)?);
    Ok(Feed::from_revision(filter, from))
}

struct Watcher {
    api: Api,
    caller: Caller,
    feed: Feed,
    revisions: Receiver<u64>,
    /// When the last line was sent.
    spoke: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next lines; `None` ends the stream. Called when the connection has taken those before.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut lines = Vec::new();
        while !self.ended {
            self.revisions.borrow_and_update();
            let stepped = self.step(&mut lines);
            if !lines.is_empty() {
                self.spoke = clock::now();
                return Some(lines);
            }
            if stepped == Stepped::UpToDate {
                self.wait(&mut lines).await?;
            }
        }
        None
    }

    fn step(&mut self, lines: &mut Vec<u8>) -> Stepped {
        let Ok(caller) = auth::again(&self.api, &self.caller) else {
            return self.end(WATCH_DENIED, 0, lines);
        };
        if may_watch(&caller, self.feed.filter()).is_err() {
            return self.end(WATCH_DENIED, 0, lines);
        }
        match self.feed.step(&self.api.registry.applied(), lines) {
            Ok(stepped) => stepped,
            Err(compacted) => self.end(WATCH_GONE, compacted.oldest, lines),
        }
    }

    fn end(&mut self, status: u16, oldest: u64, lines: &mut Vec<u8>) -> Stepped {
        self.ended = true;
        feed::write(lines, &Event::Error { status, oldest });
        Stepped::UpToDate
    }

    /// Until something changed, or it is time for a sign of life. `None` when this server goes.
    async fn wait(&mut self, lines: &mut Vec<u8>) -> Option<()> {
        tokio::select! {
            changed = self.revisions.changed() => changed.ok(),
            () = self.api.closing.cancelled() => None,
            () = sleep_until(self.spoke + BOOKMARK_INTERVAL) => {
                self.spoke = clock::now();
                if let Some(revision) = self.feed.revision() {
                    feed::write(lines, &Event::Bookmark { revision });
                }
                Some(())
            }
        }
    }
}
