//! Files that are whole or not there: written beside, synced, renamed, the folder synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Replaces a file; when this returns, the new content survives a power cut.
///
/// # Errors
/// The disk refuses; the old content still stands then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(bytes))
}

/// As [`replace`], with what `write` puts into a new file.
///
/// # Errors
/// `write` fails, or the disk refuses; the old content still stands then.
pub(crate) fn replace_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file has a folder"))?;
    let beside = path.with_extension("tmp");
    let mut file = private(&beside)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_folder(folder)
}

/// Makes a folder that only this user may enter, and makes sure that it stays.
///
/// # Errors
/// The disk refuses.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

/// Syncs the entries of a folder.
///
/// # Errors
/// The disk refuses.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A new file, or an old one emptied, that only this user may read.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Whether there was no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
