//! Pure. Consul's config entries and intentions. A chain of Consul (router, then splitter, then resolver) becomes one
//! route: a back end of ours is not routed again.

use std::collections::BTreeMap;

use model::name::{Name, ServiceName};
use serde_json::Value;

use super::{
    Setting,
    access::{self, Entry, Verdict},
    fields::{At, Fields},
    plan::{Plan, set},
    span,
};

mod chain;
mod defaults;
mod intentions;
mod matches;
mod resolver;
mod router;

use chain::{Chains, Leg, Target};

/// Reads entries one by one, and then makes of them what they come to together.
#[derive(Debug)]
pub(crate) struct Consul<'a> {
    pub(crate) plan: Plan,
    chains: Chains<'a>,
    routers: BTreeMap<ServiceName, Fields<'a>>,
    intentions: Vec<Entry<'a>>,
    usual: Verdict,
    /// Where services live of which no namespace is said.
    home: Name,
}

const BOOKKEEPING: &[&str] = &["CreateIndex", "ModifyIndex", "Hash", "Status", "Meta"];
const NO_PARTITION: &str = "the mesh has no partitions";
const BY_NAMESPACE: &str = "let each partition be a namespace, or a mesh of its own";

impl<'a> Consul<'a> {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { ports, usual, namespace: home } = setting;
        Self {
            plan: Plan::new(ports),
            chains: Chains::default(),
            routers: BTreeMap::new(),
            intentions: Vec::new(),
            usual,
            home,
        }
    }

    /// Reads an entry, or a list of them.
    pub(crate) fn read(&mut self, document: &At<'a>) {
        for at in document.list() {
            let Some(mut fields) = at.fields() else { continue };
            let Some(kind) = fields.text("Kind") else {
                self.without_kind(fields);
                continue;
            };
            let name = fields.take("Name");
            let text = name.as_ref().and_then(At::text).unwrap_or_default();
            fields.at = at.clone().named(format!("{kind} {text}").trim_end());
            fields.pass(BOOKKEEPING);
            self.entry(&kind, name, fields);
        }
    }

    fn entry(&mut self, kind: &str, name: Option<At<'a>>, fields: Fields<'a>) {
        match (kind, name) {
            ("proxy-defaults", _) => defaults::of_all(fields, &mut self.plan, &mut self.chains),
            ("service-intentions", Some(name)) => intentions::read(
                &name,
                fields,
                &intentions::Usual::new(&self.usual, &self.home),
                &mut self.intentions,
            ),
            ("service-router" | "service-splitter" | "service-resolver" | "service-defaults", Some(name)) => {
                self.of_service(kind, &name, fields);
            }
            (
                "service-intentions" | "service-router" | "service-splitter" | "service-resolver"
                | "service-defaults",
                None,
            ) => {
                fields.at.lost("it has no Name", "correct it, and import again");
            }
            _ => fields.at.lost(
                &format!("meshctl does not import entries of kind {kind}"),
                "see docs/migrating.md for what stands for it",
            ),
        }
    }

    fn of_service(&mut self, kind: &str, name: &At<'a>, mut fields: Fields<'a>) {
        let Some(service) = service(name, &mut fields, &self.home) else { return };
        match kind {
            "service-router" => drop(self.routers.insert(service, fields)),
            "service-splitter" => self.chains.split(service, legs(fields)),
            "service-resolver" => resolver::read(&service, fields, &mut self.plan, &mut self.chains),
            _ => defaults::of_service(&service, fields, &mut self.plan, &mut self.chains),
        }
    }

    /// Intentions of the time before config entries have no kind.
    fn without_kind(&mut self, fields: Fields<'a>) {
        if intentions::is_old(&fields) {
            intentions::read_old(
                fields,
                &intentions::Usual::new(&self.usual, &self.home),
                &mut self.intentions,
            );
        } else {
            fields.at.lost(
                "it has no Kind, and is no intention",
                "import what `consul config read` and `consul intention list` print; of Kubernetes, too",
            );
        }
    }

    /// All objects.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        let services: Vec<_> = self.chains.services().chain(self.routers.keys()).cloned().collect();
        for service in services {
            if !self.plan.draft(&service).rules.is_empty() {
                continue;
            }
            if let Some(fields) = self.routers.remove(&service) {
                router::route(&service, fields, &mut self.plan, &self.chains);
            } else if self.chains.is_routed(&service) {
                let (target, rules) = (Target::whole(service.clone()), self.chains.speaks_http(&service));
                let backends = self.chains.backends(&self.plan, &service.namespace, &target);
                let draft = self.plan.draft(&service);
                match rules {
                    true => draft.rules = vec![serde_json::json!({"backendRefs": backends})],
                    false => draft.streams = backends,
                }
            }
        }
        self.chains.protocols(&mut self.plan);
        self.plan.policies = access::policies(self.intentions, &self.usual, None);
        self.plan.objects()
    }
}

/// The service that an entry is for.
fn service(name: &At<'_>, fields: &mut Fields<'_>, home: &Name) -> Option<ServiceName> {
    let namespace = namespace(fields, "Namespace", home)?;
    if !is_here(fields) {
        return None;
    }
    Some(ServiceName::new(namespace, name.parse()?))
}

/// The namespace that a field says; Consul's own default, too, is where services live of which nothing is said.
fn namespace(fields: &mut Fields<'_>, field: &str, home: &Name) -> Option<Name> {
    match fields.take(field) {
        Some(at) if at.text().as_deref() != Some("default") => at.parse(),
        _ => Some(home.clone()),
    }
}

/// Whether it is of this partition and data centre; what is not is told.
fn is_here(fields: &mut Fields<'_>) -> bool {
    let partition = fields.take("Partition").filter(|at| at.text().as_deref() != Some("default"));
    let others = [
        (partition, NO_PARTITION, BY_NAMESPACE),
        (fields.take("Peer"), "the mesh has no peers", "bring its services in by a DiscoverySource"),
        (fields.take("SamenessGroup"), "the mesh has no sameness groups", "name the services"),
        (
            fields.take("Datacenter"),
            "a mesh is one data centre's",
            "bring its services in by a DiscoverySource",
        ),
    ];
    let mut here = true;
    for (at, why, instead) in others {
        if let Some(at) = at {
            at.lost(why, instead);
            here = false;
        }
    }
    here
}

/// The service that a destination, split or redirect names; the entry's own where it names none.
fn target(own: &ServiceName, fields: &mut Fields<'_>) -> Option<Target> {
    let here = is_here(fields);
    let namespace = match fields.take("Namespace") {
        Some(at) => at.parse()?,
        None => own.namespace.clone(),
    };
    let name = match fields.take("Service") {
        Some(at) => at.parse()?,
        None => own.name.clone(),
    };
    let subset = match fields.take("ServiceSubset") {
        Some(at) => Some(at.parse::<Name>()?.to_string()),
        None => None,
    };
    here.then_some(Target { service: ServiceName::new(namespace, name), subset })
}

fn legs(mut fields: Fields<'_>) -> (Vec<Leg<'_>>, At<'_>) {
    let mut legs = Vec::new();
    for split in fields.take("Splits").map_or_else(Vec::new, |at| at.list()) {
        let Some(mut fields) = split.fields() else { continue };
        let weight = fields.take("Weight").and_then(|at| at.number()).unwrap_or_default();
        legs.push(Leg { weight, fields, at: split });
    }
    let at = fields.at.clone();
    fields.finish();
    (legs, at)
}

/// Sets a span of time of how a service is treated.
fn set_span(plan: &mut Plan, service: &ServiceName, path: &str, at: Option<At<'_>>) {
    if let Some(span) = at.and_then(|at| span::of(&at)) {
        set(&mut plan.draft(service).treated, path, span);
    }
}
