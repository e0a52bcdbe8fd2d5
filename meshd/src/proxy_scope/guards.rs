//! Pure. Which policies a host's proxy must know: those for services that the host may run. By what it may run, not by
//! what it registered: a policy is there before the first call.

use std::collections::BTreeSet;

use model::{
    kind::Kind,
    name::{Name, ServiceGlob, ServiceName},
    object::{Key, Object},
    resource::{NAMESPACE_OF_THE_MESH, Resource},
};

use super::named;
use crate::wake::Topic;

/// The services that a host may run, for the policies that guard them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guards(Vec<ServiceGlob>);

impl Guards {
    /// Those of a Node; none where there is no such Node.
    pub(super) fn of(node: Option<&Object>) -> Self {
        match node.map(Object::resource) {
            Some(Ok(Resource::Node(spec))) => Self(spec.services),
            _ => Self::default(),
        }
    }

    /// Whether a policy is for one of them.
    pub(super) fn have(&self, policy: &Object) -> bool {
        let Some(namespace) = &policy.metadata.namespace else { return false };
        if policy.spec.get("targetRefs").is_none_or(serde_json::Value::is_null) {
            let all = namespace.as_str() == NAMESPACE_OF_THE_MESH;
            return all || self.0.iter().any(|glob| glob.reaches(namespace));
        }
        let may_run = |service: &ServiceName| self.0.iter().any(|glob| glob.matches(service));
        named(policy, "targetRefs").iter().any(may_run)
    }

    /// What a change of a policy of a kind must be about to concern them.
    pub(super) fn topics(&self, kind: Kind) -> BTreeSet<Topic> {
        let namespaces: Option<BTreeSet<Name>> = self.0.iter().map(ServiceGlob::namespace).collect();
        let Some(mut namespaces) = namespaces else { return BTreeSet::from([Topic::Everywhere(kind)]) };
        namespaces.insert(NAMESPACE_OF_THE_MESH.parse().expect("it is a label"));
        namespaces.into_iter().map(|namespace| Topic::Within(kind, namespace)).collect()
    }
}

/// The Node of a host.
pub(super) fn node(name: &Name) -> Key {
    Key::mesh_wide(Kind::Node, name.clone())
}
