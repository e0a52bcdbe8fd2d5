//! Pure. How a TrafficPolicy says which endpoints callers leave alone.

use crate::{
    duration::Timespan,
    resource::Port,
    shape::{Decoder, Int, Path, Text, record},
};

record! {
    /// Which endpoints callers leave alone for a while because of what they answer.
    pub struct OutlierDetection {
        /// Failures in a row, any 5xx or no answer, after which one is ejected; never if 0.
        "consecutiveErrors" consecutive_errors: Int<0, 1_000> = Int::clamped(5),
        /// Times in a row 502, 503, 504 or no answer after which one is ejected; never if 0.
        "consecutiveGatewayErrors" consecutive_gateway_errors: Int<0, 1_000> = Int::clamped(0),
        /// The least share of its calls that must succeed, in percent; any if left out.
        "successRate" success_rate: Option<Int<1, 100>>,
        /// How long its answers may take on average, to their heads; any time if left out or 0.
        "latency" latency: Option<Timespan>,
        /// The time over which share and average are taken; above 0.
        "interval" interval: Timespan = Timespan::from_secs(10),
        /// As many calls there must be in it for them to say something.
        "minRequests" min_requests: Int<1, 1_000_000> = Int::clamped(20),
        /// For how long the first time; so many times as long as it was ejected by then. Above 0.
        "baseEjectionTime" base_ejection_time: Timespan = Timespan::from_secs(30),
        /// The longest time.
        "maxEjectionTime" max_ejection_time: Timespan = Timespan::from_secs(300),
        /// The share of the service's endpoints that may be ejected at once, in percent; one always stays.
        "maxEjectionPercent" max_ejection_percent: Int<0, 100> = Int::clamped(50),
    }
}

record! {
    /// A request that must be answered with 2xx or 3xx.
    pub struct HttpCheck {
        /// Its path.
        "path" path: Text<1024>,
    }
}

record! {
    /// A connection that must come about.
    pub struct TcpCheck {}
}

record! {
    /// How callers look after the endpoints that they use.
    pub struct HealthCheck {
        /// By a request. Either this or `tcp`.
        "http" http: Option<HttpCheck>,
        /// By a connection to the application. Either this or `http`.
        "tcp" tcp: Option<TcpCheck>,
        /// At which port of the service; its first one that fits if left out.
        "port" port: Option<Port>,
        /// From one check to the next, give or take a tenth; at least 100ms.
        "interval" interval: Timespan = Timespan::from_secs(5),
        /// What takes longer has failed; above 0.
        "timeout" timeout: Timespan = Timespan::from_secs(1),
        /// Failures in a row after which an endpoint is unwell.
        "unhealthyThreshold" unhealthy_threshold: Int<1, 100> = Int::clamped(3),
        /// Passes in a row after which it is well again.
        "healthyThreshold" healthy_threshold: Int<1, 100> = Int::clamped(2),
    }
}

impl OutlierDetection {
    /// Reports what does not fit together.
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        for (field, span) in [("interval", self.interval), ("baseEjectionTime", self.base_ejection_time)] {
            if span.duration().is_zero() {
                decoder.report(&Path::Field(at, field), "must be above 0");
            }
        }
        if self.max_ejection_time < self.base_ejection_time {
            let message = format_args!("must be at least baseEjectionTime, {}", self.base_ejection_time);
            decoder.report(&Path::Field(at, "maxEjectionTime"), message);
        }
    }
}

impl HealthCheck {
    /// Reports what does not fit together.
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        if self.http.is_some() == self.tcp.is_some() {
            decoder.report(at, "must have either http or tcp");
        }
        if let Some(http) = self.http.as_ref().filter(|http| !http.path.as_str().starts_with('/')) {
            let (http_at, is) = (Path::Field(at, "http"), http.path.as_str());
            decoder.report(&Path::Field(&http_at, "path"), format_args!("must start with '/', is {is:?}"));
        }
        if self.interval < Timespan::from_millis(100) {
            decoder.report(&Path::Field(at, "interval"), "must be at least 100ms");
        }
        if self.timeout.duration().is_zero() {
            decoder.report(&Path::Field(at, "timeout"), "must be above 0");
        }
    }
}
