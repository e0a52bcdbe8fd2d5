//! Pure. What Eureka answers, and what it says together: all applications, then what became another, with a hash by which
//! it is known whether both sides mean the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use model::resource::Health;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    found::{Found, FoundKey, Instance, Set},
    labels::labels,
};

/// The metadata key whose value is the failure domain.
const ZONE: &str = "zone";

/// An answer: all applications, or those of which something became another.
#[derive(Deserialize)]
pub(super) struct Answer {
    applications: Applications,
}

#[derive(Deserialize)]
struct Applications {
    #[serde(rename = "apps__hashcode")]
    hash: String,
    #[serde(default = "none")]
    application: Several<Application>,
}

/// Eureka's JSON is made of XML: one of a list stands without it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    Many(Vec<T>),
    One(T),
}

#[derive(Deserialize)]
struct Application {
    name: String,
    #[serde(default = "none")]
    instance: Several<Registered>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    /// Left out by old clients: then it is the host's name.
    #[serde(default)]
    instance_id: Option<String>,
    host_name: String,
    ip_addr: String,
    status: String,
    #[serde(default)]
    port: Option<Port>,
    #[serde(default)]
    secure_port: Option<Port>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, Value>>,
    /// Only of what became another.
    #[serde(default)]
    action_type: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Port {
    #[serde(rename = "$")]
    number: Value,
    #[serde(rename = "@enabled")]
    enabled: Value,
}

/// All that it said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Registry {
    /// Application to instances, by their ids.
    applications: BTreeMap<String, BTreeMap<String, Registered>>,
}

impl Answer {
    /// `None` if it is no such answer.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The hash of all that there is.
    pub(super) fn hash(&self) -> &str {
        &self.applications.hash
    }
}

impl Registry {
    /// All of an answer that has all.
    pub(super) fn new(answer: Answer) -> Self {
        let mut registry = Self::default();
        for (name, instance) in answer.instances() {
            registry.put(name, instance);
        }
        registry
    }

    /// With what became another. The same may be said several times, for minutes.
    pub(super) fn change(&mut self, answer: Answer) {
        for (name, instance) in answer.instances() {
            if instance.action_type.as_deref() == Some("DELETED") {
                let Some(instances) = self.applications.get_mut(&name) else { continue };
                instances.remove(instance.id());
                if instances.is_empty() {
                    self.applications.remove(&name);
                }
            } else {
                self.put(name, instance);
            }
        }
    }

    /// By Eureka's rule: how many instances have each status, by their names.
    pub(super) fn hash(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for instance in self.applications.values().flat_map(BTreeMap::values) {
            *counts.entry(&instance.status).or_default() += 1;
        }
        let mut hash = String::new();
        for (status, count) in counts {
            let _ = write!(hash, "{status}_{count}_");
        }
        hash
    }

    /// As found: at which port, `secure` says.
    pub(super) fn set(&self, secure: bool) -> Set {
        // Eureka tells names apart whatever their case, and shows them in capitals.
        let key = |name: &String| FoundKey { namespace: None, name: name.to_ascii_lowercase() };
        let found = |instances: &BTreeMap<String, Registered>| {
            let pair = |(id, one): (&String, &Registered)| Some((id.clone(), one.instance(secure)?));
            Found { instances: instances.iter().filter_map(pair).collect(), ..Found::default() }
        };
        self.applications.iter().map(|(name, instances)| (key(name), found(instances))).collect()
    }

    fn put(&mut self, name: String, instance: Registered) {
        let instance = Registered { action_type: None, ..instance };
        self.applications.entry(name).or_default().insert(instance.id().to_owned(), instance);
    }
}

impl Answer {
    fn instances(self) -> impl Iterator<Item = (String, Registered)> {
        self.applications.application.into_iter().flat_map(|Application { name, instance }| {
            instance.into_iter().map(move |instance| (name.clone(), instance))
        })
    }
}

impl Registered {
    fn id(&self) -> &str {
        self.instance_id.as_deref().unwrap_or(&self.host_name)
    }

    /// `None` if it has no IP address, or does not listen at such a port.
    fn instance(&self, secure: bool) -> Option<Instance> {
        let port = if secure { &self.secure_port } else { &self.port };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let meta = self.metadata.iter().flatten();
        let meta: BTreeMap<_, _> =
            meta.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
        let none: [String; 0] = [];
        Some(Instance {
            address: self.ip_addr.parse().ok()?,
            port: Some(port.as_ref()?.number()?),
            ports: Vec::new(),
            labels: labels(&none, &meta),
            tags: meta.iter().map(|(key, value)| format!("{key}={value}")).collect::<BTreeSet<_>>(),
            zone: meta.get(ZONE).and_then(|zone| zone.parse().ok()),
            weight: 1,
            health: match self.status.as_str() {
                "UP" => Health::Healthy,
                "OUT_OF_SERVICE" => Health::Draining,
                _ => Health::Unhealthy,
            },
        })
    }
}

impl Port {
    /// Numbers and truths are texts in what is made of XML.
    fn number(&self) -> Option<u16> {
        let enabled = self.enabled.as_bool().or_else(|| Some(self.enabled.as_str()? == "true"))?;
        let number = self.number.as_u64().or_else(|| self.number.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|number| enabled && *number > 0)
    }
}

impl<T> Several<T> {
    fn into_iter(self) -> std::vec::IntoIter<T> {
        match self {
            Self::Many(many) => many.into_iter(),
            Self::One(one) => vec![one].into_iter(),
        }
    }
}

fn none<T>() -> Several<T> {
    Several::Many(Vec::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `id address port status`, and what became of it.
    fn instance(text: &str) -> Value {
        let words: Vec<&str> = text.split(' ').collect();
        let mut value = json!({"instanceId": words[0], "hostName": "host", "app": "ORDERS", "ipAddr": words[1],
            "status": words[3], "overriddenStatus": "UNKNOWN", "port": {"$": words[2].parse::<u64>().expect("a port"), "@enabled": "true"},
            "securePort": {"$": "8443", "@enabled": "false"}, "metadata": {"zone": "rack-1", "version": "v1", "n": 1}});
        if let Some(action) = words.get(4) {
            value["actionType"] = json!(action);
        }
        value
    }

    fn answer(hash: &str, instances: &[&str]) -> Answer {
        let instances: Vec<_> = instances.iter().map(|text| instance(text)).collect();
        let applications = json!({"versions__delta": "1", "apps__hashcode": hash,
                                  "application": [{"name": "ORDERS", "instance": instances}]});
        Answer::read(json!({"applications": applications}).to_string().as_bytes()).expect("an answer")
    }

    fn show(registry: &Registry, secure: bool) -> Vec<String> {
        let one = |(id, one): (&String, &Instance)| {
            format!("{id} {}:{} {}", one.address, one.port.unwrap_or(0), one.health)
        };
        registry
            .set(secure)
            .values()
            .flat_map(|found| found.instances.iter().map(one).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn what_became_another_makes_of_all_that_there_was_all_that_there_is() {
        let mut registry = Registry::new(answer(
            "UP_1_",
            &[
                "a 10.0.0.1 80 UP",
                "b 10.0.0.2 80 OUT_OF_SERVICE",
                "c host.example 80 UP",
                "d 10.0.0.4 0 DOWN",
            ],
        ));
        assert_eq!(show(&registry, false), ["a 10.0.0.1:80 Healthy", "b 10.0.0.2:80 Draining"]);
        assert_eq!(registry.hash(), "DOWN_1_OUT_OF_SERVICE_1_UP_2_");
        let change = || {
            answer("x", &["a 10.0.0.1 80 DOWN MODIFIED", "b x 80 UP DELETED", "e 10.0.0.5 80 STARTING ADDED"])
        };
        registry.change(change());
        let once = registry.clone();
        assert_eq!(show(&registry, false), ["a 10.0.0.1:80 Unhealthy", "e 10.0.0.5:80 Unhealthy"]);
        assert_eq!(registry.hash(), "DOWN_2_STARTING_1_UP_1_");
        registry.change(change());
        assert_eq!(registry, once, "the same may be said again");
        registry.change(answer(
            "",
            &["a . 1 UP DELETED", "c . 1 UP DELETED", "d . 1 UP DELETED", "e . 1 UP DELETED"],
        ));
        assert_eq!((registry.set(false).len(), registry.hash().as_str()), (0, ""));
        let of_one = &Registry::new(answer("", &["a 10.0.0.1 80 UP"])).set(false);
        let one = &of_one.values().next().expect("one").instances["a"];
        assert_eq!(one.zone.as_ref().map(|zone| zone.as_str()), Some("rack-1"));
        assert!(one.tags.contains("version=v1") && one.labels.len() == 2, "{one:?}");
    }

    #[test]
    fn only_ports_that_are_enabled_are_called() {
        let with = |secure: Value| {
            let mut one = instance("a 10.0.0.1 80 UP");
            one["securePort"] = secure;
            let body = json!({"applications": {"apps__hashcode": "UP_1_", "application": {"name": "A", "instance": one}}});
            show(&Registry::new(Answer::read(body.to_string().as_bytes()).expect("an answer")), true)
        };
        assert_eq!(with(json!({"$": 8443, "@enabled": "true"})), ["a 10.0.0.1:8443 Healthy"]);
        assert_eq!(with(json!({"$": "8443", "@enabled": true})), ["a 10.0.0.1:8443 Healthy"]);
        assert_eq!(with(json!({"$": 8443, "@enabled": "false"})), [""; 0]);
        assert_eq!(with(json!({"$": 0, "@enabled": "true"})), [""; 0]);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for body in
            ["", "{", "[]", "{}", r#"{"applications": []}"#, r#"{"applications": {"application": [{}]}}"#]
        {
            assert!(Answer::read(body.as_bytes()).is_none(), "{body}");
        }
        let empty = Answer::read(
            br#"{"applications": {"versions__delta": "1", "apps__hashcode": "", "application": []}}"#,
        );
        assert_eq!(empty.expect("an answer").hash(), "");
    }
}
