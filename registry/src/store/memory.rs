//! Pure. A store that is gone with its process: for tests, and where there is no disk to spare.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::{Batch, Error, Pair, Store};

/// In memory.
#[derive(Debug, Default)]
pub struct Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Store for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.read().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let map = self.0.read();
        let from = map.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, batch: Batch) -> Result<(), Error> {
        let mut map = self.0.write();
        for (key, value) in batch.changes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), Error> {
        self.0.write().clear();
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_conforms() {
        super::super::conformance(&Memory::default());
    }
}
