//! Pure. The services that this host runs, each with the policies that select it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use imbl::OrdMap;
use model::{identity::SpiffeId, name::ServiceName, object::Key};

use super::{
    Inputs, Item, Read, bind,
    conduct::{Conducts, conduct},
};
use crate::{
    policy::PolicySet,
    snapshot::{App, Inbound, OwnService},
};

/// What guards an own service, with what it was made from.
#[derive(Debug)]
pub(super) struct Guard {
    from: Vec<Arc<Item>>,
    policies: Arc<PolicySet>,
}

/// What guards the own services.
pub(super) type Guards = HashMap<ServiceName, Guard>;

/// Whether these are of the services that run here.
pub(super) fn are_of(guards: &Guards, inputs: &Inputs) -> bool {
    let own: HashSet<_> = inputs.local.iter().map(|local| &local.service).collect();
    own.len() == guards.len() && own.into_iter().all(|service| guards.contains_key(service))
}

/// Those of all own services; where no policy changed, as before.
pub(super) fn guards(before: &Guards, items: &OrdMap<Key, Arc<Item>>, inputs: &Inputs) -> Guards {
    let mut selecting: HashMap<&ServiceName, Vec<&Arc<Item>>> =
        inputs.local.iter().map(|local| (&local.service, Vec::new())).collect();
    for item in items.values() {
        let selects = |service: &ServiceName| match &item.read {
            Read::Policy(policy) => policy.selects(service),
            Read::Mode(mode) => mode.selects(service),
            _ => false,
        };
        let selected = selecting.iter_mut().filter(|(service, _)| selects(service));
        selected.for_each(|(_, items)| items.push(item));
    }
    let guard = |(service, from): (&ServiceName, Vec<&Arc<Item>>)| {
        let before = before.get(service).filter(|before| before.is_of(&from));
        let policies = match before {
            Some(before) => Arc::clone(&before.policies),
            None => Arc::new(policies(&from, inputs)),
        };
        (service.clone(), Guard { from: from.into_iter().cloned().collect(), policies })
    };
    selecting.into_iter().map(guard).collect()
}

fn policies(from: &[&Arc<Item>], inputs: &Inputs) -> PolicySet {
    let policy = |item: &&Arc<Item>| match &item.read {
        Read::Policy(policy) => Some(Arc::clone(policy)),
        _ => None,
    };
    let policies: Vec<_> = from.iter().filter_map(policy).collect();
    PolicySet::new(inputs.domain.clone(), bind::modes(from.iter().copied()), &policies)
}

impl Guard {
    fn is_of(&self, from: &[&Arc<Item>]) -> bool {
        self.from.len() == from.len()
            && self.from.iter().zip(from).all(|(own, other)| Arc::ptr_eq(own, other))
    }
}

/// The services that this host runs.
pub(super) fn inbound(guards: &Guards, conducts: &Conducts, inputs: &Inputs) -> Inbound {
    let mut services: HashMap<Arc<str>, OwnService> = HashMap::new();
    for local in &inputs.local {
        let own = services.entry(local.service.hostname().into()).or_insert_with(|| OwnService {
            name: local.service.clone(),
            id: SpiffeId::service(&inputs.domain, &local.service),
            policies: Arc::clone(&guards[&local.service].policies),
            conduct: conduct(conducts.for_service(&local.service)),
            apps: Vec::new(),
        });
        match own.apps.iter_mut().find(|app| app.port == local.port) {
            Some(app) => app.targets.push(local.target),
            None => {
                own.apps.push(App { port: local.port, protocol: local.protocol, targets: vec![local.target] })
            }
        }
    }
    Inbound { services: Arc::new(services) }
}
