//! `POST /v1/apply`: many objects at once, all or nothing, in one revision.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use model::manifest;
use registry::Outcome;
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    body::Text,
    conditions::Precondition,
    error::ApiError,
    rollout::{self, Waits},
    write::{self, Done, Draft},
};

/// What a manifest may be called.
const MANIFEST_TYPES: &[&str] =
    &["application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

/// Applies a manifest: `{"items":[…]}`, one object, a list, or YAML with any number of documents.
pub(super) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    waits: Waits,
    text: Text,
) -> Result<Response, ApiError> {
    let (dry_run, wait) = waits.of(&api)?;
    let text = text.of(MANIFEST_TYPES)?;
    if text.media_type.as_deref() == Some("application/json") {
        // YAML's parser would have its own say about what is wrong.
        text.json()?;
    }
    let parsed = manifest::parse(&text.text)?;
    parsed.iter().try_for_each(|parsed| write::bounded(&parsed.object))?;
    let drafts: Vec<_> =
        parsed.into_iter().map(|parsed| Draft { parsed, precondition: Precondition::None }).collect();
    let done = write::put(&api, &caller, &drafts, dry_run).await?;
    let revision = done.iter().map(|done| done.object.metadata.revision).max();
    let revision = revision.unwrap_or_else(|| api.registry.applied().revision());
    let results: Vec<_> = done.iter().map(result).collect();
    let items: Vec<_> = done.into_iter().map(|done| done.object).collect();
    let mut answer = json!({"items": items, "results": results, "metadata": {"revision": revision}});
    let Some(wait) = wait else { return Ok(axum::Json(answer).into_response()) };
    let (reached, rollout) = wait.for_proxies(&api, &waits.ticket, revision).await;
    answer["status"] = json!({"rollout": rollout});
    Ok((rollout::status(false, reached), axum::Json(answer)).into_response())
}

fn result(done: &Done) -> Value {
    let metadata = &done.object.metadata;
    let outcome = match done.outcome {
        Outcome::Created => "created",
        Outcome::Replaced => "configured",
        Outcome::Unchanged => "unchanged",
        Outcome::Deleted => "deleted",
    };
    let mut result = json!({"kind": done.object.kind, "name": metadata.name, "outcome": outcome});
    if let Some(namespace) = &metadata.namespace {
        result["namespace"] = json!(namespace);
    }
    result
}
