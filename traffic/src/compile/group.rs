//! Pure. What belongs to which service, kept from revision to revision: a change is taken to the services that it is about,
//! and the others are not looked at.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{HashMap, OrdMap};
use model::{name::ServiceName, object::Key};

use super::{Change, Item, Read, conduct::Conducts};
use crate::{aim::Targets, snapshot::Place};

/// What belongs to which service. Endpoints and routes of services that are not there belong nowhere yet.
#[derive(Debug, Default, Clone)]
pub(super) struct Groups {
    by_service: HashMap<ServiceName, Arc<Members>>,
    wide: Arc<Wide>,
}

/// What belongs to one service alone, each in the order of the objects' keys.
#[derive(Debug, Default, Clone)]
struct Members {
    service: Option<Arc<Item>>,
    endpoints: Vec<Arc<Item>>,
    /// Those that name it.
    modes: Vec<Arc<Item>>,
    routes: Vec<Arc<Item>>,
}

/// What bears on more than one service.
#[derive(Debug, Default)]
struct Wide {
    conducts: Conducts,
    /// For whole namespaces and the mesh.
    modes: Vec<Arc<Item>>,
    /// Where this host stands.
    place: Option<Arc<Item>>,
}

/// All that is said of a service.
pub(super) struct Group<'a> {
    pub(super) service: &'a Arc<Item>,
    /// The traffic policy that counts for it.
    pub(super) conduct: Option<&'a Arc<Item>>,
    /// Where this host stands.
    pub(super) place: Option<&'a Arc<Item>>,
    pub(super) endpoints: &'a [Arc<Item>],
    pub(super) routes: &'a [Arc<Item>],
    name: &'a ServiceName,
    named: &'a [Arc<Item>],
    wide: &'a [Arc<Item>],
}

impl Groups {
    /// Takes changes up, which `items` has already. The services of which something may have changed.
    pub(super) fn take(
        &mut self,
        changes: &[Change],
        items: &OrdMap<Key, Arc<Item>>,
    ) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        for change in changes {
            for service in change.before.iter().flat_map(|item| item.services()) {
                self.members(service).remove(change.before.as_ref());
                touched.insert(service.clone());
            }
            for service in change.now.iter().flat_map(|item| item.services()) {
                self.members(service).insert(change.now.as_ref());
                touched.insert(service.clone());
            }
        }
        for service in &touched {
            if self.by_service.get(service).is_some_and(|members| members.is_empty()) {
                self.by_service.remove(service);
            }
        }
        if changes.iter().flat_map(Change::both).any(|item| item.is_wide()) {
            self.wide = Arc::new(Wide::of(items));
            touched.extend(self.by_service.keys().cloned());
        }
        touched
    }

    /// All that is said of a service, if it is there.
    pub(super) fn of<'a>(&'a self, name: &'a ServiceName) -> Option<Group<'a>> {
        let members = self.by_service.get(name)?;
        Some(Group {
            service: members.service.as_ref()?,
            conduct: self.wide.conducts.for_service(name),
            place: self.wide.place.as_ref(),
            endpoints: &members.endpoints,
            routes: &members.routes,
            name,
            named: &members.modes,
            wide: &self.wide.modes,
        })
    }

    /// Where this host stands.
    pub(super) fn place(&self) -> Option<&Place> {
        self.wide.place.as_ref()?.place()
    }

    /// How services are treated.
    pub(super) fn conducts(&self) -> &Conducts {
        &self.wide.conducts
    }

    fn members(&mut self, service: &ServiceName) -> &mut Members {
        Arc::make_mut(self.by_service.entry(service.clone()).or_default())
    }
}

impl<'a> Group<'a> {
    /// Whether callers must show who they are: what is said of it.
    pub(super) fn modes(&self) -> impl Iterator<Item = &'a Arc<Item>> {
        let name = self.name;
        let selects = move |item: &&Arc<Item>| matches!(&item.read, Read::Mode(mode) if mode.selects(name));
        self.named.iter().chain(self.wide.iter().filter(selects))
    }
}

impl Members {
    fn is_empty(&self) -> bool {
        self.service.is_none()
            && [&self.endpoints, &self.modes, &self.routes].iter().all(|list| list.is_empty())
    }

    fn insert(&mut self, item: Option<&Arc<Item>>) {
        let Some(item) = item else { return };
        let Some(list) = self.list(item) else {
            self.service = Some(Arc::clone(item));
            return;
        };
        match list.binary_search_by(|other| other.order(item)) {
            Ok(at) => list[at] = Arc::clone(item),
            Err(at) => list.insert(at, Arc::clone(item)),
        }
    }

    fn remove(&mut self, item: Option<&Arc<Item>>) {
        let Some(item) = item else { return };
        let Some(list) = self.list(item) else {
            self.service = None;
            return;
        };
        if let Ok(at) = list.binary_search_by(|other| other.order(item)) {
            list.remove(at);
        }
    }

    /// Where others like it stand; `None` for the service itself.
    fn list(&mut self, item: &Item) -> Option<&mut Vec<Arc<Item>>> {
        match &item.read {
            Read::Endpoint { .. } => Some(&mut self.endpoints),
            Read::Route(_) => Some(&mut self.routes),
            Read::Mode(_) => Some(&mut self.modes),
            _ => None,
        }
    }
}

impl Wide {
    fn of(items: &OrdMap<Key, Arc<Item>>) -> Self {
        let is_mode = |item: &&Arc<Item>| matches!(item.read, Read::Mode(_)) && item.is_wide();
        Self {
            conducts: Conducts::of(items),
            modes: items.values().filter(is_mode).cloned().collect(),
            place: items.values().find(|item| item.place().is_some()).cloned(),
        }
    }
}

impl Item {
    /// The services to which it belongs, each once.
    fn services(&self) -> Vec<&ServiceName> {
        let mut services: Vec<_> = match &self.read {
            Read::Service { name, .. } => vec![name],
            Read::Endpoint { service, .. } => vec![service],
            Read::Route(route) => route.parents.iter().map(|(parent, _)| parent).collect(),
            Read::Mode(mode) => match mode.aim.targets() {
                Targets::Services(services) => services.iter().collect(),
                Targets::Namespace(_) | Targets::Mesh => Vec::new(),
            },
            Read::Policy(_) | Read::Conduct(_) | Read::Node(_) | Read::Other => Vec::new(),
        };
        services.sort();
        services.dedup();
        services
    }

    /// Whether it bears on more than the services that it names.
    fn is_wide(&self) -> bool {
        match &self.read {
            Read::Mode(mode) => !matches!(mode.aim.targets(), Targets::Services(_)),
            Read::Conduct(_) | Read::Node(_) => true,
            Read::Service { .. } | Read::Endpoint { .. } | Read::Route(_) | Read::Policy(_) | Read::Other => {
                false
            }
        }
    }
}
