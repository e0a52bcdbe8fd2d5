//! Pure. Spans as a collector reads them: OTLP/HTTP with the JSON encoding of its messages
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>), attributes by OpenTelemetry's semantic conventions for HTTP,
//! and `mesh.*` for what they do not name.

use model::{duration::Millis, name::ServiceName};
use serde_json::{Value, json};

use crate::telemetry::{Direction, Outcome, Spoken, trace};

/// One call, as this proxy saw it.
#[derive(Debug)]
pub(super) struct Span {
    own: trace::Own,
    direction: Direction,
    service: Option<ServiceName>,
    name: String,
    /// Nanoseconds since 1970.
    start: u128,
    end: u128,
    attributes: Vec<Value>,
    failed: Option<String>,
}

impl Span {
    /// That of a call that is over `now`.
    pub(super) fn of(own: &trace::Own, outcome: &Outcome, now: Millis) -> Self {
        let note = &outcome.note;
        let end = u128::from(now.0) * 1_000_000;
        let service = match outcome.direction {
            Direction::Inbound => &outcome.destination,
            Direction::Outbound => &outcome.source,
        };
        // Of a server's answers only those with 5xx are its failures; a caller failed by any.
        let failing = match outcome.direction {
            Direction::Inbound => 500,
            Direction::Outbound => 400,
        };
        let failed = outcome.code == 0 || outcome.code >= failing;
        let name = if note.method().is_empty() { outcome.spoken.as_str() } else { note.method() };
        Self {
            own: own.clone(),
            direction: outcome.direction,
            service: service.clone(),
            name: name.to_owned(),
            start: end.saturating_sub(outcome.took.as_nanos()),
            end,
            attributes: attributes(outcome),
            failed: failed.then(|| note.reason.clone()),
        }
    }

    fn json(&self) -> Value {
        let status = match &self.failed {
            None => json!({}),
            Some(reason) => json!({"code": 2, "message": reason}),
        };
        json!({
            "traceId": self.own.trace,
            "spanId": self.own.span,
            "parentSpanId": self.own.parent.as_deref().unwrap_or_default(),
            "name": self.name,
            "kind": match self.direction { Direction::Inbound => 2, Direction::Outbound => 3 },
            "startTimeUnixNano": self.start.to_string(),
            "endTimeUnixNano": self.end.to_string(),
            "attributes": self.attributes,
            "status": status,
        })
    }
}

/// A request that tells a collector of spans; those of one service stand together.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let mut services: Vec<&Option<ServiceName>> = spans.iter().map(|span| &span.service).collect();
    services.sort();
    services.dedup();
    let resources = services.into_iter().map(|service| {
        let own = spans.iter().filter(|span| span.service == *service).map(|span| span.json());
        let (name, namespace) = match service {
            Some(service) => (service.name.as_str(), service.namespace.as_str()),
            None => ("unknown", "unknown"),
        };
        let about = [text("service.name", name), text("service.namespace", namespace)];
        let scope = json!({"name": "mesh-proxy", "version": env!("CARGO_PKG_VERSION")});
        let spans: Vec<Value> = own.collect();
        json!({"resource": {"attributes": about}, "scopeSpans": [{"scope": scope, "spans": spans}]})
    });
    let resources: Vec<Value> = resources.collect();
    serde_json::to_vec(&json!({"resourceSpans": resources})).expect("texts and numbers")
}

fn attributes(outcome: &Outcome) -> Vec<Value> {
    let note = &outcome.note;
    let name =
        |service: &Option<ServiceName>| service.as_ref().map_or("unknown".to_owned(), ToString::to_string);
    let mut all = vec![
        text("mesh.source", &name(&outcome.source)),
        text("mesh.destination", &name(&outcome.destination)),
        text("mesh.route", outcome.route.as_str()),
        json!({"key": "mesh.mtls", "value": {"boolValue": outcome.mtls}}),
        number("mesh.retries", note.retries.into()),
        number("http.response.status_code", outcome.code.into()),
        number("http.request.body.size", outcome.request_bytes),
        number("http.response.body.size", outcome.response_bytes),
        text("http.request.method", note.method()),
        // Without its query, in which secrets may stand.
        text("url.path", note.path().split('?').next().unwrap_or_default()),
        text("server.address", &note.authority()),
        text("mesh.request_id", &note.request_id()),
    ];
    all.extend(note.endpoint.map(|endpoint| text("network.peer.address", &endpoint.to_string())));
    all.extend(outcome.grpc_status.map(|status| number("rpc.grpc.status_code", status.into())));
    if outcome.spoken == Spoken::Grpc {
        all.push(text("rpc.system", "grpc"));
    }
    all.extend(outcome.judged.denied.as_ref().map(|rule| text("mesh.rule", rule.as_str())));
    all
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// 64-bit numbers are texts in the JSON encoding of protocol buffers.
fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
