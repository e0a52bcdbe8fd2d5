//! The last good configuration on disk: with it a proxy starts and serves although no control plane answers. Written
//! beside the work, never waited for.

use std::path::{Path, PathBuf};

use super::held::Held;
use crate::disk::{self, DiskError};

/// Its file in `data_dir`.
const FILE: &str = "snapshot.json";

/// The file.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
}

/// Why the file was of no use.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not what we wrote.
    #[error("{path} is damaged ({problem}): the configuration comes anew from the control plane")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Cache {
    /// The file of a data folder.
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// What was held when it was last written; `None` if there is no file.
    ///
    /// # Errors
    /// If there is one, and it is of no use.
    pub fn load(&self) -> Result<Option<Held>, CacheError> {
        let text = disk::read(&self.path)?;
        let damaged = |error: serde_json::Error| CacheError::Damaged {
            path: self.path.clone(),
            problem: error.to_string(),
        };
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(damaged)
    }

    /// Writes what is held.
    ///
    /// # Errors
    /// If it cannot be written; the file is then as before.
    pub fn store(&self, held: &Held) -> Result<(), DiskError> {
        disk::write(&self.path, &serde_json::to_vec(held).expect("texts, numbers and lists"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::of(folder.path());
        assert!(cache.load().expect("no file is no error").is_none());
        cache.store(&Held { revision: 9, ..Held::default() }).expect("written");
        assert_eq!(cache.load().expect("read").expect("there").revision, 9);
        std::fs::write(folder.path().join(FILE), "{\"rev").expect("written");
        let error = cache.load().expect_err("damaged").to_string();
        assert!(error.contains("snapshot.json is damaged"), "{error}");
    }
}
