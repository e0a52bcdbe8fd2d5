//! Pure. What operators write: objects with their preconditions, and the rules that need more than the object itself.
//! Whether the writer may is decided before, by the API.

use std::sync::Arc;

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{NAMESPACES_BUILT_IN, Resource, Source},
};

use super::{State, objects::endpoint};
use crate::command::{Change, Credential, Expect, Outcome, Refusal, Reply, Write, Written};

impl State {
    pub(super) fn write(&mut self, write: Write) -> Result<Reply, Refusal> {
        let actor: Arc<str> = write.actor.into();
        for change in &write.changes {
            let key = match change {
                Change::Put { object, .. } => object.key(),
                Change::Delete { key, .. } => key.clone(),
            };
            self.actors.insert(key, actor.clone());
        }
        let written =
            write.changes.into_iter().map(|change| self.change(change)).collect::<Result<_, _>>()?;
        Ok(Reply::Written(written))
    }

    fn change(&mut self, change: Change) -> Result<Written, Refusal> {
        match change {
            Change::Put { object, expect, credential } => self.put(object, expect, credential),
            Change::Delete { key, expect } => self.delete(&key, expect),
        }
    }

    fn put(
        &mut self,
        object: Object,
        expect: Expect,
        credential: Option<Credential>,
    ) -> Result<Written, Refusal> {
        let key = object.key();
        self.expect(&key, expect)?;
        self.may_stand(&object)?;
        let before = self.objects.get(&key).cloned();
        if let Some(before) =
            before.as_ref().filter(|before| credential.is_none() && before.same_input(&object))
        {
            return Ok(Written { key, object: before.clone(), outcome: Outcome::Unchanged });
        }
        let outcome = if before.is_some() { Outcome::Replaced } else { Outcome::Created };
        let stored = self.store(object);
        self.consequences(&key, &stored, credential)?;
        let object = self.objects.get(&key).cloned().unwrap_or(stored);
        Ok(Written { key, object, outcome })
    }

    fn delete(&mut self, key: &Key, expect: Expect) -> Result<Written, Refusal> {
        let Some(object) = self.objects.get(key).cloned() else {
            return Err(Refusal::NotFound { key: key.clone() });
        };
        self.expect(key, expect)?;
        self.may_go(key, &object)?;
        self.discard(key);
        match key.kind {
            Kind::Node => self.forget_node(&key.name),
            Kind::AccessToken | Kind::JoinToken => self.revoke(key),
            Kind::DiscoverySource => self.forget_source(&key.name),
            _ => {}
        }
        Ok(Written { key: key.clone(), object, outcome: Outcome::Deleted })
    }

    /// What else changes with a put.
    fn consequences(
        &mut self,
        key: &Key,
        stored: &Object,
        credential: Option<Credential>,
    ) -> Result<(), Refusal> {
        match key.kind {
            Kind::Node => self.node_changed(stored),
            Kind::AccessToken | Kind::JoinToken => self.hold(stored, credential)?,
            Kind::Service => {
                if let Some(service) = service_name(key) {
                    self.judge_claims(&service);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn expect(&self, key: &Key, expect: Expect) -> Result<(), Refusal> {
        let actual = self.objects.get(key).map(|object| object.metadata.revision);
        match (expect, actual) {
            (Expect::Absent, Some(_)) => Err(Refusal::Exists { key: key.clone() }),
            (Expect::Revision(expected), actual) if actual != Some(expected) => {
                Err(Refusal::RevisionMismatch { key: key.clone(), expected, actual: actual.unwrap_or(0) })
            }
            _ => Ok(()),
        }
    }

    fn may_stand(&self, object: &Object) -> Result<(), Refusal> {
        let key = object.key();
        if key.kind.namespaced() != key.namespace.is_some() {
            let message =
                if key.kind.namespaced() { "must have a namespace" } else { "must not have a namespace" };
            return Err(Refusal::Invalid { key, message: message.to_owned() });
        }
        if let Some(namespace) = &key.namespace {
            self.namespace_exists(namespace)?;
        }
        self.not_registered(&key, Some(object))
    }

    fn may_go(&self, key: &Key, object: &Object) -> Result<(), Refusal> {
        self.not_registered(key, None)?;
        if object.kind != Kind::Namespace {
            return Ok(());
        }
        if NAMESPACES_BUILT_IN.contains(&key.name.as_str()) {
            return Err(Refusal::BuiltIn { key: key.clone() });
        }
        match self.objects.first_in(&key.name) {
            Some(holds) => Err(Refusal::NamespaceNotEmpty { namespace: key.name.clone(), holds }),
            None => Ok(()),
        }
    }

    pub(super) fn namespace_exists(&self, namespace: &Name) -> Result<(), Refusal> {
        let key = Key::mesh_wide(Kind::Namespace, namespace.clone());
        match self.objects.get(&key) {
            Some(_) => Ok(()),
            None => Err(Refusal::UnknownNamespace { namespace: namespace.clone() }),
        }
    }

    /// A registered endpoint belongs to its host's session: only registration changes it.
    fn not_registered(&self, key: &Key, new: Option<&Object>) -> Result<(), Refusal> {
        let registered =
            |object: &Object| endpoint(object).is_some_and(|spec| spec.source == Source::Registration);
        let current = self.objects.get(key).map(|object| &**object);
        if key.kind == Kind::Endpoint && (current.is_some_and(registered) || new.is_some_and(registered)) {
            let message =
                "an endpoint with source registration is written by its host's proxy only".to_owned();
            return Err(Refusal::Conflict { key: key.clone(), with: None, message });
        }
        Ok(())
    }

    /// Stores an object as it came, with revision and times; what the mesh says of it stays.
    pub(super) fn store(&mut self, mut object: Object) -> Arc<Object> {
        let before = self.objects.get(&object.key());
        object.metadata.created_at = before.map_or(self.time, |before| before.metadata.created_at);
        if object.kind != Kind::Endpoint {
            object.status = before.and_then(|before| before.status.clone());
        }
        self.stamp(object)
    }

    /// Stores an object with its revision and the time of its change.
    pub(super) fn stamp(&mut self, mut object: Object) -> Arc<Object> {
        object.metadata.revision = self.pending_revision();
        object.metadata.updated_at = self.time;
        self.say_virtual_ips(&mut object);
        let object = Arc::new(object);
        self.objects.put(object.clone());
        self.touched = true;
        object
    }

    pub(super) fn discard(&mut self, key: &Key) {
        self.touched |= self.objects.remove(key).is_some();
        if let Some(service) = service_name(key).filter(|_| key.kind == Kind::Service) {
            self.let_virtual_ips_go(&service);
        }
    }
}

/// The service that a Service's key names.
pub(super) fn service_name(key: &Key) -> Option<ServiceName> {
    Some(ServiceName::new(key.namespace.clone()?, key.name.clone()))
}

/// A spec decoded, for decisions that need it.
pub(super) fn resource(object: &Object) -> Result<Resource, Refusal> {
    object.resource().map_err(|invalid| Refusal::Invalid { key: object.key(), message: invalid.to_string() })
}
