//! What is seen of the traffic. Each call ends in one [`Outcome`], which is counted and logged in one place; a call
//! never waits for it.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Uri, uri::PathAndQuery};
use model::name::ServiceName;
use traffic::{
    admission::Bounded,
    policy::{Remark, RuleId},
    route::RuleName,
};

mod access_log;
mod dns;
mod metrics;
mod mux;
mod spans;
pub mod trace;

pub use access_log::{ACCESS_LOG_LINES_MAX, AccessLog};
pub use dns::DnsCounts;
pub use metrics::{Counts, Facts, RULE_SERIES_MAX, SERIES_MAX};
pub use mux::MuxCounts;
pub use spans::{BATCH_SPANS_MAX, Exporter, SPANS_MAX, SpanCounts, Spans, open as open_spans};

/// On which side of the call this proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The callee's.
    Inbound,
    /// The caller's.
    Outbound,
}

/// What the call spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

/// Everything that is known of a call when it is over.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// On which side we were.
    pub direction: Direction,
    /// Who called; unknown where nobody could be told.
    pub source: Option<ServiceName>,
    /// Who was called; unknown where the call named nobody.
    pub destination: Option<ServiceName>,
    /// `<namespace>/<route>/<rule>`, or `default`.
    pub route: RuleName,
    /// The answer's status; 0 where there was none.
    pub code: u16,
    /// gRPC's own status, where it was seen.
    pub grpc_status: Option<u16>,
    /// What it spoke.
    pub spoken: Spoken,
    /// Whether both sides knew each other by certificates.
    pub mtls: bool,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// The request's body, or what the caller sent.
    pub request_bytes: u64,
    /// The answer's body, or what the callee sent.
    pub response_bytes: u64,
    /// What policy says of it, on the callee's side.
    pub judged: Judged,
    /// The limit of the destination's traffic policy that ended it, or kept it from being tried again.
    pub limited: Option<Bounded>,
    /// The rate limit that refused it, on the callee's side.
    pub too_often: Option<Arc<str>>,
    /// Why its caller speaks for no service of this host, on the caller's side.
    pub not_bound: Option<&'static str>,
    /// Why its ClientHello leads to no service, on the caller's side.
    pub bad_hello: Option<&'static str>,
    /// What the log says beyond that.
    pub note: Note,
}

impl Outcome {
    /// Of a call that begins now, of which nothing else is known yet.
    pub fn of(direction: Direction, spoken: Spoken) -> Self {
        Self {
            direction,
            source: None,
            destination: None,
            route: RuleName::default_rule(),
            code: 0,
            grpc_status: None,
            spoken,
            mtls: false,
            began: crate::clock::now(),
            took: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            judged: Judged::default(),
            limited: None,
            too_often: None,
            not_bound: None,
            bad_hello: None,
            note: Note::default(),
        }
    }
}

/// What policy says of a call.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// The rule that refuses it.
    pub denied: Option<RuleId>,
    /// What else rules say of it.
    pub remarks: Vec<Remark>,
}

/// The part of an [`Outcome`] that only the log of calls shows. What a head says is kept as it came: it is made a text
/// where a line is written.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// The method; none of TCP.
    pub method: Option<Method>,
    /// The target, as sent.
    pub target: Uri,
    /// The Host field.
    pub host: Option<HeaderValue>,
    /// The caller's address, as this proxy sees it.
    pub peer: Option<SocketAddr>,
    /// Where the call went last.
    pub endpoint: Option<SocketAddr>,
    /// Whether that was over TLS, past any proxy: it knows not who calls.
    pub tls: bool,
    /// Tries after the first.
    pub retries: u32,
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// W3C trace context, as forwarded.
    pub traceparent: Option<HeaderValue>,
    /// This proxy's span, where the trace is sampled.
    pub span: Option<trace::Own>,
    /// Why it was refused or broke off; empty if it did not.
    pub reason: String,
    /// The id that the caller was told, if policy refuses the call.
    pub refusal: String,
}

impl Note {
    /// The method; empty for TCP.
    pub fn method(&self) -> &str {
        self.method.as_ref().map_or("", Method::as_str)
    }

    /// The path with its query, as sent; empty for TCP.
    pub fn path(&self) -> &str {
        let path = self.target.path_and_query().map_or("/", PathAndQuery::as_str);
        if self.method.is_some() { path } else { "" }
    }

    /// The host that was asked for; empty if none was.
    pub fn authority(&self) -> Cow<'_, str> {
        let said = self.target.authority().map(|authority| Cow::Borrowed(authority.as_str()));
        said.unwrap_or_else(|| text(self.host.as_ref()))
    }

    /// `x-request-id`; empty for TCP.
    pub fn request_id(&self) -> Cow<'_, str> {
        text(self.request_id.as_ref())
    }

    /// W3C trace context, as forwarded; empty for TCP.
    pub fn traceparent(&self) -> Cow<'_, str> {
        text(self.traceparent.as_ref())
    }
}

fn text(value: Option<&HeaderValue>) -> Cow<'_, str> {
    // Nearly all is text, which is told sooner than what is none is made one.
    let text = |value| str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed);
    value.map_or(Cow::Borrowed(""), |value| text(value.as_bytes()))
}

/// Where calls are told of, beside being counted; all threads share them.
#[derive(Clone)]
pub struct Outlets {
    /// A line for each.
    pub log: AccessLog,
    /// A span for those that are sampled.
    pub spans: Spans,
}

/// One runtime thread's share of the telemetry.
#[derive(Clone)]
pub struct Telemetry {
    counts: Arc<Counts>,
    outlets: Outlets,
}

impl Telemetry {
    /// Counts into `counts`, tells `outlets`.
    pub fn new(counts: Arc<Counts>, outlets: Outlets) -> Self {
        Self { counts, outlets }
    }

    /// What a request that came says of its trace, brought into order.
    pub fn begin(&self, headers: &mut http::HeaderMap) -> trace::Context {
        self.outlets.spans.begin(headers)
    }

    /// Where connections of many streams are counted.
    pub fn mux(&self) -> Arc<MuxCounts> {
        self.counts.mux()
    }

    /// The only place where a call is counted and logged.
    pub fn finished(&self, outcome: &Outcome) {
        self.counts.finished(outcome);
        self.outlets.log.finished(outcome);
        self.outlets.spans.finished(outcome);
    }

    /// The only place where a connection is counted that came to the listener for captured calls and is none.
    pub fn strayed(&self, reason: &'static str) {
        self.counts.strayed(reason);
    }

    /// The only place where a copy is counted; it is no call, and not logged.
    pub fn mirrored(&self, end: Mirrored) {
        self.counts.mirrored(end);
    }
}

/// What became of the copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mirrored {
    /// It was answered.
    Sent,
    /// It was not.
    Failed,
    /// Too many were under way.
    Full,
    /// Its body is larger than what is held.
    Large,
}

impl Mirrored {
    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Full => "full",
            Self::Large => "large",
        }
    }
}

impl Direction {
    /// As in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Spoken {
    /// As in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// What a request speaks.
    pub fn of(version: http::Version, headers: &http::HeaderMap) -> Self {
        if version != http::Version::HTTP_2 {
            return Self::Http;
        }
        let kind = headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        if kind.starts_with(b"application/grpc") { Self::Grpc } else { Self::Http2 }
    }
}
