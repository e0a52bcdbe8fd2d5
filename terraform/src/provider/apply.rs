//! Applying: one write for each resource, and what is told when it is refused.

use model::object::Object;

use super::{
    Provider,
    read::{Private, Shown},
    read_value,
};
use crate::{
    diagnostic::{error, failure},
    lifecycle::{self, Undone},
    object,
    schema::ResourceType,
    value::Value,
    waiting,
    wire::{self, Diagnostic, DynamicValue},
};

/// What is to be done to one resource.
struct Change<'a> {
    resource: &'a ResourceType,
    prior: Value,
    planned: Value,
    private: Private,
}

impl Provider {
    /// Makes a resource as it was planned.
    pub(crate) async fn apply(&self, request: wire::Apply) -> wire::Applied {
        match self.applied(&request).await {
            Ok(applied) => applied,
            // All is as before.
            Err(diagnostics) => wire::Applied {
                new_state: request.prior_state,
                private: request.planned_private,
                diagnostics,
            },
        }
    }

    async fn applied(&self, request: &wire::Apply) -> Result<wire::Applied, Vec<Diagnostic>> {
        let change = Change {
            resource: self.resource(&request.type_name)?,
            prior: read_value(request.prior_state.as_ref())?,
            planned: read_value(request.planned_state.as_ref())?,
            private: Private::read(&request.planned_private),
        };
        if change.planned == Value::Null {
            return self.removed(&change).await;
        }
        let object = change.object(&change.planned)?;
        let written = if change.prior == Value::Null {
            lifecycle::create(self.control()?, &object).await
        } else {
            let before = change.object(&change.prior)?;
            change.loses_nothing(&object)?;
            lifecycle::update(self.control()?, &object, &before, change.private.revision).await
        };
        self.rehearsal.done(&object.key());
        match written {
            Ok(written) => {
                let told = self.waited(&change, &object, &written).await;
                Ok(change.shown(&written, told.into_iter().collect()))
            }
            // Terraform keeps it as tainted, and makes it anew.
            Err(Undone::SecretLost(object)) => Ok(change.shown(&object, vec![secret_lost(&object)])),
            Err(undone) => Err(change.told(undone)),
        }
    }

    /// What is to be told of how far a write came among the proxies, where that is waited for.
    async fn waited(&self, change: &Change<'_>, object: &Object, written: &Object) -> Option<Diagnostic> {
        // What is wrong with it was told by the check.
        let waiting = waiting::waiting(&change.planned).ok().flatten()?;
        let control = self.control().ok()?;
        let rollout = waiting::rollout(control, object, written.metadata.revision, &waiting).await;
        if change.prior == Value::Null {
            waiting::told(&format!("{} was made", object.key()), &waiting, rollout).map(Diagnostic::mildly)
        } else {
            waiting::told(&format!("{} was changed", object.key()), &waiting, rollout)
        }
    }

    async fn removed(&self, change: &Change<'_>) -> Result<wire::Applied, Vec<Diagnostic>> {
        let before = change.object(&change.prior)?;
        let waiting = waiting::waiting(&change.prior).ok().flatten();
        let control = self.control()?;
        let removed = lifecycle::delete(control, &before, change.private.revision, waiting.as_ref()).await;
        let rollout = removed.map_err(|undone| change.told(undone))?;
        let told = waiting.zip(rollout).and_then(|(waiting, rollout)| {
            waiting::told(&format!("{} was removed", before.key()), &waiting, Ok(rollout))
        });
        let diagnostics = told.into_iter().collect();
        Ok(wire::Applied { new_state: Value::Null.to_wire(), diagnostics, ..wire::Applied::default() })
    }
}

impl Change<'_> {
    fn object(&self, value: &Value) -> Result<Object, Vec<Diagnostic>> {
        object::object(self.resource, value)
            .map_err(|invalid| vec![error(format!("Invalid {}", self.resource.kind), invalid.to_string())])
    }

    /// A write replaces the object: what this version does not know of it would be gone.
    fn loses_nothing(&self, object: &Object) -> Result<(), Vec<Diagnostic>> {
        if self.private.beyond.is_empty() {
            return Ok(());
        }
        let detail =
            format!("Writing it would lose {}: use a newer version.", self.private.beyond.join(", "));
        Err(vec![error(format!("{} says more than this provider knows", object.key()), detail)])
    }

    fn shown(&self, object: &Object, mut diagnostics: Vec<Diagnostic>) -> wire::Applied {
        let shown = Shown::of(self.resource, &self.planned, object);
        diagnostics.extend(shown.diagnostics);
        let new_state: Option<DynamicValue> = shown.state;
        wire::Applied { new_state, private: shown.private, diagnostics }
    }

    fn told(&self, undone: Undone) -> Vec<Diagnostic> {
        match undone {
            Undone::Exists(key) => {
                let id = key.to_string();
                let id = id.split_once(' ').map_or("", |(_, id)| id);
                let detail = format!("To take it over: terraform import {}.NAME {id}", self.resource.name);
                vec![error(format!("{key} exists already"), detail)]
            }
            Undone::Changed(present) => vec![error(
                format!("{} was changed elsewhere", present.key()),
                format!(
                    "Since it was read (revision {}), somebody else wrote it (revision {}). Nothing was overwritten: plan \
                     again, to see what they did.",
                    self.private.revision, present.metadata.revision
                ),
            )],
            Undone::Gone(key) => {
                let detail = "Somebody else removed it since it was read. Plan again: it will be made anew.";
                vec![error(format!("{key} is gone"), detail)]
            }
            Undone::SecretLost(object) => vec![secret_lost(&object)],
            Undone::Failed(failed) => {
                let summary = format!("{} cannot be written", self.resource.kind);
                failure(&summary, &failed, &self.resource.fields, &self.planned)
            }
        }
    }
}

fn secret_lost(object: &Object) -> Diagnostic {
    let detail = "The connection broke while it was made, and the mesh tells a secret once. It is marked as tainted: \
                  apply again, and it is made anew.";
    error(format!("The secret of {} was lost", object.key()), detail)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn namespace(description: &str) -> Value {
        let spec = BTreeMap::from([("description".to_owned(), Value::text(description))]);
        let fields = [("name", Value::text("shop")), ("spec", Value::Object(spec))];
        Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    async fn apply(provider: &Provider, beyond: &[&str]) -> wire::Applied {
        let beyond = beyond.iter().map(|path| (*path).to_owned()).collect();
        let request = wire::Apply {
            type_name: "mesh_namespace".to_owned(),
            prior_state: namespace("a").to_wire(),
            planned_state: namespace("b").to_wire(),
            planned_private: Private { revision: 7, beyond }.to_bytes(),
        };
        provider.apply(request).await
    }

    #[tokio::test]
    async fn what_a_newer_server_wrote_is_not_written_over() {
        let applied = apply(&Provider::new(), &["spec.later"]).await;
        assert_eq!(applied.new_state, namespace("a").to_wire(), "all is as before");
        let [told] = &applied.diagnostics[..] else { panic!("{:?}", applied.diagnostics) };
        assert_eq!(told.summary, "Namespace shop says more than this provider knows");
        assert!(told.detail.contains("would lose spec.later"), "{}", told.detail);
    }

    #[tokio::test]
    async fn settings_that_come_later_are_no_fault_until_somebody_has_to_be_asked() {
        let provider = Provider::new();
        let config = Value::Object(BTreeMap::from([("address".to_owned(), Value::unknown())]));
        let configured = provider.configure(&wire::Configure { config: config.to_wire() });
        assert_eq!(configured.diagnostics, []);
        let planned = provider.plan(wire::Plan {
            type_name: "mesh_namespace".to_owned(),
            prior_state: None,
            proposed_new_state: namespace("a").to_wire(),
            prior_private: Vec::new(),
        });
        assert_eq!(planned.await.diagnostics, []);
        let applied = apply(&provider, &[]).await;
        assert_eq!(applied.diagnostics[0].summary, "There is no control plane to ask yet");
    }
}
