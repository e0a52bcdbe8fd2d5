//! Snapshots on disk and on the wire: one file with magic, version, length, checksum and a msgpack body. It holds the
//! state, the history that watchers may ask for, and where in the log it stands. The log is purged only after one is
//! safely on disk. It is written record by record: a member has no second copy of its state in memory for it.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use openraft::alias::SnapshotMetaOf;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Types;
use crate::{
    file,
    state::{Image, ImageOf, State},
};

/// What a snapshot file starts with.
const MAGIC: &[u8; 8] = b"MESHSNAP";
/// The format of the body.
const VERSION: u16 = 1;
/// Magic, version, length of the body, SHA-256 of the body.
const HEAD_BYTES: usize = 8 + 2 + 8 + 32;
/// The largest snapshot, in bytes: it is sent and read whole, and a member must have it in memory twice for that.
pub const SNAPSHOT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Old snapshots that stay beside the newest: it may turn out to be damaged. The log is kept long enough to go on from it.
const OLD_KEPT: usize = 1;
/// What a damaged snapshot is called from then on: out of the way, and there for whoever wants to know why.
const DAMAGED: &str = "damaged";

/// Bytes of a snapshot that are summed and written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What the engine hands on as a snapshot.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In its file: so it is when it was just made, and nobody asked for it.
    File(PathBuf),
    /// To be sent, or as it came.
    Bytes(Bytes),
}

/// A state with its place in the log.
pub(super) struct Taken {
    pub(super) meta: SnapshotMetaOf<Types>,
    pub(super) state: State,
}

/// The snapshots of a data folder.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    folder: Arc<PathBuf>,
    history_max: usize,
    /// One is written at a time: the engine makes one while it takes another from the leader.
    writing: Arc<Mutex<()>>,
}

/// A snapshot file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) path: PathBuf,
    /// What is wrong with it.
    pub(super) reason: String,
    /// Where in the log it stood, as its name says.
    pub(super) index: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    meta: SnapshotMetaOf<Types>,
    image: Image,
}

/// A body, to be written.
#[derive(Serialize)]
#[serde(rename = "Body")]
struct BodyOf<'a> {
    meta: &'a SnapshotMetaOf<Types>,
    image: ImageOf<'a>,
}

/// Of a body only its place in the log.
#[derive(Deserialize)]
struct Place {
    meta: SnapshotMetaOf<Types>,
}

impl Snapshots {
    pub(super) fn open(folder: PathBuf, history_max: usize) -> io::Result<Self> {
        file::folder(&folder)?;
        Ok(Self { folder: Arc::new(folder), history_max, writing: Arc::default() })
    }

    /// Where they stand.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes a snapshot of a state; it survives a power cut when this returns. Blocks.
    pub(super) fn make(&self, meta: &SnapshotMetaOf<Types>, state: &State) -> io::Result<PathBuf> {
        self.keep(place(meta), |file| encode(file, meta, state))
    }

    /// Keeps a snapshot that came; it survives a power cut when this returns. Blocks.
    pub(super) fn save(&self, index: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        self.keep(index, |file| file.write_all(bytes))
    }

    fn keep(&self, index: u64, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<PathBuf> {
        let _alone = self.writing.lock();
        let path = self.folder.join(format!("{index:020}.snap"));
        if let Err(error) = file::replace_with(&path, write) {
            // On a full disk half a snapshot would only be in the way.
            let _ = fs::remove_file(path.with_extension("tmp"));
            return Err(error);
        }
        for path in self.files()?.into_iter().rev().skip(1 + OLD_KEPT) {
            fs::remove_file(path)?;
        }
        Ok(path)
    }

    /// The newest sound one, and those newer ones that are damaged. It is for the caller to know whether the log reaches
    /// back to it. Blocks.
    pub(super) fn newest(&self) -> io::Result<(Option<Taken>, Vec<Damaged>)> {
        let mut damaged = Vec::new();
        for path in self.files()?.into_iter().rev() {
            match fs::read(&path).map_err(|error| error.to_string()).and_then(|bytes| self.decode(&bytes)) {
                Ok(taken) => return Ok((Some(taken), damaged)),
                Err(reason) => damaged.push(Damaged::new(path, reason)),
            }
        }
        Ok((None, damaged))
    }

    /// The newest one, to be sent: its bytes were checked, and where it stands in the log. Blocks.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn sendable(&self) -> Result<Option<(SnapshotMetaOf<Types>, Bytes)>, Damaged> {
        let files =
            self.files().map_err(|error| Damaged::new(self.folder.to_path_buf(), error.to_string()))?;
        let Some(path) = files.last() else { return Ok(None) };
        let bytes = fs::read(path).map_err(|error| error.to_string());
        let checked = bytes.and_then(|bytes| {
            let Place { meta } =
                rmp_serde::from_slice(open_envelope(&bytes)?).map_err(|error| error.to_string())?;
            Ok((meta, Bytes::from(bytes)))
        });
        checked.map(Some).map_err(|reason| Damaged::new(path.clone(), reason))
    }

    /// Puts a damaged one out of the way. Blocks.
    pub(super) fn set_aside(&self, damaged: &Damaged) -> io::Result<()> {
        fs::rename(&damaged.path, damaged.path.with_extension(DAMAGED))?;
        file::sync_folder(&self.folder)
    }

    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Taken, String> {
        let body = open_envelope(bytes)?;
        let Body { meta, image } = rmp_serde::from_slice(body).map_err(|error| error.to_string())?;
        let state = State::from_image(&image, self.history_max).map_err(|error| error.to_string())?;
        Ok(Taken { meta, state })
    }

    /// By index, oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&**self.folder)?.collect::<io::Result<Vec<_>>>()?;
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "snap");
        let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_snapshot).collect();
        files.sort();
        Ok(files)
    }
}

impl Content {
    /// Its bytes. Blocks.
    pub(super) fn read(self) -> io::Result<Bytes> {
        match self {
            Self::File(path) => fs::read(path).map(Bytes::from),
            Self::Bytes(bytes) => Ok(bytes),
        }
    }
}

impl Damaged {
    fn new(path: PathBuf, reason: String) -> Self {
        let index = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        Self { path, reason, index }
    }
}

/// Where in the log a snapshot stands.
pub(super) fn place(meta: &SnapshotMetaOf<Types>) -> u64 {
    meta.last_log_id.map_or(0, |id| id.index)
}

/// Writes a snapshot; the head last, when it is known what it says.
pub(super) fn encode(
    out: &mut (impl Write + Seek),
    meta: &SnapshotMetaOf<Types>,
    state: &State,
) -> io::Result<()> {
    out.write_all(&[0; HEAD_BYTES])?;
    let summed = Summed { out: &mut *out, sum: Context::new(&SHA256), bytes: 0 };
    let mut body = BufWriter::with_capacity(WRITE_BYTES, summed);
    rmp_serde::encode::write_named(&mut body, &BodyOf { meta, image: ImageOf(state) }).map_err(refused)?;
    let Summed { sum, bytes, .. } = body.into_inner().map_err(io::IntoInnerError::into_error)?;
    out.rewind()?;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&(bytes as u64).to_le_bytes())?;
    out.write_all(sum.finish().as_ref())
}

/// What the file said, where that was the reason.
fn refused(error: rmp_serde::encode::Error) -> io::Error {
    match error {
        rmp_serde::encode::Error::InvalidValueWrite(error) => error.into(),
        error => io::Error::other(error),
    }
}

/// Passes bytes on, and knows their number and sum.
struct Summed<W> {
    out: W,
    sum: Context,
    bytes: usize,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes + bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(io::Error::other(format!("the snapshot has more than {SNAPSHOT_BYTES_MAX} bytes")));
        }
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn open_envelope(bytes: &[u8]) -> Result<&[u8], String> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or("it ends within its head")?;
    let (magic, rest) = head.split_at(8);
    let (version, rest) = rest.split_at(2);
    let (length, sum) = rest.split_at(8);
    let version = u16::from_le_bytes(version.try_into().map_err(|_| "version")?);
    let length = u64::from_le_bytes(length.try_into().map_err(|_| "length")?);
    if magic != MAGIC {
        return Err("it is no snapshot of a mesh".to_owned());
    }
    if version != VERSION {
        return Err(format!("its format is {version}, this version reads {VERSION}"));
    }
    if length != body.len() as u64 {
        return Err(format!("it has {} bytes of {length}", body.len()));
    }
    if digest(&SHA256, body).as_ref() != sum {
        return Err("its checksum does not fit".to_owned());
    }
    Ok(body)
}

/// Reads a snapshot's bytes: for the fuzzer, for `snapshot save` and for restores.
///
/// # Errors
/// What is wrong with it.
pub fn inspect(bytes: &[u8]) -> Result<State, String> {
    let body = open_envelope(bytes)?;
    let Body { image, .. } = rmp_serde::from_slice(body).map_err(|error| error.to_string())?;
    State::from_image(&image, crate::state::HISTORY_REVISIONS_MAX).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use openraft::alias::StoredMembershipOf;

    use super::*;

    fn meta() -> SnapshotMetaOf<Types> {
        let last_membership = StoredMembershipOf::<Types>::default();
        SnapshotMetaOf::<Types> { last_log_id: None, last_membership }
    }

    /// A snapshot's bytes.
    pub(in crate::raft) fn of(state: &State) -> Vec<u8> {
        let mut bytes = io::Cursor::new(Vec::new());
        encode(&mut bytes, &meta(), state).expect("memory takes it");
        bytes.into_inner()
    }

    fn snapshot() -> Vec<u8> {
        of(&State::new())
    }

    /// A file that has no more room after so many bytes.
    struct Full(io::Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.get_ref().len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn it_is_written_as_a_whole_image_is_and_read_back() {
        let state = crate::state::tests::furnished();
        let bytes = of(&state);
        let body = rmp_serde::to_vec_named(&Body { meta: meta(), image: state.image() }).expect("memory");
        assert!(open_envelope(&bytes).expect("its own") == body, "as version 0.1.0 writes it");
        assert_eq!(inspect(&bytes).expect("its own").hash(), state.hash());
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let state = crate::state::tests::furnished();
        for room in [0, HEAD_BYTES, of(&state).len() - 1] {
            let refused = encode(&mut Full(io::Cursor::default(), room), &meta(), &state);
            assert!(file::is_full(&refused.expect_err("there is no room")), "{room} bytes");
        }
    }

    #[test]
    fn a_snapshot_comes_back_and_no_flipped_byte_does() {
        let bytes = snapshot();
        assert_eq!(inspect(&bytes).expect("its own").hash(), State::new().hash());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(inspect(&damaged).is_err(), "byte {at}");
            assert!(inspect(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_newest_counts_and_one_older_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path().join("snapshots"), 100).expect("it opens");
        assert!(snapshots.sendable().expect("it reads").is_none());
        for index in [5, 900, 31_000] {
            snapshots.save(index, &snapshot()).expect("it is written");
        }
        let (_, bytes) = snapshots.sendable().expect("it reads").expect("there is one");
        assert_eq!(bytes, snapshot());
        let names: Vec<_> = snapshots
            .files()
            .expect("it reads")
            .iter()
            .filter_map(|path| path.file_stem().map(ToOwned::to_owned))
            .collect();
        assert_eq!(names, ["00000000000000000900", "00000000000000031000"]);
    }

    #[test]
    fn two_at_once_are_both_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path().join("snapshots"), 100).expect("it opens");
        let bytes = snapshot();
        for round in 1..=100 {
            // The same one twice, or a new one beside another: each removes what is old.
            let indexes = [round, round + round % 2];
            let together = std::sync::Barrier::new(indexes.len());
            std::thread::scope(|scope| {
                for index in indexes {
                    let (snapshots, bytes, together) = (&snapshots, &bytes, &together);
                    scope.spawn(move || {
                        together.wait();
                        snapshots.save(index, bytes).expect("it is written");
                    });
                }
            });
            let (sound, damaged) = snapshots.newest().expect("it reads");
            assert!(sound.is_some() && damaged.is_empty(), "round {round}: {damaged:?}");
        }
    }

    #[test]
    fn a_damaged_one_is_passed_over_never_sent_and_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path().join("snapshots"), 100).expect("it opens");
        snapshots.save(5, &snapshot()).expect("it is written");
        let mut spoiled = snapshot();
        let last = spoiled.len() - 1;
        spoiled[last] ^= 1;
        snapshots.save(900, &spoiled).expect("it is written");
        let damaged = snapshots.sendable().expect_err("it is damaged");
        assert_eq!((damaged.index, damaged.reason.as_str()), (Some(900), "its checksum does not fit"));
        let (sound, passed) = snapshots.newest().expect("it reads");
        assert!(sound.is_some() && passed == [damaged.clone()], "{passed:?}");
        snapshots.set_aside(&damaged).expect("it is renamed");
        assert!(snapshots.sendable().expect("sound").is_some());
    }
}
