//! Pure. Which traffic policy counts for which service, found anew when one of them changes.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use imbl::OrdMap;
use model::{
    name::{Name, ServiceName},
    object::Key,
};

use super::{Item, Read};
use crate::{
    aim::Targets,
    conduct::{Conduct, TrafficPolicy},
};

/// The traffic policies, of each specificity those that count.
#[derive(Debug, Default)]
pub(super) struct Conducts {
    services: HashMap<ServiceName, Arc<Item>>,
    namespaces: HashMap<Name, Arc<Item>>,
    mesh: Option<Arc<Item>>,
}

impl Conducts {
    /// Those among `items`.
    pub(super) fn of(items: &OrdMap<Key, Arc<Item>>) -> Self {
        let mut policies: Vec<_> =
            items.values().filter_map(|item| policy(item).map(|policy| (policy, item))).collect();
        policies.sort_by(|(one, _), (other, _)| one.aim.cmp(&other.aim));
        let mut conducts = Self::default();
        for (policy, item) in policies {
            match policy.aim.targets() {
                Targets::Mesh => {
                    conducts.mesh.get_or_insert_with(|| Arc::clone(item));
                }
                Targets::Namespace(namespace) => {
                    conducts.namespaces.entry(namespace.clone()).or_insert_with(|| Arc::clone(item));
                }
                Targets::Services(services) => services.iter().for_each(|service| {
                    conducts.services.entry(service.clone()).or_insert_with(|| Arc::clone(item));
                }),
            }
        }
        conducts
    }

    /// The one that counts for a service.
    pub(super) fn for_service(&self, service: &ServiceName) -> Option<&Arc<Item>> {
        let own = self.services.get(service).or_else(|| self.namespaces.get(&service.namespace));
        own.or(self.mesh.as_ref())
    }
}

/// What holds where no policy is.
static USUAL: LazyLock<Arc<Conduct>> = LazyLock::new(Arc::default);

/// What an item says of how a service is treated; what is usual where there is none.
pub(super) fn conduct(item: Option<&Arc<Item>>) -> Arc<Conduct> {
    Arc::clone(item.and_then(policy).map_or(&USUAL, |policy| &policy.conduct))
}

fn policy(item: &Arc<Item>) -> Option<&TrafficPolicy> {
    match &item.read {
        Read::Conduct(policy) => Some(policy),
        _ => None,
    }
}
