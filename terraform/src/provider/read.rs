//! Reading: what stands in the registry, as Terraform's state.

use model::{
    name::Name,
    object::{Key, Object},
};
use serde::{Deserialize, Serialize};

use super::{Provider, read_value};
use crate::{
    diagnostic::{error, failure, warning},
    lifecycle::present,
    object::{self, State},
    schema::ResourceType,
    value::Value,
    wire::{self, Diagnostic, DynamicValue},
};

/// What is kept beside a state, for the provider alone.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Private {
    /// The object's revision when it was read: a write of this state is for that one.
    pub(crate) revision: u64,
    /// What stands in the object that this version of the provider does not know, and would lose.
    pub(crate) beyond: Vec<String>,
}

impl Private {
    /// What was kept; nothing is as good as none.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// As it is kept.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts are JSON")
    }
}

impl Provider {
    /// Brings a state up to date; null where the object is gone.
    pub(crate) async fn read(&self, request: wire::Read) -> wire::ReadDone {
        match self.read_object(&request).await {
            Ok(done) => done,
            Err(diagnostics) => {
                wire::ReadDone { new_state: request.current_state, diagnostics, private: request.private }
            }
        }
    }

    async fn read_object(&self, request: &wire::Read) -> Result<wire::ReadDone, Vec<Diagnostic>> {
        let resource = self.resource(&request.type_name)?;
        let before = read_value(request.current_state.as_ref())?;
        let key = object::key(resource.kind, &before)
            .ok_or_else(|| error("The state names no object", "Import it anew."))?;
        let found = present(self.control()?, &key).await;
        let found = found.map_err(|failed| {
            failure(&format!("{key} cannot be read"), &failed, &resource.fields, &before)
        })?;
        let Some(found) = found else {
            return Ok(wire::ReadDone { new_state: Value::Null.to_wire(), ..wire::ReadDone::default() });
        };
        let shown = Shown::of(resource, &before, &found);
        Ok(wire::ReadDone { new_state: shown.state, diagnostics: shown.diagnostics, private: shown.private })
    }

    /// Whether a data source's arguments can be right.
    pub(crate) fn check_data(&self, request: &wire::Config) -> wire::Checked {
        wire::Checked { diagnostics: self.data_source(&request.type_name).err().into_iter().collect() }
    }

    /// What a data source says now.
    pub(crate) async fn read_data(&self, request: &wire::Config) -> wire::Stated {
        match self.data(request).await {
            Ok(value) => wire::Stated { state: value.to_wire(), diagnostics: Vec::new() },
            Err(diagnostic) => wire::Stated { state: None, diagnostics: vec![diagnostic] },
        }
    }

    async fn data(&self, request: &wire::Config) -> Result<Value, Diagnostic> {
        let source = self.data_source(&request.type_name)?;
        let config = read_value(request.config.as_ref())?;
        let read = source.read(self.control()?, &config).await;
        read.map_err(|unread| error(format!("{} cannot be read", source.name), unread.to_string()))
    }

    /// A state with nothing but names, which is read next.
    pub(crate) fn import(&self, request: &wire::Import) -> wire::Imported {
        match self.named(&request.type_name, &request.id) {
            Ok(resource) => wire::Imported { resources: vec![resource], diagnostics: Vec::new() },
            Err(diagnostic) => wire::Imported { resources: Vec::new(), diagnostics: vec![diagnostic] },
        }
    }

    fn named(&self, type_name: &str, id: &str) -> Result<wire::ImportedResource, Diagnostic> {
        let resource = self.resource(type_name)?;
        let key = named(resource, id).ok_or_else(|| {
            let form = if resource.kind.namespaced() { "NAMESPACE/NAME" } else { "NAME" };
            error(
                "Not the id of an object",
                format!("A {} is imported by {form}; this is {id:?}.", resource.kind),
            )
        })?;
        let fields = resource.fields.iter().map(|field| {
            let value = match (field.name.as_str(), &key.namespace) {
                ("name", _) => Value::text(key.name.as_str()),
                ("namespace", Some(namespace)) => Value::text(namespace.as_str()),
                _ => Value::Null,
            };
            (field.name.clone(), value)
        });
        let state = Value::Object(fields.collect()).to_wire();
        let private = Private::default().to_bytes();
        Ok(wire::ImportedResource { type_name: type_name.to_owned(), state, private })
    }

    /// A state that an earlier version wrote. Attributes that are gone were taken out by Terraform, new ones are null.
    pub(crate) fn upgrade(&self, request: wire::Upgrade) -> wire::Stated {
        let json = request.raw_state.map(|raw| raw.json).unwrap_or_default();
        let state = Some(DynamicValue { msgpack: Vec::new(), json });
        let diagnostics = self.resource(&request.type_name).err().into_iter().collect();
        wire::Stated { state, diagnostics }
    }
}

fn named(resource: &ResourceType, id: &str) -> Option<Key> {
    let (namespace, name) = match id.split_once('/') {
        Some((namespace, name)) => (Some(namespace.parse::<Name>().ok()?), name),
        None => (None, id),
    };
    let fits = namespace.is_some() == resource.kind.namespaced();
    fits.then_some(Key { kind: resource.kind, namespace, name: name.parse().ok()? })
}

/// An object as Terraform is answered.
pub(super) struct Shown {
    /// The state.
    pub(super) state: Option<DynamicValue>,
    /// What is kept beside it.
    pub(super) private: Vec<u8>,
    /// What is in the object and not in the state.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Shown {
    /// `object`, whose state or plan until now was `before`.
    pub(super) fn of(resource: &ResourceType, before: &Value, object: &Object) -> Self {
        let State { value, beyond } = object::state(resource, before, object);
        let diagnostics = match &beyond[..] {
            [] => Vec::new(),
            beyond => vec![warning(
                format!("{} says more than this provider knows", object.key()),
                format!(
                    "It does not know {}, and will not change the object: use a newer version.",
                    beyond.join(", ")
                ),
            )],
        };
        let private = Private { revision: object.metadata.revision, beyond }.to_bytes();
        Self { state: value.to_wire(), private, diagnostics }
    }
}
