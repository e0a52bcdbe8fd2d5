//! Pure. How services are called: Kuma's timeouts, retries, breakers, checks, balancing and rates, all of which are one
//! TrafficPolicy of the called service here.

use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::{Plan, set},
        span,
    },
    Called, OF_CALLERS, Place, called, entries,
    refer::Whom,
};

mod balance;
mod breaker;
mod retry;

const AT_THE_CALLED: &str = "how a service takes calls is not said apart from how it is called";
const TO: &str = "say it in `to`, of the called service";
const MAX: u64 = 1_000_000;

/// Reads a policy that says something of calls from its target (`to`).
pub(super) fn read(kind: &str, target: Option<Whom>, place: &Place, mut spec: Fields<'_>, plan: &mut Plan) {
    let of_all = target == Some(Whom::All);
    for list in ["from", "rules"] {
        spec.lost(list, AT_THE_CALLED, TO);
    }
    for (whom, mut fields, at) in entries(&mut spec, "to", place) {
        let said = fields.take("default").and_then(|at| at.fields());
        fields.finish();
        if !of_all || !place.is_of_all_callers(whom.as_ref()) {
            at.lost(OF_CALLERS, "say it for all callers, with targetRef Mesh");
            continue;
        }
        let (Some(whom), Some(said)) = (whom, said) else { continue };
        let treated = treated(plan, called(whom, place));
        match kind {
            "MeshTimeout" => timeouts(said, treated),
            "MeshRetry" => retry::read(said, treated),
            "MeshCircuitBreaker" => breaker::read(said, treated),
            "MeshHealthCheck" => health(said, treated),
            _ => balance::read(said, treated),
        }
    }
    spec.finish();
}

/// What is said of how a service is called.
fn treated(plan: &mut Plan, called: Called) -> &mut Map<String, Value> {
    match called {
        Called::Service(service) => &mut plan.draft(&service).treated,
        Called::All(namespace) => plan.treated.entry(namespace).or_default(),
    }
}

/// Sets a span of time that a field says.
fn set_span(fields: &mut Fields<'_>, name: &str, treated: &mut Map<String, Value>, path: &str) {
    if let Some(span) = fields.take_given(name).and_then(|at| span::of(&at)) {
        set(treated, path, span);
    }
}

/// Sets a whole number that a field says.
fn set_whole(
    fields: &mut Fields<'_>,
    name: &str,
    (least, most): (u64, u64),
    treated: &mut Map<String, Value>,
    path: &str,
) {
    if let Some(number) = fields.take(name).and_then(|at| at.whole(least, most)) {
        set(treated, path, number);
    }
}

fn timeouts(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    if let Some(at) = fields.take("connectionTimeout") {
        match span::of(&at).as_deref() {
            Some("0s") => at.lost("there is always a limit until a connection stands", "leave it out"),
            Some(span) => set(treated, "timeouts.connect", span),
            None => {}
        }
    }
    set_span(&mut fields, "idleTimeout", treated, "timeouts.idle");
    if let Some(mut http) = fields.take("http").and_then(|at| at.fields()) {
        set_span(&mut http, "requestTimeout", treated, "timeouts.request");
        for name in
            ["streamIdleTimeout", "maxStreamDuration", "maxConnectionDuration", "requestHeadersTimeout"]
        {
            http.lost(
                name,
                "of requests there are the times `request` and `idle`",
                "set timeouts.idle, which holds for requests, too",
            );
        }
        http.finish();
    }
    fields.finish();
}

fn health(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    let mut check = Map::new();
    set_span(&mut fields, "interval", &mut check, "interval");
    set_span(&mut fields, "timeout", &mut check, "timeout");
    for name in ["unhealthyThreshold", "healthyThreshold"] {
        set_whole(&mut fields, name, (1, 100), &mut check, name);
    }
    let panic = fields.take("healthyPanicThreshold").and_then(|at| at.whole(0, 100));
    if let Some(percent) = panic {
        set(treated, "loadBalancer.panicThreshold", percent);
    }
    for name in ["intervalJitter", "intervalJitterPercent", "initialJitter"] {
        fields.lost(name, "a check comes a tenth of its interval sooner or later, always", "leave it out");
    }
    for name in [
        "noTrafficInterval",
        "eventLogPath",
        "alwaysLogHealthCheckFailures",
        "reuseConnection",
        "failTrafficOnPanic",
    ] {
        fields.lost(name, "nothing of ours is that", "leave it out");
    }
    fields.lost("grpc", "a check is by HTTP or TCP", "check a path, or tcp: {}");
    let [http, tcp] = ["http", "tcp"].map(|name| fields.take_given(name).and_then(|at| at.fields()));
    fields.finish();
    if let Some(by) = http.and_then(by_http) {
        check.insert("http".to_owned(), by);
        tcp.into_iter().for_each(|tcp| tcp.at.lost("a check is by HTTP or TCP, not both", "leave one out"));
    } else if let Some(mut tcp) = tcp {
        let disabled = tcp.take("disabled").is_some();
        for name in ["send", "receive"] {
            tcp.lost(name, "a check of TCP is that the application is reached", "leave it out");
        }
        tcp.finish();
        if disabled {
            return;
        }
        check.insert("tcp".to_owned(), json!({}));
    } else {
        return;
    }
    treated.insert("healthCheck".to_owned(), Value::Object(check));
}

fn by_http(mut fields: Fields<'_>) -> Option<Value> {
    let disabled = fields.take("disabled").is_some();
    let path = fields.text("path").unwrap_or_else(|| "/".to_owned());
    fields.lost("requestHeadersToAdd", "a check has no headers of its own", "leave it out");
    if let Some(at) = fields.take("expectedStatuses") {
        let unusual =
            |status: &At<'_>| !status.number().is_some_and(|status| (200.0..400.0).contains(&status));
        if at.list().iter().any(unusual) {
            at.lost("a check must be answered with 2xx or 3xx", "give it a path that is");
        } else {
            at.differs("a check may be answered with any 2xx or 3xx", "leave it so");
        }
    }
    fields.finish();
    (!disabled).then(|| json!({"path": path}))
}

/// Reads a MeshRateLimit: how often its target may be called, by whom.
pub(super) fn rates(target: Option<Whom>, place: &Place, mut spec: Fields<'_>, plan: &mut Plan) {
    spec.lost(
        "to",
        "rates of ours are kept where the calls come in",
        "say it in `from`, of the called service",
    );
    let called = target.map(|whom| called(whom, place));
    let mut found = Vec::new();
    for list in ["from", "rules"] {
        for (whom, mut fields, at) in entries(&mut spec, list, place) {
            let local = fields.take("default").and_then(|at| at.fields());
            fields.finish();
            let Some(mut default) = local else { continue };
            let local = default.take("local").and_then(|at| at.fields());
            default.finish();
            let (Some(mut rate), Some(whom)) = (local.and_then(rate), whom) else { continue };
            if let Whom::Service { service, .. } = whom {
                rate.insert("matches".to_owned(), json!([{"sources": [service.to_string()]}]));
                at.differs(
                    "a call counts for every limit that fits it, not for the most specific one",
                    "raise the limit for all, if that is too narrow",
                );
            }
            found.push(Value::Object(rate));
        }
    }
    spec.finish();
    let Some(called) = called.filter(|_| !found.is_empty()) else { return };
    let treated = treated(plan, called);
    if let Some(Value::Array(before)) = treated.get_mut("rateLimits") {
        before.extend(found);
    } else {
        treated.insert("rateLimits".to_owned(), found.into());
    }
}

fn rate(mut fields: Fields<'_>) -> Option<Map<String, Value>> {
    fields.lost("tcp", "streams have no rate", "set limits.maxConnections");
    let mut http = fields.take("http").and_then(|at| at.fields());
    fields.finish();
    let mut http = http.take()?;
    let disabled = http.take("disabled").is_some();
    http.lost("onRateLimit", "what comes too often is answered 429, with Retry-After", "leave it out");
    let asked = http.take("requestRate").and_then(|at| at.fields());
    http.finish();
    let mut asked = asked.filter(|_| !disabled)?;
    let requests = asked.take("num").and_then(|at| at.whole(1, MAX));
    let mut rate = Map::from_iter([("requests".to_owned(), json!(requests?))]);
    set_span(&mut asked, "interval", &mut rate, "per");
    asked.finish();
    Some(rate)
}
