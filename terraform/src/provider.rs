//! What Terraform asks of a provider, call by call. What an object is stands in `object`, how it changes in `lifecycle`;
//! here is what is answered.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use crate::{
    control::Control,
    data::{self, DataSource},
    diagnostic::error,
    rehearsal::Rehearsal,
    schema::{ResourceType, encode, resources},
    settings::{self, Around},
    value::Value,
    wire::{self, Diagnostic},
};

mod apply;
mod plan;
mod read;

/// The state of one run of Terraform's.
pub(crate) struct Provider {
    resources: Vec<ResourceType>,
    data_sources: Vec<DataSource>,
    /// Set once, where all settings are known.
    control: OnceLock<Arc<Control>>,
    rehearsal: Rehearsal,
}

const SCHEMA_OPTIONAL: wire::Capabilities = wire::Capabilities { schema_optional: true };

impl Provider {
    /// One that is not configured yet.
    pub(crate) fn new() -> Self {
        Self {
            resources: resources(),
            data_sources: data::sources(),
            control: OnceLock::new(),
            rehearsal: Rehearsal::default(),
        }
    }

    /// What there is.
    pub(crate) fn metadata(&self) -> wire::Metadata {
        let named = |name: &String| wire::Named { type_name: name.clone() };
        wire::Metadata {
            capabilities: Some(SCHEMA_OPTIONAL),
            data_sources: self.data_sources.iter().map(|source| named(&source.name)).collect(),
            resources: self.resources.iter().map(|resource| named(&resource.name)).collect(),
        }
    }

    /// The attributes of everything.
    pub(crate) fn schemas(&self) -> wire::Schemas {
        let resources = self.resources.iter();
        let data_sources = self.data_sources.iter();
        wire::Schemas {
            provider: Some(encode(
                "A mesh, steered by the REST API of its control plane.",
                &settings::fields(),
            )),
            resources: resources
                .map(|resource| (resource.name.clone(), encode(resource.kind.about(), &resource.fields)))
                .collect(),
            data_sources: data_sources
                .map(|source| (source.name.clone(), encode(&source.about, &source.fields)))
                .collect(),
            diagnostics: Vec::new(),
            capabilities: Some(SCHEMA_OPTIONAL),
        }
    }

    /// Takes the settings; those that are known only after `apply` leave it without a control plane until then.
    pub(crate) fn configure(&self, request: &wire::Configure) -> wire::Checked {
        let configured = Value::read(request.config.as_ref())
            .map_err(|unreadable| error("The provider's settings cannot be read", unreadable.to_string()))
            .and_then(|config| self.connect(&config));
        wire::Checked { diagnostics: configured.err().into_iter().collect() }
    }

    fn connect(&self, config: &Value) -> Result<(), Diagnostic> {
        let around = Around {
            variable: &|name| std::env::var(name).ok(),
            file: &|path: &Path| std::fs::read_to_string(path),
        };
        let settings = settings::settings(config, &around).map_err(|wrong| {
            error("The provider's settings are wrong", wrong.message)
                .at(crate::place::attribute(wrong.attribute))
        })?;
        let Some(settings) = settings else { return Ok(()) };
        let control = Control::new(settings)
            .map_err(|failed| error("The provider's settings are wrong", failed.to_string()))?;
        // Terraform configures a provider once.
        _ = self.control.set(Arc::new(control));
        Ok(())
    }

    fn control(&self) -> Result<&Control, Diagnostic> {
        self.control.get().map(Arc::as_ref).ok_or_else(|| {
            let detail = "The provider's settings are known only after another resource is applied: apply that first, \
                          with -target.";
            error("There is no control plane to ask yet", detail)
        })
    }

    fn resource(&self, name: &str) -> Result<&ResourceType, Diagnostic> {
        let found = self.resources.iter().find(|resource| resource.name == name);
        found.ok_or_else(|| error("Unknown resource", format!("This provider has no {name}.")))
    }

    fn data_source(&self, name: &str) -> Result<&DataSource, Diagnostic> {
        let found = self.data_sources.iter().find(|source| source.name == name);
        found.ok_or_else(|| error("Unknown data source", format!("This provider has no {name}.")))
    }
}

/// A value that came, or what to tell of it.
fn read_value(dynamic: Option<&wire::DynamicValue>) -> Result<Value, Diagnostic> {
    Value::read(dynamic)
        .map_err(|unreadable| error("Terraform sent what cannot be read", unreadable.to_string()))
}
