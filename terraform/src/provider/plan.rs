//! Checking and planning: the model's own rules at once, and the API's judgement where it can be asked.

use super::{Provider, read_value};
use crate::{
    control::Control,
    diagnostic::{self, error, failure, warning},
    object::{self, input},
    place,
    rehearsal::Verdict,
    schema::{Given, ResourceType},
    settings,
    value::Value,
    waiting,
    wire::{self, AttributePath, Diagnostic},
};

impl Provider {
    /// Whether the provider's own block is well.
    pub(crate) fn check_provider(&self, request: &wire::ProviderConfig) -> wire::ProviderChecked {
        let around =
            settings::Around { variable: &|name| std::env::var(name).ok(), file: &|_| Ok(String::new()) };
        let found = read_value(request.config.as_ref()).and_then(|config| {
            // What may come from the environment of another run is looked for only there.
            match settings::settings(&config, &around) {
                Err(wrong) if config.attribute(wrong.attribute) != &Value::Null => {
                    Err(error("The provider's settings are wrong", wrong.message)
                        .at(place::attribute(wrong.attribute)))
                }
                _ => Ok(()),
            }
        });
        wire::ProviderChecked { diagnostics: found.err().into_iter().collect() }
    }

    /// Whether what the user wrote can be right: the rules of the model, as far as all is known.
    pub(crate) fn check_resource(&self, request: &wire::Config) -> wire::Checked {
        let found = self.resource(&request.type_name).and_then(|resource| {
            let config = read_value(request.config.as_ref())?;
            Ok(wrong(resource, &config))
        });
        wire::Checked { diagnostics: found.unwrap_or_else(|unreadable| vec![unreadable]) }
    }

    /// What is to become of a resource.
    pub(crate) async fn plan(&self, request: wire::Plan) -> wire::Planned {
        match self.planned(&request).await {
            Ok(planned) => planned,
            Err(diagnostic) => wire::Planned {
                planned_state: request.prior_state,
                planned_private: request.prior_private,
                diagnostics: vec![diagnostic],
                requires_replace: Vec::new(),
            },
        }
    }

    async fn planned(&self, request: &wire::Plan) -> Result<wire::Planned, Diagnostic> {
        let resource = self.resource(&request.type_name)?;
        let prior = read_value(request.prior_state.as_ref())?;
        let mut planned = read_value(request.proposed_new_state.as_ref())?;
        let private = request.prior_private.clone();
        if planned == Value::Null {
            let (planned_state, planned_private) = (planned.to_wire(), private);
            return Ok(wire::Planned { planned_state, planned_private, ..wire::Planned::default() });
        }
        if prior == Value::Null {
            leave_to_apply(resource, &mut planned);
        }
        let requires_replace = replaced_by(resource, &prior, &planned);
        if let (false, Some(key)) = (requires_replace.is_empty(), object::key(resource.kind, &prior)) {
            self.rehearsal.replaces(key);
        }
        let diagnostics = match self.control.get() {
            Some(control) if requires_replace.is_empty() => {
                self.rehearsed(control, resource, &prior, &planned).await
            }
            _ => Vec::new(),
        };
        Ok(wire::Planned {
            planned_state: planned.to_wire(),
            requires_replace,
            planned_private: private,
            diagnostics,
        })
    }

    /// What the API would say, where all that it would be sent is known and something changes.
    async fn rehearsed(
        &self,
        control: &Control,
        resource: &ResourceType,
        prior: &Value,
        planned: &Value,
    ) -> Vec<Diagnostic> {
        let made = *prior == Value::Null;
        let changes = made || input(resource, prior) != input(resource, planned);
        let written = resource.fields.iter().filter(|field| field.given != Given::Secret);
        let known = written.map(|field| planned.attribute(&field.name)).all(Value::known);
        let object = match object::object(resource, planned) {
            Ok(object) if changes && known => object,
            // What is wrong with it was told by the check.
            _ => return Vec::new(),
        };
        let (key, fields) = (object.key(), &resource.fields);
        match self.rehearsal.judge(control, &object, made).await {
            Verdict::Fine => Vec::new(),
            Verdict::Exists => vec![exists(resource, planned)],
            Verdict::Refused(failed) => failure(&format!("{key} would be refused"), &failed, fields, planned),
            Verdict::Conflict(failed) => {
                warnings(&format!("{key} is refused as things stand"), &failed, resource, planned)
            }
            Verdict::Unasked(failed) => {
                warnings(&format!("{key} could not be rehearsed"), &failed, resource, planned)
            }
        }
    }
}

fn warnings(
    summary: &str,
    failed: &model::client::ClientError,
    resource: &ResourceType,
    value: &Value,
) -> Vec<Diagnostic> {
    failure(summary, failed, &resource.fields, value).into_iter().map(Diagnostic::mildly).collect()
}

fn exists(resource: &ResourceType, value: &Value) -> Diagnostic {
    let key = object::key(resource.kind, value);
    let id = key.map_or_else(String::new, |key| match key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.to_string(),
    });
    let detail = format!(
        "Apply will fail unless this plan, or somebody else, removes it first. To take it over: terraform import {}.NAME {id}",
        resource.name
    );
    warning(format!("{} {id} exists already", resource.kind), detail)
}

/// Every wrong field of a configuration that no later value can mend.
fn wrong(resource: &ResourceType, config: &Value) -> Vec<Diagnostic> {
    let waiting = waiting::waiting(config).err();
    match object::object(resource, config) {
        Ok(_) => waiting.into_iter().collect(),
        Err(invalid) => {
            let told = place::told(&resource.fields, config, &invalid.errors);
            let summary = format!("Invalid {}", resource.kind);
            let told = told.into_iter().map(|(at, error)| diagnostic::field(&summary, error, at));
            told.chain(waiting).collect()
        }
    }
}

/// What the mesh says when the object is made.
fn leave_to_apply(resource: &ResourceType, planned: &mut Value) {
    let Value::Object(values) = planned else { return };
    for field in resource.fields.iter().filter(|field| matches!(field.given, Given::Computed | Given::Secret))
    {
        values.insert(field.name.clone(), Value::unknown());
    }
}

/// Which attributes make it another object: its names, and what a secret was given out for.
fn replaced_by(resource: &ResourceType, prior: &Value, planned: &Value) -> Vec<AttributePath> {
    if *prior == Value::Null {
        return Vec::new();
    }
    let identity = ["namespace", "name", "spec"];
    let identity = if resource.kind.has_secret() { &identity[..] } else { &identity[..2] };
    let other = |name: &&&str| {
        let (before, after) = (prior.attribute(name), planned.attribute(name));
        // `spec = {}` and none are one to the API.
        before != after
            && (**name != "spec" || spec(resource, prior) != spec(resource, planned) || !after.known())
    };
    identity.iter().filter(other).map(|name| place::attribute(name)).collect()
}

fn spec(resource: &ResourceType, value: &Value) -> serde_json::Value {
    input(resource, value)["spec"].take()
}
