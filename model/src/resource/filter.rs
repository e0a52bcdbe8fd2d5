//! Pure. Filters of a route's rule: what is done to a request, or to its answer. Gateway API's names and meanings, but
//! for `DirectResponse` and `FaultInjection`, which are ours. What a rule may combine is checked here; which headers no route may touch is
//! the data plane's knowledge, and is checked there.

use super::{BackendRef, Port, RefKind, Weight};
use crate::{
    duration::{Millis, Timespan},
    name::{Name, ServiceName},
    shape::{Int, Lines, Text, choice, record},
};

mod of_backends;
mod rules;

pub(super) use of_backends::OfBackends;
pub(super) use rules::{Beside, check_filters, check_name};

/// The longest delay that a fault may have: each request that is held up takes the place of others.
pub const FAULT_DELAY_MAX: Timespan = Timespan::from_secs(60);
/// The largest body of a `DirectResponse`, in bytes: it is a word to the caller, not a file, and travels to every proxy.
pub const DIRECT_BODY_BYTES_MAX: usize = 4 * 1_024;

choice! {
    /// What a filter does.
    pub enum FilterType {
        /// Changes the request's headers.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Changes the answer's headers.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Answers with a redirect.
        RequestRedirect = "RequestRedirect",
        /// Changes path or host of the request.
        UrlRewrite = "URLRewrite",
        /// Sends a copy of the request elsewhere.
        RequestMirror = "RequestMirror",
        /// Answers for browsers that ask on behalf of other origins.
        Cors = "CORS",
        /// Answers by itself.
        DirectResponse = "DirectResponse",
        /// Delays requests, or refuses them, to see what callers do.
        FaultInjection = "FaultInjection",
    }
}

record! {
    /// A header with its value.
    pub struct HeaderPair {
        /// Its name; case does not matter.
        "name" name: Text<256>,
        /// Its value.
        "value" value: Text<4096>,
    }
}

record! {
    /// Changes of headers; each name at most once.
    pub struct HeaderModifier {
        /// Replaces what is there.
        "set" set: Vec<HeaderPair>,
        /// Adds a further value.
        "add" add: Vec<HeaderPair>,
        /// Takes out.
        "remove" remove: Vec<Text<256>>,
    }
}

choice! {
    /// How a path is replaced.
    pub enum PathModifierType {
        /// The whole of it; the query stays.
        ReplaceFullPath = "ReplaceFullPath",
        /// The prefix that the rule's one match names; what follows it stays.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

record! {
    /// Another path.
    pub struct PathModifier {
        /// How.
        "type" kind: PathModifierType,
        /// The new path.
        "replaceFullPath" replace_full_path: Option<Text<1024>>,
        /// What stands for the prefix; may be empty.
        "replacePrefixMatch" replace_prefix_match: Option<Text<1024>>,
    }
}

choice! {
    /// A scheme to redirect to.
    pub enum RedirectScheme {
        /// `http`.
        Http = "http",
        /// `https`.
        Https = "https",
    }
}

record! {
    /// A redirect; what is left out stays as the request has it.
    pub struct RequestRedirect {
        /// The scheme.
        "scheme" scheme: Option<RedirectScheme>,
        /// The host.
        "hostname" hostname: Option<Text<253>>,
        /// The path.
        "path" path: Option<PathModifier>,
        /// The port; the scheme's own where a scheme is named and no port.
        "port" port: Option<Port>,
        /// 301, 302, 303, 307 or 308.
        "statusCode" status_code: Int<301, 308> = Int::clamped(302),
    }
}

record! {
    /// Another path or host for the request.
    pub struct UrlRewrite {
        /// The host that the application sees.
        "hostname" hostname: Option<Text<253>>,
        /// The path that it sees.
        "path" path: Option<PathModifier>,
    }
}

record! {
    /// A service that gets copies of requests.
    pub struct MirrorRef {
        /// `Service`.
        "kind" kind: RefKind = RefKind::Service,
        /// Its namespace; the route's if left out.
        "namespace" namespace: Option<Name>,
        /// Its name.
        "name" name: Name,
        /// A subset of its endpoints; all if left out.
        "subset" subset: Option<Name>,
        /// Its port.
        "port" port: Port,
    }
}

record! {
    /// A share of requests.
    pub struct Fraction {
        /// So many
        "numerator" numerator: Int<0, 1_000_000>,
        /// of so many.
        "denominator" denominator: Int<1, 1_000_000> = Int::clamped(100),
    }
}

record! {
    /// Copies of requests; their answers are thrown away.
    pub struct RequestMirror {
        /// Who gets them.
        "backendRef" backend_ref: MirrorRef,
        /// Of how many requests in a hundred; of all if neither this nor `fraction` is there.
        "percent" percent: Option<Int<0, 100>>,
        /// Of which share, where a hundredth is too coarse.
        "fraction" fraction: Option<Fraction>,
    }
}

record! {
    /// Cross-origin requests of browsers (Fetch standard, CORS protocol).
    pub struct Cors {
        /// Who may ask: `https://shop.example`, `https://*.shop.example`, or `*` alone.
        "allowOrigins" allow_origins: Vec<Text<253>>,
        /// Whether credentials may come along.
        "allowCredentials" allow_credentials: bool = false,
        /// Methods, or `*` alone.
        "allowMethods" allow_methods: Vec<Text<32>>,
        /// Headers of requests, or `*` alone.
        "allowHeaders" allow_headers: Vec<Text<256>>,
        /// Headers of answers that scripts may read, or `*` alone.
        "exposeHeaders" expose_headers: Vec<Text<256>>,
        /// For how long the answer to a preflight holds, in seconds.
        "maxAge" max_age: Int<1, 2_147_483_647> = Int::clamped(5),
    }
}

record! {
    /// An answer that needs no application.
    pub struct DirectResponse {
        /// Its status.
        "status" status: Int<200, 599> = Int::clamped(200),
        /// Its headers; `content-type` is `text/plain; charset=utf-8` unless it stands here.
        "headers" headers: Vec<HeaderPair>,
        /// Its body; none if left out.
        "body" body: Option<Lines<DIRECT_BODY_BYTES_MAX>>,
    }
}

record! {
    /// Requests that are held up.
    pub struct FaultDelay {
        /// For how long; at most a minute.
        "duration" duration: Timespan,
        /// Of how many requests in a hundred; of all if neither this nor `fraction` is there.
        "percent" percent: Option<Int<0, 100>>,
        /// Of which share, where a hundredth is too coarse.
        "fraction" fraction: Option<Fraction>,
    }
}

record! {
    /// Requests that are answered with an error and go nowhere.
    pub struct FaultAbort {
        /// The answer's status; of gRPC's calls, too, unless `grpcStatus` is there.
        "status" status: Option<Int<400, 599>>,
        /// What gRPC's calls end with.
        "grpcStatus" grpc_status: Option<Int<1, 16>>,
        /// Of how many requests in a hundred; of all if neither this nor `fraction` is there.
        "percent" percent: Option<Int<0, 100>>,
        /// Of which share, where a hundredth is too coarse.
        "fraction" fraction: Option<Fraction>,
    }
}

record! {
    /// Faults on purpose, for the requests that the rule takes.
    pub struct FaultInjection {
        /// Requests that are held up.
        "delay" delay: Option<FaultDelay>,
        /// Requests that are answered with an error; after their delay, if they have one.
        "abort" abort: Option<FaultAbort>,
        /// When it ends by itself; RFC 3339. Never if left out.
        "until" until: Option<Millis>,
    }
}

record! {
    /// A filter: its type, and the field of that name.
    pub struct RouteFilter {
        /// What it does.
        "type" kind: FilterType,
        /// Of a `RequestHeaderModifier`.
        "requestHeaderModifier" request_header_modifier: Option<HeaderModifier>,
        /// Of a `ResponseHeaderModifier`.
        "responseHeaderModifier" response_header_modifier: Option<HeaderModifier>,
        /// Of a `RequestRedirect`.
        "requestRedirect" request_redirect: Option<RequestRedirect>,
        /// Of a `URLRewrite`.
        "urlRewrite" url_rewrite: Option<UrlRewrite>,
        /// Of a `RequestMirror`.
        "requestMirror" request_mirror: Option<RequestMirror>,
        /// Of a `CORS`.
        "cors" cors: Option<Cors>,
        /// Of a `DirectResponse`.
        "directResponse" direct_response: Option<DirectResponse>,
        /// Of a `FaultInjection`.
        "faultInjection" fault_injection: Option<FaultInjection>,
    }
}

impl PathModifier {
    /// The text that stands for what is replaced.
    pub fn replacement(&self) -> &str {
        let text = match self.kind {
            PathModifierType::ReplaceFullPath => &self.replace_full_path,
            PathModifierType::ReplacePrefixMatch => &self.replace_prefix_match,
        };
        text.as_ref().map_or("", Text::as_str)
    }
}

impl MirrorRef {
    /// The same as a back end of a rule.
    pub fn backend(&self) -> BackendRef {
        let Self { kind, namespace, name, subset, port } = self.clone();
        BackendRef { kind, namespace, name, subset, port, weight: Weight::clamped(1), filters: Vec::new() }
    }

    /// The service, for a route of `namespace`.
    pub fn service(&self, namespace: &Name) -> ServiceName {
        ServiceName::new(self.namespace.as_ref().unwrap_or(namespace).clone(), self.name.clone())
    }
}
