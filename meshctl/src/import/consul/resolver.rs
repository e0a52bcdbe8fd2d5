//! Pure. Consul's resolvers: subsets, redirects, times and balancing.

use model::name::{Name, ServiceName};
use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::{Plan, set},
    },
    chain::Chains,
    set_span, target,
};

/// Reads a resolver.
pub(crate) fn read<'a>(
    service: &ServiceName,
    mut fields: Fields<'a>,
    plan: &mut Plan,
    chains: &mut Chains<'a>,
) {
    if let Some(mut subsets) = fields.take("Subsets").and_then(|at| at.fields()) {
        for (name, at) in subsets.rest() {
            subset(service, &name, &at, plan);
        }
    }
    if let Some(name) = fields.take("DefaultSubset").and_then(|at| at.parse::<Name>()) {
        chains.default_subsets.insert(service.clone(), name.to_string());
    }
    if let Some(mut redirect) = fields.take("Redirect").and_then(|at| at.fields()) {
        let to = target(service, &mut redirect);
        redirect.finish();
        if let Some(to) = to {
            chains.redirects.insert(service.clone(), to);
        }
    }
    fields.lost(
        "Failover",
        "no service of ours stands in for another by itself",
        "run endpoints in several zones (loadBalancer.zones), or shift the weights of a route",
    );
    fields.lost(
        "PrioritizeByLocality",
        "zones are told by hosts, not by Consul's localities",
        "give the Nodes a zone, and set loadBalancer.zones in a TrafficPolicy",
    );
    set_span(plan, service, "timeouts.connect", fields.take("ConnectTimeout"));
    set_span(plan, service, "timeouts.request", fields.take("RequestTimeout"));
    if let Some(balancer) = fields.take("LoadBalancer").and_then(|at| at.fields()) {
        balance(service, balancer, plan);
    }
    fields.finish();
}

fn subset(service: &ServiceName, name: &str, at: &At<'_>, plan: &mut Plan) {
    let Some(mut fields) = at.fields() else { return };
    fields.lost(
        "OnlyPassing",
        "whether warnings count is said where endpoints come from",
        "set consul.passingOnly in the DiscoverySource; endpoints of proxies are well or unwell",
    );
    let filter = fields.take("Filter");
    fields.finish();
    if name.parse::<Name>().is_err() {
        at.lost("a subset's name is lower-case letters, digits and '-'", "give it another name");
        return;
    }
    let Some(filter) = filter else {
        at.lost("a subset of ours has at least one label", "name the service without a subset in the routes");
        return;
    };
    match filter.text().as_deref().and_then(labels) {
        Some(labels) => drop(plan.draft(service).subsets.insert(name.to_owned(), labels)),
        None => filter.lost(
            "a subset of ours is chosen by labels: only Service.Meta.KEY == VALUE and TAG in Service.Tags come over, joined by `and`",
            "give the endpoints a label, and write the subset",
        ),
    }
}

/// The labels that a filter asks for: what discovery makes of meta and tags.
fn labels(filter: &str) -> Option<Map<String, Value>> {
    let mut labels = Map::new();
    for part in filter.split(" and ") {
        let part = part.trim();
        if let Some((key, value)) = part.split_once("==") {
            let key = key.trim();
            let key = match key.strip_prefix("Service.Meta.") {
                Some(key) => key,
                None => key.strip_prefix("Service.Meta[")?.strip_suffix(']')?,
            };
            labels.insert(bare(key)?, bare(value)?.into());
            continue;
        }
        let tag = match part.split_once(" in ") {
            Some((tag, list)) if list.trim() == "Service.Tags" => tag,
            Some(_) => return None,
            None => part.strip_prefix("Service.Tags contains ")?,
        };
        let tag = bare(tag)?;
        match tag.split_once('=') {
            Some((key, value)) => labels.insert(key.to_owned(), value.into()),
            None => labels.insert(tag, "true".into()),
        };
    }
    Some(labels)
}

/// A word, with or without quotes.
fn bare(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    let word = quoted('"').or_else(|| quoted('`')).unwrap_or(text);
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=".contains(character);
    (!word.is_empty() && word.chars().all(plain)).then(|| word.to_owned())
}

fn balance(service: &ServiceName, mut fields: Fields<'_>, plan: &mut Plan) {
    let kind = fields.take("Policy").and_then(|at| match at.text()?.as_str() {
        "random" => Some("Random"),
        "round_robin" => Some("RoundRobin"),
        "least_request" => Some("LeastRequest"),
        "ring_hash" => Some("RingHash"),
        "maglev" => Some("Maglev"),
        _ => {
            at.lost("no balancer of ours is that", "choose a loadBalancer.type of a TrafficPolicy");
            None
        }
    });
    fields.lost("RingHashConfig", "the size of the ring is the mesh's", "leave it out");
    fields.lost("LeastRequestConfig", "it is always the better of two", "leave it out");
    let keys = fields.take("HashPolicies").map_or_else(Vec::new, |at| at.list());
    let hashes = matches!(kind, Some("RingHash" | "Maglev"));
    let mut on: Vec<Value> = keys.iter().filter_map(hash_key).collect();
    let at = fields.at.clone();
    fields.finish();
    let Some(kind) = kind else { return };
    set(&mut plan.draft(service).treated, "loadBalancer.type", kind);
    if !hashes {
        return;
    }
    if on.is_empty() {
        at.differs("nothing says what is hashed", "it is the caller now: choose a hashOn");
        on.push(json!({"type": "Source"}));
    }
    set(&mut plan.draft(service).treated, "loadBalancer.hashOn", on);
}

fn hash_key(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    // The first that a request carries decides here anyway.
    fields.pass(&["Terminal"]);
    let source = fields.take("SourceIP");
    let field = fields.text("Field");
    let name = fields.text("FieldValue");
    fields.lost(
        "CookieConfig",
        "a hashed cookie is the application's own",
        "set loadBalancer.affinity, where the mesh shall set one",
    );
    fields.finish();
    if let Some(at) = source {
        at.differs(
            "what is hashed is the calling service and its host, not its address",
            "leave it so, or hash a header",
        );
        return Some(json!({"type": "Source"}));
    }
    match field.as_deref() {
        Some("header") => Some(json!({"type": "Header", "name": name?})),
        Some("cookie") => Some(json!({"type": "Cookie", "name": name?})),
        _ => {
            at.lost("only headers, cookies and the caller can be hashed", "let the caller send a header");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_ask_for_meta_or_tags_are_labels() {
        for (filter, want) in [
            ("Service.Meta.version == v1", Some(json!({"version": "v1"}))),
            (
                "Service.Meta.version==\"v1\" and Service.Meta[\"tier\"] == `a`",
                Some(json!({"version": "v1", "tier": "a"})),
            ),
            ("\"v2\" in Service.Tags", Some(json!({"v2": "true"}))),
            ("Service.Tags contains `team=shop`", Some(json!({"team": "shop"}))),
            ("Service.Meta.version != v1", None),
            ("Service.Meta.version == v1 or Service.Meta.version == v2", None),
            ("Service.ID == web-1", None),
            ("Service.Meta.version is not empty", None),
            ("not Service.Meta.version == v1", None),
            ("v1 in Node.Meta", None),
        ] {
            let got = labels(filter).map(Value::Object);
            assert_eq!(got, want, "{filter}");
        }
    }
}
