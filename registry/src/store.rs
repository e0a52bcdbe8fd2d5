//! A rebuildable ordered index, never the truth. Two of them stand: in memory and in sled; both pass `conformance`.

use std::fmt;

mod memory;
mod sled;

pub use self::{memory::Memory, sled::Sled};

/// Bytes to bytes, in order.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// All keys that start so, in order, with their values.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error>;

    /// All or nothing; not durable when it returns.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write(&self, batch: Batch) -> Result<(), Error>;

    /// Removes everything.
    ///
    /// # Errors
    /// The store cannot be written.
    fn clear(&self) -> Result<(), Error>;

    /// Hands what was written to the operating system.
    ///
    /// # Errors
    /// The store cannot be written.
    fn flush(&self) -> Result<(), Error>;
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes that are made together. Of two for one key the later counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Key and new value; `None` removes.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A store does not work.
#[derive(Debug, thiserror::Error)]
#[error("the index: {0}")]
pub struct Error(pub String);

impl Batch {
    /// Puts a value.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes a value.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }
}

impl Error {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What every store must do; called by the tests of each.
#[cfg(test)]
pub(crate) fn conformance(store: &dyn Store) {
    let scan = |prefix: &[u8]| store.scan(prefix).expect("it scans");
    assert_eq!(store.get(b"a").expect("it reads"), None);
    let mut batch = Batch::default();
    for (key, value) in [("b", "1"), ("a", "2"), ("ab", "3"), ("b", "4")] {
        batch.put(key, value);
    }
    store.write(batch).expect("it writes");
    assert_eq!(store.get(b"b").expect("it reads").as_deref(), Some(&b"4"[..]), "the later of two counts");
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(scan(b""), [pair("a", "2"), pair("ab", "3"), pair("b", "4")], "in order of keys");
    assert_eq!(scan(b"a"), [pair("a", "2"), pair("ab", "3")]);
    assert_eq!(scan(b"c"), []);

    let mut batch = Batch::default();
    batch.remove("a");
    batch.remove("nothing");
    batch.put("b", "");
    batch.put([0xff, 0xff], "high");
    store.write(batch).expect("it writes");
    assert_eq!(store.get(b"a").expect("it reads"), None);
    assert_eq!(store.get(b"b").expect("it reads").as_deref(), Some(&b""[..]), "an empty value is a value");
    assert_eq!(scan(&[0xff]), [(vec![0xff, 0xff], b"high".to_vec())], "a prefix without a successor");
    store.write(Batch::default()).expect("an empty batch is fine");
    store.flush().expect("it flushes");
    store.clear().expect("it clears");
    assert_eq!(scan(b""), []);
}
