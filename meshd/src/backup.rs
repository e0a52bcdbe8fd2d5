//! A state as a file on this server's disk: whole and proven, or not there. What is left on the disk is not used up: the
//! registry beside it needs room.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use model::saved::{Damaged, Head, SAVED_BYTES_MAX};
use registry::{
    State,
    saved::{self, Saved},
};

use crate::schedule::EXTENSION;

/// So much room is left on the disk, in bytes, or a tenth of a smaller disk: the log's next segments must fit.
pub const ROOM_BYTES_MIN: u64 = 256 << 20;
/// The room is looked at anew after so many bytes.
const LOOK_EVERY_BYTES: u64 = 4 << 20;
/// What is written beside the file, until it is whole.
const PARTIAL: &str = "partial";

/// A snapshot could not be saved or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The disk.
    #[error("{}: {cause}", path.display())]
    Disk {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no snapshot, or not what was written.
    #[error("{}: {damaged}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        damaged: Damaged,
    },
    /// There is nothing to save yet.
    #[error("there is nothing to save: this server belongs to no cluster yet")]
    Empty,
}

/// Saves a state, and reads it back before it gets its name. Blocks. Answers its length in bytes.
///
/// # Errors
/// The disk is full or fails; nothing is left of the file then.
pub fn save(state: &State, head: &Head, path: &Path) -> Result<u64, BackupError> {
    if state.trust().is_none() {
        return Err(BackupError::Empty);
    }
    let partial = partial(path);
    let saved = write(state, head, &partial).map_err(at(&partial)).and_then(|bytes| {
        let read = read(&partial)?;
        if read.head.hash != head.hash {
            return Err(BackupError::Damaged { path: partial.clone(), damaged: Damaged::Checksum });
        }
        Ok(bytes)
    });
    let named = saved.and_then(|bytes| {
        fs::rename(&partial, path).and_then(|()| sync_folder(path)).map_err(at(path))?;
        Ok(bytes)
    });
    if named.is_err() {
        let _ = fs::remove_file(&partial);
    }
    named
}

/// Reads a saved snapshot whole. Blocks.
///
/// # Errors
/// It cannot be read, or anything about it is wrong.
pub fn read(path: &Path) -> Result<Saved, BackupError> {
    let damaged = |damaged| BackupError::Damaged { path: path.to_owned(), damaged };
    let bytes = fs::metadata(path).map_err(at(path))?.len();
    if bytes > SAVED_BYTES_MAX as u64 {
        return Err(damaged(Damaged::Large { bytes }));
    }
    let bytes = fs::read(path).map_err(at(path))?;
    registry::raft::read_saved(&bytes).map_err(damaged)
}

/// Makes a folder for snapshots, for this user only, and clears it of what was not finished.
///
/// # Errors
/// The disk refuses.
pub fn folder(path: &Path) -> Result<(), BackupError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
    for entry in fs::read_dir(path).map_err(at(path))?.flatten() {
        let (file, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().ends_with(&format!("{}.{PARTIAL}", EXTENSION)) {
            fs::remove_file(&file).map_err(at(&file))?;
        }
    }
    Ok(())
}

fn write(state: &State, head: &Head, partial: &Path) -> io::Result<u64> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(partial)?;
    let mut out = BufWriter::new(Roomy { file, written: 0, looked: 0 });
    out.get_ref().must_have_room()?;
    let bytes = saved::write(state, head, &mut out)?;
    out.flush()?;
    out.get_ref().file.sync_all()?;
    Ok(bytes)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PARTIAL);
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |cause| BackupError::Disk { path, cause }
}

/// A file that does not take the last room of its disk.
struct Roomy {
    file: File,
    written: u64,
    looked: u64,
}

impl Roomy {
    fn must_have_room(&self) -> io::Result<()> {
        let disk = rustix::fs::fstatvfs(&self.file)?;
        room(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
    }
}

/// Whether a disk of so many bytes, with so many free, takes more.
fn room(free: u64, whole: u64) -> io::Result<()> {
    let least = ROOM_BYTES_MIN.min(whole / 10);
    if free > least {
        return Ok(());
    }
    let message = format!("the disk has {free} bytes left, and {least} must stay free");
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

impl Write for Roomy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= self.looked + LOOK_EVERY_BYTES {
            self.must_have_room()?;
            self.looked = self.written;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use model::duration::Millis;
    use registry::{Command, TrustChange};
    use uuid::Uuid;

    use super::*;
    use crate::api::testing::{apply, put, state};

    fn founded() -> State {
        let mut state = state();
        let domain = "mesh.internal".parse().expect("a domain");
        apply(&mut state, Command::Trust(TrustChange::Found { domain, epoch: Uuid::from_u128(1) }));
        put(&mut state, r#"Service default/web {"ports":[{"port":80}]}"#);
        state
    }

    #[test]
    fn a_saved_state_is_read_back_and_a_flipped_bit_or_a_cut_is_not() {
        let place = tempfile::tempdir().expect("a folder");
        let (path, state) = (place.path().join("a.snapshot"), founded());
        let bytes = save(&state, &saved::head(&state, "c", Millis(1)), &path).expect("saved");
        let metadata = fs::metadata(&path).expect("it is there");
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes, 0o600));
        assert_eq!(read(&path).expect("sound").state.hash(), state.hash());
        let sound = fs::read(&path).expect("bytes");
        for damaged in [sound[..sound.len() - 1].to_vec(), {
            let mut flipped = sound.clone();
            flipped[99] ^= 1;
            flipped
        }] {
            fs::write(&path, damaged).expect("written");
            assert!(matches!(read(&path), Err(BackupError::Damaged { .. })));
        }
    }

    #[test]
    fn the_last_room_of_a_disk_is_not_taken() {
        let (gib, mib) = (1_u64 << 30, 1_u64 << 20);
        assert!(room(300 * mib, 100 * gib).is_ok() && room(20 * mib, 100 * mib).is_ok());
        assert_eq!(room(200 * mib, 100 * gib).map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert!(room(9 * mib, 100 * mib).is_err() && room(0, 0).is_err());
    }

    #[test]
    fn nothing_is_left_of_what_could_not_be_saved() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("a.snapshot");
        fs::create_dir(&path).expect("a folder stands in its way");
        let state = founded();
        assert!(matches!(
            save(&state, &saved::head(&state, "c", Millis(1)), &path),
            Err(BackupError::Disk { .. })
        ));
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
        let empty = State::new();
        assert!(matches!(save(&empty, &saved::head(&empty, "c", Millis(1)), &path), Err(BackupError::Empty)));
    }
}
