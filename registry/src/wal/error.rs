//! Why the log did not do what was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::ledger::Gap;
use super::record::Damage;
use super::recover::Refusal;

/// What can go wrong. Once the log is open, [`Error::Io`] while writing never reaches a caller: it ends
/// the process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: Doing,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process, or another handle of this one, has the log open.
    #[error("{} is locked: another process has this log open", .0.display())]
    Locked(PathBuf),
    /// What is on disk cannot be trusted.
    #[error("{}: {refusal}", dir.display())]
    Refused {
        /// The log's folder.
        dir: PathBuf,
        /// Which segment, where, why, and the way out.
        refusal: Refusal,
    },
    /// Entries that do not follow the log's last one.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// A body beyond its limit.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// An entry that was sound when written does not read back.
    #[error("entry {index} in {} at byte {offset} does not read back: {}", path.display(), describe(damage))]
    Unreadable {
        /// The entry's index.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// Bytes from the file's start.
        offset: u32,
        /// What stands there; `None`: a sound record, but not that entry.
        damage: Option<Damage>,
    },
    /// The writer has ended; nothing is accepted any more.
    #[error("the log's writer has stopped")]
    Stopped,
}

/// What was tried when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Making a folder or file.
    Create,
    /// Opening a folder or file.
    Open,
    /// Listing a folder.
    List,
    /// Locking the folder.
    Lock,
    /// Reading a file.
    Read,
    /// Writing to a file.
    Write,
    /// fsync or fdatasync.
    Sync,
    /// Giving a file its name.
    Rename,
    /// Removing a file.
    Unlink,
    /// Starting a thread for it.
    Spawn,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write to",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Unlink => "remove",
            Self::Spawn => "start a thread for",
        })
    }
}

impl Error {
    /// Names what was tried, for `map_err`.
    pub(super) fn io(doing: Doing, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether there was no room for new bytes. A sync that fails for lack of room is not meant: what it
    /// left on disk is unknown.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { doing: Doing::Create | Doing::Write, source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

fn describe(damage: &Option<Damage>) -> String {
    damage.map_or_else(|| "another record stands there".to_owned(), |damage| damage.to_string())
}
