//! Pure. Kuma's routes and faults: those of a service are one HTTPRoute, or one TCPRoute, here.

use std::collections::BTreeMap;

use model::name::{Name, ServiceName};
use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::{Plan, takes_all},
    },
    OF_CALLERS, Place, entries,
    refer::{self, Whom},
};

mod faults;
mod filters;
mod matches;

/// What is said of each service, before it is put together.
#[derive(Debug, Default)]
pub(super) struct Routes {
    rules: BTreeMap<ServiceName, Vec<Value>>,
    streams: BTreeMap<ServiceName, Vec<Value>>,
    faults: BTreeMap<ServiceName, Vec<(Option<ServiceName>, Value)>>,
}

impl Routes {
    /// Reads a MeshHTTPRoute.
    pub(super) fn http(&mut self, target: Option<Whom>, place: &Place, mut spec: Fields<'_>, plan: &Plan) {
        for (whom, mut fields, at) in entries(&mut spec, "to", place) {
            fields.lost(
                "hostnames",
                "a route of ours is for a service, whatever it is called by",
                "leave it out",
            );
            let rules = fields.take("rules").map_or_else(Vec::new, |at| at.list());
            fields.finish();
            let of_all = place.is_of_all_callers(whom.as_ref());
            let Some(service) = parent(whom, &at) else { continue };
            let Some(target) = target.as_ref().filter(|target| of_all || **target != Whom::All) else {
                at.lost(OF_CALLERS, "name the calling MeshService");
                continue;
            };
            for at in rules {
                if let Some(rule) = rule(&at, target, &service, place, plan) {
                    self.rules.entry(service.clone()).or_default().push(rule);
                }
            }
        }
        spec.finish();
    }

    /// Reads a MeshTCPRoute.
    pub(super) fn tcp(&mut self, target: Option<Whom>, place: &Place, mut spec: Fields<'_>, plan: &Plan) {
        for (whom, mut fields, at) in entries(&mut spec, "to", place) {
            let rules = fields.take("rules").map_or_else(Vec::new, |at| at.list());
            fields.finish();
            let of_all = place.is_of_all_callers(whom.as_ref());
            let Some(service) = parent(whom, &at) else { continue };
            if target != Some(Whom::All) || !of_all {
                at.lost(OF_CALLERS, "say it for all callers, with targetRef Mesh");
                continue;
            }
            for (index, at) in rules.into_iter().enumerate() {
                let Some(mut fields) = at.fields() else { continue };
                let default = fields.take("default").and_then(|at| at.fields());
                fields.finish();
                let Some(mut default) = default else { continue };
                let backends = backends(&mut default, &service, place, plan);
                default.finish();
                if index > 0 || self.streams.contains_key(&service) {
                    at.lost("a TCPRoute has one rule", "leave it out");
                } else if let Some(backends) = backends.filter(|backends| !backends.is_empty()) {
                    self.streams.insert(service.clone(), backends);
                }
            }
        }
        spec.finish();
    }

    /// Reads a MeshFaultInjection: what its target answers on purpose.
    pub(super) fn faults(&mut self, target: Option<Whom>, place: &Place, mut spec: Fields<'_>) {
        spec.lost("to", "faults of ours are said of the called service", "say it in `from`");
        for list in ["from", "rules"] {
            for (whom, mut fields, at) in entries(&mut spec, list, place) {
                let found = fields.take("default").and_then(|at| at.fields()).and_then(faults::read);
                fields.finish();
                let (Some(fault), Some(whom)) = (found, whom) else { continue };
                let caller = match whom {
                    Whom::All => None,
                    Whom::Service { service, .. } => Some(service),
                };
                match &target {
                    Some(Whom::Service { service, .. }) => {
                        self.faults.entry(service.clone()).or_default().push((caller, fault));
                    }
                    _ => at.lost("a fault is part of a service's route", "name the service as targetRef"),
                }
            }
        }
        spec.finish();
    }

    /// Puts down what was said.
    pub(super) fn finish(self, plan: &mut Plan) {
        let Self { mut rules, streams, faults } = self;
        for service in faults.keys() {
            rules.entry(service.clone()).or_default();
        }
        for (service, mut own) in rules {
            // What no rule fits goes to the service itself.
            if !own.iter().any(takes_all) {
                let itself = json!([plan.backend(&service.namespace, &service, None, None)]);
                own.push(json!({"backendRefs": itself}));
            }
            let own = faults::on(own, faults.get(&service).map_or(&[], Vec::as_slice));
            own.iter().for_each(|rule| subsets(rule, &service.namespace, plan));
            plan.draft(&service).rules = own;
        }
        for (service, backends) in streams {
            plan.draft(&service).streams = backends;
        }
    }
}

/// Puts down the subsets that a rule's back ends name: the version is what they are told apart by.
fn subsets(rule: &Value, namespace: &Name, plan: &mut Plan) {
    for backend in rule["backendRefs"].as_array().into_iter().flatten() {
        let (Some(version), Some(name)) = (backend["subset"].as_str(), backend["name"].as_str()) else {
            continue;
        };
        let namespace =
            backend["namespace"].as_str().and_then(|own| own.parse().ok()).unwrap_or(namespace.clone());
        let Ok(name) = name.parse() else { continue };
        let draft = plan.draft(&ServiceName::new(namespace, name));
        draft.protocol.get_or_insert_with(|| "http".to_owned());
        let labels = Map::from_iter([("version".to_owned(), version.into())]);
        draft.subsets.insert(version.to_owned(), labels);
    }
}

/// The service that a route is for.
fn parent(whom: Option<Whom>, at: &At<'_>) -> Option<ServiceName> {
    match whom? {
        Whom::Service { service, subset: None, .. } => Some(service),
        _ => {
            at.lost("a route is for a service", "name a MeshService");
            None
        }
    }
}

fn rule(at: &At<'_>, target: &Whom, service: &ServiceName, place: &Place, plan: &Plan) -> Option<Value> {
    let mut fields = at.fields()?;
    let mut rule = Map::new();
    let found: Option<Vec<_>> =
        fields.take("matches").map_or_else(Vec::new, |at| at.list()).iter().map(matches::read).collect();
    let default = fields.take("default").and_then(|at| at.fields());
    fields.finish();
    let mut backends_of = None;
    let mut filters_of = Vec::new();
    if let Some(mut default) = default {
        backends_of = Some(backends(&mut default, service, place, plan)?);
        filters_of = filters::read(&mut default, service, place, plan);
        default.finish();
    }
    let mut found = found?;
    if let Whom::Service { service: caller, .. } = target {
        if found.is_empty() {
            found.push(Map::new());
        }
        for one in &mut found {
            one.insert("sources".to_owned(), json!([caller.to_string()]));
        }
    }
    if !found.is_empty() {
        rule.insert("matches".to_owned(), json!(found));
    }
    let redirects = filters_of.iter().any(|filter| filter["type"] == "RequestRedirect");
    let itself = || vec![Value::Object(plan.backend(&service.namespace, service, None, None))];
    let backends = backends_of.filter(|backends| !backends.is_empty()).unwrap_or_else(itself);
    if !redirects {
        rule.insert("backendRefs".to_owned(), backends.into());
    }
    if !filters_of.is_empty() {
        rule.insert("filters".to_owned(), filters_of.into());
    }
    Some(Value::Object(rule))
}

/// The back ends of a rule; `None` if one is not of this mesh.
fn backends(fields: &mut Fields<'_>, own: &ServiceName, place: &Place, plan: &Plan) -> Option<Vec<Value>> {
    let list = fields.take("backendRefs").map_or_else(Vec::new, |at| at.list());
    list.iter().map(|at| backend(at, own, place, plan)).collect()
}

/// A back end, from a reference with port and weight beside it.
fn backend(at: &At<'_>, own: &ServiceName, place: &Place, plan: &Plan) -> Option<Value> {
    let (Whom::Service { service, subset, port: named }, weight, port) = refer::with_weight(at, &place.home)?
    else {
        at.lost("a back end is a service", "name a MeshService");
        return None;
    };
    let mut backend = plan.backend(&own.namespace, &service, subset.as_deref(), port.or(named));
    if let Some(weight) = weight {
        backend.insert("weight".to_owned(), weight.into());
    }
    Some(Value::Object(backend))
}
