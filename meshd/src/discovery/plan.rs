//! Pure. What has to change in the registry for a source, by what is due.

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    changes::{Change, Standing, changes, managed},
    found::{FoundKey, Set},
    keeper::Due,
    wanted::{Wanted, named},
};
use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{DiscoverySourceSpec, Resource, Source},
};
use registry::{
    State,
    feed::{Filter, Seen, latest},
};

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

/// What others wrote after `revision` that has to be compared with what the source says: Services that it wants, what it
/// brought and is gone, namespaces. What it wrote itself is as it should be.
pub(super) fn disturbed(
    state: &State,
    revision: u64,
    (source, spec): (&Name, &DiscoverySourceSpec),
    set: &Set,
) -> Due {
    let kinds = vec![Kind::Namespace, Kind::Service, Kind::Endpoint];
    let Ok(seen) = latest(state, revision, &Filter { kinds, namespace: None }) else { return Due::All };
    let mut services = BTreeSet::new();
    for seen in seen {
        let (object, gone) = match &seen {
            Seen::Put(object) => (object, false),
            Seen::Delete(object) => (object, true),
        };
        let Some(namespace) = object.metadata.namespace.clone() else { return Due::All };
        match object.resource() {
            Ok(Resource::Service(_)) if gone || !managed(object, source) => {
                services.insert(ServiceName::new(namespace, object.metadata.name.clone()));
            }
            Ok(Resource::Endpoint(endpoint)) if gone && source_of(object).as_ref() == Some(source) => {
                services.insert(ServiceName::new(namespace, endpoint.service));
            }
            _ => {}
        }
    }
    let touched = |key: &&FoundKey| named(spec, key).is_some_and(|service| services.contains(&service));
    let keys = (!services.is_empty()).then(|| set.keys().filter(touched).cloned().collect());
    Due::Some(keys.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use discovery::found::Found;
    use model::object::Parsed;

    use super::*;
    use crate::api::testing::{object, put, state};

    /// What has to be compared after these writes, where the source old says `Old_Orders` and `web`.
    #[track_caller]
    fn check(writes: &[&str], want: Option<&[&str]>) {
        let mut state = state();
        put(&mut state, r#"Service default/before {"ports":[{"port":80}]}"#);
        let before = state.revision();
        writes.iter().for_each(|write| drop(put(&mut state, write)));
        let text = r#"DiscoverySource old {"type":"File","file":{"path":"/a"},"rename":[{"from":"Old_Orders","to":"orders"}]}"#;
        let value = serde_json::to_value(object(text)).expect("serialises");
        let Resource::DiscoverySource(spec) = Parsed::from_input(&value, None).expect("valid").resource
        else {
            panic!("{text}")
        };
        let key = |name: &str| FoundKey { namespace: None, name: name.to_owned() };
        let set = ["Old_Orders", "web"].map(|name| (key(name), Found::default())).into_iter().collect();
        let due = disturbed(&state, before, (&"old".parse().expect("a name"), &spec), &set);
        let want = want.map_or(Due::All, |names| Due::Some(names.iter().map(|name| key(name)).collect()));
        assert_eq!(due, want, "{writes:?}");
    }

    #[test]
    fn what_others_wrote_is_compared_where_the_source_has_a_say() {
        check(&[], Some(&[]));
        check(&[r#"Service default/orders {"ports":[{"port":8080}]}"#], Some(&["Old_Orders"]));
        check(&[r#"Service default/other {"ports":[{"port":8080}]}"#], Some(&[]));
        check(&[r#"Service mesh-system/web {"ports":[{"port":8080}]}"#], Some(&[]));
        check(&[r#"HTTPRoute default/web {"parentRefs":[{"name":"web"}],"rules":[]}"#], Some(&[]));
        check(&["Namespace legacy {}"], None);
    }
}
