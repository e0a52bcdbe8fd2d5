//! Damaged data folders, in one process: whatever is spoiled on disk is made good or refused with the way out, and never
//! served. Places are drawn from a seed, which is printed. `MESH_FULL=1` draws ten times as many.

mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use registry::{
    Registry, Settings, Source, State,
    wal::{Entry, Identity, Mark, Options, Wal},
};
use world::{World, put, until};

/// Draws for each kind of file in CI.
const DRAWS: u64 = 24;
/// Names that are written, so that the state has something to lose.
const NAMES: u64 = 40;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

/// All that a state holds for its callers. (Its hash and its revision also count the starts of members.)
fn content(state: &State) -> String {
    let objects =
        state.objects().iter().map(|object| (object.key().path(), object.metadata.revision, &object.spec));
    format!("{:?} {:?}", state.epoch(), objects.collect::<Vec<_>>())
}

/// A folder of a member that is alone and ended well, with snapshots, a purged log, an audit and an index; and what its
/// state holds.
async fn folder_at_rest(log_kept: u64) -> (World, String) {
    let mut world = World::with_snapshots(60, log_kept).await;
    for n in 0..300 {
        world.members[&1].propose(put(&format!("n{}", n % NAMES), &n.to_string())).await.expect("a leader");
    }
    let member = world.members[&1].clone();
    until("snapshots", || member.status().snapshot_index.filter(|index| *index >= 200)).await;
    until("the purge", || member.status().purged_index.filter(|index| *index >= 100)).await;
    let content = content(&member.read().await.expect("a leader"));
    drop(member);
    world.close(1).await;
    (world, content)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Flips a bit, cuts the file off, or zeroes a sector; what was done.
fn spoil(path: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(path).expect("a file");
    // Most of a segment is zeros that nothing reads: what was written counts.
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let at = dice.below(written) as usize;
    let done = match dice.below(4) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeros from {at}")
        }
        _ => {
            bytes[at] ^= 1 << dice.below(8);
            format!("a bit of byte {at}")
        }
    };
    fs::write(path, bytes).expect("writable");
    format!("{}: {done}", path.display())
}

/// Opens a copy of the folder after `damage`; `Ok` with what it serves, or why it refuses.
async fn open(world: &World, damage: impl FnOnce(&Path)) -> Result<(String, Source), String> {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("data");
    copy(&world.folder(1), &folder);
    damage(&folder);
    let settings = Settings::new(folder, 1, world.cluster, world::addresses(1));
    let opened = Registry::open(settings, Arc::new(world::Nobody)).await;
    let (registry, recovery) = opened.map_err(|error| error.to_string())?;
    let content = content(&registry.read().await.expect("it is alone, and leads"));
    registry.shutdown().await;
    Ok((content, recovery.source))
}

fn draws() -> u64 {
    if std::env::var_os("MESH_FULL").is_some_and(|value| value == "1") { 10 * DRAWS } else { DRAWS }
}

/// Spoils a file that `choose` takes, many times. `index`: whether the index is left to start from.
async fn check(what: &str, choose: fn(&Path) -> bool, index: bool) -> (u64, u64) {
    let (world, want) = folder_at_rest(90).await;
    let (mut served, mut refused) = (0, 0);
    for seed in 0..draws() {
        let mut done = String::new();
        let opened = open(&world, |folder| {
            let mut dice = Dice(seed);
            let candidates: Vec<_> = files(folder).into_iter().filter(|path| choose(path)).collect();
            done = spoil(&candidates[dice.below(candidates.len() as u64) as usize], &mut dice);
            if !index {
                fs::remove_dir_all(folder.join("index")).expect("an index");
            }
        });
        match opened.await {
            Ok((content, _)) => {
                assert!(content == want, "{what}, seed {seed}: {done}: something else is served: {content}");
                served += 1;
            }
            Err(error) => {
                assert!(names_the_way_out(&error), "{what}, seed {seed}: {done}: {error}");
                refused += 1;
            }
        }
    }
    eprintln!("{what}: seeds 0..{}: {served} made good, {refused} refused, 0 served wrongly", draws());
    (served, refused)
}

fn names_the_way_out(error: &str) -> bool {
    error.contains("let it join")
        || error.contains("use another data_dir")
        || error.contains("Start the version")
}

fn has(path: &Path, text: &str) -> bool {
    path.to_string_lossy().contains(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_or_was_never_acknowledged() {
    let (_, refused) = check("log", |path| has(path, ".wal"), false).await;
    assert!(refused > 0, "no draw hit what counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_made_good_from_the_one_before_and_the_log() {
    let (served, refused) = check("snapshots", |path| has(path, ".snap"), false).await;
    assert_eq!((served, refused), (draws(), 0), "the log reaches back to the older one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_does_not_matter_where_the_index_is_sound() {
    let (served, _) = check("snapshots beside an index", |path| has(path, ".snap"), true).await;
    assert_eq!(served, draws());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_is_made_anew() {
    let (served, _) = check("index", |path| has(path, "/index/"), true).await;
    assert_eq!(served, draws());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_audit_keeps_nobody_from_starting() {
    let (served, _) = check("audit", |path| has(path, ".audit"), true).await;
    assert_eq!(served, draws());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_identity_is_refused() {
    let (served, refused) = check("member.json", |path| has(path, "member.json"), true).await;
    assert!(served + refused == draws() && refused > served, "{served} {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_sound_snapshot_a_purged_log_is_refused_by_name() {
    let (world, _) = folder_at_rest(10).await;
    let refused = open(&world, |folder| {
        fs::remove_dir_all(folder.join("index")).expect("an index");
        for path in files(folder).into_iter().filter(|path| has(path, ".snap")) {
            let mut bytes = fs::read(&path).expect("a snapshot");
            *bytes.last_mut().expect("it is not empty") ^= 1;
            fs::write(&path, bytes).expect("writable");
        }
    });
    let error = refused.await.expect_err("there is nothing to make it good from");
    assert!(error.contains(".snap: its checksum does not fit") && names_the_way_out(&error), "{error}");
}

/// A log that was purged before a snapshot was on disk: the planted order of the two. The log's own calls do it, behind
/// the member's back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_before_the_snapshot_is_noticed() {
    let (world, _) = folder_at_rest(90).await;
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("data");
    copy(&world.folder(1), &folder);
    fs::remove_dir_all(folder.join("index")).expect("an index");
    let newest = files(&folder).into_iter().rfind(|path| has(path, ".snap")).expect("a snapshot");
    let index: u64 = newest.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("its name says");
    let identity = Identity { cluster: world.cluster, node: 1 };
    let (wal, recovered) = Wal::open(&folder.join("wal"), identity, Options::default()).expect("it is sound");
    let beyond = index + 2;
    assert!(beyond < recovered.ledger.next, "there are entries behind the snapshot");
    // The id of an entry, as the log has it: of the last one that was purged, moved on.
    let purged = recovered.ledger.purged.expect("it was purged before").id;
    let id = moved(&purged, beyond);
    wal.purge(Mark { index: beyond, id: id.into() }).await.expect("it is purged");
    drop(wal);
    let settings = Settings::new(folder, 1, world.cluster, world::addresses(1));
    let opened = Registry::open(settings, Arc::new(world::Nobody)).await;
    let error = opened.err().expect("the state between is gone").to_string();
    let said = format!("the log starts after entry {beyond}, but the newest snapshot ends at {index}");
    assert!(error.contains(&said) && names_the_way_out(&error), "{error}");
}

/// A serialised log id with another index: its last field, a MessagePack integer.
fn moved(id: &[u8], index: u64) -> Vec<u8> {
    let at = id.windows(6).position(|window| window == b"\xa5index").expect("it has an index") + 6;
    let mut moved = id[..at].to_vec();
    moved.push(0xcf);
    moved.extend(index.to_be_bytes());
    moved
}

/// Copies a log, with one word of its entries replaced by another of the same length: every checksum is right again.
async fn forge(folder: &Path, identity: Identity, word: &[u8], by: &[u8]) {
    let (from, to) = (folder.join("wal"), folder.join("forged"));
    let (wal, recovered) = Wal::open(&from, identity, Options::default()).expect("it is sound");
    let ledger = recovered.ledger;
    let bodies = wal.read(ledger.first..ledger.next, usize::MAX).await.expect("it reads");
    let (forged, _) = Wal::open(&to, identity, Options::default()).expect("a fresh one");
    let mut found = 0;
    let entry = |(index, body): (u64, bytes::Bytes)| {
        let mut body = body.to_vec();
        if let Some(at) = body.windows(word.len()).position(|window| window == word) {
            body[at..at + by.len()].copy_from_slice(by);
            found += 1;
        }
        Entry { index, body: body.into() }
    };
    let entries: Vec<_> = (ledger.first..).zip(bodies).map(entry).collect();
    assert_eq!(found, 1, "one entry has the word");
    forged.append(entries, || {}).await.expect("it takes them");
    forged.vote(ledger.vote.expect("it voted")).await.expect("it takes it");
    drop((wal, forged));
    fs::remove_dir_all(&from).expect("it is removed");
    fs::rename(&to, &from).expect("it takes its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_changed_behind_its_checksums_is_noticed() {
    let mut world = World::three().await;
    for n in 0..80 {
        let text = if n == 20 { "a-word-of-its-own".to_owned() } else { n.to_string() };
        world.members[&1].propose(put(&format!("n{n}"), &text)).await.expect("a leader");
    }
    world.agree().await;
    let (leader, follower) = (world.leader().await, world.follower().await.status().member);
    let other = world.members.keys().copied().find(|id| *id != follower && *id != leader.status().member);
    let other = world.members[&other.expect("a third")].clone();
    assert_eq!(leader.compare(follower, &world.members[&follower].checkpoints()), None, "they agree");
    world.close(follower).await;
    let identity = Identity { cluster: world.cluster, node: follower };
    forge(&world.folder(follower), identity, b"a-word-of-its-own", b"another-word-here").await;
    fs::remove_dir_all(world.folder(follower).join("index")).expect("an index");
    world.open(follower).await;
    let replica = world.members[&follower].clone();
    let at = until("the difference", || leader.compare(follower, &replica.checkpoints())).await;
    assert!(leader.diverged().contains_key(&follower) && at > 20, "{at}");
    assert_eq!(leader.compare(other.status().member, &other.checkpoints()), None, "those two agree");
    assert_eq!(replica.compare(leader.status().member, &leader.checkpoints()), Some(at), "either sees it");
}

/// A leader whose last entries reached the others before its own disk, and whose power went then, must not go on leading
/// in its old term: another entry would get the place of one that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_comes_back_stands_for_election_again() {
    let mut world = World::one().await;
    world.members[&1].propose(put("a", "x")).await.expect("a leader");
    let before = world.members[&1].status().term;
    world.close(1).await;
    world.open(1).await;
    world.members[&1].propose(put("b", "x")).await.expect("a leader");
    let after = world.members[&1].status().term;
    assert!(after > before, "it led in term {before}, and again in {after}");
}
