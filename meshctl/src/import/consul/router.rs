//! Pure. Consul's routers: the first route that fits decides; of ours the more special one does.

use std::cmp::Reverse;

use model::name::ServiceName;
use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::{Plan, set, takes_all},
        span,
    },
    chain::{Chains, Target},
    matches, target,
};

/// Rules with where they stood.
type Placed<'a> = Vec<(Value, At<'a>)>;

/// Makes the rules of a service's route.
pub(crate) fn route(service: &ServiceName, mut fields: Fields<'_>, plan: &mut Plan, chains: &Chains<'_>) {
    let mut rules = Placed::new();
    for at in fields.take("Routes").map_or_else(Vec::new, |at| at.list()) {
        let own = rule(service, &at, plan, chains).unwrap_or_default();
        rules.extend(own.into_iter().map(|rule| (rule, at.clone())));
    }
    fields.finish();
    order(&rules);
    let mut rules: Vec<_> = rules.into_iter().map(|(rule, _)| rule).collect();
    // What no route fits goes to the service itself.
    if !rules.iter().any(takes_all) {
        let backends = chains.backends(plan, &service.namespace, &Target::whole(service.clone()));
        rules.push(json!({"backendRefs": backends}));
    }
    plan.draft(service).rules = rules;
}

fn rule(service: &ServiceName, at: &At<'_>, plan: &Plan, chains: &Chains<'_>) -> Option<Vec<Value>> {
    let mut fields = at.fields()?;
    let mut rule = Map::new();
    let matched = match fields.take("Match").and_then(|at| at.fields()) {
        Some(mut fields) => {
            let http = fields.take("HTTP").and_then(|at| at.fields());
            fields.finish();
            http.map_or_else(|| Some(Vec::new()), matches::of_route)
        }
        None => Some(Vec::new()),
    };
    let destination = fields.take("Destination").and_then(|at| at.fields());
    let ends = match destination {
        Some(destination) => to(service, destination, &mut rule),
        None => Some(Target::whole(service.clone())),
    };
    fields.finish();
    let (matched, ends) = (matched?, ends?);
    if !matched.is_empty() && matched != [json!({})] {
        rule.insert("matches".to_owned(), matched.into());
    }
    rule.insert("backendRefs".to_owned(), chains.backends(plan, &service.namespace, &ends).into());
    Some(single(rule, at))
}

/// Where a route leads, and what is done on the way.
fn to(service: &ServiceName, mut fields: Fields<'_>, rule: &mut Map<String, Value>) -> Option<Target> {
    let mut filters = matches::header_filters(&mut fields);
    if let Some(text) = fields.text("PrefixRewrite") {
        let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": text});
        filters.push(json!({"type": "URLRewrite", "urlRewrite": {"path": path}}));
    }
    if !filters.is_empty() {
        rule.insert("filters".to_owned(), filters.into());
    }
    if let Some(span) = fields.take("RequestTimeout").and_then(|at| span::of(&at)) {
        set(rule, "timeouts.request", span);
    }
    fields.lost(
        "IdleTimeout",
        "a route of ours has none",
        "set timeouts.idle in a TrafficPolicy of the service that is called",
    );
    retry(&mut fields, rule);
    let target = target(service, &mut fields);
    fields.finish();
    target
}

fn retry(fields: &mut Fields<'_>, rule: &mut Map<String, Value>) {
    let attempts = fields.take("NumRetries").and_then(|at| at.whole(0, 10));
    let mut conditions: Vec<&str> = Vec::new();
    let mut add = |more: &[&'static str]| conditions.extend(more);
    if fields.take("RetryOnConnectFailure").is_some() {
        add(&["ConnectFailure"]);
    }
    for at in fields.take("RetryOn").map_or_else(Vec::new, |at| at.list()) {
        match at.text().unwrap_or_default().as_str() {
            "5xx" => add(&["ServerError", "Reset", "ConnectFailure", "Refused"]),
            "gateway-error" => add(&["GatewayError"]),
            "reset" | "reset-before-request" => add(&["Reset"]),
            "connect-failure" => add(&["ConnectFailure"]),
            "refused-stream" => add(&["Refused"]),
            "retriable-4xx" => add(&["Retriable4xx"]),
            _ => at.lost(
                "no condition of ours is that",
                "see retry.conditions and retry.grpcCodes of an HTTPRoute",
            ),
        }
    }
    let codes = fields.take("RetryOnStatusCodes").map_or_else(Vec::new, |at| at.list());
    let codes: Vec<_> = codes.iter().filter_map(|at| at.whole(400, 599)).collect();
    if attempts.is_none() && conditions.is_empty() && codes.is_empty() {
        return;
    }
    let mut retry = json!({"attempts": attempts.unwrap_or(1)});
    conditions.sort_unstable();
    conditions.dedup();
    if !conditions.is_empty() {
        retry["conditions"] = conditions.into();
    }
    if !codes.is_empty() {
        retry["codes"] = codes.into();
    }
    rule.insert("retry".to_owned(), retry);
}

/// A prefix is replaced where a rule's one match names it: a rule for each match, where there are several.
fn single(rule: Map<String, Value>, at: &At<'_>) -> Vec<Value> {
    let rewrites = |filter: &Value| filter["type"] == "URLRewrite";
    let filters = rule.get("filters").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Array(matches)) = rule.get("matches").filter(|_| filters.iter().any(rewrites)) else {
        return vec![Value::Object(rule)];
    };
    let mut rules = Vec::new();
    for one in matches {
        let mut rule = rule.clone();
        let mut filters = filters.clone();
        match one["path"]["type"].as_str() {
            // The text that was matched is all of the path.
            Some("Exact") => {
                for filter in filters.iter_mut().filter(|filter| rewrites(filter)) {
                    let text = filter["urlRewrite"]["path"]["replacePrefixMatch"].take();
                    filter["urlRewrite"]["path"] =
                        json!({"type": "ReplaceFullPath", "replaceFullPath": text});
                }
            }
            Some("RegularExpression") => {
                filters.retain(|filter| !rewrites(filter));
                at.lost(
                    "PrefixRewrite needs a path that is no expression",
                    "match a prefix, with a URLRewrite of ReplacePrefixMatch",
                );
            }
            _ => {}
        }
        match filters.is_empty() {
            true => drop(rule.remove("filters")),
            false => drop(rule.insert("filters".to_owned(), filters.into())),
        }
        let mut one = one.clone();
        if one["path"].is_null() {
            one["path"] = json!({"type": "PathPrefix", "value": "/"});
        }
        rule.insert("matches".to_owned(), json!([one]));
        rules.push(Value::Object(rule));
    }
    rules
}

/// How special a match is to us: the lesser comes first.
fn rank(one: &Value) -> (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>) {
    let value = one["path"]["value"].as_str().unwrap_or("/");
    let (kind, length) = match one["path"]["type"].as_str() {
        Some("Exact") => (0, 0),
        Some("RegularExpression") => (2, 0),
        _ if value.trim_end_matches('/').is_empty() => (3, 0),
        _ => (1, value.trim_end_matches('/').len()),
    };
    let count = |list: &str| Reverse(one[list].as_array().map_or(0, Vec::len));
    (kind, Reverse(length), one["method"].is_null(), count("headers"), count("queryParams"))
}

/// Whether one request can fit both, as far as path and method show.
fn meet(a: &Value, b: &Value) -> bool {
    if a["method"] != b["method"] && !a["method"].is_null() && !b["method"].is_null() {
        return false;
    }
    let path = |one: &Value| {
        let path = &one["path"];
        (
            path["type"].as_str().unwrap_or("PathPrefix").to_owned(),
            path["value"].as_str().unwrap_or("/").to_owned(),
        )
    };
    let within = |text: &str, prefix: &str| {
        let rest = text.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let ((a_kind, a), (b_kind, b)) = (path(a), path(b));
    match (a_kind.as_str(), b_kind.as_str()) {
        ("RegularExpression", _) | (_, "RegularExpression") => true,
        ("Exact", "Exact") => a == b,
        ("Exact", _) => within(&a, &b),
        (_, "Exact") => within(&b, &a),
        _ => within(&a, &b) || within(&b, &a),
    }
}

/// Tells of each route that now comes before one that stood before it, where both may fit.
fn order(rules: &[(Value, At<'_>)]) {
    let matches = |rule: &Value| rule["matches"].as_array().cloned().unwrap_or_else(|| vec![json!({})]);
    for (index, (later, at)) in rules.iter().enumerate() {
        let overtakes = |(earlier, _): &&(Value, At<'_>)| {
            let pairs = matches(later)
                .into_iter()
                .flat_map(|b| matches(earlier).into_iter().map(move |a| (a, b.clone())));
            earlier["backendRefs"] != later["backendRefs"]
                && pairs.into_iter().any(|(a, b)| rank(&b) < rank(&a) && meet(&a, &b))
        };
        if rules[..index].iter().any(|rule| overtakes(&rule)) {
            at.differs(
                "in Consul the first route that fits decides, here the more special one: this one comes before one above it",
                "see with `meshctl explain` that it is what you mean; else make the one above more special",
            );
        }
    }
}
