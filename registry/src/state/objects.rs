//! Pure. The objects by key, with the indexes that questions about them need. Puts and removes; never judges.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::{
    duration::Millis,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{EndpointSpec, NAMESPACES_BUILT_IN, Resource, Source},
};
use serde_json::Map;

use super::{ByService, MANAGED_BY, Unreadable, table::Table};

/// The objects.
#[derive(Clone, Debug)]
pub struct Objects {
    by_key: Table<Key, Object>,
    endpoints: ByService,
    routes: ByService,
    /// Endpoints by the node that registered them.
    of_node: OrdMap<Name, OrdSet<Key>>,
    /// Services and Endpoints by the discovery source that brought them.
    of_source: OrdMap<Name, OrdSet<Key>>,
    /// How many objects each namespace holds: one that holds some cannot go.
    per_namespace: OrdMap<Name, usize>,
}

impl Objects {
    /// The namespaces that always exist.
    pub(super) fn built_in() -> Self {
        let mut objects = Self::empty();
        for name in NAMESPACES_BUILT_IN {
            let name = name.parse().expect("the built-in names are labels");
            let mut namespace = Object::new(Key::mesh_wide(Kind::Namespace, name), Map::new());
            namespace.metadata.created_at = Millis(0);
            objects.put(Arc::new(namespace));
        }
        objects
    }

    pub(super) fn empty() -> Self {
        Self {
            by_key: Table::new(1),
            endpoints: OrdMap::new(),
            routes: OrdMap::new(),
            of_node: OrdMap::new(),
            of_source: OrdMap::new(),
            per_namespace: OrdMap::new(),
        }
    }

    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.by_key.get(key)
    }

    /// All of a kind, those of one namespace if it is named, by namespace and name.
    pub fn list<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let namespace = namespace.cloned();
        let from = Key { kind, namespace: namespace.clone(), name: first_name() };
        let within = move |key: &Key| key.kind == kind && (namespace.is_none() || key.namespace == namespace);
        self.by_key.range(from..).take_while(move |(key, _)| within(key)).map(|(_, object)| object)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_key.iter().map(|(_, object)| object)
    }

    /// A service's endpoints, by name.
    pub fn endpoints_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Object>> {
        self.indexed(&self.endpoints, service)
    }

    /// The routes that belong to a service, by name.
    pub fn routes_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Object>> {
        self.indexed(&self.routes, service)
    }

    /// The keys of a node's endpoints.
    pub fn endpoints_on(&self, node: &Name) -> impl Iterator<Item = &Key> {
        self.of_node.get(node).into_iter().flatten()
    }

    /// The keys of what a discovery source brought.
    pub fn brought_by(&self, source: &Name) -> impl Iterator<Item = &Key> {
        self.of_source.get(source).into_iter().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none; there always are the built-in ones.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What stands otherwise than in `before`: key, old, new.
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a Key, Option<&'a Arc<Object>>, Option<&'a Arc<Object>>)> {
        self.by_key.changes_since(&before.by_key)
    }

    pub(super) fn table(&self) -> &Table<Key, Object> {
        &self.by_key
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        let (_, object) = self.by_key.read(key, value)?;
        self.put(Arc::new(object));
        Ok(())
    }

    pub(super) fn put(&mut self, object: Arc<Object>) {
        let key = object.key();
        if let Some(before) = self.by_key.insert(key, object.clone()) {
            self.index(&before, false);
        }
        self.index(&object, true);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let object = self.by_key.remove(key)?;
        self.index(&object, false);
        Some(object)
    }

    /// One of the objects in a namespace.
    pub(super) fn first_in(&self, namespace: &Name) -> Option<Key> {
        self.per_namespace.get(namespace)?;
        self.by_key.iter().map(|(key, _)| key).find(|key| key.namespace.as_ref() == Some(namespace)).cloned()
    }

    fn indexed<'a>(
        &'a self,
        index: &'a ByService,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        index.get(service).into_iter().flatten().filter_map(|key| self.by_key.get(key))
    }

    /// Enters an object in the indexes, or strikes it from them.
    fn index(&mut self, object: &Object, present: bool) {
        let key = object.key();
        match object.kind {
            Kind::Endpoint => {
                let Some(spec) = endpoint(object) else { return self.count(key.namespace, present) };
                if let Some(service) = service_of(&key, &spec.service) {
                    mark(&mut self.endpoints, service, &key, present);
                }
                if let Some(node) = spec.node {
                    mark(&mut self.of_node, node, &key, present);
                }
                if let Source::Discovery(source) = spec.source {
                    mark(&mut self.of_source, source, &key, present);
                }
            }
            Kind::Service => {
                if let Some(source) = brought_by(object) {
                    mark(&mut self.of_source, source, &key, present);
                }
            }
            kind if kind.is_route() => {
                for service in parents(object) {
                    mark(&mut self.routes, service, &key, present);
                }
            }
            _ => {}
        }
        self.count(key.namespace, present);
    }

    fn count(&mut self, namespace: Option<Name>, present: bool) {
        let Some(namespace) = namespace else { return };
        let held = self.per_namespace.get(&namespace).copied().unwrap_or(0);
        let held = if present { held + 1 } else { held - 1 };
        if held == 0 {
            self.per_namespace.remove(&namespace)
        } else {
            self.per_namespace.insert(namespace, held)
        };
    }
}

/// What an endpoint says of itself, if this version can read it.
pub(super) fn endpoint(object: &Object) -> Option<EndpointSpec> {
    match object.resource() {
        Ok(Resource::Endpoint(spec)) => Some(spec),
        _ => None,
    }
}

/// The discovery source that brought a Service or Endpoint, if one did.
pub(super) fn brought_by(object: &Object) -> Option<Name> {
    let source = match object.kind {
        Kind::Endpoint => endpoint(object)?.source,
        Kind::Service => {
            let by = object.metadata.annotations.iter().find(|(key, _)| key.as_str() == MANAGED_BY);
            by?.1.as_str().parse().ok()?
        }
        _ => return None,
    };
    if let Source::Discovery(source) = source { Some(source) } else { None }
}

fn parents(object: &Object) -> Vec<ServiceName> {
    let (resource, namespace) = (object.resource().ok(), object.metadata.namespace.as_ref());
    let route = resource.as_ref().and_then(Resource::route);
    route
        .zip(namespace)
        .map_or_else(Vec::new, |(route, namespace)| route.parent_services(namespace).collect())
}

fn service_of(key: &Key, name: &Name) -> Option<ServiceName> {
    Some(ServiceName::new(key.namespace.clone()?, name.clone()))
}

/// Enters a key under what it belongs to, or strikes it there.
pub(super) fn mark<K: Ord + Clone, V: Ord + Clone>(
    index: &mut OrdMap<K, OrdSet<V>>,
    of: K,
    key: &V,
    present: bool,
) {
    let mut keys = index.get(&of).cloned().unwrap_or_default();
    if present {
        keys.insert(key.clone())
    } else {
        keys.remove(key)
    };
    if keys.is_empty() {
        index.remove(&of)
    } else {
        index.insert(of, keys)
    };
}

/// The least name there can be.
fn first_name() -> Name {
    "0".parse().expect("'0' is a label")
}
