//! `POST /v1/rollback`: operators' objects as they stood at an earlier revision, in one write. What is to be written is
//! `crate::rollback`'s matter; here it is admitted as any write is, and tried anew where others wrote meanwhile.

use axum::{Json as Answer, extract::State as Shared};
use model::{
    invalid::{FIELD_ERRORS_MAX, FieldError, Invalid},
    object::Parsed,
    resource::Verb,
};
use registry::{Command, Entry, Refusal, Reply, State, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, auth::Caller, body::Dto, conditions::Precondition, error::ApiError, parameters::Parameters,
    write::ATTEMPTS_MAX,
};
use crate::{
    admit::{self, NotAdmitted},
    clock,
    rollback::{Step, plan},
};

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The revision whose objects shall stand again.
    revision: u64,
}

/// Rolls back. `If-Match: "<revision>"` holds the state to a revision; `dryRun=true` only says what would change.
pub(super) async fn rollback(
    Shared(api): Shared<Api>,
    caller: Caller,
    parameters: Parameters,
    precondition: Precondition,
    Dto(wanted): Dto<Wanted>,
) -> Result<Answer<Value>, ApiError> {
    let dry_run = parameters.only(&["dryRun"])?.flag("dryRun")?;
    for _ in 0..ATTEMPTS_MAX {
        let state = api.registry.read().await?;
        must_stand_at(&state, precondition)?;
        let steps = wanted.steps(&state)?;
        judge(&state, &caller, &steps)?;
        if dry_run || steps.is_empty() {
            return Ok(Answer(answer(&wanted, state.revision(), &steps)));
        }
        let changes = steps.iter().map(Step::change).collect();
        match api.registry.propose(Command::Write(Write { actor: wanted.actor(&caller), changes })).await? {
            Reply::Written(written) => {
                let revision = written.iter().map(|one| one.object.metadata.revision).max();
                let revision = api.at_least(revision.unwrap_or(0)).await.revision();
                return Ok(Answer(answer(&wanted, revision, &steps)));
            }
            // Somebody wrote between our look and our write, and must not lose that: look again.
            Reply::Refused(
                Refusal::RevisionMismatch { .. } | Refusal::Exists { .. } | Refusal::NotFound { .. },
            ) => {}
            Reply::Refused(refusal) => return Err(refusal.into()),
            other => return Err(ApiError::Internal(format!("a rollback was answered with: {other}"))),
        }
    }
    Err(ApiError::Conflict("the objects keep changing; try again".to_owned()))
}

impl Wanted {
    fn steps(&self, state: &State) -> Result<Vec<Step>, ApiError> {
        let (wanted, present) = (self.revision, state.revision());
        if wanted > present {
            let message = format_args!("must be a revision that was; the present one is {present}");
            return Err(ApiError::invalid("revision", message));
        }
        plan(state, wanted).map_err(|compacted| {
            let oldest = compacted.oldest;
            ApiError::Gone(format!(
                "revision {wanted} is no longer kept; the oldest to go back to is {oldest}"
            ))
        })
    }

    /// Who did it, with what was asked: the audit names both.
    fn actor(&self, caller: &Caller) -> String {
        format!("{} (rollback to revision {})", caller.actor(), self.revision)
    }
}

fn must_stand_at(state: &State, precondition: Precondition) -> Result<(), ApiError> {
    match precondition {
        Precondition::None | Precondition::Exists => Ok(()),
        Precondition::Revision(expected) if expected == state.revision() => Ok(()),
        Precondition::Revision(expected) => {
            let present = state.revision();
            Err(ApiError::Precondition(format!("the state is at revision {present}, not {expected}")))
        }
        Precondition::Absent => {
            Err(ApiError::Malformed("If-None-Match says nothing about a rollback".to_owned()))
        }
    }
}

/// Whether the caller may, and what stood then is still right: all that is wrong with it, object by object.
fn judge(state: &State, caller: &Caller, steps: &[Step]) -> Result<(), ApiError> {
    for Step { key, then, .. } in steps {
        let verb = if then.is_some() { Verb::Write } else { Verb::Delete };
        caller.require(verb, key.kind, key.namespace.as_ref())?;
    }
    let (mut rehearsal, mut errors) = (state.clone(), Vec::new());
    for step in steps {
        if let Err(error) = rehearse(&mut rehearsal, caller, step) {
            let ApiError::Invalid(invalid) = error else { return Err(error) };
            errors.extend(invalid.below(step.key.to_string()).errors);
        }
    }
    errors.truncate(FIELD_ERRORS_MAX);
    if errors.is_empty() { Ok(()) } else { Err(Invalid { errors }.into()) }
}

fn rehearse(rehearsal: &mut State, caller: &Caller, step: &Step) -> Result<(), ApiError> {
    if let Some(then) = &step.then {
        let value = serde_json::to_value(&**then).map_err(|error| ApiError::Internal(error.to_string()))?;
        let parsed = Parsed::from_input(&value, Some(step.key.kind))?;
        match admit::admit(rehearsal, &caller.rights(), &parsed) {
            Err(NotAdmitted::Conflict(text)) => return Err(fault(text)),
            other => other?,
        }
    }
    let command = Command::Write(Write { actor: caller.actor(), changes: vec![step.change()] });
    match rehearsal.apply(Entry { at: clock::wall(), command }) {
        Reply::Refused(refusal) => Err(fault(refusal.to_string())),
        _ => Ok(()),
    }
}

fn fault(message: String) -> ApiError {
    Invalid { errors: vec![FieldError { path: String::new(), message }] }.into()
}

fn answer(wanted: &Wanted, revision: u64, steps: &[Step]) -> Value {
    let change = |step: &Step| {
        let Step { key, .. } = step;
        json!({"kind": key.kind, "namespace": key.namespace, "name": key.name, "change": step.outcome()})
    };
    let changes: Vec<_> = steps.iter().map(change).collect();
    json!({"target": wanted.revision, "revision": revision, "changes": changes})
}
