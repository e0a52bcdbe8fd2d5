//! Pure. Which traffic policy counts for which service, found once for each revision.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

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
#[derive(Default)]
pub(super) struct Conducts<'a> {
    services: HashMap<&'a ServiceName, &'a Arc<Item>>,
    namespaces: HashMap<&'a Name, &'a Arc<Item>>,
    mesh: Option<&'a Arc<Item>>,
}

impl<'a> Conducts<'a> {
    /// Those among `items`.
    pub(super) fn of(items: &'a BTreeMap<Key, Arc<Item>>) -> Self {
        let mut policies: Vec<_> =
            items.values().filter_map(|item| policy(item).map(|policy| (policy, item))).collect();
        policies.sort_by(|(one, _), (other, _)| one.aim.cmp(&other.aim));
        let mut conducts = Self::default();
        for (policy, item) in policies {
            match policy.aim.targets() {
                Targets::Mesh => drop(conducts.mesh.get_or_insert(item)),
                Targets::Namespace(namespace) => drop(conducts.namespaces.entry(namespace).or_insert(item)),
                Targets::Services(services) => services.iter().for_each(|service| {
                    conducts.services.entry(service).or_insert(item);
                }),
            }
        }
        conducts
    }

    /// The one that counts for a service.
    pub(super) fn for_service(&self, service: &ServiceName) -> Option<&'a Arc<Item>> {
        let own = self.services.get(service).or_else(|| self.namespaces.get(&service.namespace));
        own.copied().or(self.mesh)
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
