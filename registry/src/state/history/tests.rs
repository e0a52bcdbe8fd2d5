use model::{kind::Kind, shape::Text};

use super::*;
use crate::state::table::RecordKey;

/// Bytes of a note: some revisions fill a block.
const NOTE_BYTES: usize = 50;

/// As an entry of the log that wrote a note on a namespace.
fn write(history: &mut History, revision: u64, note: &str) {
    let key = Key::mesh_wide(Kind::Namespace, "shop".parse().expect("a name"));
    let noted = |note: &str| {
        let mut object = Object::new(key.clone(), serde_json::Map::new());
        let note = Text::new(note).expect("it fits");
        object.metadata.annotations.insert("note".parse().expect("a key"), note);
        Some(Arc::new(object))
    };
    let change = Changed { key: key.clone(), before: noted("before"), after: noted(note), actor: None };
    history.keep(Kept::of(Revision { revision, at: Millis(revision), changes: vec![change] }));
}

fn note(revision: u64) -> String {
    format!("{revision:0NOTE_BYTES$}")
}

/// A history of revisions up to `last`.
fn history(revisions_max: usize, last: u64) -> History {
    let mut history = History::new(revisions_max);
    for revision in 1..=last {
        write(&mut history, revision, &note(revision));
        assert!(history.sound(revision), "{history:?}");
    }
    history
}

fn read(history: &History, since: u64) -> Vec<(u64, String)> {
    let note = |kept: Arc<Revision>| {
        let after = kept.changes[0].after.as_ref().expect("it is there");
        (kept.revision, after.metadata.annotations.values().map(|note| note.as_str().to_owned()).collect())
    };
    history.since(since).expect("it is kept").map(note).collect()
}

fn expected(revisions: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
    revisions.map(|revision| (revision, note(revision))).collect()
}

/// Records, with what changed in them.
fn indexed(records: &mut std::collections::BTreeMap<RecordKey, Vec<u8>>, now: &History, before: &History) {
    for (key, value) in now.record_changes(before) {
        match value {
            Some(value) => drop(records.insert(key, value)),
            None => drop(records.remove(&key)),
        }
    }
}

fn loaded(
    oldest: u64,
    records: impl IntoIterator<Item = (RecordKey, Vec<u8>)>,
) -> Result<History, crate::state::Unreadable> {
    let mut history = History::new(100);
    history.restart(oldest);
    for (key, value) in records {
        match key[0] {
            BLOCK_TAG => history.load_block(&value)?,
            TAIL_TAG => history.load_tail(&value)?,
            _ => history.load_revision(&value)?,
        }
    }
    Ok(history)
}

#[test]
fn every_revision_is_read_as_it_was_packed_or_not() {
    let history = history(1_000, 200);
    assert!(history.blocks.len() > 5 && history.tail.len() > 1, "{history:?}");
    for since in 0..=200 {
        assert_eq!(read(&history, since), expected(since + 1..=200));
    }
    let back: Vec<_> = history.since(10).expect("it is kept").rev().map(|kept| kept.revision).collect();
    assert_eq!(back, (11..=200).rev().collect::<Vec<_>>());
}

#[test]
fn as_many_are_kept_as_are_to_be_and_no_more() {
    let mut history = History::new(30);
    for revision in 1..=200_u64 {
        write(&mut history, revision, &note(revision));
        assert_eq!(history.len() as u64, revision.min(30));
        assert_eq!(history.oldest(), revision.saturating_sub(30));
        assert!(history.sound(revision), "{history:?}");
    }
    assert_eq!(history.since(169).map(drop), Err(Compacted { oldest: 170 }));
    assert_eq!(read(&history, 170), expected(171..=200));
    assert!(history.blocks.len() > 1 && !history.tail.is_empty());
}

#[test]
fn what_operators_note_on_objects_counts() {
    const LONG: usize = 4_000;
    let mut history = History::new(usize::MAX);
    for revision in 1..=10_000 {
        write(&mut history, revision, &"x".repeat(LONG));
    }
    assert!(history.len() > 1_000 && history.len() * LONG <= HISTORY_BYTES_MAX, "{}", history.len());
    assert!(history.sound(10_000));
    let packed: usize = history.blocks.values().map(Block::packed_bytes).sum();
    assert!(packed < HISTORY_BYTES_MAX / 10, "{packed} bytes: what repeats costs little");
}

#[test]
fn one_that_is_larger_than_all_may_be_is_kept_alone() {
    let mut history = history(100, 20);
    let key = Key::mesh_wide(Kind::Namespace, "shop".parse().expect("a name"));
    let mut object = Object::new(key.clone(), serde_json::Map::new());
    object.spec.insert("large".to_owned(), "x".repeat(HISTORY_BYTES_MAX).into());
    let change = Changed { key, before: None, after: Some(Arc::new(object)), actor: None };
    history.keep(Kept::of(Revision { revision: 21, at: Millis(0), changes: vec![change] }));
    assert!(history.sound(21) && (history.len(), history.oldest()) == (1, 20));
    write(&mut history, 22, "small again");
    assert!(history.sound(22) && (history.len(), history.oldest()) == (1, 21));
}

/// As the index follows, now and then, and as a member begins with it.
#[test]
fn records_and_their_changes_carry_it_over() {
    let (mut history, mut held) = (History::new(100), History::new(100));
    let mut index = std::collections::BTreeMap::new();
    for revision in 1..=300 {
        write(&mut history, revision, &note(revision));
        if revision % 17 != 0 {
            continue;
        }
        indexed(&mut index, &history, &held);
        held = history.clone();
        assert!(index.iter().map(|(key, value)| (key.clone(), value.clone())).eq(history.records()));
        let read = loaded(history.oldest(), index.clone()).expect("its own records");
        assert!(read.sound(revision) && read.len() == history.len());
        assert!(read.revision_records().eq(history.revision_records()));
    }
    let other = loaded(history.oldest(), history.revision_records()).expect("a snapshot's");
    assert!(other.sound(300) && other.revision_records().eq(history.revision_records()));
    // It is packed otherwise: the index follows all the same.
    indexed(&mut index, &other, &held);
    assert!(index.into_iter().eq(other.records()));
}

#[test]
fn what_is_damaged_or_out_of_order_is_refused() {
    let history = history(1_000, 100);
    let records: Vec<_> = history.records().collect();
    assert!(loaded(0, records.clone()).is_ok());
    assert!(loaded(0, records.iter().rev().cloned()).is_err(), "the newest first");
    let (key, block) = records[0].clone();
    assert_eq!(key[0], BLOCK_TAG);
    for at in 0..block.len() {
        let mut damaged = block.clone();
        damaged[at] ^= 0x10;
        // A text may have become another, as the store's checksums would tell; nothing panics, now or later.
        if let Ok(read) = loaded(0, [(key.clone(), damaged)]) {
            assert_eq!(read.iter().count(), read.len());
        }
        assert!(loaded(0, [(key.clone(), block[..at].to_vec())]).is_err(), "cut at {at}");
    }
}

#[test]
fn what_lags_is_unpacked_once() {
    let history = history(1_000, 100);
    let first = |history: &History| history.since(0).expect("it is kept").next().expect("the first");
    assert!(Arc::ptr_eq(&first(&history), &first(&history.clone())));
    assert_eq!(history.iter().count(), 100, "all blocks in turn");
    assert_eq!(first(&history).revision, 1);
}
