//! `GET /v1/watch`: the lines of a [`Feed`], sent as the state goes on, as NDJSON or as server-sent events. Local to this
//! member: it needs no leader, but for a place in history that this member has not reached yet.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use futures_util::Stream;
use http::{HeaderMap, header};
use model::{kind::Kind, name::Name, object::Key, resource::Verb};
use registry::State;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    Api, WATCHES_MAX,
    auth::{self, Caller},
    error::{ApiError, WATCH_DENIED, WATCH_GONE},
    feed::{
        Feed, Filter, Lines, Stepped,
        encoded::{self, Form},
    },
    gate::{Following, Ticket},
    parameters::Parameters,
    tokens,
};
use crate::{
    clock,
    wake::{Interest, Topic, Watch},
};

/// A stream has a line at least this often, so that a client can tell a quiet one from a dead one. So often it is asked,
/// too, whether the caller may still watch: a token may end without any change.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);
/// How long a watch waits for this member to reach the revision that it starts from.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// The place of a client of server-sent events that comes back (WHATWG HTML §9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";
const EVENT_STREAM: &str = "text/event-stream";

/// Follows the changes of some kinds.
pub(super) async fn watch(
    Shared(api): Shared<Api>,
    Extension(ticket): Extension<Ticket>,
    caller: Caller,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let parameters = parameters.only(&["kinds", "namespace", "labelSelector", "from"])?;
    let filter = filter(&parameters)?;
    may_watch(&caller, &filter)?;
    let permit = permit(&api)?;
    let form = form(&headers);
    let (feed, state) = match place(&parameters, &headers)? {
        Some(from) => {
            let state = resume(&api, from).await?;
            (Feed::from_revision(filter, form, from), state)
        }
        None => {
            let state = here(&api).await;
            (Feed::from_now(filter, form, &state), state)
        }
    };
    let watcher = Watcher::new(api, caller, feed, &state, (permit, ticket.follow()?));
    let media = match form {
        Form::Ndjson => "application/x-ndjson",
        Form::Sse => EVENT_STREAM,
    };
    let headers = [(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(watcher)).into_response())
}

/// Room for one more watch, of any form.
pub(super) fn permit(api: &Api) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = api.watches.clone().try_acquire_owned();
    permit.map_err(|_| {
        ApiError::Unavailable(format!("this server has {WATCHES_MAX} watches open, its most (WATCHES_MAX)"))
    })
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.split(',').any(|media| media.trim().starts_with(EVENT_STREAM)) {
        Form::Sse
    } else {
        Form::Ndjson
    }
}

/// Where to go on. A client that comes back says it in a header, as its URL is the old one.
fn place(parameters: &Parameters, headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let from = parameters.number("from", 0, u64::MAX)?;
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(from) };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| {
        ApiError::Malformed("Last-Event-ID must be the id of an event of this stream".to_owned())
    })
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

/// This member's state as its watches see it, with all that it showed to anybody before.
pub(super) async fn here(api: &Api) -> Arc<State> {
    api.wake.at_least(api.registry.applied().revision()).await
}

/// The state for a place in history. One that this member has not reached yet it may reach soon: another one has shown
/// it already.
pub(super) async fn resume(api: &Api, from: u64) -> Result<Arc<State>, ApiError> {
    if from > api.registry.applied().revision() {
        let read = tokio::time::timeout(CATCH_UP_TIMEOUT, api.registry.read()).await;
        let slow = || ApiError::Unavailable("this server did not catch up in time".to_owned());
        drop(read.map_err(|_| slow())??);
    }
    let state = here(api).await;
    if from > state.revision() {
        return Err(ApiError::Gone(format!(
            "the present revision is {}, so that {from} is of another history; start again without `from`",
            state.revision()
        )));
    }
    // Said at once, while the status can still say so.
    drop(state.history_since(from)?);
    Ok(state)
}

struct Watcher {
    api: Api,
    caller: Caller,
    feed: Feed,
    watch: Watch,
    /// The history that it is about.
    epoch: Option<Uuid>,
    /// Lines that wait for the reader: what begins a stream, and what ends it.
    held: VecDeque<Bytes>,
    /// When the last line was sent.
    spoke: Instant,
    /// Rings when a line may be due. One timer for the whole stream: what is told does not touch it.
    due: Pin<Box<Sleep>>,
    /// When it was last asked whether the caller may watch.
    asked: Instant,
    /// Nothing is left to send until something changes.
    up_to_date: bool,
    ended: bool,
    _counted: Counted,
}

/// What an open watch takes of this server and of its caller's share.
type Counted = (OwnedSemaphorePermit, Following);

impl Watcher {
    fn new(api: Api, caller: Caller, feed: Feed, state: &State, counted: Counted) -> Self {
        let watch = api.wake.watch(interest(&feed, &caller, state));
        let held = VecDeque::from([encoded::opening(feed.form())]);
        let (epoch, now) = (state.epoch(), clock::now());
        let due = Box::pin(sleep_until(now + BOOKMARK_INTERVAL));
        let (spoke, asked) = (now, now);
        let (up_to_date, ended) = (false, false);
        Self {
            api,
            caller,
            feed,
            watch,
            epoch,
            held,
            spoke,
            due,
            asked,
            up_to_date,
            ended,
            _counted: counted,
        }
    }

    /// The next lines; `None` ends the stream. Asked for when the connection has taken those before.
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.up_to_date && !self.ended && ready!(self.poll_wait(cx)).is_none() {
                return Poll::Ready(None);
            }
            let mut lines = Lines::default();
            self.held.drain(..).for_each(|line| lines.push(line));
            if !self.ended {
                self.up_to_date = self.step(&mut lines) == Stepped::UpToDate;
            }
            if !lines.is_empty() {
                self.spoke = clock::now();
                return Poll::Ready(Some(lines.bytes()));
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
    }

    fn step(&mut self, lines: &mut Lines) -> Stepped {
        let look = self.watch.look(self.feed.revision().unwrap_or(0));
        if look.state.epoch() != self.epoch {
            return self.end(WATCH_GONE, look.state.history().oldest(), lines);
        }
        if (look.access || self.asked + BOOKMARK_INTERVAL <= clock::now()) && !self.may_go_on(&look.state) {
            return self.end(WATCH_DENIED, 0, lines);
        }
        self.feed.pass(look.place);
        match self.feed.step(&look.state, &self.api.encoded, lines) {
            Ok(stepped) => {
                self.watch.told(self.feed.revision().unwrap_or(0));
                stepped
            }
            Err(compacted) => self.end(WATCH_GONE, compacted.oldest, lines),
        }
    }

    /// Asks again what was asked at the start; its rights may rest on other objects now.
    fn may_go_on(&mut self, state: &State) -> bool {
        self.asked = clock::now();
        let Ok(caller) = auth::again(&self.api, &self.caller) else { return false };
        self.caller = caller;
        let topics = interest(&self.feed, &self.caller, state).topics;
        self.watch.turn_to(topics, self.feed.revision().unwrap_or(0));
        may_watch(&self.caller, self.feed.filter()).is_ok()
    }

    fn end(&mut self, status: u16, oldest: u64, lines: &mut Lines) -> Stepped {
        self.ended = true;
        lines.push(encoded::error(self.feed.form(), status, oldest));
        Stepped::UpToDate
    }

    /// Until something changed, or it is time for a sign of life. `None` when this server goes.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        if let Poll::Ready(changed) = self.watch.poll_changed(cx) {
            return Poll::Ready(changed);
        }
        ready!(self.due.as_mut().poll(cx));
        if self.spoke + BOOKMARK_INTERVAL <= clock::now() {
            self.sign_of_life();
            self.spoke = clock::now();
        }
        self.due.as_mut().reset(self.spoke + BOOKMARK_INTERVAL);
        Poll::Ready(Some(()))
    }

    /// Nothing of interest happened: how far that is known is a place to resume from.
    fn sign_of_life(&mut self) {
        let mut lines = Lines::default();
        // A step that finds something says enough.
        self.step(&mut lines);
        if lines.is_empty()
            && let Some(revision) = self.feed.revision()
        {
            lines.push(encoded::bookmark(self.feed.form(), revision));
        }
        self.held.push_back(lines.bytes());
    }
}

impl Stream for Watcher {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_lines(cx).map(|lines| lines.map(Ok))
    }
}

/// What wakes a watcher: what it watches, and what its caller's rights rest on.
pub(super) fn interest(feed: &Feed, caller: &Caller, state: &State) -> Interest {
    let mut interest = feed.filter().interest();
    interest.topics.extend(access(caller, state).into_iter().map(Topic::Access));
    interest
}

fn access(caller: &Caller, state: &State) -> Vec<Key> {
    let Caller::Token { name, .. } = caller else { return Vec::new() };
    let token = Key::mesh_wide(Kind::AccessToken, name.clone());
    let roles = tokens::roles(state, &token).unwrap_or_default();
    let roles = roles.into_iter().map(|role| Key::mesh_wide(Kind::Role, role));
    roles.chain([token.clone()]).collect()
}
