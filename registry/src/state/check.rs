//! Pure. What must hold of the state after every entry. A breach is a bug of ours, never of an input.

use model::{
    kind::Kind,
    object::Key,
    resource::{NAMESPACES_BUILT_IN, Source},
};

use super::{State, objects::endpoint, tokens::has_secret};

/// A breach, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state at revision {revision} breaks an invariant: {what}")]
pub struct Broken {
    /// At which revision.
    pub revision: u64,
    /// What does not hold.
    pub what: String,
}

impl State {
    /// Walks the whole state: for tests and debug builds.
    ///
    /// # Errors
    /// The first breach that it finds.
    pub fn check(&self) -> Result<(), Broken> {
        let broken = |what: String| Err(Broken { revision: self.revision, what });
        for name in NAMESPACES_BUILT_IN {
            let name = name.parse().expect("the built-in names are labels");
            if self.objects.get(&Key::mesh_wide(Kind::Namespace, name)).is_none() {
                return broken("a built-in namespace is gone".to_owned());
            }
        }
        for object in self.objects.iter() {
            if let Some(what) = self.misplaced(object) {
                return broken(format!("{}: {what}", object.key()));
            }
        }
        for (node, session) in self.sessions.iter() {
            if session.generation > self.revision
                || self.objects.get(&Key::mesh_wide(Kind::Node, node.clone())).is_none()
            {
                return broken(format!("session of {node} has no Node, or is from the future"));
            }
        }
        if !self.sessions.indexed() {
            return broken("who claims a service is not what the sessions say".to_owned());
        }
        for (id, held) in self.credentials.iter() {
            let joins = held.key.kind == Kind::JoinToken;
            if self.objects.get(&held.key).is_none()
                || !has_secret(held.key.kind)
                || joins != self.joins.get(id).is_some()
            {
                return broken(format!("the secret of {} outlived it", held.key));
            }
        }
        if self.joins.len() > self.credentials.len()
            || self.members.by_id.iter().any(|(id, _)| *id >= self.members.next())
        {
            return broken(
                "a join record without a secret, or a member with an id that is not given yet".to_owned(),
            );
        }
        if let Some(what) = self.misnumbered().or_else(|| self.misfiled()) {
            return broken(what);
        }
        if !self.history.sound(self.revision) {
            return broken("the history keeps what is not, or what it says it dropped".to_owned());
        }
        Ok(())
    }

    fn misplaced(&self, object: &model::object::Object) -> Option<&'static str> {
        let metadata = &object.metadata;
        if metadata.revision > self.revision
            || metadata.created_at > metadata.updated_at
            || metadata.updated_at > self.time
        {
            return Some("is from the future");
        }
        if object.kind.namespaced() != metadata.namespace.is_some() {
            return Some("has a namespace although mesh-wide, or none");
        }
        let namespace = metadata.namespace.clone().map(|name| Key::mesh_wide(Kind::Namespace, name));
        if namespace.is_some_and(|namespace| self.objects.get(&namespace).is_none()) {
            return Some("outlived its namespace");
        }
        let spec = endpoint(object)
            .filter(|spec| object.kind == Kind::Endpoint && spec.source == Source::Registration)?;
        let session = spec.node.as_ref().and_then(|node| self.sessions.get(node));
        let claimed = session.is_some_and(|session| {
            session.claims.iter().any(|claim| {
                Some(&claim.service.namespace) == metadata.namespace.as_ref()
                    && claim.service.name == spec.service
            })
        });
        if session.is_none() {
            Some("outlived its session")
        } else if !claimed {
            Some("is for a service that its session does not claim")
        } else {
            None
        }
    }
}
