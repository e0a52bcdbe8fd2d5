//! The log on real files. Power cuts, kills and failing disks are in the crate's `tests/`.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::header::HEADER_LEN;
use super::recover::{Why, segment_name};
use super::*;

/// Two small groups fill it.
const TINY: u64 = HEADER_LEN as u64 + 300;

/// Generous: every wait below ends by an event, this only keeps a broken log from hanging the test.
const DEADLINE: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity { cluster: Uuid::from_u128(7), node: 1 }
}

fn tiny() -> Options {
    Options { segment_bytes: TINY, on_fatal: Arc::new(|error| panic!("{error}")), ..Options::default() }
}

fn open(dir: &TempDir, options: Options) -> (Wal, Recovered) {
    Wal::open(&dir.path().join("log"), identity(), options).unwrap()
}

fn reopen(dir: &TempDir) -> (Wal, Recovered) {
    open(dir, tiny())
}

fn entry(index: u64, text: &str) -> Entry {
    Entry { index, body: Bytes::from(format!("{index} {text}")) }
}

fn entries(indexes: Range<u64>, text: &str) -> Vec<Entry> {
    indexes.map(|index| entry(index, text)).collect()
}

fn mark(index: u64) -> Mark {
    Mark { index, id: Bytes::from(format!("id {index}")) }
}

/// Appends and waits until it is on disk.
async fn append(wal: &Wal, entries: Vec<Entry>) {
    let (synced, wait) = oneshot::channel();
    wal.append(entries, move || synced.send(()).unwrap()).await.unwrap();
    tokio::time::timeout(DEADLINE, wait).await.unwrap().unwrap();
}

#[track_caller]
fn texts(bodies: Vec<Bytes>) -> Vec<String> {
    bodies.into_iter().map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
}

async fn check_read(wal: &Wal, range: Range<u64>, want: &[Entry]) {
    let want: Vec<_> = want.iter().map(|entry| entry.body.clone()).collect();
    assert_eq!(texts(wal.read(range, usize::MAX).await.unwrap()), texts(want));
}

fn files(dir: &TempDir) -> Vec<String> {
    let list = std::fs::read_dir(dir.path().join("log")).unwrap();
    let mut names: Vec<_> = list.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, recovered) = reopen(&dir);
    assert_eq!((recovered.ledger, recovered.torn_bytes), (Ledger::default(), 0));
    append(&wal, entries(1..4, "a")).await;
    wal.vote(Bytes::from_static(b"vote 1")).await.unwrap();
    append(&wal, entries(4..30, "b")).await;
    wal.vote(Bytes::from_static(b"vote 2")).await.unwrap();
    wal.truncate(20).await.unwrap();
    append(&wal, entries(20..25, "c")).await;
    wal.purge(mark(2)).await.unwrap();
    wal.committed(Bytes::from_static(b"id 24")).unwrap();
    let ledger = wal.ledger();
    assert!(wal.counts().segments >= 2, "{:?}", wal.counts());
    drop(wal);

    let (wal, recovered) = reopen(&dir);
    assert_eq!(recovered.ledger, ledger);
    assert_eq!((ledger.first, ledger.next), (3, 25));
    assert_eq!(ledger.vote.as_deref(), Some(&b"vote 2"[..]));
    assert_eq!(ledger.committed.as_deref(), Some(&b"id 24"[..]));
    assert_eq!(ledger.purged, Some(mark(2)));
    check_read(&wal, 3..4, &entries(3..4, "a")).await;
    check_read(&wal, 4..20, &entries(4..20, "b")).await;
    check_read(&wal, 20..99, &entries(20..25, "c")).await;
}

#[tokio::test]
async fn entries_are_readable_before_they_are_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    for index in 1..200 {
        wal.append(vec![entry(index, "x")], || {}).await.unwrap();
        check_read(&wal, index..index + 1, &[entry(index, "x")]).await;
    }
    assert_eq!(wal.counts().file_reads, 0);
}

#[tokio::test]
async fn callbacks_run_in_order_and_a_group_costs_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(&dir, Options { on_fatal: tiny().on_fatal, ..Options::default() });
    let seen = Arc::new(AtomicUsize::new(0));
    const APPENDS: usize = 500;
    for at in 0..APPENDS {
        let seen = Arc::clone(&seen);
        let in_order = move || assert_eq!(seen.fetch_add(1, Ordering::SeqCst), at);
        wal.append(vec![entry(at as u64 + 1, "x")], in_order).await.unwrap();
    }
    append(&wal, vec![]).await;
    assert_eq!(seen.load(Ordering::SeqCst), APPENDS);
    let counts = wal.counts();
    assert_eq!(counts.records, APPENDS as u64);
    assert_eq!(counts.fsyncs, counts.groups);
    assert!(counts.groups <= APPENDS as u64 / 2, "queued appends share syncs: {counts:?}");
}

#[tokio::test]
async fn the_committed_mark_goes_with_what_comes_next_or_last() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(&dir, Options { on_fatal: tiny().on_fatal, ..Options::default() });
    append(&wal, entries(1..3, "x")).await;
    let before = wal.counts();
    for _ in 0..100 {
        wal.committed(Bytes::from_static(b"id 2")).unwrap();
    }
    assert_eq!(wal.counts(), before, "nothing is written for its sake");
    append(&wal, entries(3..4, "x")).await;
    let after = wal.counts();
    assert_eq!((after.groups, after.fsyncs), (before.groups + 1, before.fsyncs + 1));
    assert_eq!(after.records, before.records + 2, "the entry and the newest mark");
    let refused = wal.append(vec![entry(9, "x")], || {}).await;
    assert!(matches!(refused, Err(Error::Gap(_))), "{refused:?}");
    wal.committed(Bytes::from_static(b"id 3")).unwrap();
    let refused = wal.append(vec![entry(9, "x")], || {}).await;
    assert!(matches!(refused, Err(Error::Gap(_))), "what is refused takes no mark along: {refused:?}");
    drop(wal);
    let (wal, recovered) = reopen(&dir);
    assert_eq!(recovered.ledger.committed.as_deref(), Some(&b"id 3"[..]));
    check_read(&wal, 0..9, &entries(1..4, "x")).await;
}

#[tokio::test]
async fn a_small_cache_reads_files_and_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(&dir, Options { cache_bytes: 0, ..tiny() });
    for from in (1..60).step_by(3) {
        append(&wal, entries(from..from + 3, "x")).await;
    }
    check_read(&wal, 0..u64::MAX, &entries(1..61, "x")).await;
    assert_eq!(wal.counts().file_reads, 60);
    assert_eq!(wal.read(5..60, 100).await.unwrap().len(), 2, "two records of some 40 bytes");
    assert_eq!(wal.read(5..60, 0).await.unwrap().len(), 1, "never nothing");
    assert_eq!(wal.read(61..90, 100).await.unwrap().len(), 0);
}

#[tokio::test]
async fn damage_under_a_running_log_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(&dir, Options { cache_bytes: 0, ..tiny() });
    append(&wal, entries(1..3, "x")).await;
    let path = dir.path().join("log").join(segment_name(1));
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"?", HEADER_LEN as u64 + record::RECORD_HEAD_LEN as u64 + 9).unwrap();
    let error = wal.read(1..3, usize::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { index: 1, damage: Some(_), .. }), "{error}");
    check_read(&wal, 2..3, &[entry(2, "x")]).await;
}

#[tokio::test]
async fn purging_unlinks_whole_segments_oldest_first_but_never_the_active_one() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    for index in 1..40 {
        append(&wal, vec![entry(index, "some text to fill it")]).await;
    }
    let before = files(&dir);
    assert!(before.len() > 4, "{before:?}");
    wal.purge(mark(15)).await.unwrap();
    check_read(&wal, 0..99, &entries(16..40, "some text to fill it")).await;
    drop(wal);
    let half = files(&dir);
    assert!(half.len() < before.len() && before.ends_with(&half), "{half:?}");

    let (wal, recovered) = reopen(&dir);
    assert_eq!((recovered.ledger.first, recovered.ledger.next), (16, 40));
    check_read(&wal, 0..99, &entries(16..40, "some text to fill it")).await;
    wal.purge(mark(39)).await.unwrap();
    drop(wal);
    assert_eq!(files(&dir), before[before.len() - 1..]);
    assert_eq!(reopen(&dir).1.ledger.next, 40);
}

#[tokio::test]
async fn a_purge_that_a_crash_interrupted_is_finished_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    for index in 1..20 {
        append(&wal, vec![entry(index, "some text to fill it")]).await;
    }
    let first = dir.path().join("log").join(segment_name(1));
    let kept = std::fs::read(&first).unwrap();
    wal.purge(mark(10)).await.unwrap();
    drop(wal);
    let after = files(&dir);
    assert_eq!(after.first(), Some(&segment_name(3)), "{after:?}");
    // As if power had been cut before the unlinking reached the disk; the second one is really gone.
    std::fs::write(&first, kept).unwrap();
    let error = Wal::open(&dir.path().join("log"), identity(), tiny()).err().unwrap();
    assert!(error.to_string().contains("segment 2 is missing"), "out of order is no crash of ours: {error}");
    std::fs::remove_file(&first).unwrap();
    drop(reopen(&dir));
    assert_eq!(files(&dir), after);
}

#[tokio::test]
async fn purging_past_last_empties_the_log_which_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    append(&wal, entries(1..6, "x")).await;
    wal.purge(mark(20)).await.unwrap();
    check_read(&wal, 0..99, &[]).await;
    assert!(matches!(wal.append(entries(6..7, "x"), || {}).await, Err(Error::Gap(_))));
    append(&wal, entries(21..23, "y")).await;
    drop(wal);
    let (wal, recovered) = reopen(&dir);
    assert_eq!((recovered.ledger.first, recovered.ledger.next), (21, 23));
    check_read(&wal, 0..99, &entries(21..23, "y")).await;
}

#[tokio::test]
async fn truncating_beyond_last_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    append(&wal, entries(1..6, "x")).await;
    let before = wal.counts();
    wal.truncate(6).await.unwrap();
    wal.truncate(99).await.unwrap();
    assert_eq!(wal.counts(), before);
    check_read(&wal, 0..99, &entries(1..6, "x")).await;
}

#[tokio::test]
async fn a_gap_or_an_endless_body_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    append(&wal, entries(1..3, "x")).await;
    assert!(matches!(wal.append(entries(4..5, "x"), || {}).await, Err(Error::Gap(_))));
    let torn = vec![entry(3, "x"), entry(5, "x")];
    assert!(matches!(wal.append(torn, || {}).await, Err(Error::Gap(_))));
    let endless = Entry { index: 3, body: Bytes::from(vec![0; ENTRY_LEN_MAX + 1]) };
    assert!(matches!(wal.append(vec![endless], || {}).await, Err(Error::TooLong { .. })));
    let long = Bytes::from(vec![0; MARK_LEN_MAX + 1]);
    assert!(matches!(wal.vote(long).await, Err(Error::TooLong { .. })));
    append(&wal, entries(3..4, "x")).await;
    check_read(&wal, 0..99, &entries(1..4, "x")).await;
}

#[tokio::test]
async fn a_group_larger_than_a_segment_gets_a_larger_one() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&dir);
    let large = Entry { index: 1, body: Bytes::from(vec![b'x'; 100_000]) };
    append(&wal, vec![large.clone()]).await;
    append(&wal, entries(2..9, "y")).await;
    drop(wal);
    let (wal, _) = reopen(&dir);
    assert_eq!(wal.read(1..2, usize::MAX).await.unwrap(), [large.body]);
    check_read(&wal, 2..9, &entries(2..9, "y")).await;
}

#[tokio::test]
async fn a_long_append_is_cut_into_pieces_and_acknowledged_once() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(&dir, Options { on_fatal: tiny().on_fatal, ..Options::default() });
    let body = Bytes::from(vec![7; 1 << 20]);
    let entries: Vec<_> = (1..12).map(|index| Entry { index, body: body.clone() }).collect();
    append(&wal, entries).await;
    assert!(wal.counts().fsyncs >= 2);
    drop(wal);
    assert_eq!(reopen(&dir).1.ledger.next, 12);
}

/// The file of the last segment, for those who do harm to it.
fn last_segment(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("log").join(files(dir).pop().unwrap())
}

#[tokio::test]
async fn records_of_a_torn_group_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = || Options { segment_bytes: 1 << 16, ..tiny() };
    let (wal, recovered) = open(&dir, roomy());
    append(&wal, entries(1..3, "old")).await;
    append(&wal, entries(3..6, "old")).await;
    drop(wal);
    // The group of 3, 4 and 5 reached the disk without its beginning.
    let path = last_segment(&dir);
    let record = record::RECORD_HEAD_LEN + 8 + "3 old".len();
    let torn = recovered.tail as usize + 2 * record;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[torn] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();

    let (wal, recovered) = open(&dir, roomy());
    assert_eq!((recovered.ledger.next, recovered.torn_bytes), (3, 3 * record as u64));
    let on_disk = std::fs::read(&path).unwrap();
    assert_eq!(on_disk[..torn], bytes[..torn]);
    assert!(on_disk[torn..].iter().all(|byte| *byte == 0), "zeros, before anything is reported");
    // A new 3 of the same length: the old 4 and 5 would follow it without a seam.
    append(&wal, entries(3..4, "new")).await;
    drop(wal);
    let (wal, _) = open(&dir, roomy());
    check_read(&wal, 1..99, &[entry(1, "old"), entry(2, "old"), entry(3, "new")]).await;
}

#[tokio::test]
async fn every_flipped_byte_on_disk_is_refused_or_never_served_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = || Options { segment_bytes: HEADER_LEN as u64 + 400, ..tiny() };
    let (wal, recovered) = open(&dir, roomy());
    append(&wal, entries(1..3, "x")).await;
    append(&wal, entries(3..5, "x")).await;
    let last_group = recovered.tail + wal.counts().bytes;
    append(&wal, entries(5..6, "x")).await;
    drop(wal);
    let path = last_segment(&dir);
    let sound = std::fs::read(&path).unwrap();
    for at in HEADER_LEN..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        match Wal::open(&dir.path().join("log"), identity(), roomy()) {
            Err(Error::Refused { refusal, .. }) => {
                assert!((at as u64) < last_group && matches!(refusal.why, Why::Acknowledged { .. }), "{at}");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok((wal, recovered)) => {
                assert!(at as u64 >= last_group, "byte {at} went unnoticed");
                check_read(&wal, 0..99, &entries(1..recovered.ledger.next, "x")).await;
                assert!((5..=6).contains(&recovered.ledger.next), "byte {at}");
            }
        }
    }
}

#[tokio::test]
async fn another_members_folder_and_an_open_one_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (wal, _) = reopen(&dir);
    let error = Wal::open(&path, identity(), tiny()).err().unwrap();
    assert!(matches!(error, Error::Locked(_)), "{error}");
    drop(wal);
    let other = Identity { node: 2, ..identity() };
    let error = Wal::open(&path, other, tiny()).err().unwrap();
    assert!(error.to_string().contains("this is the log of member 1"), "{error}");
    reopen(&dir);
}

#[tokio::test]
async fn a_failed_write_is_fatal_and_nothing_is_acknowledged_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (fatal, mut failed) = mpsc::channel(1);
    let on_fatal: OnFatal = Arc::new(move |error| fatal.try_send(error.to_string()).unwrap());
    let (wal, _) = open(&dir, Options { on_fatal, ..tiny() });
    // The next segment cannot get its name: a folder has it.
    std::fs::create_dir_all(dir.path().join("log").join(segment_name(2)).join("in the way")).unwrap();
    let large = Bytes::from(vec![0; TINY as usize]);
    let (synced, wait) = oneshot::channel();
    wal.append(vec![Entry { index: 1, body: large }], move || synced.send(()).unwrap()).await.unwrap();
    let told = tokio::time::timeout(DEADLINE, failed.recv()).await.unwrap().unwrap();
    assert!(told.starts_with("cannot rename"), "{told}");
    assert!(wait.await.is_err(), "the callback is dropped, not called");
    assert!(matches!(wal.vote(Bytes::new()).await, Err(Error::Stopped)));
}

#[tokio::test]
async fn the_folder_is_free_as_soon_as_it_is_not_held() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let (wal, _) = reopen(&dir);
        let held = wal.held();
        let ends = std::thread::spawn(move || drop(wal));
        while held.strong_count() > 0 {
            std::thread::yield_now();
        }
        // Whoever sees this may open it at once, also while the other thread is still on its way out.
        reopen(&dir);
        ends.join().unwrap();
    }
}
