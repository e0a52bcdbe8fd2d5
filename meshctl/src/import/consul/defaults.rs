//! Pure. Consul's defaults, of one service and of all.

use model::name::ServiceName;
use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::{Plan, set},
        span,
    },
    chain::Chains,
    matches, set_span,
};

const BY_HOST: &str = "see docs/capture.md for how a host's calls come to its proxy";

/// What both kinds have, and nothing here stands for.
fn lost_of_both(fields: &mut Fields<'_>) {
    for (name, why, instead) in [
        ("MeshGateway", "there are no gateways between meshes", "bring the services in by a DiscoverySource"),
        (
            "Expose",
            "a proxy opens no way past policies",
            "allow the paths in an AuthorizationPolicy, of a Permissive port",
        ),
        ("TransparentProxy", "calls are captured by host, not by service", BY_HOST),
        ("Mode", "calls are captured by host, not by service", BY_HOST),
        ("EnvoyExtensions", "the proxy is not Envoy", "see docs/guide for filters and policies"),
    ] {
        fields.lost(name, why, instead);
    }
}

/// `proxy-defaults`.
pub(crate) fn of_all<'a>(mut fields: Fields<'a>, plan: &mut Plan, chains: &mut Chains<'a>) {
    lost_of_both(&mut fields);
    super::is_here(&mut fields);
    fields.pass(&["Namespace"]);
    fields.lost("AccessLogs", "each host has its own access log", "set access_log in proxy.toml");
    fields.lost(
        "FailoverPolicy",
        "no service of ours stands in for another by itself",
        "shift the weights of a route",
    );
    fields.lost(
        "PrioritizeByLocality",
        "zones are told by hosts",
        "set loadBalancer.zones in a TrafficPolicy",
    );
    if let Some(mode) = mode(&mut fields) {
        plan.mode = Some(mode);
    }
    if let Some(mut config) = fields.take("Config").and_then(|at| at.fields()) {
        if let Some(protocol) = config.take("protocol") {
            chains.usually_spoken = spoken(&protocol);
        }
        for (_, at) in config.rest() {
            at.lost("it is a setting of Envoy", "see docs/guide/traffic.md for what a TrafficPolicy says");
        }
    }
    fields.finish();
}

/// `service-defaults`.
pub(crate) fn of_service<'a>(
    service: &ServiceName,
    mut fields: Fields<'a>,
    plan: &mut Plan,
    chains: &mut Chains<'a>,
) {
    lost_of_both(&mut fields);
    if let Some(protocol) = fields.take("Protocol").and_then(|at| spoken(&at)) {
        chains.spoken.insert(service.clone(), protocol);
    }
    if let Some(mode) = mode(&mut fields) {
        plan.draft(service).mode = Some(mode);
    }
    for (name, why, instead) in [
        (
            "ExternalSNI",
            "it is for services outside the mesh",
            "bring it in by a DiscoverySource, protocol tls",
        ),
        ("Destination", "it is a service outside the mesh", "bring it in by a DiscoverySource of type File"),
        (
            "UpstreamConfig",
            "how a service is called is said of the called one, for all callers",
            "write a TrafficPolicy for it",
        ),
        (
            "MaxInboundConnections",
            "limits of ours are each calling host's",
            "set limits.maxConnections in a TrafficPolicy",
        ),
        ("LocalConnectTimeoutMs", "the proxy reaches its applications on its own host", "leave it out"),
        ("BalanceInboundConnections", "the proxy spreads its connections by itself", "leave it out"),
    ] {
        fields.lost(name, why, instead);
    }
    if let Some(span) = fields.take("LocalRequestTimeoutMs").and_then(|at| span::of_millis(&at)) {
        set(&mut plan.draft(service).treated, "timeouts.request", span);
    }
    set_span(plan, service, "timeouts.idle", fields.take("IdleTimeout"));
    if let Some(mut limits) = fields.take("RateLimits").and_then(|at| at.fields()) {
        if let Some(own) = limits.take("InstanceLevel").and_then(|at| at.fields()) {
            let rates = rates(own);
            if !rates.is_empty() {
                set(&mut plan.draft(service).treated, "rateLimits", rates);
            }
        }
        limits.finish();
    }
    fields.finish();
}

fn mode(fields: &mut Fields<'_>) -> Option<&'static str> {
    let at = fields.take("MutualTLSMode")?;
    match at.text()?.as_str() {
        "strict" => Some("Strict"),
        "permissive" => Some("Permissive"),
        _ => {
            at.lost("it must be strict or permissive", "write a PeerAuthentication; until then it is strict");
            None
        }
    }
}

fn spoken(at: &At<'_>) -> Option<String> {
    let protocol = at.text()?;
    if ["http", "http2", "grpc", "tcp"].contains(&protocol.as_str()) {
        return Some(protocol);
    }
    at.lost("it must be http, http2, grpc or tcp", "set the protocol of the Service's port");
    None
}

fn rates(mut fields: Fields<'_>) -> Vec<Value> {
    let mut rates: Vec<Value> = rate(&mut fields).into_iter().map(Value::Object).collect();
    for at in fields.take("Routes").map_or_else(Vec::new, |at| at.list()) {
        let Some(mut route) = at.fields() else { continue };
        let (rate, path) = (rate(&mut route), matches::path(&mut route, false));
        route.finish();
        let (Some(mut rate), Some(path)) = (rate, path) else { continue };
        if let matches::Path::Is(path) = path {
            rate.insert("matches".to_owned(), json!([{"path": path}]));
        }
        if !rates.is_empty() {
            at.differs(
                "a request counts for every limit that fits it, not for the first",
                "raise the wider limit, if that is too narrow",
            );
        }
        rates.push(Value::Object(rate));
    }
    fields.finish();
    rates
}

fn rate(fields: &mut Fields<'_>) -> Option<Map<String, Value>> {
    let most = 1_000_000;
    let requests = fields.take("RequestsPerSecond").and_then(|at| at.whole(1, most));
    let burst = fields.take("RequestsMaxBurst").and_then(|at| at.whole(1, most));
    let mut rate = Map::from_iter([("requests".to_owned(), json!(requests?))]);
    if let Some(burst) = burst {
        rate.insert("burst".to_owned(), burst.into());
    }
    Some(rate)
}
