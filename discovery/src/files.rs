//! Files that a DiscoverySource names: read by the server, for whoever may write one. What the server keeps for itself is
//! not read, whatever links lead there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::io::AsyncReadExt;

/// What a server does not read for a DiscoverySource.
#[derive(Debug, Clone, Default)]
pub struct Files {
    forbidden: Arc<Vec<PathBuf>>,
}

/// Why a file is not read. Nothing of it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be had.
    #[error("{path}: {cause}")]
    Read {
        /// As the spec names it.
        path: String,
        /// In the system's words.
        cause: String,
    },
    /// The server keeps it for itself.
    #[error("{0}: is the server's own, and not read for a DiscoverySource")]
    Own(String),
    /// A folder, a device.
    #[error("{0}: is no regular file")]
    Kind(String),
    /// Larger than such a file may be.
    #[error("{path}: has more than {limit} bytes")]
    TooLarge {
        /// As the spec names it.
        path: String,
        /// How many it may have.
        limit: usize,
    },
    /// Not UTF-8, or not what it should be.
    #[error("{path}: {what}")]
    Content {
        /// As the spec names it.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl Files {
    /// Without these folders and files.
    pub fn without(forbidden: impl IntoIterator<Item = PathBuf>) -> Self {
        let real = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
        Self { forbidden: Arc::new(forbidden.into_iter().map(real).collect()) }
    }

    /// The text of a file of at most `limit` bytes.
    ///
    /// # Errors
    /// Why not.
    pub async fn text(&self, path: &str, limit: usize) -> Result<String, FileError> {
        let failed =
            |error: std::io::Error| FileError::Read { path: path.to_owned(), cause: error.to_string() };
        let real = tokio::fs::canonicalize(path).await.map_err(failed)?;
        if self.forbidden.iter().any(|own| real.starts_with(own)) {
            return Err(FileError::Own(path.to_owned()));
        }
        if !is_regular(&real).await.map_err(failed)? {
            return Err(FileError::Kind(path.to_owned()));
        }
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(&real).await.map_err(failed)?;
        file.take(limit as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() > limit {
            return Err(FileError::TooLarge { path: path.to_owned(), limit });
        }
        let not_text = |_| FileError::Content { path: path.to_owned(), what: "is not UTF-8".to_owned() };
        String::from_utf8(bytes).map_err(not_text)
    }
}

async fn is_regular(path: &Path) -> std::io::Result<bool> {
    Ok(tokio::fs::metadata(path).await?.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_the_server_s_own_is_not_read_by_any_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("own");
        std::fs::create_dir(&own).expect("made");
        std::fs::write(own.join("key"), "secret").expect("written");
        std::fs::write(folder.path().join("open"), "words").expect("written");
        std::os::unix::fs::symlink(&own, folder.path().join("link")).expect("linked");
        let files = Files::without([own.clone()]);
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["own/key", "link/key", "own/../own/key"] {
            let error = files.text(&path(name), 100).await.expect_err("it is the server's");
            assert_eq!(error, FileError::Own(path(name)));
        }
        assert_eq!(files.text(&path("open"), 5).await.as_deref(), Ok("words"));
        assert!(matches!(files.text(&path("open"), 4).await, Err(FileError::TooLarge { .. })));
        assert!(matches!(files.text("/dev/null", 4).await, Err(FileError::Kind(_))));
        assert!(matches!(files.text(&path("none"), 4).await, Err(FileError::Read { .. })));
    }
}
