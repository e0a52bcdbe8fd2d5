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
    /// Lines of entries up to this one are on disk: a replay brings them again.
    last: u64,
}

impl Segments {
    /// Cuts off a last line that was not written whole.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        let mut segments = Self { folder, active: None, length: 0, last: 0 };
        let files = files(&segments.folder)?;
        for path in files.iter().rev() {
            let (records, whole) = read(path)?;
            if segments.active.is_none() {
                let file = OpenOptions::new().append(true).open(path)?;
                file.set_len(whole)?;
                file.sync_all()?;
                (segments.active, segments.length) = (Some(file), whole);
            }
            if let Some(record) = records.last() {
                segments.last = record.index;
                break;
            }
        }
        Ok(segments)
    }

    /// Appends lines, and syncs them.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let last = self.last;
        let fresh: Vec<_> = records.iter().filter(|record| record.index > last).collect();
        let Some(newest) = fresh.last() else { return Ok(()) };
        if self.active.is_none() || self.length > SEGMENT_BYTES {
            self.rotate(fresh[0].index)?;
        }
        let mut lines = Vec::new();
        for record in &fresh {
            let json = serde_json::to_string(record)?;
            writeln!(lines, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
        }
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        active.write_all(&lines)?;
        active.sync_data()?;
        self.length += lines.len() as u64;
        self.last = newest.index;
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

/// The files, oldest first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "audit");
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_segment).collect();
    files.sort();
    Ok(files)
}

/// The lines of a file, and how many bytes of it they are: what comes after was not written whole.
pub(super) fn read(path: &Path) -> io::Result<(Vec<Record>, u64)> {
    let bytes = fs::read(path)?;
    let (mut records, mut whole) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(record) = parse(line) else {
            let rest = &bytes[whole + line.len()..];
            if rest.split_inclusive(|byte| *byte == b'\n').any(|line| parse(line).is_some()) {
                let message = format!("{}: the line at byte {whole} is damaged", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            break;
        };
        records.push(record);
        whole += line.len();
    }
    Ok((records, whole as u64))
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
