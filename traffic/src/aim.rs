//! Pure. Whom an object is for of whose kind the most specific counts: services that it names, before one for their
//! namespace, before one for the mesh; of two alike, which admission does not let in one after the other, the older one.

use model::{
    name::{Name, ServiceName},
    object::Metadata,
    resource::{NAMESPACE_OF_THE_MESH, TargetRef},
};

use crate::route::Age;

/// Whom an object is for, and since when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Aim {
    /// Narrower ones come first.
    reach: Reach,
    age: Age,
    targets: Targets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Services,
    Namespace,
    Mesh,
}

/// Whom an object is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Targets {
    Services(Vec<ServiceName>),
    Namespace(Name),
    Mesh,
}

impl Aim {
    /// That of an object; `None` if it is in no namespace.
    pub(crate) fn of(metadata: &Metadata, refs: Option<&[TargetRef]>) -> Option<Self> {
        let namespace = metadata.namespace.clone()?;
        let service = |target: &TargetRef| ServiceName::new(namespace.clone(), target.name.clone());
        let (reach, targets) = match refs {
            Some(refs) => (Reach::Services, Targets::Services(refs.iter().map(service).collect())),
            None if namespace.as_str() == NAMESPACE_OF_THE_MESH => (Reach::Mesh, Targets::Mesh),
            None => (Reach::Namespace, Targets::Namespace(namespace.clone())),
        };
        let (created_at, name) = (metadata.created_at, metadata.name.clone());
        Some(Self { reach, age: Age { created_at, namespace, name }, targets })
    }

    /// Whether it is for a service.
    pub(crate) fn selects(&self, service: &ServiceName) -> bool {
        match &self.targets {
            Targets::Services(services) => services.contains(service),
            Targets::Namespace(namespace) => *namespace == service.namespace,
            Targets::Mesh => true,
        }
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The object's own namespace and name.
    pub(crate) fn named(&self) -> (&Name, &Name) {
        (&self.age.namespace, &self.age.name)
    }
}
