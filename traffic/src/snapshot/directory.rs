//! Pure. Services by all that they are called by. A change of some is shared with what was before but for these.

use std::{net::IpAddr, sync::Arc};

use imbl::HashMap;
use model::name::{Name, ServiceName};

use super::Destination;
use crate::compile::Replaced;

/// Services by all that they are called by.
#[derive(Debug, Default, Clone)]
pub(crate) struct Directory {
    pub(super) services: HashMap<ServiceName, Arc<Destination>>,
    pub(super) hostnames: HashMap<Arc<str>, Arc<Destination>>,
    pub(super) virtual_ips: HashMap<IpAddr, Arc<Destination>>,
    /// How many services each namespace has; none stands here that has none.
    pub(super) namespaces: HashMap<Name, usize>,
}

impl Directory {
    /// Takes up services that are not what they were. What goes is taken out first: another may have its address now.
    pub(crate) fn replace(&mut self, replaced: &[Replaced]) {
        for gone in replaced.iter().filter_map(|(before, _)| before.as_ref()) {
            self.remove(&gone.destination);
        }
        for new in replaced.iter().filter_map(|(_, now)| now.as_ref()) {
            self.insert(&new.destination);
        }
    }

    /// The namespaces that have services, in no order.
    #[cfg(test)]
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&Name, &usize)> {
        self.namespaces.iter()
    }

    fn remove(&mut self, gone: &Destination) {
        self.services.remove(&gone.name);
        self.hostnames.remove(&gone.hostname);
        for ip in &gone.virtual_ips {
            if self.virtual_ips.get(ip).is_some_and(|has| has.name == gone.name) {
                self.virtual_ips.remove(ip);
            }
        }
        let Some(count) = self.namespaces.get_mut(&gone.name.namespace) else { return };
        *count -= 1;
        if *count == 0 {
            self.namespaces.remove(&gone.name.namespace);
        }
    }

    fn insert(&mut self, new: &Arc<Destination>) {
        self.services.insert(new.name.clone(), Arc::clone(new));
        self.hostnames.insert(Arc::clone(&new.hostname), Arc::clone(new));
        for ip in &new.virtual_ips {
            self.virtual_ips.insert(*ip, Arc::clone(new));
        }
        *self.namespaces.entry(new.name.namespace.clone()).or_default() += 1;
    }
}
