//! Pure. The state as records: what snapshots hold whole and the index piece by piece. Reading back proves the hash, so
//! that a damaged or mixed set is found before anyone sees it. Records are made when they are asked for: of a large state
//! there is never a second copy as a whole.

use serde::{
    Deserialize, Serialize, Serializer,
    ser::{SerializeSeq, SerializeStruct},
};

use super::{
    Objects, State, Unreadable,
    history::{BLOCK_TAG, REVISION_TAG, TAIL_TAG},
    table::RecordKey,
};
use model::duration::Millis;

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

/// A whole state, to be written as an [`Image`] is, piece by piece.
#[derive(Debug, Clone, Copy)]
pub struct ImageOf<'a>(pub &'a State);

/// Its records.
struct RecordsOf<'a>(&'a State);

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
        let records = self.image_records().map(|(key, value)| (Blob(key), Blob(value))).collect();
        Image { sum: self.sum(), records }
    }

    /// What its records add up to.
    pub fn sum(&self) -> Sum {
        let oldest = self.history.oldest();
        Sum { revision: self.revision, time: self.time, oldest, hash: self.hash().to_le_bytes() }
    }

    /// All records as the index keeps them: most of the history in blocks.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.table_records().chain(self.history.records())
    }

    /// All records as a snapshot has them: the history revision by revision, which every version reads.
    fn image_records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.table_records().chain(self.history.revision_records())
    }

    fn table_records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        let members = &self.members;
        let tables = self.objects.table().records().chain(self.sessions.table().records());
        let tables = tables.chain(self.credentials.records()).chain(self.joins.records());
        let tables = tables.chain(self.trust.records()).chain(members.by_id.records());
        let tables = tables.chain(members.next.records()).chain(members.used.records());
        let tables = tables.chain(self.staged.records());
        let tables = tables.chain(self.numbers.holders.records()).chain(self.numbers.last.records());
        tables.chain(self.requests.records())
    }

    /// How many records a snapshot has.
    fn image_len(&self) -> usize {
        let members = &self.members;
        let objects = self.objects.len() + self.sessions.table().len();
        let secrets = self.credentials.len() + self.joins.len() + self.trust.len() + self.requests.len();
        let members = members.by_id.len() + members.next.len() + members.used.len();
        let numbers = self.numbers.holders.len() + self.numbers.last.len();
        objects + secrets + members + self.staged.len() + numbers + self.history.len()
    }

    /// What changed since `before`, of the same cluster, in [`State::records`]; `None` is gone.
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
        let holders = self.numbers.holders.record_changes(&before.numbers.holders);
        let last = self.numbers.last.record_changes(&before.numbers.last);
        let requests = self.requests.record_changes(&before.requests);
        let tables = objects.chain(hosts).chain(secrets).chain(joins).chain(trust);
        let tables = tables.chain(members).chain(numbers).chain(used).chain(staged);
        let tables = tables.chain(holders).chain(last).chain(requests);
        tables.chain(self.history.record_changes(&before.history))
    }

    /// The state that records make, whether a snapshot's or the index's, in any order but for the history's: those come as
    /// their keys are ordered.
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
            10 => self.numbers.load(key, value)?,
            11 => self.numbers.last.load(key, value)?,
            12 => self.requests.load(key, value)?,
            BLOCK_TAG => self.history.load_block(value)?,
            REVISION_TAG => self.history.load_revision(value)?,
            TAIL_TAG => self.history.load_tail(value)?,
            other => return Err(ImageError::Tag(other)),
        }
        Ok(())
    }
}

impl Serialize for ImageOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut image = serializer.serialize_struct("Image", 2)?;
        image.serialize_field("sum", &self.0.sum())?;
        image.serialize_field("records", &RecordsOf(self.0))?;
        image.end()
    }
}

impl Serialize for RecordsOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut records = serializer.serialize_seq(Some(self.0.image_len()))?;
        for (key, value) in self.0.image_records() {
            records.serialize_element(&(Blob(key), Blob(value)))?;
        }
        records.end()
    }
}
