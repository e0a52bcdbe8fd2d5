//! Reads the state from the data folder of a member that does not run, for when the others are lost. It changes nothing
//! that matters: the log is opened as at any start, but no start is counted and nobody is told.

use std::{path::Path, sync::Arc};

use openraft::{EntryPayload, storage::RaftLogStorage};

use super::{OpenError, Types, index, log::Log, open, snapshot::Snapshots};
use crate::{
    folder::Folder,
    state::{HISTORY_REVISIONS_MAX, State},
    wal::{self, Wal},
};

/// Entries that are read from the log at once.
const STEP: u64 = 256;

/// A state that was read from a folder.
#[derive(Debug)]
pub struct Exported {
    /// Whose folder it is.
    pub folder: Folder,
    /// Its state, with every entry that its log holds: also those of which it did not know yet whether a majority has
    /// them. What was acknowledged and had come here is among them.
    pub state: State,
    /// How many of those there are.
    pub unconfirmed_entries: u64,
}

/// Reads a folder. Blocks on the disk at its start.
///
/// # Errors
/// The folder is in use, holds no member, or is damaged beyond what can be made good.
pub async fn export(data_dir: &Path) -> Result<Exported, OpenError> {
    let folder = Folder::read(data_dir)?.ok_or_else(|| OpenError::Folder {
        path: data_dir.join("member.json"),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let engine = |error: &dyn std::fmt::Display| OpenError::Engine(error.to_string());
    let identity = wal::Identity { cluster: folder.cluster, node: folder.id };
    let (wal, _) = Wal::open(&data_dir.join("wal"), identity, wal::Options::default())?;
    let mut log = Log::<Types>::new(Arc::new(wal)).await.map_err(|error| engine(&error))?;
    let path = data_dir.join("snapshots");
    let snapshots = Snapshots::open(path.clone(), HISTORY_REVISIONS_MAX)
        .map_err(|source| OpenError::Folder { path, source })?;
    let store = index::open(&data_dir.join("index"));
    let indexed = store.as_ref().and_then(|store| index::load(&**store, HISTORY_REVISIONS_MAX));
    let (applied, _) = open::choose(HISTORY_REVISIONS_MAX, indexed, &snapshots, &mut log).await?;
    let (mut state, from) = ((*applied.state).clone(), applied.log_id.map_or(0, |id| id.index + 1));
    let committed = log.read_committed().await.map_err(|error| engine(&error))?.map_or(0, |id| id.index + 1);
    let end = replay(&mut log, &mut state, from).await?;
    Ok(Exported { folder, state, unconfirmed_entries: end.saturating_sub(committed.max(from)) })
}

/// Applies all entries from one on; answers the index after the last.
async fn replay(log: &mut Log<Types>, state: &mut State, from: u64) -> Result<u64, OpenError> {
    use openraft::storage::RaftLogReader;
    let engine = |error: std::io::Error| OpenError::Engine(error.to_string());
    let last = log.get_log_state().await.map_err(engine)?.last_log_id;
    let end = last.map_or(0, |last| last.index + 1);
    let mut next = from;
    while next < end {
        let entries = log.limited_get_log_entries(next, end.min(next + STEP)).await.map_err(engine)?;
        let Some(newest) = entries.last().map(|entry| entry.log_id.index) else { break };
        for entry in entries {
            if let EntryPayload::Normal(payload) = entry.payload {
                state.apply(payload.into_entry().map_err(engine)?);
            }
        }
        next = newest + 1;
    }
    Ok(end)
}
