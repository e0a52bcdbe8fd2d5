//! Pure. What has to change in the registry for a source, by what is due.

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    changes::{Change, Standing, changes, managed, stale},
    found::{FoundKey, Set},
    keeper::{Due, Stands},
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

/// What a source says: all that it told, and the services that it cannot tell.
pub(super) type Says<'a> = (&'a Set, &'a BTreeMap<FoundKey, Stands>);

/// The changes, Services before their Endpoints, and what cannot be taken over.
pub(super) fn plan(
    state: &State,
    (source, spec): (&Name, &DiscoverySourceSpec),
    (set, silent): Says<'_>,
    due: &Due,
) -> (Vec<Change>, Vec<String>) {
    let exists = |namespace: &Name| state.get(&Key::mesh_wide(Kind::Namespace, namespace.clone())).is_some();
    let wanted = Wanted::new(spec, set, exists);
    let silent: BTreeMap<_, _> =
        silent.iter().filter_map(|(key, stands)| Some((named(spec, key)?, *stands))).collect();
    let mut out = Vec::new();
    let mut judge = |service: &ServiceName, endpoints: &[&Object]| {
        let key = Key::namespaced(Kind::Service, service.namespace.clone(), service.name.clone());
        let standing = Standing { service: state.get(&key).map(|object| &**object), endpoints };
        let found = wanted.services.get(service).copied();
        match silent.get(service) {
            // What it is is not known, not even that it is gone.
            Some(Stands::Kept) if found.is_none() => {}
            Some(Stands::Stale) => stale(standing, &mut out),
            Some(Stands::Lost) => changes((source, spec), service, None, standing, &mut out),
            Some(Stands::Kept) | None => changes((source, spec), service, found, standing, &mut out),
        }
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

    /// A silent service of which nothing was told: it stands here since another leader.
    #[test]
    fn what_cannot_be_told_stays_is_marked_and_goes() {
        let mut state = state();
        let text = r#"DiscoverySource old {"type":"File","file":{"path":"/a"}}"#;
        put(&mut state, text);
        let Ok(Resource::DiscoverySource(spec)) = object(text).resource() else { panic!("{text}") };
        let source = "old".parse().expect("a name");
        let key = |name: &str| FoundKey { namespace: None, name: name.to_owned() };
        let instance = discovery::found::Instance {
            address: "10.0.0.1".parse().expect("an address"),
            port: Some(8_080),
            ports: Vec::new(),
            labels: Default::default(),
            tags: Default::default(),
            zone: None,
            weight: 1,
            health: model::resource::Health::Healthy,
        };
        let found = Found { instances: [("one".to_owned(), instance)].into(), ..Found::default() };
        let mut planned = |set: &Set, silent: &[(&str, Stands)], write: bool| {
            let silent = silent.iter().map(|(name, stands)| (key(name), *stands)).collect();
            let (changes, problems) = plan(&state, (&source, &spec), (set, &silent), &Due::All);
            assert_eq!(problems, [""; 0]);
            let said = |change: &Change| match change {
                Change::Put(object) => {
                    format!("{} {}", object.kind, object.status.clone().unwrap_or_default())
                }
                Change::Gone(key) => format!("{} gone", key.kind),
            };
            let said: Vec<_> = changes.iter().map(said).collect();
            if write {
                let created_at = state.get(&Key::mesh_wide(Kind::DiscoverySource, source.clone()));
                let created_at = created_at.expect("it is there").metadata.created_at;
                let puts = changes.into_iter().filter_map(|change| match change {
                    Change::Put(object) => Some(object),
                    Change::Gone(_) => None,
                });
                let batch = registry::Discovery {
                    source: source.clone(),
                    created_at,
                    said: None,
                    puts: puts.collect(),
                    gone: Vec::new(),
                };
                let command = registry::Command::Discover(Box::new(batch));
                state.apply(registry::Entry { at: model::duration::Millis(9), command });
            }
            said
        };
        let whole: Set = [(key("a"), found)].into();
        let (healthy, stale) =
            (r#"Endpoint {"health":"Healthy"}"#, r#"Endpoint {"health":"Healthy","stale":true}"#);
        assert_eq!(planned(&whole, &[], true), ["Service null", healthy]);
        for set in [&Set::new(), &whole] {
            assert_eq!(planned(set, &[("a", Stands::Kept)], false), [""; 0]);
            assert_eq!(planned(set, &[("a", Stands::Stale)], false), [stale]);
            assert_eq!(planned(set, &[("a", Stands::Lost)], false), ["Endpoint gone", "Service gone"]);
        }
        assert_eq!(planned(&whole, &[("a", Stands::Stale)], true), [stale]);
        assert_eq!(planned(&whole, &[("a", Stands::Stale)], false), [""; 0], "it is marked");
        assert_eq!(planned(&whole, &[], false), [healthy], "it is heard again");
        assert_eq!(planned(&Set::new(), &[], false), ["Endpoint gone", "Service gone"]);
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
