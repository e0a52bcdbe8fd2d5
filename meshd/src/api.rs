//! The REST API: [`router`] is its table of contents. What each path answers stands in the module that it names; who may
//! ask is settled before by [`auth`], how failures are told by [`error`].

use std::{
    cell::LazyCell, collections::BTreeMap, panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use futures_util::FutureExt;
use http::{HeaderValue, header};
use model::{kind::Kind, name::Name, object::Object, proxy::ProxyState};
use registry::{Registry, State};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    authority::Authority,
    proxies::{Heard, Proxies},
    wake::Wake,
};

mod apply;
mod audit;
pub mod auth;
pub mod body;
pub mod certificates;
pub mod cluster;
pub mod conditions;
pub mod error;
mod explain;
pub mod feed;
pub mod gate;
mod health;
mod history;
mod long_poll;
pub mod merge;
pub mod openapi;
pub mod page;
pub mod parameters;
pub mod proxy;
mod resources;
mod rollback;
mod rollout;
pub mod selector;
pub mod snapshot;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokens;
mod watch;
pub mod write;

pub use auth::Caller;
pub use error::ApiError;
use feed::encoded::Encoded;
use gate::Gate;
use page::Page;

/// The state's revision when the answer was made.
pub const MESH_REVISION: &str = "mesh-revision";
/// The cluster's history: a client that comes with another one's must start anew.
pub const MESH_EPOCH: &str = "mesh-epoch";
const JSON: &str = "application/json";
/// As many watches of objects at one server, long polls among them. Each costs a stream: some 50 KiB with its own
/// connection, so that all of them hold 400 MiB.
pub const WATCHES_MAX: usize = 8_192;
/// As many unknown tokens are looked up with the leader at once; further ones are refused unasked.
const LOOKUPS_MAX: usize = 16;
/// How long an answer waits for this member to have applied what it is about.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// What the handlers need. Clones are handles to the same.
#[derive(Clone)]
pub struct Api {
    /// The replicated truth.
    pub registry: Registry,
    /// This member's part of the certificate authority.
    pub authority: Arc<Authority>,
    /// The proxies that talk to this member.
    pub proxies: Arc<Proxies>,
    /// Where this member keeps its audit.
    pub audit: Arc<Path>,
    /// Wakes watches.
    pub wake: Arc<Wake>,
    /// What they send.
    pub encoded: Arc<Encoded>,
    /// Whom to let in while there is much to do.
    pub gate: Arc<Gate>,
    /// Cancelled when this server stops: streams end.
    pub closing: CancellationToken,
    watches: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// A snapshot that comes back is in memory twice: one at a time.
    restoring: Arc<Semaphore>,
    rollouts: Arc<Semaphore>,
}

/// Every path of the API.
pub fn router(api: Api) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(description))
        .route("/v1/apply", post(apply::apply))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/proxies", get(health::proxies))
        .route("/v1/audit", get(audit::audit))
        .route("/v1/history", get(history::history))
        .route("/v1/rollback", post(rollback::rollback))
        .merge(certificates::routes())
        .merge(proxy::routes())
        .merge(cluster::routes())
        .merge(rollout::routes())
        .merge(snapshot::routes());
    for &kind in Kind::ALL {
        let (one, lists) = openapi::paths(kind);
        router = router.route(&one, objects(kind));
        for list in lists {
            router = router.route(&list, get(resources::list).layer(Extension(kind)));
        }
    }
    router
        .method_not_allowed_fallback(other_method)
        .route_layer(from_fn_with_state(api.gate.clone(), gate::enter))
        .route_layer(from_fn_with_state(api.clone(), auth::authenticate))
        .fallback(unknown)
        .layer(from_fn(in_words))
        .layer(from_fn_with_state(api.clone(), in_history))
        .with_state(api)
}

/// One object of a kind.
fn objects(kind: Kind) -> MethodRouter<Api> {
    let router = get(resources::get);
    let router = match kind {
        Kind::Endpoint => router.fallback(resources::endpoints_are_registered),
        _ => router.put(resources::put).patch(resources::patch).delete(resources::delete),
    };
    router.layer(Extension(kind))
}

/// `GET /openapi.json`.
async fn description() -> Json<serde_json::Value> {
    Json(openapi::document())
}

impl Api {
    /// An API over these; `data_dir` is the registry's, `closing` ends its streams.
    pub fn new(
        registry: Registry,
        authority: Arc<Authority>,
        proxies: Arc<Proxies>,
        wake: Arc<Wake>,
        gate: Arc<Gate>,
        data_dir: &Path,
        closing: CancellationToken,
    ) -> Self {
        Self {
            registry,
            authority,
            proxies,
            wake,
            gate,
            encoded: Arc::default(),
            audit: registry::audit::folder(data_dir).into(),
            closing,
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            restoring: Arc::new(Semaphore::new(1)),
            rollouts: Arc::new(Semaphore::new(rollout::ROLLOUT_WAITS_MAX)),
        }
    }

    /// An object as the API answers it.
    pub fn show(&self, state: &State, object: &Object) -> Object {
        status::Known { state, heard: &self.heard() }.show(object)
    }

    /// A page of objects as the API answers it.
    fn show_page(&self, state: &State, page: Page) -> Response {
        let known = status::Known { state, heard: &self.heard() };
        ([(header::CONTENT_TYPE, JSON)], page.encode(|object| known.show(object))).into_response()
    }

    /// The hosts' proxies, as far as this member heard of them.
    pub fn proxy_states(&self, state: &State) -> Vec<ProxyState> {
        status::Known { state, heard: &self.heard() }.proxies()
    }

    /// What proxies said to this member, or to others for which it is the leader.
    fn heard(&self) -> impl Fn(&Name) -> Option<Heard> {
        let acked = LazyCell::new(|| self.registry.acked().into_iter().collect::<BTreeMap<_, _>>());
        move |node| {
            let by_leader = || {
                let revision = *acked.get(node)?;
                Some(Heard { generation: 0, revision, nack: None, left_alone: Vec::new(), until: None })
            };
            self.proxies.heard_of(node).or_else(by_leader)
        }
    }

    /// This member's state once it has `revision`, so that whoever wrote it sees it; should that take too long, as it is.
    pub async fn at_least(&self, revision: u64) -> Arc<State> {
        let mut revisions = self.registry.revisions();
        let applied = revisions.wait_for(|applied| *applied >= revision);
        // Late is no failure: the write stands, only its status may be behind.
        let _ = tokio::time::timeout(APPLY_TIMEOUT, applied).await;
        self.registry.applied()
    }
}

/// A path that is none.
async fn unknown(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
    ApiError::NotFound(format!(
        "there is no {path}; the kinds are {}, all paths are in /openapi.json",
        kinds.join(", ")
    ))
}

async fn other_method(path: Option<MatchedPath>, request: Request) -> Response {
    let path = path.map_or_else(String::new, |path| path.as_str().to_owned());
    let allow = openapi::methods(&path);
    let detail = format!("{} is not a method of {path}; {allow} is", request.method());
    let mut response = ApiError::Method { allow: "", detail }.into_response();
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// Every failure is a problem, also those that axum makes, and panics.
async fn in_words(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    // A fault of ours costs one answer, not the connection with all its other requests.
    let Ok(response) = answered else {
        return ApiError::Internal("a handler panicked".to_owned()).into_response();
    };
    match error::wordless(&response) {
        Some(error) => error.into_response(),
        None => response,
    }
}

/// A client of another history is told so; every answer says of which revision and history it is.
async fn in_history(
    axum::extract::State(api): axum::extract::State<Api>,
    request: Request,
    next: Next,
) -> Response {
    let epoch = || api.registry.applied().epoch().map(|epoch| epoch.to_string());
    let presented = request.headers().get(MESH_EPOCH);
    let mut response = match (epoch(), presented) {
        (Some(epoch), Some(presented)) if presented.as_bytes() != epoch.as_bytes() => {
            let detail =
                format!("the cluster's history is {epoch} now: forget what you know, and start again");
            ApiError::Gone(detail).into_response()
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.entry(MESH_REVISION).or_insert_with(|| HeaderValue::from(api.registry.applied().revision()));
    // Looked at again: the request may have been the one that changed it.
    if let Some(epoch) = epoch().and_then(|epoch| HeaderValue::from_str(&epoch).ok()) {
        headers.insert(MESH_EPOCH, epoch);
    }
    response
}
