//! `GET /v1/snapshot`: the whole state as one checked file, as members send it to each other. It holds every hash of a
//! secret and the sealed root: for administrators only.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;

use super::{Api, auth::Caller, error::ApiError};

/// The path of snapshots.
pub fn routes() -> Router<Api> {
    Router::new().route("/v1/snapshot", get(save))
}

async fn save(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    caller.require_admin()?;
    // What was acknowledged before this call is in it.
    api.registry.read().await?;
    let bytes = api.registry.snapshot().await.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    tracing::info!(target: "audit", actor = caller.actor(), bytes = bytes.len(), "snapshot saved");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"mesh.snapshot\""),
    ];
    Ok((headers, bytes).into_response())
}
