//! Pure. A persistent map which knows the hash of what it holds. A clone costs nothing, a difference of two clones what
//! changed. It never decides what may stand in it.
//!
//! The hash is of the set, not of the order in which it came about: each record is SHA-256 over its tag, key and value
//! (msgpack with field names), cut to 128 bits, and a table's hash is the sum of its records' modulo 2^128. So a record
//! is taken out by subtraction, and one log gives one hash however it was cut. It finds damage and divergence; it is no
//! defence against an enemy who chooses records.

use std::{borrow::Borrow, fmt, ops::RangeBounds, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use imbl::{OrdMap, ordmap::DiffItem};
use serde::{Serialize, de::DeserializeOwned};

/// What a record is kept under on disk: its table's tag, then the key.
pub type RecordKey = Vec<u8>;

/// A persistent map with a hash.
pub(crate) struct Table<K, V> {
    /// Tells records of different tables apart; never reused.
    tag: u8,
    map: OrdMap<K, Stored<V>>,
    sum: u128,
}

/// A value with its record's hash.
pub(crate) struct Stored<V> {
    value: Arc<V>,
    digest: u128,
}

/// A value that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a record of table {tag} cannot be read: {source}")]
pub struct Unreadable {
    /// Whose record.
    pub tag: u8,
    /// Why.
    #[source]
    pub source: rmp_serde::decode::Error,
}

impl<K, V> Table<K, V>
where
    K: Ord + Clone + Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// An empty one.
    pub(crate) fn new(tag: u8) -> Self {
        Self { tag, map: OrdMap::new(), sum: 0 }
    }

    /// What tells its records apart.
    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    /// The hash of all that it holds.
    pub(crate) fn hash(&self) -> u128 {
        self.sum
    }

    /// How many it holds.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value of a key.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.map.get(key).map(|stored| &stored.value)
    }

    /// All, by key.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &Arc<V>)> {
        self.map.iter().map(|(key, stored)| (key, &stored.value))
    }

    /// Those within a range, by key.
    pub(crate) fn range<R: RangeBounds<K>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = (&K, &Arc<V>)> {
        self.map.range(range).map(|(key, stored)| (key, &stored.value))
    }

    /// Puts a value in; answers the one that was there.
    pub(crate) fn insert(&mut self, key: K, value: impl Into<Arc<V>>) -> Option<Arc<V>> {
        let value = value.into();
        let digest = digest(&self.record_key(&key), &encode(&*value));
        self.sum = self.sum.wrapping_add(digest);
        let before = self.map.insert(key, Stored { value, digest })?;
        self.sum = self.sum.wrapping_sub(before.digest);
        Some(before.value)
    }

    /// Takes a value out.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let before = self.map.remove(key)?;
        self.sum = self.sum.wrapping_sub(before.digest);
        Some(before.value)
    }

    /// What `self` has otherwise than `before`: key, old value, new value.
    pub(crate) fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a K, Option<&'a Arc<V>>, Option<&'a Arc<V>>)> {
        before.map.diff(&self.map).map(|item| match item {
            DiffItem::Add(key, new) => (key, None, Some(&new.value)),
            DiffItem::Update { old: (key, old), new: (_, new) } => (key, Some(&old.value), Some(&new.value)),
            DiffItem::Remove(key, old) => (key, Some(&old.value), None),
        })
    }

    /// What a key's record is kept under.
    pub(crate) fn record_key(&self, key: &K) -> RecordKey {
        let mut bytes = vec![self.tag];
        bytes.extend(encode(key));
        bytes
    }

    /// All, as records.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> {
        self.map.iter().map(|(key, stored)| (self.record_key(key), encode(&*stored.value)))
    }

    /// What changed since `before`, as records; `None` is gone.
    pub(crate) fn record_changes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (RecordKey, Option<Vec<u8>>)> + 'a {
        self.changes_since(before)
            .map(|(key, _, new)| (self.record_key(key), new.map(|value| encode(&**value))))
    }

    /// Reads a record back in. `key` is without the tag.
    ///
    /// # Errors
    /// It is no record of this table.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        let (key, value) = self.read(key, value)?;
        self.insert(key, value);
        Ok(())
    }

    /// What a record says, without putting it in. `key` is without the tag.
    ///
    /// # Errors
    /// It is no record of this table.
    pub(crate) fn read(&self, key: &[u8], value: &[u8]) -> Result<(K, V), Unreadable> {
        let unreadable = |source| Unreadable { tag: self.tag, source };
        let key = rmp_serde::from_slice(key).map_err(unreadable)?;
        Ok((key, rmp_serde::from_slice(value).map_err(unreadable)?))
    }
}

/// msgpack with field names: what the log, the snapshots and the index are made of.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value)
        .expect("records are made of texts, numbers, lists and maps, and memory does not fail to take them")
}

/// 128 bits of SHA-256 over both parts, the first with its length before it.
pub(crate) fn digest(key: &[u8], value: &[u8]) -> u128 {
    let mut context = Context::new(&SHA256);
    context.update(&(key.len() as u64).to_le_bytes());
    context.update(key);
    context.update(value);
    let hash = context.finish();
    let (first, _) = hash.as_ref().split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
    u128::from_le_bytes(*first)
}

impl<K: Clone, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { tag: self.tag, map: self.map.clone(), sum: self.sum }
    }
}

impl<V> Clone for Stored<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), digest: self.digest }
    }
}

/// By hash: what a difference of two tables is judged by.
impl<V> PartialEq for Stored<V> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("tag", &self.tag)
            .field("hash", &format_args!("{:032x}", self.sum))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_set_and_not_of_the_way_there() {
        let (mut a, mut b) = (Table::<u64, String>::new(1), Table::<u64, String>::new(1));
        a.insert(1, "one".to_owned());
        a.insert(2, "two".to_owned());
        b.insert(2, "zwei".to_owned());
        b.insert(3, "three".to_owned());
        assert_ne!(a.hash(), b.hash());
        b.insert(1, "one".to_owned());
        b.insert(2, "two".to_owned());
        b.remove(&3);
        assert_eq!(a.hash(), b.hash());
        let mut other = Table::<u64, String>::new(2);
        other.insert(1, "one".to_owned());
        other.insert(2, "two".to_owned());
        assert_ne!(a.hash(), other.hash(), "the same records of another table");
        b.remove(&1);
        b.remove(&2);
        assert_eq!((b.hash(), b.len()), (0, 0));
    }

    #[test]
    fn records_and_changes_carry_a_table_over() {
        let mut before = Table::<u64, String>::new(7);
        for n in 0..100 {
            before.insert(n, format!("v{n}"));
        }
        let mut after = before.clone();
        after.insert(5, "new".to_owned());
        after.insert(200, "added".to_owned());
        after.remove(&7);
        let mut copy = Table::<u64, String>::new(7);
        for (key, value) in before.records() {
            copy.load(&key[1..], &value).expect("its own record");
        }
        assert_eq!(copy.hash(), before.hash());
        let changes: Vec<_> = after
            .changes_since(&before)
            .map(|(key, old, new)| (*key, old.is_some(), new.is_some()))
            .collect();
        assert_eq!(changes, [(5, true, true), (7, true, false), (200, false, true)]);
        assert_eq!(after.record_changes(&before).count(), 3);
        assert!(copy.load(&[0xc1], &[]).is_err(), "0xc1 is never used in msgpack");
    }
}
