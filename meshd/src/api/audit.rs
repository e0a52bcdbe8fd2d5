//! `GET /v1/audit`: who changed what and when, as this member's own record of the log has it.

use std::time::Duration;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{Api, auth::Caller, error::ApiError, parameters::Parameters};

/// As many lines as one answer has.
const AUDIT_LINES_MAX: u64 = 1_000;
/// How long an answer waits for the lines of what was applied before.
const WRITTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines after the entry `from` of the log (0: from the start), oldest first; `continue` is the next `from`, empty at the
/// end. Needs admin: the audit tells of tokens and roles.
pub(super) async fn audit(
    State(api): State<Api>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let parameters = parameters.only(&["from", "limit"])?;
    let from = parameters.number("from", 0, u64::MAX)?.unwrap_or(0);
    let limit = parameters.number("limit", 1, AUDIT_LINES_MAX)?.unwrap_or(AUDIT_LINES_MAX);
    // Late is no failure: on a full disk the newest lines are not there yet.
    let _ = tokio::time::timeout(WRITTEN_TIMEOUT, api.registry.audit_written()).await;
    let folder = api.audit.clone();
    let read = tokio::task::spawn_blocking(move || registry::audit::read(&folder, from)).await;
    let read = read.map_err(|error| ApiError::Internal(format!("reading the audit: {error}")))?;
    let records = read.map_err(|error| ApiError::Internal(format!("reading the audit: {error}")))?;
    // The lines of one entry stay together, so that `from` can name its end.
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let last = records.get(limit.saturating_sub(1)).map(|record| record.index);
    let items: Vec<_> =
        records.iter().take_while(|record| last.is_none_or(|last| record.index <= last)).collect();
    let more = items.len() < records.len();
    let next = items.last().filter(|_| more).map_or_else(String::new, |record| record.index.to_string());
    let revision = api.registry.applied().revision();
    Ok(Json(json!({"items": items, "metadata": {"revision": revision, "continue": next}})))
}
