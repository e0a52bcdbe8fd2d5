//! Pure. What an explanation is made from: the objects that the proxies of a call's two sides are told of. What follows from
//! them is worked out in `traffic::explain`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    explain::Question,
    identity::TrustDomain,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Labels, Object},
    resource::{EndpointSpec, Resource},
};
use registry::State;
use traffic::compile::Inputs;

use crate::proxy_scope;

/// What is asked, of which objects.
#[derive(Debug)]
pub struct Asked {
    /// The services that the call may reach.
    pub reached: BTreeSet<ServiceName>,
    /// All that its two sides are told of.
    pub inputs: Inputs,
    /// What whoever asked should know.
    pub notes: Vec<String>,
}

impl Asked {
    /// That of a question at a state.
    pub fn of(question: &Question, state: &State, domain: &TrustDomain) -> Self {
        let reached = proxy_scope::reached(&question.to, state);
        let callers = Callers::of(&question.from, state);
        let mut notes = Vec::new();
        if callers.0.is_empty() {
            notes.push(format!("no host runs {}, as far as is known", question.from));
        }
        let (node, labels) = callers.chosen(question.node.as_ref());
        if node.is_none() && callers.0.len() > 1 {
            notes.push(format!(
                "{} runs on several hosts, and none is named: zones are left aside",
                question.from
            ));
        }
        let services = reached.iter().filter_map(|name| state.get(&key(Kind::Service, name)));
        let node = node.and_then(|node| state.get(&Key::mesh_wide(Kind::Node, node)));
        let details = proxy_scope::details_and_policies(&reached, state);
        let objects =
            services.chain(node).chain(details).map(|object| (object.key(), object.clone())).collect();
        let inputs = Inputs {
            revision: state.revision(),
            domain: domain.clone(),
            trust_generation: 0,
            objects,
            local: Vec::new(),
            callers: BTreeMap::from([(question.from.clone(), labels)]),
        };
        Self { reached, inputs, notes }
    }
}

fn key(kind: Kind, service: &ServiceName) -> Key {
    Key::namespaced(kind, service.namespace.clone(), service.name.clone())
}

/// The hosts that run the caller, each with the labels that its file gives it there.
struct Callers(BTreeMap<Name, Labels>);

impl Callers {
    fn of(service: &ServiceName, state: &State) -> Self {
        let endpoint = |object: &Arc<Object>| match object.resource() {
            Ok(Resource::Endpoint(EndpointSpec { node: Some(node), .. })) => {
                Some((node, object.metadata.labels.clone()))
            }
            _ => None,
        };
        Self(state.endpoints_of(service).filter_map(endpoint).collect())
    }

    /// The host that is named, else the only one; with the labels of the caller there.
    fn chosen(&self, named: Option<&Name>) -> (Option<Name>, Labels) {
        let only = self.0.keys().next().filter(|_| self.0.len() == 1);
        let node = named.or(only);
        // Wherever it runs, it most likely is the same.
        let labels = node.and_then(|node| self.0.get(node)).or_else(|| self.0.values().next());
        (node.cloned(), labels.cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use registry::command::{Command, Register, Reply};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::testing::{apply, object, put, state};

    fn question(more: Value) -> Question {
        let mut value = json!({"from": "default/web", "to": "default/orders"});
        value.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("fields"));
        Question::read(&value).expect("a question")
    }

    fn asked(state: &State, more: Value) -> Asked {
        Asked::of(&question(more), state, &"mesh.internal".parse().expect("a domain"))
    }

    #[test]
    fn what_both_sides_are_told_of_is_there_and_nothing_else() {
        let mut state = state();
        for text in [
            "Namespace shop {}",
            "Namespace other {}",
            r#"Service default/orders {"ports":[{"port":80}]}"#,
            r#"Service shop/next {"ports":[{"port":80}]}"#,
            r#"Service other/thing {"ports":[{"port":80}]}"#,
            r#"HTTPRoute default/r {"parentRefs":[{"name":"orders"}],"rules":[{"backendRefs":[{"namespace":"shop","name":"next","port":80}]}]}"#,
            r#"HTTPRoute other/r {"parentRefs":[{"name":"thing"}],"rules":[{}]}"#,
            "AuthorizationPolicy shop/p {}",
            "AuthorizationPolicy other/p {}",
            r#"PeerAuthentication mesh-system/m {"mode":"Strict"}"#,
        ] {
            put(&mut state, text);
        }
        let asked = asked(&state, json!({}));
        let keys: Vec<_> = asked.inputs.objects.keys().map(ToString::to_string).collect();
        for there in [
            "Service default/orders",
            "Service shop/next",
            "HTTPRoute default/r",
            "AuthorizationPolicy shop/p",
        ] {
            assert!(keys.iter().any(|key| key == there), "no {there} in {keys:?}");
        }
        assert!(keys.iter().any(|key| key == "PeerAuthentication mesh-system/m"), "{keys:?}");
        assert!(!keys.iter().any(|key| key.contains(" other/")), "{keys:?}");
        assert_eq!(asked.notes, ["no host runs default/web, as far as is known"]);
    }

    /// A host registers that it runs the caller.
    fn runs_on(state: &mut State, node: &str) {
        put(state, &format!(r#"Node {node} {{"services":["default/*"],"zone":"z1"}}"#));
        let spec = json!({"service": "web", "node": node, "address": "10.0.0.1", "ports": [{"port": 80, "targetPort": 80}]});
        let claim = json!({"service": "default/web", "ports": []});
        let register = Register {
            node: node.parse().expect("a name"),
            version: "0.2.0".to_owned(),
            addresses: vec!["10.0.0.1".to_owned()],
            services: vec![serde_json::from_value(claim).expect("a claim")],
            endpoints: vec![object(&format!("Endpoint default/web-{node} {spec}"))],
        };
        let reply = apply(state, Command::Register(register));
        assert!(matches!(reply, Reply::Registered { .. }), "{reply}");
    }

    #[test]
    fn the_caller_s_host_is_the_one_that_is_named_or_the_only_one() {
        let mut state = state();
        put(&mut state, r#"Service default/orders {"ports":[{"port":80}]}"#);
        put(&mut state, r#"Service default/web {"ports":[{"port":80}]}"#);
        let host = |asked: &Asked| {
            let mut nodes = asked.inputs.objects.keys().filter(|key| key.kind == Kind::Node);
            nodes.next().map_or("none".to_owned(), |key| key.name.to_string())
        };
        runs_on(&mut state, "a");
        let only = asked(&state, json!({}));
        assert_eq!((host(&only).as_str(), only.notes.len()), ("a", 0));
        runs_on(&mut state, "b");
        let several = asked(&state, json!({}));
        assert_eq!(host(&several), "none");
        assert!(several.notes[0].contains("runs on several hosts"), "{:?}", several.notes);
        assert_eq!(host(&asked(&state, json!({"node": "b"}))), "b");
    }
}
