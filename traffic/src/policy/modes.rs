//! Pure. PeerAuthentications, compiled: whether callers of a port must show who they are. Of those that select a service
//! the most specific that says something of the port counts, in the order of `aim`.

use std::sync::Arc;

use model::{
    name::ServiceName,
    object::Metadata,
    resource::{PeerAuthenticationMode, PeerAuthenticationSpec},
};

use super::RuleId;
use crate::aim::Aim;

/// A compiled PeerAuthentication.
#[derive(Debug)]
pub struct PeerAuthentication {
    pub(crate) aim: Aim,
    spec: PeerAuthenticationSpec,
}

/// What services ask of whoever calls one of them.
#[derive(Debug, Clone, Default)]
pub struct PeerModes(Vec<Arc<PeerAuthentication>>);

// === impl PeerAuthentication ===

impl PeerAuthentication {
    /// Compiles one; `None` where its namespace is missing.
    pub fn compile(metadata: &Metadata, spec: PeerAuthenticationSpec) -> Option<Self> {
        Aim::of(metadata, spec.target_refs.as_deref()).map(|aim| Self { aim, spec })
    }

    /// Whether it is for a service.
    pub(crate) fn selects(&self, service: &ServiceName) -> bool {
        self.aim.selects(service)
    }
}

// === impl PeerModes ===

impl PeerModes {
    /// Of PeerAuthentications that all select the service.
    pub fn new(mut selecting: Vec<Arc<PeerAuthentication>>) -> Self {
        selecting.sort_by(|one, other| one.aim.cmp(&other.aim));
        Self(selecting)
    }

    /// The mode of a port of the service, and what says so. Where nothing does, callers are to show who they are.
    pub fn of(&self, port: u16) -> (PeerAuthenticationMode, RuleId) {
        self.first(|spec| spec.mode_of(port))
    }

    /// A mode that some port of the service may have; not strict if any can be so.
    pub fn of_any(&self) -> (PeerAuthenticationMode, RuleId) {
        let modes = |spec: &PeerAuthenticationSpec| {
            let own = spec.port_modes.iter().map(|own| own.mode).chain(spec.mode);
            own.into_iter().find(|mode| *mode != PeerAuthenticationMode::Strict)
        };
        self.first(modes)
    }

    fn first(
        &self,
        mode: impl Fn(&PeerAuthenticationSpec) -> Option<PeerAuthenticationMode>,
    ) -> (PeerAuthenticationMode, RuleId) {
        let said = self.0.iter().find_map(|one| Some((one, mode(&one.spec)?)));
        said.map_or((PeerAuthenticationMode::Strict, RuleId::MeshPeers), |(one, mode)| {
            let rule = mode.to_string().to_ascii_lowercase();
            let (namespace, name) = one.aim.named();
            (mode, RuleId::of(namespace, name, rule))
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{object::Parsed, resource::Resource};
    use serde_json::{Value, json};

    use super::*;

    fn compiled((place, spec): (&str, Value)) -> Arc<PeerAuthentication> {
        let (namespace, name) = place.split_once('/').expect("a namespace and a name");
        let metadata = json!({"namespace": namespace, "name": name});
        let value = json!({"kind": "PeerAuthentication", "metadata": metadata, "spec": spec});
        let parsed = Parsed::from_input(&value, None).expect("well-formed");
        let Resource::PeerAuthentication(spec) = parsed.resource else { panic!("{value}") };
        Arc::new(PeerAuthentication::compile(&parsed.object.metadata, spec).expect("it has a namespace"))
    }

    #[test]
    fn the_most_specific_that_says_something_counts() {
        let all = [
            ("mesh-system/all", json!({"mode": "Permissive"})),
            ("shop/all", json!({"mode": "Disabled", "portModes": [{"port": 9, "mode": "Strict"}]})),
            (
                "shop/orders",
                json!({"targetRefs": [{"name": "orders"}], "portModes": [{"port": 80, "mode": "Permissive"}]}),
            ),
            ("other/all", json!({"mode": "Disabled"})),
        ]
        .map(compiled);
        for (service, port, want) in [
            ("shop/orders", 80, "Permissive shop/orders/permissive"),
            ("shop/orders", 9, "Strict shop/all/strict"),
            ("shop/orders", 1, "Disabled shop/all/disabled"),
            ("shop/web", 80, "Disabled shop/all/disabled"),
            ("default/web", 80, "Permissive mesh-system/all/permissive"),
        ] {
            let service: ServiceName = service.parse().expect("a service");
            let selecting = all.iter().rev().filter(|one| one.selects(&service)).cloned().collect();
            let (mode, rule) = PeerModes::new(selecting).of(port);
            assert_eq!(format!("{mode} {rule}"), want, "{service} {port}");
        }
        let (mode, rule) = PeerModes::default().of(80);
        assert_eq!((mode, rule), (PeerAuthenticationMode::Strict, RuleId::MeshPeers));
    }
}
