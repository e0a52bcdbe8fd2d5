//! Pure. What Consul answers, as found: tags and meta become labels, checks become health.

use std::collections::{BTreeMap, BTreeSet};

use model::{name::Name, resource::Health};
use serde::Deserialize;

use crate::{
    found::{Found, Instance},
    labels::labels,
};

/// The check by which an agent says that a node or a service is being maintained.
const MAINTENANCE: [&str; 2] = ["_node_maintenance", "_service_maintenance:"];
/// The meta key whose value is the failure domain.
const ZONE: &str = "zone";
/// The greatest weight that an Endpoint has.
const WEIGHT_MAX: u32 = 1_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    /// Set for sidecars and gateways of Consul's own mesh.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    port: u32,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    status: String,
}

/// The services with all their tags.
pub(super) fn services(body: &[u8]) -> Option<BTreeMap<String, Vec<String>>> {
    let services: BTreeMap<String, Option<Vec<String>>> = serde_json::from_slice(body).ok()?;
    Some(services.into_iter().map(|(name, tags)| (name, tags.unwrap_or_default())).collect())
}

/// The instances of a service. One without an IP address, or of Consul's own mesh, is left out.
pub(super) fn health(body: &[u8], passing_only: bool) -> Option<Found> {
    let entries: Vec<Entry> = serde_json::from_slice(body).ok()?;
    let plain = entries.into_iter().filter(|entry| entry.service.kind.is_empty());
    let instances = plain.filter_map(|entry| instance(entry, passing_only)).collect();
    Some(Found { instances, ..Found::default() })
}

fn instance(entry: Entry, passing_only: bool) -> Option<(String, Instance)> {
    let Entry { node, service, checks } = entry;
    let address = if service.address.is_empty() { &node.address } else { &service.address };
    let port = u16::try_from(service.port).ok().filter(|port| *port > 0)?;
    let tags: BTreeSet<String> = service.tags.unwrap_or_default().into_iter().collect();
    let meta = service.meta.unwrap_or_default();
    let zone = meta.get(ZONE).or_else(|| node.meta.as_ref()?.get(ZONE));
    let zone: Option<Name> = zone.and_then(|zone| zone.parse().ok());
    let (health, warns) = judged(&checks, passing_only);
    let weights = service.weights.unwrap_or(Weights { passing: 1, warning: 1 });
    let instance = Instance {
        address: address.parse().ok()?,
        port: Some(port),
        ports: Vec::new(),
        labels: labels(&tags, &meta),
        tags,
        zone,
        weight: (if warns { weights.warning } else { weights.passing }).min(WEIGHT_MAX),
        health,
    };
    Some((format!("{}/{}", node.node, service.id), instance))
}

/// The health, and whether a check warns.
fn judged(checks: &[Check], passing_only: bool) -> (Health, bool) {
    let has = |status: &str| checks.iter().any(|check| check.status == status);
    let kept = |check: &Check| MAINTENANCE.iter().any(|prefix| check.id.starts_with(prefix));
    let warns = has("warning");
    let health = match () {
        () if checks.iter().any(|check| kept(check) && check.status == "critical") => Health::Draining,
        () if has("critical") || (warns && passing_only) => Health::Unhealthy,
        () => Health::Healthy,
    };
    (health, warns)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the API's documentation shows it, cut to what is read and some that is not.
    fn entry(service: &serde_json::Value, checks: &[(&str, &str)]) -> serde_json::Value {
        let checks: Vec<_> = checks
            .iter()
            .map(|(id, status)| json!({"CheckID": id, "Status": status, "Output": ""}))
            .collect();
        let mut own = json!({"ID": "redis-1", "Service": "redis", "Tags": ["v2", "team=shop"], "Address": "",
                             "Port": 8000, "Meta": {"team": "ops"}, "Weights": {"Passing": 10, "Warning": 1}});
        own.as_object_mut().expect("an object").extend(service.as_object().expect("an object").clone());
        json!({"Node": {"ID": "x", "Node": "foobar", "Address": "10.1.10.12", "Datacenter": "dc1",
                        "Meta": {"zone": "rack-1"}}, "Service": own, "Checks": checks})
    }

    fn one(service: serde_json::Value, checks: &[(&str, &str)]) -> Option<Instance> {
        let body = serde_json::to_vec(&json!([entry(&service, checks)])).expect("JSON");
        health(&body, false).expect("instances").instances.remove("foobar/redis-1")
    }

    #[test]
    fn an_instance_is_what_consul_says() {
        let instance = one(json!({}), &[("serfHealth", "passing")]).expect("one");
        assert_eq!((instance.address.to_string().as_str(), instance.port), ("10.1.10.12", Some(8_000)));
        let labels: Vec<_> = instance
            .labels
            .iter()
            .map(|(key, value)| format!("{}={}", key.as_str(), value.as_str()))
            .collect();
        assert_eq!(labels, ["team=ops", "v2=true"]);
        assert_eq!((instance.weight, instance.health), (10, Health::Healthy));
        assert_eq!(instance.zone.expect("its node's").as_str(), "rack-1");
        let own = one(json!({"Address": "10.9.9.9"}), &[]).expect("one");
        assert_eq!(own.address.to_string(), "10.9.9.9");
        for left_out in
            [json!({"Address": "redis.example"}), json!({"Kind": "connect-proxy"}), json!({"Port": 0})]
        {
            assert_eq!(one(left_out.clone(), &[]), None, "{left_out}");
        }
    }

    #[test]
    fn checks_say_how_it_is() {
        for (checks, want, weight) in [
            (&[("a", "passing"), ("b", "warning")][..], Health::Healthy, 1),
            (&[("a", "passing"), ("b", "critical")], Health::Unhealthy, 10),
            (&[("_service_maintenance:redis-1", "critical")], Health::Draining, 10),
            (&[("_node_maintenance", "critical")], Health::Draining, 10),
            (&[], Health::Healthy, 10),
        ] {
            let instance = one(json!({}), checks).expect("one");
            assert_eq!((instance.health, instance.weight), (want, weight), "{checks:?}");
        }
        let body = serde_json::to_vec(&json!([entry(&json!({}), &[("b", "warning")])])).expect("JSON");
        let strict = health(&body, true).expect("instances");
        assert_eq!(strict.instances["foobar/redis-1"].health, Health::Unhealthy);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for body in ["", "{", "[{}]", "\"x\"", "[{\"Node\":{}}]"] {
            assert!(health(body.as_bytes(), false).is_none() || body == "x", "{body}");
        }
        assert_eq!(services(br#"{"a": ["x"], "b": null}"#).expect("services").len(), 2);
        assert!(services(b"[]").is_none());
    }
}
