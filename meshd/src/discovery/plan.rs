//! Pure. What has to change in the registry for a source, by what is due.

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    changes::{Change, Standing, changes},
    found::Set,
    keeper::Due,
    wanted::{Wanted, named},
};
use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{DiscoverySourceSpec, Resource, Source},
};
use registry::State;

/// The changes, Services before their Endpoints, and what cannot be taken over.
pub(super) fn plan(
    state: &State,
    (source, spec): (&Name, &DiscoverySourceSpec),
    set: &Set,
    due: &Due,
) -> (Vec<Change>, Vec<String>) {
    let exists = |namespace: &Name| state.get(&Key::mesh_wide(Kind::Namespace, namespace.clone())).is_some();
    let wanted = Wanted::new(spec, set, exists);
    let mut out = Vec::new();
    let mut judge = |service: &ServiceName, endpoints: &[&Object]| {
        let key = Key::namespaced(Kind::Service, service.namespace.clone(), service.name.clone());
        let standing = Standing { service: state.get(&key).map(|object| &**object), endpoints };
        changes((source, spec), service, wanted.services.get(service).copied(), standing, &mut out);
    };
    match due {
        Due::All => {
            let mut brought = brought(state, source);
            for service in wanted.services.keys() {
                brought.entry(service.clone()).or_default();
            }
            brought.iter().for_each(|(service, endpoints)| judge(service, endpoints));
        }
        Due::Some(keys) => {
            let services: BTreeSet<_> = keys.iter().filter_map(|key| named(spec, key)).collect();
            for service in &services {
                let endpoints: Vec<_> = state
                    .endpoints_of(service)
                    .map(|object| &**object)
                    .filter(|object| source_of(object).as_ref() == Some(source))
                    .collect();
                judge(service, &endpoints);
            }
        }
    }
    (out, wanted.problems)
}

/// The services of which the source brought anything, each with its Endpoints.
fn brought<'a>(state: &'a State, source: &Name) -> BTreeMap<ServiceName, Vec<&'a Object>> {
    let mut brought = BTreeMap::<ServiceName, Vec<&Object>>::new();
    for key in state.brought_by(source) {
        let (Some(namespace), Some(object)) = (key.namespace.clone(), state.get(key)) else { continue };
        match object.resource() {
            Ok(Resource::Endpoint(spec)) => {
                brought.entry(ServiceName::new(namespace, spec.service)).or_default().push(object);
            }
            _ => drop(brought.entry(ServiceName::new(namespace, key.name.clone())).or_default()),
        }
    }
    brought
}

fn source_of(endpoint: &Object) -> Option<Name> {
    match endpoint.resource() {
        Ok(Resource::Endpoint(spec)) => match spec.source {
            Source::Discovery(name) => Some(name),
            Source::Registration => None,
        },
        _ => None,
    }
}
