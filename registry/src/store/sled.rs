//! A store in sled. Its flush is no fsync, and it may not open after a power cut: so it holds only what can be made
//! again, and a folder that does not open is thrown away.

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

use super::{Batch, Error, Pair, Store};

/// Bytes of pages in memory: the state itself is in memory already, this only serves writing.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// Written pages reach the operating system this often, in milliseconds; losing them costs a longer replay.
const FLUSH_EVERY_MS: u64 = 1_000;

/// Bytes of a segment of its log. Some dozen buffers of that size are in memory under load; a folder whose segments have
/// another size is made anew.
const SEGMENT_BYTES: usize = 64 * 1024;

/// A key that nobody has.
const NOTHING: &[u8] = &[];

/// In a folder of sled's.
#[derive(Debug)]
pub struct Sled {
    database: ::sled::Db,
    path: PathBuf,
}

impl Sled {
    /// Opens a folder; one that does not open is removed and made anew.
    ///
    /// # Errors
    /// Nor does a fresh one open.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::try_open(path).or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "the index does not open, it is made anew");
            fs::remove_dir_all(path).map_err(Error::of)?;
            Self::try_open(path)
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn try_open(path: &Path) -> Result<Self, Error> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        // On some damage it panics instead of telling.
        let database = panic::catch_unwind(panic::AssertUnwindSafe(|| config.open()))
            .map_err(|_| Error("it is damaged".to_owned()))?
            .map_err(Error::of)?;
        Ok(Self { database, path: path.to_path_buf() })
    }
}

impl Store for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.database.get(key).map_err(Error::of)?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let pair = |pair: ::sled::Result<(::sled::IVec, ::sled::IVec)>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Error::of)
        };
        self.database.scan_prefix(prefix).map(pair).collect()
    }

    fn write(&self, batch: Batch) -> Result<(), Error> {
        let (mut changes, count) = (::sled::Batch::default(), batch.changes.len());
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.database.apply_batch(changes).map_err(Error::of)?;
        // What a change replaced stays in memory until others come by: one visit in 128 lets go of some of it, and a batch
        // is a single visit, however large. So each change is followed by one.
        for _ in 0..count {
            self.database.contains_key(NOTHING).map_err(Error::of)?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), Error> {
        self.database.clear().map_err(Error::of)
    }

    fn flush(&self) -> Result<(), Error> {
        self.database.flush().map(drop).map_err(Error::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        super::super::conformance(&Sled::open(folder.path()).expect("it opens"));
    }

    #[test]
    fn a_folder_that_does_not_open_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index");
        fs::create_dir(&path).expect("a folder");
        fs::write(path.join("conf"), b"this is not sled's").expect("a file");
        let store = Sled::open(&path).expect("it opens anew");
        assert_eq!(store.scan(b"").expect("it reads"), []);
    }
}
