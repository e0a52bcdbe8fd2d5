//! Whose data folder this is: `member.json`. Counts its starts, so that the cluster can tell a folder from an older copy
//! of it. Written before anything else happens at a start.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{clock, command::MemberId, file, raft::OpenError};

/// `member.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// The member.
    pub id: MemberId,
    /// Its cluster.
    pub cluster: Uuid,
    /// Drawn when the folder was made.
    pub incarnation: Uuid,
    /// How often it was started, this time among them.
    pub boot: u64,
}

impl Folder {
    /// What a folder says; `None` if nothing was started in it yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = data_dir.join("member.json");
        let at = |source| OpenError::Folder { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| at(io::Error::other(error)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(error)),
        }
    }

    /// Says whose a fresh folder is, before it is first started: a server that asks to join sends this incarnation, and
    /// learns its id from the answer.
    ///
    /// # Errors
    /// It cannot be written, or is in use already.
    pub fn prepare(data_dir: &Path, id: MemberId, cluster: Uuid, incarnation: Uuid) -> Result<(), OpenError> {
        file::folder(data_dir)
            .map_err(|source| OpenError::Folder { path: data_dir.to_path_buf(), source })?;
        if let Some(present) = Self::read(data_dir)? {
            return present.must_be(data_dir, id, cluster);
        }
        Self { id, cluster, incarnation, boot: 0 }.write(data_dir)
    }

    /// Counts one more start. Blocks on the disk.
    pub(crate) fn start(data_dir: &Path, id: MemberId, cluster: Uuid) -> Result<Self, OpenError> {
        file::folder(data_dir)
            .map_err(|source| OpenError::Folder { path: data_dir.to_path_buf(), source })?;
        let present = Self::read(data_dir)?.unwrap_or_else(|| Self {
            id,
            cluster,
            incarnation: clock::unique(),
            boot: 0,
        });
        present.must_be(data_dir, id, cluster)?;
        let started = Self { boot: present.boot + 1, ..present };
        started.write(data_dir)?;
        Ok(started)
    }

    fn must_be(&self, data_dir: &Path, id: MemberId, cluster: Uuid) -> Result<(), OpenError> {
        if (self.id, self.cluster) == (id, cluster) {
            return Ok(());
        }
        let path = data_dir.join("member.json");
        let holds = format!("member {} of cluster {}", self.id, self.cluster);
        Err(OpenError::OtherMember { path, holds, asked: format!("member {id} of cluster {cluster}") })
    }

    fn write(&self, data_dir: &Path) -> Result<(), OpenError> {
        let path = data_dir.join("member.json");
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        file::replace(&path, &bytes).map_err(|source| OpenError::Folder { path, source })
    }
}
