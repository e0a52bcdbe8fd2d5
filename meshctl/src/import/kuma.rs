//! Pure. Kuma's policies, as Kubernetes and the universal mode write them. What is said for callers of a service alone, or
//! for a part of a service, has no place here: our policies are of the called one.

use model::name::{Name, ServiceName};
use serde_json::Value;

use super::{
    Setting,
    access::{self, Entry, Verdict},
    fields::{At, Fields},
    plan::Plan,
};

mod conduct;
mod mesh;
mod permission;
mod refer;
mod routes;

use refer::Whom;

/// Reads policies one by one, and then makes of them what they come to together.
#[derive(Debug)]
pub(crate) struct Kuma<'a> {
    plan: Plan,
    /// What each policy says of who may call whom.
    permissions: Vec<Vec<Entry<'a>>>,
    /// Whether callers are refused by services that cannot be named.
    shut: bool,
    routes: routes::Routes,
    /// Where services live of which no namespace is said.
    home: Name,
}

const BOOKKEEPING: &[&str] = &["labels", "annotations", "creationTime", "modificationTime", "kri", "status"];
/// The namespace whose policies are for all of the mesh.
const MESH_WIDE: &str = "mesh-system";
const OF_CALLERS: &str = "what holds for some callers only is not said of the called service here";

impl<'a> Kuma<'a> {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { ports, namespace: home, .. } = setting;
        Self {
            plan: Plan::new(ports),
            permissions: Vec::new(),
            shut: false,
            routes: routes::Routes::default(),
            home,
        }
    }

    /// Reads a policy, or a list of them.
    pub(crate) fn read(&mut self, document: &At<'a>) {
        for at in document.list() {
            let Some(mut fields) = at.fields() else { continue };
            if fields.has("items") {
                fields.pass(&["total", "next", "apiVersion", "kind", "metadata"]);
                let items = fields.take("items");
                fields.finish();
                items.iter().for_each(|items| self.read(items));
                continue;
            }
            self.one(&at, fields);
        }
    }

    fn one(&mut self, at: &At<'a>, mut fields: Fields<'a>) {
        fields.pass(&["apiVersion"]);
        let Some(kind) = fields.text("kind").or_else(|| fields.text("type")) else {
            at.lost("it has neither type nor kind", "import what `kumactl get` and `kubectl get` print");
            return;
        };
        let mut place = Place { home: self.home.clone(), all: MESH_WIDE.parse().expect("a label") };
        let mut name = fields.text("name");
        fields.pass(&["mesh"]);
        fields.pass(BOOKKEEPING);
        if let Some(mut metadata) = fields.take("metadata").and_then(|at| at.fields()) {
            name = metadata.text("name").or(name);
            // Where Kuma's own policies stand is no place of services.
            let own = metadata.text("namespace").filter(|own| own != "kuma-system");
            if let Some(own) = own.and_then(|own| own.parse::<Name>().ok()) {
                place = Place { home: own.clone(), all: own };
            }
            metadata.pass(BOOKKEEPING);
            metadata.pass(&[
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
                "ownerReferences",
            ]);
            metadata.finish();
        }
        let entry = format!("{kind} {}", name.unwrap_or_default());
        fields.at = at.clone().named(entry.trim_end());
        if kind == "Mesh" {
            mesh::read(fields, &mut self.plan);
            return;
        }
        let spec = fields.take("spec");
        let own = fields.at.clone();
        fields.finish();
        match spec.and_then(|at| at.fields()) {
            Some(spec) => self.policy(&kind, &place, own, spec),
            None => own.lost("it has no spec", "correct it, and import again"),
        }
    }

    fn policy(&mut self, kind: &str, place: &Place, own: At<'a>, mut spec: Fields<'a>) {
        // A policy without a target is for all of the mesh.
        let target = spec.take("targetRef");
        let target = target.as_ref().map_or(Some(Whom::All), |at| refer::of(at, &place.home));
        match kind {
            "MeshTrafficPermission" => {
                self.permissions.push(permission::read(target, place, spec, &mut self.shut))
            }
            "MeshHTTPRoute" => self.routes.http(target, place, spec, &self.plan),
            "MeshTCPRoute" => self.routes.tcp(target, place, spec, &self.plan),
            "MeshFaultInjection" => self.routes.faults(target, place, spec),
            "MeshRateLimit" => conduct::rates(target, place, spec, &mut self.plan),
            "MeshTimeout"
            | "MeshRetry"
            | "MeshCircuitBreaker"
            | "MeshHealthCheck"
            | "MeshLoadBalancingStrategy" => conduct::read(kind, target, place, spec, &mut self.plan),
            _ => own.lost(
                &format!("meshctl does not import {kind}"),
                "see docs/migrating.md for what stands for it",
            ),
        }
    }

    /// All objects.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        self.routes.finish(&mut self.plan);
        self.plan.policies = access::policies(
            permission::settle(self.permissions, self.shut),
            &Verdict::closed(),
            Some(&MESH_WIDE.parse().expect("a label")),
        );
        self.plan.objects()
    }
}

/// Where a policy stands.
#[derive(Debug)]
struct Place {
    /// The namespace of services of which none is said.
    home: Name,
    /// The namespace of what is for all: that of the mesh, unless the policy is one namespace's.
    all: Name,
}

impl Place {
    /// Whether a policy that stands here says it for all callers of whom it is about: one of a namespace does for that
    /// namespace's services alone.
    fn is_of_all_callers(&self, called: Option<&Whom>) -> bool {
        match called {
            Some(Whom::Service { service, .. }) => {
                self.all.as_str() == MESH_WIDE || service.namespace == self.home
            }
            Some(Whom::All) => self.all.as_str() == MESH_WIDE,
            None => true,
        }
    }
}

/// The called service, or all of them.
fn called(whom: Whom, place: &Place) -> Called {
    match whom {
        Whom::All => Called::All(place.all.clone()),
        Whom::Service { service, .. } => Called::Service(service),
    }
}

/// Whom a policy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Called {
    Service(ServiceName),
    All(Name),
}

/// The entries of a list (`to`, `from`), each with whom it is for and its fields.
fn entries<'a>(spec: &mut Fields<'a>, list: &str, place: &Place) -> Vec<(Option<Whom>, Fields<'a>, At<'a>)> {
    let mut entries = Vec::new();
    for at in spec.take(list).map_or_else(Vec::new, |at| at.list()) {
        let Some(mut fields) = at.fields() else { continue };
        let whom = fields.take("targetRef");
        let whom = whom.as_ref().map_or(Some(Whom::All), |at| refer::of(at, &place.home));
        entries.push((whom, fields, at));
    }
    entries
}
