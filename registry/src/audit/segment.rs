//! The audit's files: `<first index>.audit`, lines of `<crc32 in hex> <json>`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::Record;
use crate::file;

/// A file that is longer is followed by a new one, in bytes.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// The most files kept: a gigabyte of lines; the oldest go, so ship them elsewhere if they must stay.
const SEGMENTS_MAX: usize = 64;

/// The files, open for appending.
pub(super) struct Segments {
    folder: PathBuf,
    active: Option<File>,
    length: u64,
    /// Whether something was written since the last sync.
    unsynced: bool,
    /// The entry of the last line, and how many of its lines there are: a replay brings them again.
    last: (u64, usize),
}

/// Why lines are not on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// There is no room; what was there still is, and the same lines may be appended again.
    #[error("no room for the audit: {0}")]
    Full(io::Error),
    /// Nobody knows what is on disk.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// What a file holds.
pub(super) struct Lines {
    /// All that read back.
    pub(super) records: Vec<Record>,
    /// Bytes up to the first line that does not.
    pub(super) whole: u64,
    /// A line that does not read back though others after it do stands here, in bytes: damage, and no torn write.
    pub(super) damaged: Option<u64>,
}

impl Segments {
    /// Cuts off a last line that was not written whole. A damaged file stays as it is, and is not written to any more.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        let mut segments = Self { folder, active: None, length: 0, unsynced: false, last: (0, 0) };
        let files = files(&segments.folder)?;
        for (age, path) in files.iter().rev().enumerate() {
            let Lines { records, whole, damaged } = read(path)?;
            match damaged {
                Some(at) => {
                    tracing::error!(path = %path.display(), at, "the audit is damaged at this byte; it goes on in a new file")
                }
                None if age == 0 => {
                    let file = OpenOptions::new().append(true).open(path)?;
                    file.set_len(whole)?;
                    file.sync_all()?;
                    (segments.active, segments.length) = (Some(file), whole);
                }
                None => {}
            }
            if let Some(last) = last_of(&records.iter().collect::<Vec<_>>()) {
                segments.last = last;
                break;
            }
        }
        Ok(segments)
    }

    /// Appends lines; they are on disk after a [`Self::sync`].
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        let (entry, mut written) = self.last;
        // A crash may have left some lines of an entry without the others.
        let fresh = records.iter().filter(|record| {
            let again = record.index == entry && written > 0;
            written -= usize::from(again);
            !again && record.index >= entry
        });
        let fresh: Vec<_> = fresh.collect();
        let Some((newest, lines_of_newest)) = last_of(&fresh) else { return Ok(()) };
        if self.active.is_none() || self.length > SEGMENT_BYTES {
            self.sync()?;
            self.rotate(fresh[0].index).map_err(full)?;
        }
        let mut lines = Vec::new();
        for record in &fresh {
            let json = serde_json::to_string(record).map_err(io::Error::other)?;
            writeln!(lines, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
        }
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        if let Err(error) = active.write_all(&lines) {
            // Half a line must not stand before the next one.
            active.set_len(self.length)?;
            return Err(full(error));
        }
        self.unsynced = true;
        self.length += lines.len() as u64;
        let before = if newest == entry { self.last.1 } else { 0 };
        self.last = (newest, before + lines_of_newest);
        Ok(())
    }

    /// Puts on disk what was appended.
    pub(super) fn sync(&mut self) -> Result<(), AppendError> {
        if let Some(active) = self.active.as_ref().filter(|_| self.unsynced) {
            active.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    fn rotate(&mut self, first: u64) -> io::Result<()> {
        let file = file::private(&self.folder.join(format!("{first:020}.audit")))?;
        file::sync_folder(&self.folder)?;
        (self.active, self.length) = (Some(file), 0);
        let files = files(&self.folder)?;
        for path in files.iter().take(files.len().saturating_sub(SEGMENTS_MAX)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// The entry of the last line, and how many of these lines are its.
fn last_of(records: &[&Record]) -> Option<(u64, usize)> {
    let index = records.last()?.index;
    Some((index, records.iter().rev().take_while(|record| record.index == index).count()))
}

/// The files, oldest first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "audit");
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_segment).collect();
    files.sort();
    Ok(files)
}

fn full(error: io::Error) -> AppendError {
    match file::is_full(&error) {
        true => AppendError::Full(error),
        false => AppendError::Failed(error),
    }
}

/// The lines of a file.
pub(super) fn read(path: &Path) -> io::Result<Lines> {
    let bytes = fs::read(path)?;
    let (mut records, mut at, mut bad) = (Vec::new(), 0, None);
    let mut damaged = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match parse(line) {
            Some(record) => {
                damaged = damaged.or(bad);
                records.push(record);
            }
            None => bad = bad.or(Some(at)),
        }
        at += line.len() as u64;
    }
    Ok(Lines { records, whole: bad.unwrap_or(at), damaged })
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (crc, json) = line.split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    if crc32fast::hash(json.as_bytes()) != crc {
        return None;
    }
    serde_json::from_str(json).ok()
}
