//! Files that survive a crash: written beside, synced, renamed, the folder synced; readable by this user only. What
//! stands in them is the callers' matter.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The largest file of ours that is read, in bytes: a last good configuration of 5,000 endpoints has some MiB.
pub const FILE_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DiskError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl DiskError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self { path: path.to_owned(), source }
    }
}

/// Makes a folder, and those above it, for this user only.
///
/// # Errors
/// If it is not there afterwards.
pub fn make_folder(path: &Path) -> Result<(), DiskError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(DiskError::at(path))
}

/// Replaces a file whole: after a crash it is the old one or the new one.
///
/// # Errors
/// If it cannot be written; the old one then still stands.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    replace(path, bytes).map_err(DiskError::at(path))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    // Two processes of this host may write at once, while one takes over from the other.
    beside.push(format!(".{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Renames a file of the same folder, for good.
///
/// # Errors
/// If it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    fs::rename(from, to).and_then(|()| sync_folder(to)).map_err(DiskError::at(to))
}

/// Removes a file for good; one that is not there is as good.
///
/// # Errors
/// If it still stands.
pub fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder(path)).map_err(DiskError::at(path)),
    }
}

/// Removes a folder with all that is in it; one that is not there is as good.
///
/// # Errors
/// If something of it still stands.
pub fn remove_folder(path: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder(path)).map_err(DiskError::at(path)),
    }
}

/// The files of a folder whose names `fits` likes, none if there is no folder.
///
/// # Errors
/// If it cannot be read.
pub fn files(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, DiskError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(DiskError::at(folder))?,
    };
    let liked = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(&fits);
    let file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_dir());
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DiskError::at(folder))?;
        if liked(&entry) && file(&entry) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The text of a file; `None` if there is none.
///
/// # Errors
/// If it is there and cannot be read, or is larger than [`FILE_BYTES_MAX`].
pub fn read(path: &Path) -> Result<Option<String>, DiskError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            Err(DiskError::at(path)(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))))
        }
        _ => fs::read_to_string(path).map(Some).map_err(DiskError::at(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/node.key");
        assert_eq!(read(&path).expect("absent is no error"), None);
        make_folder(path.parent().expect("it has one")).expect("made");
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("written");
        assert_eq!(read(&path).expect("read").as_deref(), Some("two"));
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("it has one")).expect("read").count(), 1);
        assert!(
            write(&folder.path().join("none/x"), b"").expect_err("no folder").to_string().contains("none/x")
        );
    }
}
