//! What this server counts, and where it is read: Prometheus text on a listener of its own, without TLS, for this host.
//! Labels are bounded: routes come from the router's table, statuses are told by their class.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry as Exposition,
};
use registry::Registry;

use crate::{api::gate, clock, discovery, members::Members, proxies::Proxies, schedule, wake};

/// What Prometheus text calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted here.
pub struct Metrics {
    exposition: parking_lot::Mutex<Exposition>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    certificates: Family<OutcomeLabels, Counter>,
    joins: Family<OutcomeLabels, Counter>,
    streams: Gauge<i64, AtomicI64>,
    watches: wake::Counts,
    backups: schedule::Counts,
    gate: gate::Counts,
    discovery: discovery::Counts,
    gauges: Gauges,
}

/// Read when they are asked for.
struct Gauges {
    leader: Gauge,
    term: Gauge,
    applied: Gauge,
    logged: Gauge,
    snapshot: Gauge,
    revision: Gauge,
    voters: Gauge,
    sessions: Gauge,
    stale: Gauge,
    proxies: Gauge,
    connections: Gauge,
    disk_full: Gauge,
    diverged: Gauge,
    fsyncs: Counter,
    fsync_seconds: Counter<f64, AtomicU64>,
    log_bytes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// One open stream; dropping it counts it out.
pub struct Counted(Gauge<i64, AtomicI64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Nothing yet.
    pub fn new() -> Arc<Self> {
        let mut exposition = Exposition::with_prefix("meshd");
        let gauges = Gauges::register(&mut exposition);
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14))),
            certificates: Family::default(),
            joins: Family::default(),
            streams: Gauge::default(),
            watches: wake::Counts::default(),
            backups: schedule::Counts::default(),
            gate: gate::Counts::default(),
            discovery: discovery::Counts::default(),
            gauges,
            exposition: parking_lot::Mutex::new(Exposition::default()),
        };
        exposition.register(
            "api_requests",
            "Requests by route and class of status",
            metrics.requests.clone(),
        );
        exposition.register(
            "api_request_duration_seconds",
            "Time to the head of the answer",
            metrics.durations.clone(),
        );
        exposition.register("certificates", "Certificates issued and refused", metrics.certificates.clone());
        exposition.register("joins", "Joins granted and refused", metrics.joins.clone());
        exposition.register("proxy_streams", "Open streams of proxies", metrics.streams.clone());
        exposition.register("watches", "Open watches, of all forms", metrics.watches.watches.clone());
        exposition.register(
            "watch_wakeups",
            "Watches woken by a change of what they watch",
            metrics.watches.wakeups.clone(),
        );
        exposition.register(
            "backup_last_success_timestamp_seconds",
            "When this server saved its last scheduled snapshot",
            metrics.backups.last_success.clone(),
        );
        exposition.register(
            "backups_failed",
            "Scheduled snapshots that could not be saved",
            metrics.backups.failed.clone(),
        );
        exposition.register(
            "api_refused",
            "Requests that were not let in, by class and reason",
            metrics.gate.refused.clone(),
        );
        metrics.discovery.register(&mut exposition);
        *metrics.exposition.lock() = exposition;
        Arc::new(metrics)
    }

    /// A certificate was asked for.
    pub fn certificate(&self, issued: bool) {
        self.certificates.get_or_create(&outcome(issued)).inc();
    }

    /// Somebody wanted to join.
    pub fn join(&self, granted: bool) {
        self.joins.get_or_create(&outcome(granted)).inc();
    }

    /// A proxy's stream was opened.
    pub fn proxy_stream(&self) -> Counted {
        self.streams.inc();
        Counted(self.streams.clone())
    }

    /// What is counted of scheduled snapshots, where they are saved.
    pub fn backups(&self) -> schedule::Counts {
        self.backups.clone()
    }

    /// What is counted of requests that are not let in, where they are refused.
    pub fn gate(&self) -> gate::Counts {
        self.gate.clone()
    }

    /// What is counted of discovery sources, where they are followed.
    pub fn discovery(&self) -> discovery::Counts {
        self.discovery.clone()
    }

    /// What is counted of watches, where they are woken.
    pub fn watches(&self) -> wake::Counts {
        self.watches.clone()
    }

    fn finished(&self, route: String, response: &Response, took: Duration) {
        let class = match response.status().as_u16() {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.durations.get_or_create(&RouteLabels { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, class }).inc();
    }

    fn text(&self, sources: &Sources) -> String {
        self.gauges.read(sources);
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.exposition.lock()) {
            // Writing into a String does not fail; a metric that cannot be encoded must not hide the others.
            let _ = writeln!(text, "# {error}");
        }
        text
    }
}

impl Gauges {
    fn register(exposition: &mut Exposition) -> Self {
        let (fsyncs, log_bytes) = (Counter::default(), Counter::default());
        let fsync_seconds = Counter::<f64, AtomicU64>::default();
        exposition.register("wal_fsyncs", "Syncs of the log", fsyncs.clone());
        exposition.register("wal_fsync_seconds", "How long they took together", fsync_seconds.clone());
        exposition.register("wal_written_bytes", "Bytes of records", log_bytes.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            exposition.register(name, help, gauge.clone());
            gauge
        };
        Self {
            leader: gauge("raft_leader", "1 while this member leads"),
            term: gauge("raft_term", "The present term"),
            applied: gauge("raft_applied_index", "The last entry in the state"),
            logged: gauge("raft_log_index", "The last entry in the log"),
            snapshot: gauge("raft_snapshot_index", "The last entry in the snapshot"),
            revision: gauge("revision", "The state's revision"),
            voters: gauge("raft_voters", "Members that vote"),
            sessions: gauge("sessions", "Hosts that are here"),
            stale: gauge("sessions_stale", "Hosts that are silent and whose endpoints are kept"),
            proxies: gauge("proxies", "Proxies whose signs of life come through this member"),
            connections: gauge("member_connections", "Connections from and to other members"),
            disk_full: gauge("disk_full", "1 while the disk has no room and writes are refused"),
            diverged: gauge("state_diverged", "Members that hold another state than this one: an alarm"),
            fsyncs,
            fsync_seconds,
            log_bytes,
        }
    }

    fn read(&self, sources: &Sources) {
        let (status, state) = (sources.registry.status(), sources.registry.applied());
        let number = |number: Option<u64>| i64::try_from(number.unwrap_or(0)).unwrap_or(i64::MAX);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.leader.set(i64::from(status.leader == Some(status.member)));
        self.term.set(number(Some(status.term)));
        self.applied.set(number(status.applied_index));
        self.logged.set(number(status.last_log_index));
        self.snapshot.set(number(status.snapshot_index));
        self.revision.set(number(Some(state.revision())));
        self.voters.set(count(status.voters.len()));
        self.sessions.set(count(state.sessions().count()));
        self.stale.set(count(state.sessions().filter(|(_, session)| session.stale_since.is_some()).count()));
        self.proxies.set(count(sources.proxies.len()));
        self.connections.set(count(sources.members.connections()));
        self.disk_full.set(i64::from(sources.registry.disk().borrow().any()));
        self.diverged.set(count(sources.registry.diverged().len()));
        let log = sources.registry.log_counts();
        self.fsyncs.inner().store(log.fsyncs, Ordering::Relaxed);
        self.log_bytes.inner().store(log.bytes, Ordering::Relaxed);
        let seconds = Duration::from_nanos(log.fsync_nanos).as_secs_f64();
        self.fsync_seconds.inner().store(seconds.to_bits(), Ordering::Relaxed);
    }
}

/// Where gauges are read.
#[derive(Clone)]
pub struct Sources {
    /// Raft and the state.
    pub registry: Registry,
    /// The proxies of this member.
    pub proxies: Arc<Proxies>,
    /// Connections among members.
    pub members: Arc<Members>,
}

/// `/metrics` and `/healthz`, for this host.
pub fn router(metrics: Arc<Metrics>, sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state((metrics, sources))
}

async fn exposition(State((metrics, sources)): State<(Arc<Metrics>, Sources)>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text(&sources)).into_response()
}

/// Counts each request of the API; paths that are none count together.
pub async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str());
    let (route, began) = (format!("{} {route}", method(&request)), clock::now());
    let response = next.run(request).await;
    metrics.finished(route, &response, clock::now() - began);
    response
}

/// Methods that nobody serves count together, or strangers could make labels without end.
fn method(request: &Request) -> &str {
    match request.method().as_str() {
        known @ ("GET" | "PUT" | "POST" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS") => known,
        _ => "OTHER",
    }
}

fn outcome(good: bool) -> OutcomeLabels {
    OutcomeLabels { outcome: if good { "granted" } else { "refused" } }
}
