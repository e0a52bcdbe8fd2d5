//! `GET /v1/proxy/watch`: one proxy's view of the mesh, as it changes. What is sent is worked out when the reader is
//! ready for it: a slow one costs one pending chunk and gets fewer, larger steps; a stuck one costs nothing more.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::header;
use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
    proxy::{Line, SYNC_INTERVAL},
};
use registry::State;
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::{
    api::{
        Api,
        auth::Caller,
        error::{ApiError, WATCH_GONE},
        gate::{Following, Ticket},
        parameters::Parameters,
    },
    clock,
    daemon::Daemon,
    proxies::Subscribed,
    proxy_scope::{Scope, Subscription, SubscriptionError, Told},
    telemetry::Counted,
    wake::{Interest, Watch},
};

/// What is written at once, in bytes: a full set is sent in pieces of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// How long a stream that begins anew waits to hear from the leader how far the history goes: the proxy itself waits 5 s.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);

/// A proxy's stream, between two chunks.
struct Stream {
    api: Api,
    node: Name,
    scope: Scope,
    /// The revision of which everything is sent or waits in `pending`.
    told: u64,
    /// The history that it is about.
    epoch: Option<Uuid>,
    pending: VecDeque<Told>,
    /// Whether the proxy lacks the line that says that the set is complete.
    unsynced: bool,
    /// The generation of the trust that was sent.
    trust: Option<u64>,
    watch: Watch,
    ended: bool,
    /// Counts it among the open ones while it lives.
    _counted: Counted,
    _following: Following,
    _subscribed: Subscribed,
}

pub(super) async fn watch(
    Shared(api): Shared<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    Extension(ticket): Extension<Ticket>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let node = caller.require_node()?;
    let parameters = parameters.only(&["subscribe", "add", "from"])?;
    let subscription = |name| {
        Subscription::parse(parameters.text(name).unwrap_or_default())
            .map_err(|error| ApiError::invalid(name, error))
    };
    let (subscribe, add) = (subscription("subscribe")?, subscription("add")?);
    let from: Option<u64> = parameters.parsed("from")?;
    let state = known(&api, from).await?;
    let before = subscribe.without(&add);
    let scope = Scope::new(node.clone(), subscribe.clone(), &state).map_err(refused)?;
    // It looks first at all that was judged until now, this state's successors among it.
    let watch = api.wake.watch(Interest { topics: scope.topics(), ..Interest::default() });
    let pending = match from {
        None => scope.everything(&state),
        Some(from) => scope.since(&before, from, &state)?,
    };
    let stream = Stream {
        told: state.revision(),
        epoch: state.epoch(),
        pending: pending.into(),
        unsynced: true,
        trust: None,
        ended: false,
        _counted: daemon.metrics.proxy_stream(),
        _following: ticket.follow()?,
        _subscribed: api.proxies.subscribe(node.clone(), subscribe),
        api,
        node,
        scope,
        watch,
    };
    let chunks = stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// A state that is not older than what the proxy has seen, maybe at another member. One that begins anew does not say what
/// it has seen: it is told of all that was acknowledged so far or, where no leader can say how far that is, of what this
/// member has.
async fn known(api: &Api, from: Option<u64>) -> Result<Arc<State>, ApiError> {
    let Some(from) = from else {
        let acknowledged = timeout(LEADER_PATIENCE, api.registry.read()).await;
        let applied = acknowledged.ok().and_then(Result::ok).unwrap_or_else(|| api.registry.applied());
        return Ok(api.wake.at_least(applied.revision()).await);
    };
    let applied = api.at_least(from).await.revision();
    let state = api.wake.at_least(applied).await;
    if state.revision() < from {
        return Err(ApiError::Gone(format!("revision {from} is not known here; start again without `from`")));
    }
    Ok(state)
}

fn refused(error: SubscriptionError) -> ApiError {
    ApiError::invalid("subscribe", error)
}

impl Stream {
    /// What to write next; waits until there is something. `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let heartbeat = clock::now() + SYNC_INTERVAL.duration();
        if self.pending.is_empty() && !self.unsynced {
            self.wait(heartbeat).await;
        }
        if self.api.closing.is_cancelled() {
            return None;
        }
        Some(self.chunk())
    }

    /// Until something has to be told, or a line is due all the same.
    async fn wait(&mut self, heartbeat: Instant) {
        loop {
            // What came before the watch was registered rings no bell: look first, then wait.
            self.advance();
            if self.ended || self.unsynced || !self.pending.is_empty() {
                break;
            }
            if !matches!(timeout_at(heartbeat, self.watch.changed()).await, Ok(Some(()))) {
                self.advance();
                break;
            }
        }
        // Without news the next line says that the stream lives.
        self.unsynced = true;
    }

    /// Takes in what came since.
    fn advance(&mut self) {
        let look = self.watch.look(self.told);
        if look.state.epoch() != self.epoch || self.told > look.state.revision() {
            self.ended = true;
            return;
        }
        if look.place == look.state.revision() {
            self.told = look.place;
            return;
        }
        match self.scope.advance(look.place, &look.state) {
            Ok(told) => {
                self.pending.extend(told);
                self.told = look.state.revision();
                self.unsynced |= self.trust != generation(&look.state);
                self.watch.told(self.told);
                self.watch.turn_to(self.scope.topics(), self.told);
            }
            Err(_) => self.ended = true,
        }
    }

    /// Some of what is pending; with the last of it the line that says so.
    fn chunk(&mut self) -> Bytes {
        let mut bytes = Vec::with_capacity(1_024);
        if self.ended {
            line(&mut bytes, &Line::Error { status: WATCH_GONE });
            return bytes.into();
        }
        let state = self.api.registry.applied();
        if self.trust != generation(&state) {
            self.trust = generation(&state);
            let trust = state.trust().map(|trust| trust.bundle.clone());
            trust.into_iter().for_each(|trust| line(&mut bytes, &Line::Trust { trust }));
        }
        while bytes.len() < CHUNK_BYTES {
            let Some(told) = self.pending.pop_front() else {
                line(&mut bytes, &Line::Sync { revision: self.told });
                self.unsynced = false;
                break;
            };
            self.ended |= matches!(&told, Told::Delete(key) if self.is_own(key));
            write(&mut bytes, told);
        }
        bytes.into()
    }

    /// A host that is no longer of the mesh has nothing to watch.
    fn is_own(&self, key: &Key) -> bool {
        key.kind == Kind::Node && key.name == self.node
    }
}

/// As [`Line::Put`], without copying the object.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Borrowed<'a> {
    Put { object: &'a Object },
}

fn write(bytes: &mut Vec<u8>, told: Told) {
    match told {
        Told::Put(object) => line(bytes, &Borrowed::Put { object: &object }),
        Told::Delete(key) => line(bytes, &Line::Delete { object: Object::new(key, serde_json::Map::new()) }),
    }
}

fn line(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("lines are made of texts, numbers and objects");
    bytes.push(b'\n');
}

fn generation(state: &State) -> Option<u64> {
    state.trust().map(|trust| trust.bundle.generation)
}
