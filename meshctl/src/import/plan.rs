//! Pure. What an import comes to, service by service, and the objects that say it.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    name::{NAME_BYTES_MAX, Name, ServiceName},
    resource::Port,
};
use serde_json::{Map, Value, json};

/// The ports that services answer at, which other meshes do not say where they say the rest.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) usual: Port,
    pub(crate) own: BTreeMap<ServiceName, Port>,
}

/// What becomes of one service.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) protocol: Option<String>,
    /// Its subsets: name to labels.
    pub(crate) subsets: BTreeMap<String, Map<String, Value>>,
    /// Rules of its HTTPRoute.
    pub(crate) rules: Vec<Value>,
    /// Back ends of its TCPRoute.
    pub(crate) streams: Vec<Value>,
    /// Of its TrafficPolicy.
    pub(crate) treated: Map<String, Value>,
    /// Of its PeerAuthentication.
    pub(crate) mode: Option<&'static str>,
}

/// What becomes of all.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ports: Ports,
    pub(crate) services: BTreeMap<ServiceName, Draft>,
    /// How all services of a namespace are treated that nothing else is said of.
    pub(crate) treated: BTreeMap<Name, Map<String, Value>>,
    /// The mode of the whole mesh.
    pub(crate) mode: Option<&'static str>,
    pub(crate) policies: Vec<Value>,
}

impl Ports {
    pub(crate) fn of(&self, service: &ServiceName) -> u64 {
        self.own.get(service).unwrap_or(&self.usual).value()
    }
}

impl Plan {
    pub(crate) fn new(ports: Ports) -> Self {
        Self { ports, services: BTreeMap::new(), treated: BTreeMap::new(), mode: None, policies: Vec::new() }
    }

    pub(crate) fn draft(&mut self, service: &ServiceName) -> &mut Draft {
        self.services.entry(service.clone()).or_default()
    }

    /// A back end of a route of `namespace`.
    pub(crate) fn backend(
        &self,
        namespace: &Name,
        service: &ServiceName,
        subset: Option<&str>,
        port: Option<u64>,
    ) -> Map<String, Value> {
        let mut backend = Map::new();
        if service.namespace != *namespace {
            backend.insert("namespace".to_owned(), json!(service.namespace));
        }
        backend.insert("name".to_owned(), json!(service.name));
        if let Some(subset) = subset {
            backend.insert("subset".to_owned(), subset.into());
        }
        backend.insert("port".to_owned(), port.unwrap_or_else(|| self.ports.of(service)).into());
        backend
    }

    /// The objects, in the order in which they can be made.
    pub(crate) fn objects(self) -> Vec<Value> {
        let mut objects = self.policies.clone();
        for namespace in self.treated.keys() {
            objects.push(object("TrafficPolicy", namespace, "all", Value::Object(self.usual(namespace))));
        }
        if let Some(mode) = self.mode {
            let system: Name = "mesh-system".parse().expect("a label");
            objects.push(object("PeerAuthentication", &system, "mesh", json!({"mode": mode})));
        }
        for (service, draft) in &self.services {
            objects.extend(self.of_service(service, draft));
        }
        let order = [
            "Service",
            "HTTPRoute",
            "TCPRoute",
            "TrafficPolicy",
            "PeerAuthentication",
            "AuthorizationPolicy",
        ];
        objects.sort_by_key(|object| order.iter().position(|kind| object["kind"] == **kind));
        let there = ["default", "mesh-system"];
        let namespaces: BTreeSet<_> =
            objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
        let made = namespaces.into_iter().filter(|namespace| !there.contains(namespace));
        let made: Vec<_> =
            made.map(|name| json!({"kind": "Namespace", "metadata": {"name": name}})).collect();
        made.into_iter().chain(objects).collect()
    }

    /// How services of a namespace are treated of which nothing is said: what is said of the namespace, over what is said
    /// of the mesh.
    fn usual(&self, namespace: &Name) -> Map<String, Value> {
        let of = |namespace: &Name| self.treated.get(namespace).cloned().unwrap_or_default();
        let system: Name = "mesh-system".parse().expect("a label");
        merged(of(&system), &of(namespace))
    }

    fn of_service(&self, service: &ServiceName, draft: &Draft) -> Vec<Value> {
        let ServiceName { namespace, name } = service;
        let named = |kind: &str, spec: Value| object(kind, namespace, name.as_str(), spec);
        let (parents, targets) = (json!([{"name": name}]), json!([{"kind": "Service", "name": name}]));
        let mut objects = Vec::new();
        if draft.protocol.is_some() || !draft.subsets.is_empty() {
            objects.push(named("Service", self.service_spec(service, draft)));
        }
        if !draft.rules.is_empty() {
            objects.push(named("HTTPRoute", json!({"parentRefs": parents, "rules": draft.rules})));
        }
        if !draft.streams.is_empty() {
            let rules = json!([{"backendRefs": draft.streams}]);
            objects.push(named("TCPRoute", json!({"parentRefs": parents, "rules": rules})));
        }
        if !draft.treated.is_empty() {
            let mut spec = Map::from_iter([("targetRefs".to_owned(), targets.clone())]);
            spec.extend(merged(self.usual(namespace), &draft.treated));
            objects.push(named("TrafficPolicy", Value::Object(spec)));
        }
        if let Some(mode) = draft.mode {
            objects.push(named("PeerAuthentication", json!({"targetRefs": targets, "mode": mode})));
        }
        objects
    }

    fn service_spec(&self, service: &ServiceName, draft: &Draft) -> Value {
        let mut port = Map::from_iter([("port".to_owned(), json!(self.ports.of(service)))]);
        if let Some(protocol) = &draft.protocol {
            port.insert("protocol".to_owned(), protocol.as_str().into());
        }
        let mut spec = json!({"ports": [port]});
        if !draft.subsets.is_empty() {
            let subsets = draft.subsets.iter();
            spec["subsets"] = subsets
                .map(|(name, labels)| json!({"name": name, "labels": labels}))
                .collect::<Vec<_>>()
                .into();
        }
        spec
    }
}

/// Whether a rule takes every request.
pub(crate) fn takes_all(rule: &Value) -> bool {
    let any = |one: &Value| {
        let fields = one.as_object().map_or(0, Map::len);
        fields == 0 || (fields == 1 && one["path"] == json!({"type": "PathPrefix", "value": "/"}))
    };
    rule["matches"].as_array().is_none_or(|matches| matches.iter().any(any))
}

/// `over` laid over `under`, field by field: the most specific policy of ours counts alone.
pub(crate) fn merged(mut under: Map<String, Value>, over: &Map<String, Value>) -> Map<String, Value> {
    for (name, value) in over {
        let value = match (under.remove(name), value) {
            (Some(Value::Object(under)), Value::Object(over)) if name != "loadBalancer" => {
                Value::Object(merged(under, over))
            }
            _ => value.clone(),
        };
        under.insert(name.clone(), value);
    }
    under
}

/// Sets a field some maps down: `timeouts.request`.
pub(crate) fn set(map: &mut Map<String, Value>, path: &str, value: impl Into<Value>) {
    match path.split_once('.') {
        None => drop(map.insert(path.to_owned(), value.into())),
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

pub(crate) fn object(kind: &str, namespace: &Name, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// `<name>-<about>`, as far as a label goes.
pub(crate) fn label(name: &str, about: &str) -> String {
    let room = NAME_BYTES_MAX - about.len() - 1;
    let name = name.get(..room).unwrap_or(name).trim_end_matches('-');
    format!("{name}-{about}")
}
