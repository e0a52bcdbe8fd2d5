//! Pure. The state as records: what snapshots hold whole and the index piece by piece. Reading back proves the hash, so
//! that a damaged or mixed set is found before anyone sees it.

use serde::{Deserialize, Serialize};

use super::{
    Objects, State, Unreadable,
    table::{RecordKey, encode},
};
use model::duration::Millis;

/// The tag under which the index keeps revisions of the history; tables have others.
const HISTORY_TAG: u8 = 100;

/// What a set of records must add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The revision.
    pub revision: u64,
    /// Log time.
    pub time: Millis,
    /// The history keeps what came after this revision.
    pub oldest: u64,
    /// [`State::hash`].
    pub hash: [u8; 16],
}

/// Bytes, written as such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob(#[serde(with = "crate::command::bytes_field")] pub Vec<u8>);

/// A whole state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// What the records add up to.
    pub sum: Sum,
    /// The records, by key.
    pub records: Vec<(Blob, Blob)>,
}

/// A set of records is no state.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] Unreadable),
    /// A record of a table that this version does not know: a newer one wrote it.
    #[error("a record has the unknown tag {0}; a newer version wrote it")]
    Tag(u8),
    /// The records are not those of the state that they claim to be.
    #[error("the records' hash is {actual:032x}, not {expected:032x}")]
    Hash {
        /// What was claimed.
        expected: u128,
        /// What it is.
        actual: u128,
    },
}

impl State {
    /// The whole state.
    pub fn image(&self) -> Image {
        let records = self.records().into_iter().map(|(key, value)| (Blob(key), Blob(value))).collect();
        Image { sum: self.sum(), records }
    }

    /// What its records add up to.
    pub fn sum(&self) -> Sum {
        let oldest = self.history.oldest();
        Sum { revision: self.revision, time: self.time, oldest, hash: self.hash().to_le_bytes() }
    }

    /// All records, the history's among them.
    pub fn records(&self) -> Vec<(RecordKey, Vec<u8>)> {
        let mut records = Vec::with_capacity(self.objects.len() + 64);
        records.extend(self.objects.table().records());
        records.extend(self.sessions.table().records());
        records.extend(self.credentials.records());
        records.extend(self.joins.records());
        records.extend(self.trust.records());
        records.extend(self.members.by_id.records());
        records.extend(self.members.next.records());
        records.extend(self.members.used.records());
        records.extend(self.staged.records());
        records.extend(self.history.iter().map(|kept| (history_key(kept.revision), encode(&**kept))));
        records
    }

    /// What changed since `before`, of the same cluster, as records; `None` is gone. One after the other, as each is made
    /// when it is asked for.
    pub fn record_changes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (RecordKey, Option<Vec<u8>>)> + 'a {
        let objects = self.objects.table().record_changes(before.objects.table());
        let hosts = self.sessions.table().record_changes(before.sessions.table());
        let secrets = self.credentials.record_changes(&before.credentials);
        let joins = self.joins.record_changes(&before.joins);
        let trust = self.trust.record_changes(&before.trust);
        let members = self.members.by_id.record_changes(&before.members.by_id);
        let numbers = self.members.next.record_changes(&before.members.next);
        let used = self.members.used.record_changes(&before.members.used);
        let staged = self.staged.record_changes(&before.staged);
        let tables = objects.chain(hosts).chain(secrets).chain(joins).chain(trust);
        let tables = tables.chain(members).chain(numbers).chain(used).chain(staged);
        let added = self.history.iter().filter(|kept| kept.revision > before.revision);
        let dropped = before.history.iter().take_while(|kept| kept.revision <= self.history.oldest());
        tables
            .chain(added.map(|kept| (history_key(kept.revision), Some(encode(&**kept)))))
            .chain(dropped.map(|kept| (history_key(kept.revision), None)))
    }

    /// The state that records make, in any order.
    ///
    /// # Errors
    /// They do not add up to `sum`.
    pub fn from_records(
        sum: Sum,
        records: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>,
        history_max: usize,
    ) -> Result<Self, ImageError> {
        let mut state = Self {
            objects: Objects::empty(),
            revision: sum.revision,
            time: sum.time,
            ..Self::with_history(history_max)
        };
        state.history.restart(sum.oldest);
        for (key, value) in records {
            state.load(key.as_ref(), value.as_ref())?;
        }
        let (expected, actual) = (u128::from_le_bytes(sum.hash), state.hash());
        if expected != actual {
            return Err(ImageError::Hash { expected, actual });
        }
        Ok(state)
    }

    /// The state of an image.
    ///
    /// # Errors
    /// It is damaged, or a newer version wrote it.
    pub fn from_image(image: &Image, history_max: usize) -> Result<Self, ImageError> {
        let records = image.records.iter().map(|(key, value)| (&key.0, &value.0));
        Self::from_records(image.sum, records, history_max)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), ImageError> {
        let (&tag, key) = key.split_first().ok_or(ImageError::Tag(0))?;
        match tag {
            1 => self.objects.load(key, value)?,
            2 => self.sessions.load(key, value)?,
            3 => self.credentials.load(key, value)?,
            4 => self.joins.load(key, value)?,
            5 => self.trust.load(key, value)?,
            6 => self.members.by_id.load(key, value)?,
            7 => self.members.next.load(key, value)?,
            8 => self.members.used.load(key, value)?,
            9 => self.staged.load(key, value)?,
            HISTORY_TAG => {
                let kept = rmp_serde::from_slice(value).map_err(|source| Unreadable { tag, source })?;
                self.history.keep(kept);
            }
            other => return Err(ImageError::Tag(other)),
        }
        Ok(())
    }
}

/// Big-endian, so that the index keeps revisions in their order.
fn history_key(revision: u64) -> RecordKey {
    let mut key = vec![HISTORY_TAG];
    key.extend(revision.to_be_bytes());
    key
}
