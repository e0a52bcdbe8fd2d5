//! Brings a snapshot back by the log: its pieces one after the other, then the entry that puts it in force. What that
//! means is the state's matter (`state::restore`).

use std::{collections::BTreeMap, sync::Arc};

use model::saved::{Damaged, OLD_MAGIC};
use openraft::BasicNode;
use uuid::Uuid;

use super::{ProposeError, ReadError, Registry, snapshot};
use crate::{
    clock,
    command::{Admission, Command, Founder, Refusal, Reply, RestoreCommit, RestoreStep},
    saved::{self, Saved},
    state::{HISTORY_REVISIONS_MAX, State},
};

/// How often it is looked whether a commit whose leader was lost was done.
const LOOKS: usize = 3;

/// A restore did not come about.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// The log did not take a step.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The state refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Whether it was done cannot be seen.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reads the file of a saved snapshot, also one that version 0.1.0 saved. Costs as much as the state is large.
///
/// # Errors
/// Anything about it is wrong.
pub fn read_saved(bytes: &[u8]) -> Result<Saved, Damaged> {
    if !bytes.starts_with(OLD_MAGIC) {
        return saved::read(bytes, HISTORY_REVISIONS_MAX);
    }
    let state = snapshot::inspect(bytes).map_err(Damaged::Content)?;
    state.check().map_err(|broken| Damaged::Content(broken.to_string()))?;
    let head = saved::head(&state, "", state.time());
    Ok(Saved { head, state })
}

impl Registry {
    /// Puts a saved state in force on all members, under another epoch; answers the state with it. Where this fails
    /// nothing has changed, unless [`ProposeError::Unknown`] says that this is not known.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn restore(
        &self,
        saved: &State,
        actor: String,
        epoch: Uuid,
    ) -> Result<Arc<State>, RestoreError> {
        let commit = self.stage(saved, actor, epoch, None).await?;
        let id = commit.id;
        let step = Command::Restore(RestoreStep::Commit(Box::new(commit)));
        let done = match self.propose(step).await {
            Ok(Reply::Refused(refusal)) => Err(refusal.into()),
            Ok(_) => return Ok(self.read().await?),
            Err(ProposeError::Unknown) => return self.look_for(epoch).await,
            Err(error) => Err(error.into()),
        };
        // What is left aside is dropped by the next restore, too.
        let _ = self.propose(Command::Restore(RestoreStep::Discard { id })).await;
        done
    }

    /// Founds a cluster of this one member that begins with a saved state; `then` is done in the same entry.
    ///
    /// # Errors
    /// It is of a cluster already, or the snapshot cannot be its beginning.
    pub async fn found_from(
        &self,
        saved: &State,
        epoch: Uuid,
        then: Vec<Command>,
    ) -> Result<(), RestoreError> {
        let node = BasicNode::new(self.core.settings.addresses.raft.clone());
        let first = BTreeMap::from([(self.core.id(), node)]);
        let stopped = |error: &dyn std::fmt::Display| ProposeError::Stopped(error.to_string());
        self.core.raft.initialize(first).await.map_err(|error| stopped(&error))?;
        let (addresses, incarnation) = (self.core.settings.addresses.clone(), self.core.folder.incarnation);
        let founder = Founder { id: self.core.id(), admission: Admission { addresses, incarnation } };
        let commit = self.stage(saved, "meshd init".to_owned(), epoch, Some(founder)).await?;
        let mut commands = vec![Command::Restore(RestoreStep::Commit(Box::new(commit)))];
        commands.extend(then);
        match self.propose(Command::Batch(commands)).await? {
            Reply::Batch(replies) => {
                let refused = replies.into_iter().find_map(|reply| match reply {
                    Reply::Refused(refusal) => Some(refusal),
                    _ => None,
                });
                refused.map_or(Ok(()), |refusal| Err(refusal.into()))
            }
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// Keeps all pieces aside; answers the step that is left.
    async fn stage(
        &self,
        saved: &State,
        actor: String,
        epoch: Uuid,
        founder: Option<Founder>,
    ) -> Result<RestoreCommit, RestoreError> {
        let (id, mut parts) = (clock::unique(), 0);
        for bytes in saved::pieces(saved) {
            let stage = RestoreStep::Stage { id, part: parts, bytes };
            if let Reply::Refused(refusal) = self.propose(Command::Restore(stage)).await? {
                return Err(refusal.into());
            }
            parts += 1;
        }
        let sum = saved.to_save().sum();
        Ok(RestoreCommit { id, actor, parts, sum, epoch, founder })
    }

    /// Whether the epoch has begun after all.
    async fn look_for(&self, epoch: Uuid) -> Result<Arc<State>, RestoreError> {
        for _ in 0..LOOKS {
            let state = self.read().await?;
            if state.epoch() == Some(epoch) {
                return Ok(state);
            }
        }
        Err(ProposeError::Unknown.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::furnished;

    #[test]
    fn what_version_0_1_0_saved_is_read() {
        let state = furnished();
        let mut bytes = snapshot::tests::of(&state);
        let Saved { head, state: read } = read_saved(&bytes).expect("it is sound");
        assert_eq!((head.revision, read.hash()), (state.revision(), state.hash()));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(read_saved(&bytes).is_err());
        assert_eq!(read_saved(b"kind: Service").map(drop).expect_err("no snapshot"), Damaged::Magic);
    }
}
