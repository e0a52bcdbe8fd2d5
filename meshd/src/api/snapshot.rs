//! `/v1/snapshot`: the whole state as one checked file, and the way back. It holds every hash of a secret and the sealed
//! root: for administrators only.

use std::{
    io::{self, BufWriter, Write},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use http::header;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::{
    answer,
    saved::{Head, SAVED_BYTES_MAX},
};
use registry::saved::{self, Saved};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Api, auth::Caller, error::ApiError, parameters::Parameters};
use crate::clock;

/// What travels at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader; then the writer waits.
const CHUNKS_MAX: usize = 4;
/// How long a snapshot may take to come: the largest at 1 MB/s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

answer! {
    /// What was put in force, or would be.
    #[derive(Debug)]
    pub(super) struct Restored {
        /// The cluster's history: a new one, unless it was a dry run.
        "epoch" #[serde(skip_serializing_if = "Option::is_none")] epoch: Option<Uuid> as Option<String>,
        /// The state's revision.
        "revision" revision: u64,
        /// What the snapshot says of itself.
        "snapshot" snapshot: Head,
    }
}

/// The path of snapshots.
pub fn routes() -> Router<Api> {
    let limit = axum::extract::DefaultBodyLimit::disable();
    Router::new().route("/v1/snapshot", get(save).post(restore).layer(limit))
}

/// Streams the state as it is now; what was acknowledged before this call is in it.
async fn save(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let state = api.registry.read().await?;
    let head = saved::head(&state, &api.registry.folder().cluster.to_string(), clock::wall());
    tracing::info!(target: "audit", actor = caller.actor(), revision = head.revision, "snapshot saved");
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(CHUNK_BYTES, Chunks(sender));
        // A reader that went away is no fault of ours; it sees by the checksum that the file is not whole.
        let written = saved::write(&state, &head, &mut out).and_then(|_| out.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "a snapshot was not read to its end");
        }
    });
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<Bytes, io::Error>(chunk), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"mesh.snapshot\""),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Puts a saved snapshot in force. `dryRun=true` only says what is in it.
async fn restore(
    State(api): State<Api>,
    caller: Caller,
    parameters: Parameters,
    body: Body,
) -> Result<Json<Restored>, ApiError> {
    caller.require_admin()?;
    let dry_run = parameters.only(&["dryRun"])?.flag("dryRun")?;
    let busy = |_| ApiError::TooMany("this server is restoring a snapshot already".to_owned());
    let _permit = api.restoring.clone().try_acquire_owned().map_err(busy)?;
    let bytes = read(body).await?;
    let decoded = tokio::task::spawn_blocking(move || registry::raft::read_saved(&bytes)).await;
    let decoded = decoded.map_err(|error| ApiError::Internal(format!("reading a snapshot: {error}")))?;
    let Saved { head, state } =
        decoded.map_err(|damaged| ApiError::Malformed(format!("the snapshot cannot be used: {damaged}")))?;
    if dry_run {
        let now = api.registry.applied();
        return Ok(Json(Restored { epoch: now.epoch(), revision: now.revision(), snapshot: head }));
    }
    let restored = api.registry.restore(&state, caller.actor(), Uuid::new_v4()).await?;
    let epoch = restored.epoch();
    tracing::warn!(target: "audit", actor = caller.actor(), revision = head.revision, ?epoch, "snapshot restored");
    Ok(Json(Restored { epoch, revision: restored.revision(), snapshot: head }))
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(UPLOAD_TIMEOUT, Limited::new(body, SAVED_BYTES_MAX).collect()).await {
        Err(_) => {
            let limit = UPLOAD_TIMEOUT.as_secs();
            Err(ApiError::TooSlow(format!("the snapshot did not come within {limit} s")))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(format!(
            "the snapshot has more than {SAVED_BYTES_MAX} bytes, the most that can be restored"
        ))),
        Ok(Err(error)) => Err(ApiError::Malformed(format!("the snapshot broke off: {error}"))),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// What is written becomes chunks of an answer.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Bytes::copy_from_slice(bytes)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
