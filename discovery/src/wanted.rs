//! Pure. Which services of a source the mesh wants, and what it calls them: filters, names and namespaces.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use model::{
    name::{NAME_BYTES_MAX, Name, ServiceName},
    resource::DiscoverySourceSpec,
};

use crate::found::{Found, FoundKey, Instance, Set};

/// As many services that cannot be taken over are told by name; the rest are like them.
const TOLD: usize = 3;

/// What the mesh wants of a source.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The services, by what the mesh calls them.
    pub services: BTreeMap<ServiceName, &'a Found>,
    /// Why others are left out, in sentences.
    pub problems: Vec<String>,
}

impl<'a> Wanted<'a> {
    /// Of all that a source says. `exists` tells of namespaces of the mesh.
    pub fn new(spec: &DiscoverySourceSpec, set: &'a Set, exists: impl Fn(&Name) -> bool) -> Self {
        let mut wanted = Self::default();
        let (mut nameless, mut homeless, mut twice) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (key, found) in set.iter().filter(|(key, found)| takes(spec, key, found)) {
            let Some(service) = named(spec, key) else {
                nameless.push(key.name.as_str());
                continue;
            };
            if !exists(&service.namespace) {
                homeless.insert(service.namespace.to_string());
                continue;
            }
            match wanted.services.entry(service) {
                Entry::Occupied(_) => twice.push(key.name.as_str()),
                Entry::Vacant(place) => {
                    place.insert(found);
                }
            }
        }
        let homeless: Vec<_> = homeless.iter().map(String::as_str).collect();
        for (names, what) in [
            (&nameless, "cannot be the name of a service; rename it"),
            (&homeless, "is no namespace of the mesh; create it"),
            (&twice, "would be a second service of the same name; rename it"),
        ] {
            let more = names.len().saturating_sub(TOLD);
            wanted.problems.extend(names.iter().take(TOLD).map(|name| format!("{name:?} {what}")));
            if more > 0 {
                wanted.problems.push(format!("so it is with {more} more"));
            }
        }
        wanted
    }
}

/// What the mesh calls a service of a source; `None` if it can have no name here.
pub fn named(spec: &DiscoverySourceSpec, key: &FoundKey) -> Option<ServiceName> {
    let renamed = spec.rename.iter().find(|renamed| renamed.from.as_str() == key.name);
    let name = match renamed {
        Some(renamed) => renamed.to.clone(),
        None => label(&key.name)?,
    };
    let namespace = match (spec.namespace(), &key.namespace) {
        (Some(one), _) => one,
        (None, Some(own)) => label(own)?,
        (None, None) => "default".parse().expect("a label"),
    };
    Some(ServiceName::new(namespace, name))
}

/// Whether an instance passes the filter.
pub fn passes(spec: &DiscoverySourceSpec, found: &Found, instance: &Instance) -> bool {
    let has = |tag: &str| found.tags.contains(tag) || instance.tags.contains(tag);
    spec.filter.iter().flat_map(|filter| &filter.tags).all(|tag| has(tag.as_str()))
}

/// Where tags are asked for, a service without an instance that has them is none of the mesh's.
fn takes(spec: &DiscoverySourceSpec, key: &FoundKey, found: &Found) -> bool {
    let Some(filter) = &spec.filter else { return true };
    let by_name = filter.services.is_empty() || filter.services.iter().any(|glob| glob.matches(&key.name));
    let own = filter.tags.iter().all(|tag| found.tags.contains(tag.as_str()));
    by_name && (own || found.instances.values().any(|instance| passes(spec, found, instance)))
}

/// A text as a label: in lower case, with `-` for what a label cannot have.
fn label(text: &str) -> Option<Name> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(plain).take(NAME_BYTES_MAX).collect();
    text.trim_matches('-').parse().ok()
}

#[cfg(test)]
mod tests {
    use model::{object::Parsed, resource::Resource};
    use serde_json::{Value, json};

    use super::*;

    fn spec(more: &Value) -> DiscoverySourceSpec {
        let mut spec = json!({"type": "File", "file": {"path": "/a"}});
        for (field, value) in more.as_object().expect("fields") {
            spec[field] = value.clone();
        }
        let object = json!({"kind": "DiscoverySource", "metadata": {"name": "s"}, "spec": spec});
        match Parsed::from_input(&object, None).expect("valid").resource {
            Resource::DiscoverySource(spec) => spec,
            other => panic!("{other:?}"),
        }
    }

    /// Services as `namespace/name tag…`, and what the mesh wants of them.
    fn check(more: &Value, services: &[&str], want: &[&str], problem: &str) {
        let spec = spec(more);
        let mut set = Set::new();
        for service in services {
            let (name, tags) = service.split_once(' ').unwrap_or((service, ""));
            let (namespace, name) = match name.split_once('/') {
                Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
                None => (None, name.to_owned()),
            };
            let tags = tags.split_whitespace().map(str::to_owned).collect();
            set.insert(FoundKey { namespace, name }, Found { tags, ..Found::default() });
        }
        let wanted = Wanted::new(&spec, &set, |namespace| namespace.as_str() != "missing");
        let names: Vec<_> = wanted.services.keys().map(ToString::to_string).collect();
        assert_eq!(names, want);
        let problems = wanted.problems.join("; ");
        assert!(problems.contains(problem) && problems.is_empty() == problem.is_empty(), "{problems}");
    }

    #[test]
    fn names_become_labels_or_are_renamed() {
        check(&json!({}), &["orders", "Pay_Ments"], &["default/orders", "default/pay-ments"], "");
        check(&json!({}), &["___", "a"], &["default/a"], "\"___\" cannot be the name of a service");
        let rename = json!({"rename": [{"from": "___", "to": "line"}]});
        check(&rename, &["___", "a"], &["default/a", "default/line"], "");
        check(&json!({}), &["A", "a"], &["default/a"], "\"a\" would be a second service");
    }

    #[test]
    fn namespaces_are_mapped_and_must_exist() {
        let to = json!({"namespaceMapping": {"to": "legacy"}});
        check(&to, &["x/orders", "web"], &["legacy/orders", "legacy/web"], "");
        let own = json!({"namespaceMapping": {"from": "namespace"}});
        check(&own, &["x/orders", "web"], &["default/web", "x/orders"], "");
        check(&own, &["missing/orders", "web"], &["default/web"], "\"missing\" is no namespace of the mesh");
    }

    #[test]
    fn filters_look_at_tags_and_names() {
        let tags = json!({"filter": {"tags": ["mesh", "eu"]}});
        check(&tags, &["a mesh eu", "b mesh", "c"], &["default/a"], "");
        let names = json!({"filter": {"services": ["a*"]}});
        check(&names, &["ab", "b"], &["default/ab"], "");
    }
}
