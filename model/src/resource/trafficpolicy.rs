//! Pure. TrafficPolicy: how callers treat a service. What follows from it for a call is decided in `traffic`.

use super::{Rules, TargetRef};
use crate::{
    duration::Timespan,
    object::Metadata,
    shape::{Decoder, Int, Path, choice, record},
};

mod balancer;
mod health;
mod rate;

pub use balancer::{BalancerType, CookieAffinity, HashKey, HashKeyType, LoadBalancer, ZonePreference};
pub use health::{HealthCheck, HttpCheck, OutlierDetection, TcpCheck};
pub use rate::{RateKey, RateKeyType, RateLimit};

choice! {
    /// A failure that is tried again.
    pub enum RetryCondition {
        /// No connection to the endpoint came about: nothing was sent.
        ConnectFailure = "ConnectFailure",
        /// The other side says that it did not look at the request.
        Refused = "Refused",
        /// The connection broke before an answer came, or a try took too long.
        Reset = "Reset",
        /// An answer with 502, 503 or 504.
        GatewayError = "GatewayError",
        /// An answer with any 5xx.
        ServerError = "ServerError",
        /// An answer with 409: somebody else was faster.
        Retriable4xx = "Retriable4xx",
    }
}

choice! {
    /// A status of gRPC (google.rpc.Code).
    pub enum GrpcCode {
        /// 1.
        Cancelled = "Cancelled",
        /// 2.
        Unknown = "Unknown",
        /// 3.
        InvalidArgument = "InvalidArgument",
        /// 4.
        DeadlineExceeded = "DeadlineExceeded",
        /// 5.
        NotFound = "NotFound",
        /// 6.
        AlreadyExists = "AlreadyExists",
        /// 7.
        PermissionDenied = "PermissionDenied",
        /// 8.
        ResourceExhausted = "ResourceExhausted",
        /// 9.
        FailedPrecondition = "FailedPrecondition",
        /// 10.
        Aborted = "Aborted",
        /// 11.
        OutOfRange = "OutOfRange",
        /// 12.
        Unimplemented = "Unimplemented",
        /// 13.
        Internal = "Internal",
        /// 14.
        Unavailable = "Unavailable",
        /// 15.
        DataLoss = "DataLoss",
        /// 16.
        Unauthenticated = "Unauthenticated",
    }
}

impl GrpcCode {
    /// Its number.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }
}

record! {
    /// How long things may take, where a route says nothing else.
    pub struct PolicyTimeouts {
        /// Until a connection to an endpoint's proxy stands, TLS and all; above 0.
        "connect" connect: Timespan = Timespan::from_secs(2),
        /// From the request's last byte in to the answer's end, all tries together; no limit if left out or 0.
        "request" request: Option<Timespan>,
        /// How long a stream (TCP, WebSocket), or a request with its answer, may carry nothing; no limit if left out or 0.
        "idle" idle: Option<Timespan>,
    }
}

record! {
    /// How many retries a service gets from one proxy, over ten seconds.
    pub struct RetryBudget {
        /// Retries for each hundred calls.
        "percent" percent: Int<0, 100> = Int::clamped(20),
        /// Retries for each second besides, whatever the calls.
        "minPerSecond" min_per_second: Int<0, 10_000> = Int::clamped(3),
    }
}

record! {
    /// When a request is tried again, where a route says nothing else.
    pub struct PolicyRetry {
        /// Tries after the first.
        "attempts" attempts: Int<0, 10> = Int::clamped(1),
        /// Answers that are tried again, beside what the conditions say; 502, 503 and 504 if neither is given.
        "codes" codes: Vec<Int<400, 599>>,
        /// Failures that are tried again; ConnectFailure, Refused and Reset if left out.
        "conditions" conditions: Vec<RetryCondition>,
        /// Statuses of gRPC that are tried again although the application answered.
        "grpcCodes" grpc_codes: Vec<GrpcCode>,
        /// The wait before the first retry; doubled, with jitter, for each further one.
        "backoff" backoff: Timespan = Timespan::from_millis(25),
        /// How long one try may take; no limit if left out or 0.
        "perTryTimeout" per_try_timeout: Option<Timespan>,
        /// How many there may be.
        "budget" budget: RetryBudget = RetryBudget::default(),
    }
}

/// Of things under way at once.
pub type AtOnce<const MIN: u64> = Int<MIN, 1_000_000>;

record! {
    /// How much one proxy has under way to the service at once; what would be more is refused at once.
    pub struct PolicyLimits {
        /// Streams: TCP connections, WebSockets and other upgrades.
        "maxConnections" max_connections: AtOnce<1> = Int::clamped(16_384),
        /// Requests that wait for a connection to an endpoint's proxy.
        "maxPendingRequests" max_pending_requests: AtOnce<1> = Int::clamped(16_384),
        /// Requests.
        "maxRequests" max_requests: AtOnce<1> = Int::clamped(16_384),
        /// Retries.
        "maxRetries" max_retries: AtOnce<0> = Int::clamped(16_384),
    }
}

record! {
    /// How callers treat a service.
    pub struct TrafficPolicySpec {
        /// The services that it is for; if left out every service of the namespace, and in `mesh-system` of the mesh,
        /// that no policy is for by name.
        "targetRefs" target_refs: Option<Vec<TargetRef>>,
        /// Which endpoint a call goes to.
        "loadBalancer" load_balancer: LoadBalancer = LoadBalancer::default(),
        /// How callers look after the endpoints that they use; they do not if left out.
        "healthCheck" health_check: Option<HealthCheck>,
        /// Which endpoints callers leave alone because of what they answer; none if left out.
        "outlierDetection" outlier_detection: Option<OutlierDetection>,
        /// How long things may take.
        "timeouts" timeouts: PolicyTimeouts = PolicyTimeouts::default(),
        /// When a request is tried again.
        "retry" retry: PolicyRetry = PolicyRetry::default(),
        /// How often the service may be called, at each of its hosts.
        "rateLimits" rate_limits: Vec<RateLimit>,
        /// How much may be under way.
        "limits" limits: PolicyLimits = PolicyLimits::default(),
    }
}

macro_rules! defaults {
    ($($record:ty),+) => {$(
        /// What stands for it when it is left out.
        impl Default for $record {
            fn default() -> Self {
                crate::shape::decode(&serde_json::json!({}), crate::shape::Mode::Strict).expect("all has a default")
            }
        }
    )+};
}

defaults!(LoadBalancer, PolicyTimeouts, RetryBudget, PolicyRetry, PolicyLimits, TrafficPolicySpec);

impl Rules for TrafficPolicySpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        let targets_at = Path::Field(at, "targetRefs");
        let targets = self.target_refs.as_deref();
        if targets.is_some_and(<[_]>::is_empty) {
            let message = "must name a Service, or be left out: then it is for all that no policy names";
            decoder.report(&targets_at, message);
        }
        let targets = targets.unwrap_or_default();
        for (index, target) in targets.iter().enumerate() {
            if targets[..index].iter().any(|other| other.name == target.name) {
                let target_at = Path::Index(&targets_at, index);
                decoder
                    .report(&Path::Field(&target_at, "name"), format_args!("{} stands twice", target.name));
            }
        }
        self.load_balancer.check(&Path::Field(at, "loadBalancer"), decoder);
        if let Some(check) = &self.health_check {
            check.check(&Path::Field(at, "healthCheck"), decoder);
        }
        if let Some(outliers) = &self.outlier_detection {
            outliers.check(&Path::Field(at, "outlierDetection"), decoder);
        }
        rate::check(&self.rate_limits, &Path::Field(at, "rateLimits"), decoder);
        self.check_times(at, decoder);
    }
}

impl TrafficPolicySpec {
    fn check_times(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let (timeouts_at, retry_at) = (Path::Field(at, "timeouts"), Path::Field(at, "retry"));
        if self.timeouts.connect.duration().is_zero() {
            decoder
                .report(&Path::Field(&timeouts_at, "connect"), "must be above 0: something has to connect");
        }
        let spans = self.timeouts.request.zip(self.retry.per_try_timeout);
        if let Some((request, one)) = spans
            && one > request
            && !request.duration().is_zero()
        {
            let message = format_args!("must be at most timeouts.request, {request}");
            decoder.report(&Path::Field(&retry_at, "perTryTimeout"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kind::Kind, resource::route::testing};

    #[track_caller]
    fn check(spec: &str, want: &[&str]) {
        testing::check(Kind::TrafficPolicy, spec, want);
    }

    #[test]
    fn everything_has_a_default() {
        check("{}", &[]);
        check(
            "{targetRefs: [{kind: Service, name: orders}], timeouts: {}, retry: {budget: {}}, limits: {}}",
            &[],
        );
        let effective = serde_json::to_value(TrafficPolicySpec::default()).expect("it serialises");
        let want = serde_json::json!({
            "loadBalancer": {"type": "PeakEWMA", "panicThreshold": 0},
            "timeouts": {"connect": "2s"},
            "retry": {"attempts": 1, "backoff": "25ms", "budget": {"percent": 20, "minPerSecond": 3}},
            "limits": {"maxConnections": 16384, "maxPendingRequests": 16384, "maxRequests": 16384, "maxRetries": 16384},
        });
        assert_eq!(effective, want);
    }

    #[test]
    fn every_wrong_field_is_named() {
        check(
            "{targetRefs: [], retries: {}}",
            &[
                "spec.retries: unknown field; known are targetRefs, loadBalancer",
                "spec.targetRefs: must name",
            ],
        );
        check("{targetRefs: []}", &["spec.targetRefs: must name a Service, or be left out"]);
        check(
            "{targetRefs: [{name: a}, {name: b}, {name: a}], timeouts: {connect: 0s, request: 1s}, retry: {perTryTimeout: 2s}}",
            &[
                "spec.targetRefs[2].name: a stands twice",
                "spec.timeouts.connect: must be above 0",
                "spec.retry.perTryTimeout: must be at most timeouts.request, 1s",
            ],
        );
        check(
            "{retry: {attempts: 11, codes: [200], conditions: [5xx], grpcCodes: [UNAVAILABLE], budget: {percent: 101}}, limits: {maxRequests: 0}}",
            &[
                "spec.retry.attempts: must be a whole number from 0 to 10",
                "spec.retry.codes[0]: must be a whole number from 400 to 599",
                "spec.retry.conditions[0]: must be one of ConnectFailure, Refused, Reset, GatewayError, ServerError, Retriable4xx",
                "spec.retry.grpcCodes[0]: must be one of Cancelled, Unknown",
                "spec.retry.budget.percent: must be a whole number from 0 to 100",
                "spec.limits.maxRequests: must be a whole number from 1 to 1000000",
            ],
        );
        check("{timeouts: {request: 0s}, retry: {perTryTimeout: 2s}}", &[]);
    }

    #[test]
    fn what_is_said_of_balancing_fits_together() {
        check(
            "{loadBalancer: {type: Maglev, hashOn: [{type: Cookie, name: sid}, {type: Source}], affinity: {cookie: a, ttl: 1h}}}",
            &[],
        );
        check("{loadBalancer: {type: RoundRobin, slowStart: 30s, panicThreshold: 50, zones: {}}}", &[]);
        check(
            "{loadBalancer: {type: EWMA}}",
            &[
                "spec.loadBalancer.type: must be one of PeakEWMA, LeastRequest, RoundRobin, Random, RingHash, Maglev",
            ],
        );
        check(
            "{loadBalancer: {type: RingHash, slowStart: 1s, zones: {}}}",
            &[
                "spec.loadBalancer.hashOn: is required for RingHash",
                "spec.loadBalancer.slowStart: is not for RingHash",
                "spec.loadBalancer.zones: is not for RingHash",
            ],
        );
        check(
            "{loadBalancer: {hashOn: [{type: Source, name: x}, {type: Header}, {type: Header, name: 'a b'}, {type: Cookie, name: 'a=b'}], affinity: {cookie: ''}}}",
            &[
                "spec.loadBalancer.hashOn: is for RingHash and Maglev, not PeakEWMA",
                "spec.loadBalancer.hashOn[0].name: is for Header and Cookie",
                "spec.loadBalancer.hashOn[1].name: is required",
                "spec.loadBalancer.hashOn[2].name: must be a header's name",
                "spec.loadBalancer.hashOn[3].name: must be a cookie's name",
                "spec.loadBalancer.affinity.cookie: must be a cookie's name",
            ],
        );
    }

    #[test]
    fn what_is_said_of_health_fits_together() {
        check("{healthCheck: {http: {path: /healthz}}, outlierDetection: {}}", &[]);
        check("{healthCheck: {tcp: {}, port: 80, interval: 100ms}}", &[]);
        check(
            "{healthCheck: {}, outlierDetection: {interval: 0s, baseEjectionTime: 1m, maxEjectionTime: 1s}}",
            &[
                "spec.healthCheck: must have either http or tcp",
                "spec.outlierDetection.interval: must be above 0",
                "spec.outlierDetection.maxEjectionTime: must be at least baseEjectionTime, 1m",
            ],
        );
        check(
            "{healthCheck: {http: {path: healthz}, tcp: {}, interval: 10ms, timeout: 0s}}",
            &[
                "spec.healthCheck: must have either http or tcp",
                "spec.healthCheck.http.path: must start with '/', is \"healthz\"",
                "spec.healthCheck.interval: must be at least 100ms",
                "spec.healthCheck.timeout: must be above 0",
            ],
        );
        check(
            "{outlierDetection: {successRate: 0, consecutiveErrors: 1001}}",
            &[
                "spec.outlierDetection.consecutiveErrors: must be a whole number from 0 to 1000",
                "spec.outlierDetection.successRate: must be a whole number from 1 to 100",
            ],
        );
    }

    #[test]
    fn what_is_said_of_rates_fits_together() {
        check(
            "{rateLimits: [{requests: 100}, {name: a, by: [{type: Source}, {type: Header, name: x}], requests: 1, per: 1m, burst: 5}]}",
            &[],
        );
        check(
            "{rateLimits: [{name: a, requests: 0, per: 0s}]}",
            &["spec.rateLimits[0].requests: must be a whole number from 1 to 1000000"],
        );
        check(
            "{rateLimits: [{name: a, requests: 1, per: 0s}, {name: a, requests: 1, per: 25h, by: [{type: Header}, {type: Source, name: x}], matches: [{path: {value: api}}]}]}",
            &[
                "spec.rateLimits[0].per: must be above 0 and at most 24h",
                "spec.rateLimits[1].name: must be another one",
                "spec.rateLimits[1].per: must be above 0",
                "spec.rateLimits[1].by[0].name: is required",
                "spec.rateLimits[1].by[1].name: is for Header",
                "spec.rateLimits[1].matches[0].path.value: must start with '/'",
            ],
        );
    }

    #[test]
    fn statuses_of_grpc_have_their_numbers() {
        assert_eq!((GrpcCode::Cancelled.number(), GrpcCode::Unavailable.number()), (1, 14));
        assert_eq!(GrpcCode::Unauthenticated.number(), 16);
    }
}
