//! Pure. How callers treat a service: a TrafficPolicy, compiled. It is about the service that a call goes to in the end, by
//! whatever route; what a route's rule says about times and retries comes before it.
//!
//! Of several policies for a service the most specific counts, alone: one that names it, else one for its namespace, else
//! one for the mesh. Two of equal specificity are refused by admission; where both came to be all the same, the older counts.

use std::{sync::Arc, time::Duration};

use model::{
    duration::Timespan,
    invalid::FieldError,
    name::ServiceName,
    object::Metadata,
    resource::{HealthCheck, TrafficPolicySpec},
};

use crate::{
    admission::Limits,
    aim::Aim,
    balancer,
    endpoint::{health, outlier},
    rate,
    retry::{self, Allowance},
    route::Timeouts,
};

/// How long a connection to another proxy may take to come about, TLS and all. Longer than any round trip on earth; short
/// enough that a call can still go to another endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How callers treat a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conduct {
    /// How endpoints are picked.
    pub balancer: balancer::Settings,
    /// When an endpoint is left alone because of what it answers.
    pub outliers: Option<outlier::Settings>,
    /// How its endpoints are checked, if they are.
    pub check: Option<Check>,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long other things may take.
    pub timeouts: Timeouts,
    /// How long a stream may carry nothing.
    pub idle: Option<Duration>,
    /// When a request is tried again.
    pub retry: retry::Settings,
    /// How many retries there may be.
    pub budget: Allowance,
    /// How much may be under way.
    pub limits: Limits,
    /// How often it may be called, at each of its hosts.
    pub rates: Arc<rate::Limits>,
}

/// How callers check an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// When, and what its results mean.
    pub plan: health::Plan,
    /// The path of a request; `None` for a connection alone.
    pub path: Option<String>,
    /// At which port of the service; one that fits if none is said.
    pub port: Option<u16>,
}

/// A TrafficPolicy, compiled.
#[derive(Debug)]
pub struct TrafficPolicy {
    pub(crate) aim: Aim,
    pub(crate) conduct: Arc<Conduct>,
}

impl Default for Conduct {
    fn default() -> Self {
        Self::from(&TrafficPolicySpec::default())
    }
}

/// All of it but the rates, which can be wrong.
impl From<&TrafficPolicySpec> for Conduct {
    fn from(spec: &TrafficPolicySpec) -> Self {
        let limit = |span: Option<Timespan>| span.map(Timespan::duration).filter(|span| !span.is_zero());
        Self {
            balancer: balancer::Settings::from(&spec.load_balancer),
            outliers: spec.outlier_detection.as_ref().map(outlier::Settings::from),
            check: spec.health_check.as_ref().map(Check::from),
            connect: spec.timeouts.connect.duration(),
            timeouts: Timeouts {
                request: limit(spec.timeouts.request),
                backend_request: limit(spec.retry.per_try_timeout),
                call: None,
            },
            idle: limit(spec.timeouts.idle),
            retry: retry::Settings::from(&spec.retry),
            budget: Allowance::from(&spec.retry.budget),
            limits: Limits::from(&spec.limits),
            rates: Arc::default(),
        }
    }
}

impl From<&HealthCheck> for Check {
    fn from(spec: &HealthCheck) -> Self {
        Self {
            plan: health::Plan {
                interval: spec.interval.duration(),
                timeout: spec.timeout.duration(),
                healthy_after: spec.healthy_threshold.value() as u32,
                unhealthy_after: spec.unhealthy_threshold.value() as u32,
            },
            path: spec.http.as_ref().map(|http| http.path.as_str().to_owned()),
            port: spec.port.map(|port| port.value() as u16),
        }
    }
}

impl TrafficPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// As [`rate::check`] says; never an empty list.
    pub fn compile(metadata: &Metadata, spec: &TrafficPolicySpec) -> Result<Self, Vec<FieldError>> {
        let Some(aim) = Aim::of(metadata, spec.target_refs.as_deref()) else {
            let message = "is required: a policy lives in a namespace".to_owned();
            return Err(vec![FieldError { path: "metadata.namespace".to_owned(), message }]);
        };
        let (namespace, name) = aim.named();
        let own = ServiceName::new(namespace.clone(), name.clone());
        let rates = Arc::new(rate::Limits::compile(&own, spec)?);
        let conduct = Arc::new(Conduct { rates, ..Conduct::from(spec) });
        Ok(Self { aim, conduct })
    }

    /// Whether it is for a service.
    pub fn selects(&self, service: &ServiceName) -> bool {
        self.aim.selects(service)
    }

    /// Whether it counts before another that is for the same service.
    pub fn precedes(&self, other: &Self) -> bool {
        self.aim < other.aim
    }
}

#[cfg(test)]
mod tests {
    use model::{manifest, resource::Resource};

    use super::*;

    /// Policies from lines of `namespace/name age target…`; without a target it is for all of its place.
    fn policies(text: &str) -> Vec<TrafficPolicy> {
        let policy = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (namespace, name) = words[0].split_once('/').expect("a namespace and a name");
            let targets: Vec<_> = words[2..].iter().map(|target| format!("{{name: {target}}}")).collect();
            let spec = if targets.is_empty() {
                String::new()
            } else {
                format!("targetRefs: [{}]", targets.join(","))
            };
            let text = format!(
                "{{kind: TrafficPolicy, metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}"
            );
            let mut parsed = manifest::parse(&text).expect("a manifest").remove(0);
            parsed.object.metadata.created_at.0 = words[1].parse().expect("an age");
            let Resource::TrafficPolicy(spec) = parsed.resource else { panic!("a policy") };
            TrafficPolicy::compile(&parsed.object.metadata, &spec).expect("in a namespace")
        };
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(policy).collect()
    }

    /// Which policy counts for a service, whatever the order in which they stand.
    #[track_caller]
    fn check(text: &str, service: &str, want: &str) {
        let service: ServiceName = service.parse().expect("a service");
        let mut policies = policies(text);
        for _ in 0..policies.len() {
            policies.rotate_left(1);
            let mut selecting: Vec<_> = policies.iter().filter(|policy| policy.selects(&service)).collect();
            selecting.sort_by(|a, b| {
                if a.precedes(b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
            });
            let name = selecting.first().map_or("none".to_owned(), |first| first.aim.named().1.to_string());
            assert_eq!(name, want, "{service}");
        }
    }

    #[test]
    fn the_most_specific_counts_and_of_equals_the_older() {
        let all = "
            mesh-system/mesh 1
            shop/namespace 2
            shop/orders 3 orders web
            shop/younger 4 orders";
        check(all, "shop/orders", "orders");
        check(all, "shop/web", "orders");
        check(all, "shop/other", "namespace");
        check(all, "default/orders", "mesh");
        check("shop/orders 3 orders", "default/orders", "none");
        check("mesh-system/own 1 meshd", "shop/orders", "none");
    }

    #[test]
    fn a_zero_is_no_limit() {
        let spec = "{timeouts: {connect: 300ms, request: 0s, idle: 5m}, retry: {perTryTimeout: 2s}}";
        let text = format!("{{kind: TrafficPolicy, metadata: {{namespace: a, name: b}}, spec: {spec}}}");
        let parsed = manifest::parse(&text).expect("a manifest").remove(0);
        let Resource::TrafficPolicy(spec) = parsed.resource else { panic!("a policy") };
        let conduct = Conduct::from(&spec);
        let two = Some(Duration::from_secs(2));
        assert_eq!(conduct.timeouts, Timeouts { request: None, backend_request: two, call: None });
        assert_eq!(
            (conduct.connect, conduct.idle),
            (Duration::from_millis(300), Some(Duration::from_secs(300)))
        );
        assert_eq!(Conduct::default().connect, CONNECT_TIMEOUT);
    }
}
