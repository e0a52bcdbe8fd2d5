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

/// The file: version 0.1.0 wrote it without a checksum.
#[derive(Serialize, Deserialize)]
struct Checked {
    #[serde(flatten)]
    folder: Folder,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc: Option<String>,
}

fn parse(bytes: &[u8]) -> Result<Folder, String> {
    let Checked { folder, crc } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match crc {
        Some(crc) if crc != folder.crc() => Err("its checksum does not fit".to_owned()),
        _ => Ok(folder),
    }
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
            Ok(bytes) => parse(&bytes).map(Some).map_err(|reason| OpenError::Identity { path, reason }),
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

    /// Of its fields: a number that turned into another one must not pass.
    fn crc(&self) -> String {
        let text = format!("{} {} {} {}", self.id, self.cluster, self.incarnation, self.boot);
        format!("{:08x}", crc32fast::hash(text.as_bytes()))
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
        let checked = Checked { folder: *self, crc: Some(self.crc()) };
        let bytes = serde_json::to_vec_pretty(&checked).unwrap_or_default();
        file::replace(&path, &bytes).map_err(|source| OpenError::Folder { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_passes_and_the_file_of_0_1_0_does() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("member.json");
        let (cluster, incarnation) = (Uuid::from_u128(7), Uuid::from_u128(8));
        Folder::prepare(place.path(), 3, cluster, incarnation).expect("written");
        let sound = fs::read(&path).expect("readable");
        let folder = Folder { id: 3, cluster, incarnation, boot: 0 };
        assert_eq!(Folder::read(place.path()).expect("sound"), Some(folder));
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).expect("writable");
            match Folder::read(place.path()) {
                // White space may turn into other white space, and an upper-case digit means the same.
                Ok(read) => assert_eq!(read, Some(folder), "bit {bit}"),
                Err(error) => assert!(error.to_string().contains("member.json"), "{error}"),
            }
        }
        fs::write(&path, serde_json::to_vec(&folder).expect("plain fields")).expect("writable");
        assert_eq!(Folder::read(place.path()).expect("readable"), Some(folder));
    }
}
