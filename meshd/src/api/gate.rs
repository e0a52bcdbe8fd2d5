//! The door of the API: each request is let in by [`Load`] once it is known whose it is, and holds its place until its
//! answer is on its way. Streams give theirs back when they begin.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::time::Instant;

use super::{
    auth::{Caller, Connection},
    body::BODY_BYTES_MAX,
    error::ApiError,
    openapi,
};
use crate::{
    clock,
    load::{self, Asked, Class, Limits, Load, Place, Refused},
};

/// An answer up to this long, in bytes, is the socket's matter as soon as it is made; one that is longer is held in memory
/// until its client has read it, and holds its place as long.
const ANSWER_BYTES_SMALL: u64 = 64 << 10;

/// What is let in at this server.
pub struct Gate {
    load: Mutex<Load>,
    /// Hashes that nobody outside can foresee: whose account is whose.
    hashes: RandomState,
    start: Instant,
    counts: Counts,
}

/// What was refused, for the metrics.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By class and reason.
    pub refused: Family<RefusedLabels, Counter>,
}

/// What was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    class: &'static str,
    reason: &'static str,
}

/// A request that was let in. Clones are of the same one; it is over when the last is dropped.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Held>);

struct Held {
    gate: Arc<Gate>,
    asked: Asked,
    place: Mutex<Option<Place>>,
}

/// A stream that is open.
pub(super) struct Following {
    gate: Arc<Gate>,
    /// Until it is dropped.
    following: Option<load::Following>,
}

/// Lets a request in, or answers why not.
pub(super) async fn enter(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    match gate.enter(gate.asked(&request)) {
        Ok(ticket) => {
            if request.body().size_hint().upper().is_none() {
                request = request.map(|body| ticket.clone().counting(body));
            }
            request.extensions_mut().insert(ticket.clone());
            ticket.until_sent(next.run(request).await)
        }
        Err(refused) => refused.into_response(),
    }
}

impl Gate {
    /// Nothing is under way.
    pub fn new(limits: &Limits, counts: Counts) -> Arc<Self> {
        let (load, hashes) = (Mutex::new(Load::new(limits)), RandomState::new());
        Arc::new(Self { load, hashes, start: clock::now(), counts })
    }

    /// What is asked, and by whom; the caller is known by now.
    fn asked(&self, request: &Request) -> Asked {
        let extensions = request.extensions();
        let path = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let class = openapi::class(request.method(), path);
        // Of a body that does not say how long it is nothing has come yet: it counts as it comes.
        let upper = request.body().size_hint().upper().unwrap_or(0);
        let asked = Asked { class, who: None, bytes: upper.min(BODY_BYTES_MAX as u64) };
        let who = match extensions.get::<Caller>() {
            Some(Caller::Member(_)) => return Asked { class: Class::Vital, ..asked },
            Some(Caller::Token { id, .. }) => self.hashes.hash_one((0, id)),
            Some(Caller::Node(node)) => self.hashes.hash_one((1, node.as_str())),
            // Health, and whom to trust: whoever asks gets to know, however many do.
            _ if class == Class::Vital => return asked,
            _ => {
                let connection = extensions.get::<Connection>();
                self.hashes.hash_one((2, connection.map(|connection| network(connection.remote.ip()))))
            }
        };
        Asked { who: Some(who), ..asked }
    }

    fn enter(self: &Arc<Self>, asked: Asked) -> Result<Ticket, ApiError> {
        let entered = self.load.lock().enter(clock::now() - self.start, asked);
        let place = Mutex::new(Some(entered.map_err(|refused| self.refuse(refused))?));
        Ok(Ticket(Arc::new(Held { gate: self.clone(), asked, place })))
    }

    fn refuse(&self, refused: Refused) -> ApiError {
        self.count(refused);
        refused.into()
    }

    fn count(&self, refused: Refused) {
        let labels = RefusedLabels { class: refused.class.as_str(), reason: refused.reason.as_str() };
        self.counts.refused.get_or_create(&labels).inc();
    }
}

impl Ticket {
    /// The request becomes a stream: from here on it holds no place.
    pub(super) fn follow(&self) -> Result<Following, ApiError> {
        let Held { gate, place, .. } = &*self.0;
        let following = {
            let (mut place, mut load) = (place.lock(), gate.load.lock());
            let following = place.as_ref().map(|place| load.follow(place)).transpose();
            place.take().into_iter().for_each(|place| load.leave(place));
            following
        };
        let following = following.map_err(|refused| gate.refuse(refused))?;
        Ok(Following { gate: gate.clone(), following })
    }

    /// What was a stream has something to answer, and takes a place anew.
    pub(super) fn come_back(&self) -> Result<(), ApiError> {
        let Held { gate, asked, place } = &*self.0;
        let entered = gate.load.lock().enter(clock::now() - gate.start, *asked);
        let entered = entered.map_err(|refused| gate.refuse(refused))?;
        let before = place.lock().replace(entered);
        before.into_iter().for_each(|place| gate.load.lock().leave(place));
        Ok(())
    }

    /// Keeps the place until the answer is read, where that takes memory.
    fn until_sent(self, response: Response) -> Response {
        let size = response.body().size_hint();
        if size.upper().is_some_and(|bytes| bytes <= ANSWER_BYTES_SMALL) || self.0.place.lock().is_none() {
            return response;
        }
        match self.hold(size.exact().unwrap_or(0)) {
            // What was written is written, whatever its answer takes.
            Err(refused) if self.0.asked.class == Class::Bulk => {
                return self.0.gate.refuse(refused).into_response();
            }
            _ => {}
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let Self(_held) = &self;
                frame
            }))
        })
    }

    /// A body whose bytes count when they are there. Where there is no room for them it ends with [`Refused`].
    fn counting(self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().map(move |piece| {
            let piece = piece?;
            match self.hold(piece.len() as u64) {
                Ok(()) => Ok(piece),
                Err(refused) => {
                    self.0.gate.count(refused);
                    Err(axum::Error::new(refused))
                }
            }
        }))
    }

    fn hold(&self, bytes: u64) -> Result<(), Refused> {
        match &mut *self.0.place.lock() {
            Some(place) => self.0.gate.load.lock().hold(place, bytes),
            None => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = self.place.get_mut().take() {
            self.gate.load.lock().leave(place);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(following) = self.following.take() {
            self.gate.load.lock().unfollow(following);
        }
    }
}

/// Who can be told apart by an address: of IPv6 each host has a whole /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Extension, Router,
        middleware::{from_fn, from_fn_with_state},
        routing::{get, post},
    };
    use futures_util::stream;
    use http::{StatusCode, header};
    use tower::ServiceExt;

    use super::{super::body::Text, *};

    /// Room for two lists at once, one of each identity.
    const LIMITS: Limits = Limits { places: 16, held_mib: 128, per_second: 20 };

    async fn list() -> String {
        "x".repeat(4 << 20)
    }

    async fn watch(Extension(ticket): Extension<Ticket>) -> Result<Body, ApiError> {
        let following = ticket.follow()?;
        let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
        let open = never.map(move |line| {
            let Following { .. } = &following;
            line
        });
        Ok(Body::from_stream(open))
    }

    /// A router whose callers are the nodes that they say.
    fn router(gate: &Arc<Gate>) -> Router {
        let believe = async |mut request: Request, next: Next| {
            let node = request.headers().get("node").and_then(|node| node.to_str().ok()?.parse().ok());
            request.extensions_mut().insert(node.map_or(Caller::Anonymous, Caller::Node));
            next.run(request).await
        };
        Router::new()
            .route("/healthz", get(async || "ok"))
            .route("/v1/services", get(list))
            .route("/v1/watch", get(watch))
            .route("/v1/apply", post(async |Text { text, .. }: Text| text.len().to_string()))
            .route_layer(from_fn_with_state(gate.clone(), enter))
            .route_layer(from_fn(believe))
    }

    async fn ask(router: &Router, node: &str, path: &str) -> Response {
        let request = Request::get(path).header("node", node).body(Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("an answer")
    }

    fn under_way(gate: &Gate) -> (u32, u64) {
        let load = gate.load.lock();
        (load.places(), load.bytes())
    }

    #[tokio::test]
    async fn a_large_answer_holds_its_place_until_it_is_read_and_others_are_told_to_come_again() {
        let gate = Gate::new(&LIMITS, Counts::default());
        let router = router(&gate);
        let unread = ask(&router, "a", "/v1/services").await;
        assert_eq!((unread.status(), under_way(&gate)), (StatusCode::OK, (1, 4 << 20)));
        let own = ask(&router, "a", "/v1/services").await;
        assert_eq!(own.status(), StatusCode::TOO_MANY_REQUESTS, "half of the lists are his");
        assert_eq!(own.headers()[header::RETRY_AFTER], "1");
        let second = ask(&router, "b", "/v1/services").await;
        assert_eq!(second.status(), StatusCode::OK);
        let third = ask(&router, "c", "/v1/services").await;
        assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.headers()[header::RETRY_AFTER], "1");
        let body = third.into_body().collect().await.expect("a problem").to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert!(problem["detail"].as_str().expect("a detail").contains("limits.requests"), "{problem}");
        assert_eq!(ask(&router, "c", "/healthz").await.status(), StatusCode::OK, "it goes on living");
        let read = unread.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!((read.len(), under_way(&gate)), (4 << 20, (1, 4 << 20)), "one is read");
        drop(second);
        assert_eq!(under_way(&gate), (0, 0));
        let labels = RefusedLabels { class: "bulk", reason: "own_places" };
        assert_eq!(gate.counts.refused.get_or_create(&labels).get(), 1);
    }

    /// Of a class whose share is 32 MiB, half of it for one.
    #[tokio::test]
    async fn a_body_that_does_not_say_how_long_it_is_counts_as_it_comes() {
        let gate = Gate::new(&LIMITS, Counts::default());
        let router = router(&gate);
        let (pieces, mut body) = tokio::sync::mpsc::channel::<String>(2);
        let send = |kib: usize| pieces.try_send("x".repeat(kib << 10)).expect("it is read");
        let body = stream::poll_fn(move |context| body.poll_recv(context)).map(Ok::<_, std::io::Error>);
        let request = Request::post("/v1/apply").header("node", "a").body(Body::from_stream(body));
        let answer = tokio::spawn(router.clone().oneshot(request.expect("a request")));
        send(1_024);
        while under_way(&gate) != (1, 1 << 20) {
            tokio::task::yield_now().await;
        }
        let held = Asked { class: Class::Change, who: Some(gate.hashes.hash_one((1, "a"))), bytes: 15 << 20 };
        let Ok(others) = gate.enter(held) else { panic!("there is room for a megabyte less than the half") };
        send(1);
        let answer = answer.await.expect("it ends").expect("an answer");
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(others);
        assert_eq!(under_way(&gate), (0, 0));
        let labels = RefusedLabels { class: "change", reason: "own_bytes" };
        assert_eq!(gate.counts.refused.get_or_create(&labels).get(), 1);
    }

    #[tokio::test]
    async fn a_stream_holds_no_place_for_its_life() {
        let gate = Gate::new(&LIMITS, Counts::default());
        let router = router(&gate);
        let mut open = Vec::new();
        for _ in 0..10 {
            let stream = ask(&router, "a", "/v1/watch").await;
            assert_eq!((stream.status(), under_way(&gate)), (StatusCode::OK, (0, 0)));
            open.push(stream);
        }
    }

    #[tokio::test]
    async fn who_asks_too_often_is_told_which_limit_it_was() {
        let gate = Gate::new(&LIMITS, Counts::default());
        let router = router(&gate);
        for _ in 0..40 {
            assert_eq!(ask(&router, "a", "/v1/watch").await.status(), StatusCode::OK);
        }
        let refused = ask(&router, "a", "/v1/watch").await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let body = refused.into_body().collect().await.expect("a problem").to_bytes();
        let detail = String::from_utf8_lossy(&body).into_owned();
        assert!(detail.contains("20 requests a second") && detail.contains("limits.per_second"), "{detail}");
        for _ in 0..100 {
            assert_eq!(ask(&router, "", "/healthz").await.status(), StatusCode::OK, "nobody's own");
        }
    }

    #[test]
    fn a_host_is_one_network() {
        let check = |a: &str, b: &str| {
            assert_eq!(network(a.parse().expect("an address")), network(b.parse().expect("an address")));
        };
        check("fd00::1:2:3:4", "fd00::9");
        check("10.0.0.1", "10.0.0.1");
        assert_ne!(network(IpAddr::from([10, 0, 0, 1])), network(IpAddr::from([10, 0, 0, 2])));
    }
}
