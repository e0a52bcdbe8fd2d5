//! Objects of every kind: one at a time, and lists.

use axum::{
    Extension,
    extract::{FromRequestParts, RawPathParams, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, header, request::Parts};
use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object, Parsed},
    resource::Verb,
    rollout::Rollout,
};
use serde_json::{Value, json};

use super::{
    Api, MESH_REVISION,
    auth::Caller,
    body::Text,
    conditions::Precondition,
    error::{self, ApiError},
    gate::Ticket,
    long_poll, merge,
    page::{self, Continue, PAGE_OBJECTS_MAX, Scope},
    parameters::{FRESHNESS, Parameters},
    rollout::{self, Wait, Waits},
    write::{self, ATTEMPTS_MAX, Draft},
};
use crate::admit::ENDPOINTS_ARE_REGISTERED;

/// What a PATCH may be called.
const PATCH_TYPES: &[&str] = &["application/merge-patch+json", "application/json"];

/// Names in the path.
pub(super) struct Target {
    namespace: Option<Name>,
    name: Option<Name>,
}

/// `GET /v1/{kinds}/{name}`.
pub(super) async fn get(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    target: Target,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let key = target.key(kind)?;
    caller.require(Verb::Get, kind, key.namespace.as_ref())?;
    let freshness = parameters.only(FRESHNESS)?.freshness()?;
    let state = api.registry.read_as(freshness).await?;
    let answered = match state.get(&key) {
        Some(object) => answer(api.show(&state, object)),
        None => missing(&key).into_response(),
    };
    Ok((of_revision(&state), answered).into_response())
}

/// `GET /v1/{kinds}`, `GET /v1/namespaces/{ns}/{kinds}`.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    Extension(ticket): Extension<Ticket>,
    target: Target,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let scope = scope(kind, target.namespace, &parameters)?;
    caller.require(Verb::List, kind, scope.namespace.as_ref())?;
    if long_poll::is_asked(&parameters) {
        return long_poll::list(api, ticket, caller, scope, parameters).await;
    }
    let known = [&["namespace", "labelSelector", "limit", "continue"][..], FRESHNESS].concat();
    let parameters = parameters.only(&known)?;
    let freshness = parameters.freshness()?;
    let limit = parameters.number("limit", 1, PAGE_OBJECTS_MAX as u64)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_OBJECTS_MAX);
    let place = parameters.parsed::<Continue>("continue")?;
    let state = api.registry.read_as(freshness).await?;
    let (revision, after) =
        place.map_or((state.revision(), None), |place| (place.revision, Some(place.after)));
    if revision > state.revision() {
        return Err(ApiError::Gone("`continue` is of another history; start again without it".to_owned()));
    }
    if freshness.min_revision.is_some_and(|least| least > revision) {
        return Err(ApiError::invalid("minRevision", format_args!("`continue` is of revision {revision}")));
    }
    let page = page::page(&state, &scope, revision, after.as_ref(), limit)?;
    Ok((of_revision(&state), api.show_page(&state, page)).into_response())
}

/// `PUT /v1/{kinds}/{name}`.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    target: Target,
    caller: Caller,
    waits: Waits,
    precondition: Precondition,
    text: Text,
) -> Result<Response, ApiError> {
    let key = target.key(kind)?;
    caller.require(Verb::Write, kind, key.namespace.as_ref())?;
    let (dry_run, wait) = waits.of(&api)?;
    let text = text.of(&["application/json"])?;
    write::of_bounded_length(&key, text.text.len())?;
    let draft = Draft { parsed: parse(&key, text.json()?)?, precondition };
    let done = write::put(&api, &caller, &[draft], dry_run).await?;
    written(&api, &waits.ticket, wait, done).await
}

/// `PATCH /v1/{kinds}/{name}`: a merge patch on what the user wrote. Nobody else's write gets lost: the patch is applied
/// to one revision, and anew where that was overtaken.
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    target: Target,
    caller: Caller,
    waits: Waits,
    precondition: Precondition,
    text: Text,
) -> Result<Response, ApiError> {
    let key = target.key(kind)?;
    caller.require(Verb::Write, kind, key.namespace.as_ref())?;
    let (dry_run, wait) = waits.of(&api)?;
    let patch = text.of(PATCH_TYPES)?.json()?;
    if precondition == Precondition::Absent {
        return Err(ApiError::Precondition(format!("only what exists can be patched: {key}")));
    }
    for _ in 0..ATTEMPTS_MAX {
        let state = api.registry.read().await?;
        let present = state.get(&key).ok_or_else(|| missing(&key))?;
        let revision = present.metadata.revision;
        let parsed = parse(&key, patched(present, patch.clone()))?;
        write::bounded(&parsed.object)?;
        let given = matches!(precondition, Precondition::Revision(_));
        let draft = Draft {
            parsed,
            precondition: if given { precondition } else { Precondition::Revision(revision) },
        };
        match write::put(&api, &caller, &[draft], dry_run).await {
            Err(ApiError::Precondition(_)) if !given => {}
            other => return written(&api, &waits.ticket, wait, other?).await,
        }
    }
    Err(ApiError::Conflict(format!("{key} keeps changing; try again")))
}

/// `DELETE /v1/{kinds}/{name}`: answers the object as it was.
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    target: Target,
    caller: Caller,
    waits: Waits,
    precondition: Precondition,
) -> Result<Response, ApiError> {
    let key = target.key(kind)?;
    caller.require(Verb::Delete, kind, key.namespace.as_ref())?;
    let (dry_run, wait) = waits.of(&api)?;
    let mut object = write::delete(&api, &caller, key.clone(), precondition, dry_run).await?;
    let Some(wait) = wait else { return Ok(axum::Json(object).into_response()) };
    let revision = write::deleted_at(&api, &key, object.metadata.revision).await?;
    let (reached, rollout) = wait.for_proxies(&api, &waits.ticket, revision).await;
    show(&mut object, &rollout);
    Ok((rollout::status(false, reached), axum::Json(object)).into_response())
}

/// What is answered to writes of endpoints.
pub(super) async fn endpoints_are_registered() -> ApiError {
    ApiError::Method { allow: "GET,HEAD", detail: ENDPOINTS_ARE_REGISTERED.to_owned() }
}

fn scope(kind: Kind, in_path: Option<Name>, parameters: &Parameters) -> Result<Scope, ApiError> {
    let in_query = parameters.parsed::<Name>("namespace")?;
    if in_query.is_some() && !kind.namespaced() {
        return Err(ApiError::invalid(
            "namespace",
            format_args!("{kind} is mesh-wide: it lives in no namespace"),
        ));
    }
    let namespace = match (in_path, in_query) {
        (Some(path), Some(query)) if path != query => {
            return Err(ApiError::invalid(
                "namespace",
                format_args!("must be {path}, as in the path; is {query}"),
            ));
        }
        (path, query) => path.or(query),
    };
    Ok(Scope { kind, namespace, labels: parameters.parsed("labelSelector")?.unwrap_or_default() })
}

/// What was sent, as the object that the path names. Names may be left out; those that differ are wrong.
fn parse(key: &Key, mut body: Value) -> Result<Parsed, ApiError> {
    let mut errors = Vec::new();
    if let Some(fields) = body.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            let namespace = key.namespace.as_ref().map(Name::as_str);
            for (field, in_path) in [("name", Some(key.name.as_str())), ("namespace", namespace)] {
                let Some(in_path) = in_path else { continue };
                let in_body = metadata.entry(field).or_insert_with(|| json!(in_path));
                if in_body.as_str().is_some_and(|in_body| in_body != in_path) {
                    let message = format!("must be {in_path}, as in the path; is {in_body}");
                    errors.push(model::invalid::FieldError { path: format!("metadata.{field}"), message });
                }
            }
        }
    }
    let parsed = Parsed::from_input(&body, Some(key.kind));
    let invalid = parsed.as_ref().err().map(|invalid| invalid.errors.clone()).unwrap_or_default();
    errors.extend(invalid);
    errors.truncate(model::invalid::FIELD_ERRORS_MAX);
    match parsed {
        Ok(parsed) if errors.is_empty() => Ok(parsed),
        _ => Err(model::invalid::Invalid { errors }.into()),
    }
}

/// The part of an object that users write, with a patch applied.
fn patched(object: &Object, patch: Value) -> Value {
    let metadata = &object.metadata;
    let mut written = json!({
        "kind": object.kind,
        "metadata": {"name": metadata.name, "labels": metadata.labels, "annotations": metadata.annotations},
        "spec": object.spec,
    });
    if let Some(namespace) = &metadata.namespace {
        written["metadata"]["namespace"] = json!(namespace);
    }
    merge::merge(&mut written, patch);
    written
}

async fn written(
    api: &Api,
    ticket: &Ticket,
    wait: Option<Wait>,
    done: Vec<write::Done>,
) -> Result<Response, ApiError> {
    let Some(mut done) = done.into_iter().next() else {
        return Err(ApiError::Internal("a write without an answer".to_owned()));
    };
    let created = done.outcome == registry::Outcome::Created;
    let Some(wait) = wait else {
        return Ok((error::written(created), answer(done.object)).into_response());
    };
    let (reached, rollout) = wait.for_proxies(api, ticket, done.object.metadata.revision).await;
    show(&mut done.object, &rollout);
    Ok((rollout::status(created, reached), answer(done.object)).into_response())
}

/// How far a write has come stands in its object's status, in this answer alone.
fn show(object: &mut Object, rollout: &Rollout) {
    object.status.get_or_insert_with(|| json!({}))["rollout"] = json!(rollout);
}

/// An object with its ETag.
fn answer(object: Object) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", object.metadata.revision));
    let tag = tag.expect("digits and quotes are visible ASCII");
    ([(header::ETAG, tag)], axum::Json(object)).into_response()
}

/// The revision of the state that was read: this server may have applied more when it answers.
fn of_revision(state: &registry::State) -> [(HeaderName, HeaderValue); 1] {
    [(HeaderName::from_static(MESH_REVISION), HeaderValue::from(state.revision()))]
}

fn missing(key: &Key) -> ApiError {
    ApiError::NotFound(format!("{key} does not exist"))
}

impl Target {
    fn key(self, kind: Kind) -> Result<Key, ApiError> {
        match (self.name, self.namespace) {
            (Some(name), namespace) => Ok(Key { kind, namespace, name }),
            (None, _) => Err(ApiError::Internal("a route without a name".to_owned())),
        }
    }
}

/// A name that no object can have is not found, unless it is to be written: then it is wrong.
impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let writes = matches!(parts.method, Method::PUT | Method::PATCH);
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params =
            params.map_err(|error| ApiError::Malformed(format!("the path cannot be read: {error}")))?;
        let mut target = Self { namespace: None, name: None };
        for (param, text) in &params {
            let name = text.parse::<Name>().map_err(|error| {
                if writes {
                    ApiError::invalid(format_args!("metadata.{param}"), error)
                } else {
                    ApiError::NotFound(error.to_string())
                }
            })?;
            match param {
                "namespace" => target.namespace = Some(name),
                _ => target.name = Some(name),
            }
        }
        Ok(target)
    }
}
