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
        let config =
            ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
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
        rising(self.database.scan_prefix(prefix).map(pair))
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

/// All pairs, as long as their keys rise: after a power cut its pages may lead back to where they came from, and a scan of
/// them would never end.
fn rising(pairs: impl Iterator<Item = Result<Pair, Error>>) -> Result<Vec<Pair>, Error> {
    let mut all: Vec<Pair> = Vec::new();
    for pair in pairs {
        let pair = pair?;
        if all.last().is_some_and(|last| last.0 >= pair.0) {
            return Err(Error("it is damaged: its keys do not rise".to_owned()));
        }
        all.push(pair);
    }
    Ok(all)
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
    fn pages_that_lead_back_are_not_read_for_ever() {
        let pair = |key: u8| Ok((vec![key], Vec::new()));
        assert_eq!(rising([1, 2].map(pair).into_iter()).expect("as they should be").len(), 2);
        let error = rising((0..).map(|n| pair(n % 2))).expect_err("it ends");
        assert!(error.to_string().contains("do not rise"), "{error}");
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
