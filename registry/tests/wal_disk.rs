//! The log under kill -9, failing system calls and a full disk, seen from outside the process.
//! Needs root, strace and e2fsprogs, and fails where they are missing.

#![allow(clippy::unwrap_used, reason = "a test: whatever fails, fails it")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const TORTURE: &str = env!("CARGO_BIN_EXE_wal-torture");
const SIGABRT: i32 = 6;

/// Under strace: some 60 KiB a round, so that a segment lasts for 70 rounds; an end, so that a failure which
/// goes unnoticed is a failed test and not an endless one.
const GROUP: &str = "256";
const ROUNDS: &str = "2000";

/// A folder for the log, and beside it a file with what was acknowledged.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("acks"), "").unwrap();
        Self { dir }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn note(&self, lines: &str) {
        let path = self.dir.path().join("acks");
        let whole = lines.rfind('\n').map_or("", |end| &lines[..=end]);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + whole).unwrap();
    }

    #[track_caller]
    fn check(&self) {
        let acks = self.dir.path().join("acks");
        let output = Command::new(TORTURE).arg("check").arg(self.log()).arg(acks).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(log: &Path, group: u32) -> Child {
    Command::new(TORTURE)
        .arg("write")
        .arg(log)
        .args(["--group", &group.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let bench = Bench::new();
    for (round, group) in [1, 16, 2, 1, 16].into_iter().enumerate() {
        let mut writer = write(&bench.log(), group);
        let mut lines = BufReader::new(writer.stdout.take().unwrap());
        let mut seen = String::new();
        for _ in 0..500 * (round + 1) {
            lines.read_line(&mut seen).unwrap();
        }
        writer.kill().unwrap();
        // What it printed before it died counts too: all of it was acknowledged or announced.
        lines.read_to_string(&mut seen).unwrap();
        writer.wait().unwrap();
        bench.note(&seen);
        bench.check();
    }
}

/// Lets one system call of a writer fail and expects the process to end at once, saying `message`. strace
/// counts the calls of each thread for itself.
#[track_caller]
fn check_failure(inject: &str, message: &str) {
    let bench = Bench::new();
    let (calls, _) = inject.split_once(':').unwrap();
    let output = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={inject}"),
        ])
        .args([TORTURE, "write"])
        .arg(bench.log())
        .args(["--group", GROUP, "--rounds", ROUNDS])
        .output()
        .expect("strace is installed (apt-get install strace)");
    let said = text(&output.stderr);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{inject}: {said}");
    assert!(said.contains("the process ends: ") && said.contains(message), "{inject}: {said}");
    assert_acknowledged(&output, inject);
    bench.note(&text(&output.stdout));
    bench.check();
}

#[track_caller]
fn assert_acknowledged(output: &Output, inject: &str) {
    let acknowledged = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(acknowledged >= 256, "{inject}: it should fail later, after {acknowledged}");
}

#[test]
fn a_failed_fdatasync_ends_the_process_and_is_never_retried() {
    check_failure("fdatasync:error=EIO:when=3", "cannot sync");
    check_failure("fdatasync:error=EIO:when=50", "cannot sync");
    // Once is enough: the second one would succeed, and with it a lie.
    check_failure("fdatasync:error=ENOSPC:when=20..20", "cannot sync");
}

#[test]
fn a_failed_write_ends_the_process() {
    // A segment's zeros are 16 writes of the housekeeper; this is one of the writer's groups.
    check_failure("pwrite64:error=EIO:when=40", "cannot write to");
}

#[test]
fn a_failure_while_a_segment_is_made_ends_the_process() {
    // Opening takes four: parent, zeros, header, folder. Then one thread syncs zeros, and the writer a
    // segment's header and the folder.
    check_failure("fsync:error=EIO:when=5", "cannot sync");
    check_failure("fsync:error=EIO:when=6", "cannot sync");
    check_failure("?rename,?renameat,?renameat2:error=EIO:when=2", "cannot rename");
}

#[test]
fn a_failed_unlink_ends_the_process() {
    // The first unlink looks for an unfinished segment at open.
    check_failure("?unlink,?unlinkat:error=EIO:when=2", "cannot remove");
}

/// The file calls of each thread, in order, as `call file`; the thread that opened the log comes first.
fn file_calls(log: &Path, flags: &[&str]) -> Vec<Vec<String>> {
    let trace = log.with_extension("trace");
    let calls = "trace=?rename,?renameat,?renameat2,?unlink,?unlinkat,fsync,fdatasync,pwrite64";
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-s", "0", "-e", calls, "-e", "signal=none", "-o"])
        .arg(&trace)
        .args([TORTURE, "write"])
        .arg(log)
        .args(flags)
        .stdout(Stdio::null())
        .status()
        .expect("strace is installed (apt-get install strace)");
    assert!(status.success());
    let mut threads: Vec<(String, Vec<String>)> = Vec::new();
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        // A call that another thread interrupts is printed in two parts; the first one has the file.
        let Some((thread, call)) = line.split_once(' ').filter(|(_, call)| !call.contains("resumed>")) else {
            continue;
        };
        let (name, arguments) = call.trim_start().split_once('(').unwrap();
        let path = arguments.split(['<', '>', '"']).nth(1).unwrap_or_default();
        let file = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        let call = format!("{} {file}", name.trim_end_matches("at").trim_end_matches("at2"));
        match threads.iter_mut().find(|(known, _)| known == thread) {
            Some((_, calls)) => calls.push(call),
            None => threads.push((thread.to_owned(), vec![call])),
        }
    }
    threads.into_iter().map(|(_, calls)| calls).collect()
}

/// The thread that does this more often than any other.
#[track_caller]
fn doing<'a>(threads: &'a [Vec<String>], call: &str) -> &'a [String] {
    let count = |thread: &&Vec<String>| thread.iter().filter(|done| done.starts_with(call)).count();
    threads.iter().max_by_key(count).filter(|thread| count(thread) > 0).expect("somebody does it")
}

#[test]
fn nothing_is_used_before_it_is_on_disk() {
    let bench = Bench::new();
    let flags = ["--group", "64", "--segment", "65536", "--rounds", "120"];
    let first = file_calls(&bench.log(), &flags);
    let folder = bench.dir.path().file_name().unwrap().to_string_lossy().into_owned();
    let begun = ["pwrite64 new.tmp", "fsync new.tmp", "pwrite64 new.tmp", "fsync new.tmp"];
    let opened: Vec<_> = [format!("fsync {folder}"), "unlink new.tmp".into()]
        .into_iter()
        .chain(begun.map(str::to_owned))
        .chain(["rename new.tmp".into(), "fsync log".into()])
        .collect();
    assert_eq!(first[0], opened, "a new log: its name, the zeros, the header, then the segment's name");

    let writer = doing(&first, "fdatasync");
    let renamed: Vec<_> = (0..writer.len()).filter(|at| writer[*at].starts_with("rename")).collect();
    assert!(renamed.len() > 5, "many segments were begun");
    for at in renamed {
        assert_eq!(
            writer[at - 2..=at + 1],
            ["pwrite64 new.tmp", "fsync new.tmp", "rename new.tmp", "fsync log"]
        );
        assert!(
            writer[at - 3].starts_with("fdatasync"),
            "the finished segment was durable: {:?}",
            writer[at - 3]
        );
        assert!(writer[at + 2].starts_with("pwrite64 0000"), "then it is used: {:?}", writer[at + 2]);
    }
    let keeper = doing(&first, "unlink 0000");
    let unlinked = keeper.iter().zip(&keeper[1..]).filter(|(call, _)| call.starts_with("unlink 0000"));
    unlinked.for_each(|(call, next)| assert_eq!(next, "fsync log", "after {call}"));

    let again = file_calls(&bench.log(), &["--rounds", "1"]);
    let last = again[0][2].trim_start_matches("pwrite64 ").to_owned();
    assert!(last.ends_with(".wal"), "{:?}", again[0]);
    let reopened = [
        format!("fsync {folder}"),
        "unlink new.tmp".into(),
        format!("pwrite64 {last}"),
        format!("fsync {last}"),
        "fsync log".into(),
    ];
    assert_eq!(
        again[0], reopened,
        "an old log: the last segment is written again and synced, then the folder"
    );
}

/// Fills a small disk, in a mount namespace that takes the mount with it when it ends; waits until the writer says that
/// there is no room and writes no more; makes room, and lets it come to its end.
const FULL_DISK: &str = r#"
set -eu
base=$1 torture=$2
truncate -s 40M $base/image
mkfs.ext4 -q -F -m 0 $base/image
mkdir $base/mount
mount -o loop $base/image $base/mount
trap 'umount $base/mount' EXIT
head -c 12M /dev/zero > $base/mount/ballast
$torture write $base/mount/log --group 256 --keep --rounds 400 > $base/full 2> $base/said &
writer=$!
until grep -q '^F' $base/full; do kill -0 $writer; sleep 0.2; done
before=-1
until [ "$(stat -c %s $base/full)" = $before ]; do before=$(stat -c %s $base/full); sleep 1.5; done
kill -0 $writer
df --output=avail $base/mount | tail -1 > $base/room
cp $base/full $base/before
rm $base/mount/ballast
wait $writer
$torture check $base/mount/log $base/full
"#;

#[test]
fn a_full_disk_is_announced_then_waited_for_and_loses_nothing() {
    assert!(rustix::process::geteuid().is_root(), "a loop mount needs root");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "bash", "-c", FULL_DISK, "full-disk"])
        .args([dir.path(), Path::new(TORTURE)])
        .output()
        .expect("unshare (util-linux) is installed");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert!(output.status.success(), "{}{}", text(&output.stderr), read("said"));
    let (before, all) = (read("before"), read("full"));
    let (_, after_warning) = before.split_once("\nF\n").expect("it says that the disk is full");
    assert!(after_warning.lines().count() > 1000, "and goes on in the segment that it has");
    let room_kib: u64 = read("room").trim().parse().unwrap();
    assert!(room_kib < 4 << 10, "it waited with {room_kib} KiB left, enough for a segment");
    let (waited, done) = (before.lines().count(), all.lines().count());
    assert!(done > waited + 1_000, "with room again it goes on, to its end: {waited}, then {done}");
}
