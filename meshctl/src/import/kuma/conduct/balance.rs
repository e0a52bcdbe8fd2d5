//! Pure. Kuma's load balancing.

use serde_json::{Map, Value, json};

use super::super::super::{
    fields::{At, Fields},
    plan::set,
};

pub(super) fn read(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    if let Some(locality) = fields.take_given("localityAwareness").and_then(|at| at.fields()) {
        zones(locality, treated);
    }
    let mut keys = keys(&mut fields);
    let balancer = fields.take("loadBalancer").and_then(|at| at.fields());
    let at = fields.at.clone();
    fields.finish();
    let Some(mut balancer) = balancer else { return };
    let kind = balancer.take("type");
    for name in ["ringHash", "maglev"] {
        if let Some(mut own) = balancer.take(name).and_then(|at| at.fields()) {
            keys.extend(self::keys(&mut own));
            for name in ["hashFunction", "minRingSize", "maxRingSize", "tableSize"] {
                own.lost(name, "the size of the table is the mesh's", "leave it out");
            }
            own.finish();
        }
    }
    balancer.lost("leastRequest", "it is always the better of two", "leave it out");
    balancer.pass(&["roundRobin", "random"]);
    balancer.finish();
    let Some(kind) = kind else { return };
    let word = kind.text().unwrap_or_default();
    if !["RoundRobin", "LeastRequest", "RingHash", "Random", "Maglev"].contains(&word.as_str()) {
        kind.lost("no balancer of ours is that", "choose a loadBalancer.type");
        return;
    }
    let hashes = ["RingHash", "Maglev"].contains(&word.as_str());
    set(treated, "loadBalancer.type", word);
    if !hashes {
        return;
    }
    if keys.is_empty() {
        at.differs("nothing says what is hashed", "it is the caller now: choose a hashOn");
        keys.push(json!({"type": "Source"}));
    }
    set(treated, "loadBalancer.hashOn", keys);
    if let Some(Value::Object(balancer)) = treated.get_mut("loadBalancer")
        && balancer.remove("zones").is_some()
    {
        at.lost("zones do not go with a balancer that hashes", "choose one of them");
    }
}

fn keys(fields: &mut Fields<'_>) -> Vec<Value> {
    let keys = fields.take("hashPolicies").map_or_else(Vec::new, |at| at.list());
    keys.iter().filter_map(key).collect()
}

fn key(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    // The first that a request carries decides here anyway.
    fields.pass(&["terminal"]);
    let kind = fields.text("type").unwrap_or_default();
    let mut named = |name: &str| {
        let mut own = fields.take(name)?.fields()?;
        let text = own.text("name");
        for name in ["ttl", "path"] {
            own.lost(
                name,
                "a hashed cookie is the application's own",
                "set loadBalancer.affinity, where the mesh shall set one",
            );
        }
        own.pass(&["sourceIP"]);
        own.finish();
        text
    };
    let (header, cookie, connection) = (named("header"), named("cookie"), named("connection"));
    let _ = connection;
    let key = match (kind.as_str(), header, cookie) {
        ("Header", Some(name), _) => Some(json!({"type": "Header", "name": name})),
        ("Cookie", _, Some(name)) => Some(json!({"type": "Cookie", "name": name})),
        ("Connection" | "SourceIP", _, _) => {
            at.differs(
                "what is hashed is the calling service and its host, not its address",
                "leave it so, or hash a header",
            );
            Some(json!({"type": "Source"}))
        }
        _ => {
            at.lost("only headers, cookies and the caller can be hashed", "let the caller send a header");
            fields.pass(&["queryParameter", "filterState"]);
            None
        }
    };
    fields.finish();
    key
}

fn zones(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    let disabled = fields.take("disabled").is_some();
    fields.lost("localZone", "there are zones, and nothing within one", "give the Nodes a zone each");
    let threshold = fields.take("crossZone").and_then(|at| at.fields()).and_then(|mut cross| {
        cross.lost("failover", "other zones are all alike", "leave it out");
        let mut below = cross.take("failoverThreshold").and_then(|at| at.fields());
        let percent =
            below.as_mut().and_then(|below| below.take("percentage")).and_then(|at| at.whole(1, 100));
        below.into_iter().for_each(Fields::finish);
        cross.finish();
        percent
    });
    fields.finish();
    if !disabled {
        set(
            treated,
            "loadBalancer.zones",
            threshold.map_or_else(|| json!({}), |percent| json!({"spillOverBelow": percent})),
        );
    }
}
