//! The files: the log's folder with its lock, and segments from birth to unlinking. A segment gets its
//! name only when all its bytes are on disk. Nothing here retries, and nothing here knows what records
//! mean.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::{Doing, Error};
use super::header::Header;
use super::recover::segment_name;

/// The name of a segment that is not finished; removed at open.
const UNFINISHED: &str = "new.tmp";
const EXTENSION: &str = ".wal";

/// Zeros are written in blocks of this many bytes: few system calls, little memory.
const ZEROS_LEN: usize = 256 << 10;

/// The log is its owner's alone: it holds what the API would show to few.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The log's folder, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: File,
}

/// A finished segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// What its records' checksums begin with.
    pub(super) seed: u32,
    /// Bytes of the file.
    pub(super) len: u64,
    path: PathBuf,
    file: File,
}

impl Folder {
    /// Makes the folder if it is missing, makes its name durable, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(Error::io(Doing::Create, path))?;
        let path = path.canonicalize().map_err(Error::io(Doing::Open, path))?;
        if let Some(parent) = path.parent() {
            let handle = File::open(parent).map_err(Error::io(Doing::Open, parent))?;
            handle.sync_all().map_err(Error::io(Doing::Sync, parent))?;
        }
        let handle = File::open(&path).map_err(Error::io(Doing::Open, &path))?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(path)),
            Err(errno) => Err(Error::io(Doing::Lock, &path)(errno.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The numbers of all segments, ascending. Other files are not ours to judge.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, Error> {
        let list = || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for file in std::fs::read_dir(&self.path)? {
                let name = file?.file_name();
                let number = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)?.parse().ok());
                numbers.extend(number.filter(|number| *segment_name(*number) == *name));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        list().map_err(Error::io(Doing::List, &self.path))
    }

    /// Removes what a crash left of a segment that never got its name.
    pub(super) fn remove_unfinished(&self) -> Result<(), Error> {
        let path = self.path.join(UNFINISHED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(Error::io(Doing::Unlink, &path)),
        }
    }

    /// All bytes of a segment.
    pub(super) fn read(&self, number: u64) -> Result<Vec<u8>, Error> {
        let path = self.path.join(segment_name(number));
        std::fs::read(&path).map_err(Error::io(Doing::Read, &path))
    }

    /// A finished segment that recovery has read.
    pub(super) fn segment(&self, number: u64, seed: u32) -> Result<Segment, Error> {
        let path = self.path.join(segment_name(number));
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io(Doing::Open, &path))?;
        let len = file.metadata().map_err(Error::io(Doing::Read, &path))?.len();
        Ok(Segment { number, seed, len, path, file })
    }

    /// Writes `bytes` over the whole segment and syncs it: afterwards the disk holds what was read,
    /// whether or not it did before, and nothing behind it.
    pub(super) fn rewrite(&self, segment: &Segment, bytes: &[u8]) -> Result<(), Error> {
        segment.write(bytes, 0)?;
        segment.file.sync_all().map_err(Error::io(Doing::Sync, &segment.path))?;
        self.sync()
    }

    /// A file of `len` zeros on disk, without a header and under no segment's name. They are written, not
    /// only allocated: a later fdatasync has no metadata to flush.
    pub(super) fn prepare(&self, len: u64) -> Result<File, Error> {
        let path = self.path.join(UNFINISHED);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(Error::io(Doing::Create, &path))?;
        let zeros = vec![0; ZEROS_LEN];
        let mut at = 0;
        while at < len {
            let block = &zeros[..ZEROS_LEN.min((len - at) as usize)];
            file.write_all_at(block, at).map_err(Error::io(Doing::Write, &path))?;
            at += block.len() as u64;
        }
        file.sync_all().map_err(Error::io(Doing::Sync, &path))?;
        Ok(file)
    }

    /// Makes a prepared file a segment: header, fsync, rename, fsync of the folder. Only then is it used.
    pub(super) fn install(&self, file: File, header: &Header) -> Result<Segment, Error> {
        let unfinished = self.path.join(UNFINISHED);
        let (block, seed) = header.encode();
        file.write_all_at(&block, 0).map_err(Error::io(Doing::Write, &unfinished))?;
        file.sync_all().map_err(Error::io(Doing::Sync, &unfinished))?;
        let path = self.path.join(segment_name(header.number));
        std::fs::rename(&unfinished, &path).map_err(Error::io(Doing::Rename, &path))?;
        self.sync()?;
        Ok(Segment { number: header.number, seed, len: header.len, path, file })
    }

    /// Removes a segment for good.
    pub(super) fn unlink(&self, number: u64) -> Result<(), Error> {
        let path = self.path.join(segment_name(number));
        std::fs::remove_file(&path).map_err(Error::io(Doing::Unlink, &path))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), Error> {
        self.handle.sync_all().map_err(Error::io(Doing::Sync, &self.path))
    }
}

impl Segment {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).map_err(Error::io(Doing::Write, &self.path))
    }

    pub(super) fn sync_data(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io(Doing::Sync, &self.path))
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(Doing::Read, &self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::header::{HEADER_LEN, Identity};
    use super::super::ledger::Ledger;
    use super::*;

    fn header(number: u64, len: u64) -> Header {
        let identity = Identity { cluster: Uuid::from_u128(1), node: 1 };
        let ledger = Ledger { vote: Some(Bytes::from_static(b"1.1")), ..Ledger::default() };
        Header { identity, number, first_sequence: 1, len, ledger }
    }

    #[test]
    fn a_prepared_file_is_no_segment_until_it_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("log")).unwrap();
        let len = ZEROS_LEN as u64 + 10;
        let file = folder.prepare(len).unwrap();
        assert!(folder.numbers().unwrap().is_empty());
        let header = header(3, len);
        let segment = folder.install(file, &header).unwrap();
        assert_eq!(folder.numbers().unwrap(), [3]);
        let bytes = folder.read(3).unwrap();
        assert_eq!(Header::decode(&bytes).unwrap(), (header, segment.seed));
        assert!(bytes.len() as u64 == len && bytes[HEADER_LEN..].iter().all(|byte| *byte == 0));
        folder.unlink(3).unwrap();
        assert!(folder.numbers().unwrap().is_empty());
    }

    #[test]
    fn what_a_crash_left_unfinished_is_removed_and_strangers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.remove_unfinished().unwrap();
        folder.prepare(10).unwrap();
        std::fs::write(dir.path().join("notes.wal"), "mine").unwrap();
        std::fs::write(dir.path().join("7.wal"), "also mine").unwrap();
        folder.remove_unfinished().unwrap();
        assert!(folder.numbers().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_is_locked_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(Error::Locked(_))));
        drop(folder);
        Folder::open(dir.path()).unwrap();
    }
}
