//! Writes to a log until it is stopped by force, and checks what is left: the tool of the power-cut,
//! kill and failing-disk tests. It never touches anything but the folder that it is given.
//!
//! ```text
//! wal-torture write DIR [--group N] [--segment BYTES] [--rounds N] [--keep] [--quiet] [--no-fdatasync]
//! wal-torture check DIR ACKS
//! ```
//!
//! `write` prints a line for each acknowledged write: `e INDEX STAMP` an entry, `v N` a vote, `t FROM` a
//! truncation, `p INDEX` a purge; `T` and `P` announce the last two before they are submitted, and `F`
//! says that the disk is full. `check` exits with 1 if anything in ACKS is lost or wrong, with 2 if the
//! log does not open; otherwise it leaves in ACKS what it found, which must never be lost either.

#![allow(clippy::print_stdout, reason = "its output is the protocol that the tests read")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use registry::wal::{Durability, Entry, Identity, Ledger, Mark, Options, Wal};
use tokio::sync::oneshot;
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every so many rounds there is a vote, a truncation, a purge. Odd, so that they meet in all orders.
const VOTE_EVERY: u64 = 7;
const TRUNCATE_EVERY: u64 = 19;
const PURGE_EVERY: u64 = 101;

/// A truncation takes so many entries, a purge leaves so many.
const TRUNCATED: u64 = 3;
const KEPT: u64 = 500;

/// Longest filler of an entry, in bytes: most entries share pages, some span two.
const FILLER_LEN_MAX: u64 = 400;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["write", dir, flags @ ..] => Flags::parse(flags).and_then(|flags| write(Path::new(dir), flags)),
        ["check", dir, acks] => return check(Path::new(dir), Path::new(acks)),
        _ => Err("usage: wal-torture write DIR [FLAGS] | check DIR ACKS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error.to_string()),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("wal-torture: {text}");
    ExitCode::from(code)
}

fn open(dir: &Path, options: Options) -> Result<(Wal, Ledger, u64), registry::wal::Error> {
    let identity = Identity { cluster: Uuid::from_u128(0x707e), node: 1 };
    let (wal, recovered) = Wal::open(dir, identity, options)?;
    Ok((wal, recovered.ledger, recovered.sequence))
}

fn block_on<T>(future: impl Future<Output = T>) -> Outcome<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
}

// --- write ---------------------------------------------------------------------------------------

struct Flags {
    group: u64,
    rounds: u64,
    keep: bool,
    quiet: bool,
    log: Options,
}

impl Flags {
    fn parse(words: &[&str]) -> Outcome<Self> {
        let mut flags =
            Self { group: 1, rounds: u64::MAX, keep: false, quiet: false, log: Options::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number =
                || words.next().ok_or("a number is missing")?.parse().map_err(Box::<dyn Error>::from);
            match *word {
                "--group" => flags.group = number()?,
                "--rounds" => flags.rounds = number()?,
                "--keep" => flags.keep = true,
                "--quiet" => flags.quiet = true,
                "--segment" => flags.log.segment_bytes = number()?,
                "--no-fdatasync" => flags.log.durability = Durability::LostOnPowerCut,
                other => return Err(format!("unknown flag {other}").into()),
            }
        }
        Ok(flags)
    }
}

fn write(dir: &Path, flags: Flags) -> Outcome<()> {
    let (wal, ledger, sequence) = open(dir, flags.log.clone())?;
    let vote = ledger.vote.as_deref().map_or(Ok(0), number)?;
    let mut writer = Writer { wal, stamp: sequence, vote, full: false, flags };
    block_on(writer.run())?
}

struct Writer {
    wal: Wal,
    /// Grows with every entry, over restarts too: tells one that was written again from the one before.
    stamp: u64,
    vote: u64,
    full: bool,
    flags: Flags,
}

impl Writer {
    async fn run(&mut self) -> Outcome<()> {
        for round in 1..=self.flags.rounds {
            self.append(round).await?;
            if round.is_multiple_of(VOTE_EVERY) {
                self.vote += 1;
                self.wal.vote(Bytes::copy_from_slice(&self.vote.to_le_bytes())).await?;
                self.say(&format!("v {}\n", self.vote))?;
            }
            if round.is_multiple_of(TRUNCATE_EVERY) {
                self.truncate().await?;
            }
            if round.is_multiple_of(PURGE_EVERY) && !self.flags.keep {
                self.purge().await?;
            }
            if self.wal.counts().disk_full && !std::mem::replace(&mut self.full, true) {
                self.say("F\n")?;
            }
        }
        Ok(())
    }

    /// A group of entries: in odd rounds as one append, in even ones as so many at once.
    async fn append(&mut self, round: u64) -> Outcome<()> {
        let first = self.wal.ledger().next;
        let group: Vec<_> = (first..).zip(self.stamp + 1..).take(self.flags.group as usize).collect();
        self.stamp += self.flags.group;
        let entries = group.iter().map(|(index, stamp)| Entry { index: *index, body: body(*index, *stamp) });
        let calls: Vec<Vec<Entry>> = match round.is_multiple_of(2) {
            true => entries.map(|entry| vec![entry]).collect(),
            false => vec![entries.collect()],
        };
        let mut synced = Vec::new();
        for call in calls {
            let (done, wait) = oneshot::channel();
            self.wal.append(call, move || done.send(()).expect("it is awaited below")).await?;
            synced.push(wait);
        }
        for wait in synced {
            wait.await?;
        }
        self.wal.committed(Bytes::copy_from_slice(&self.stamp.to_le_bytes()))?;
        let mut lines = String::new();
        for (index, stamp) in group {
            writeln!(lines, "e {index} {stamp}")?;
        }
        self.say(&lines)
    }

    async fn truncate(&mut self) -> Outcome<()> {
        let Ledger { first, next, .. } = self.wal.ledger();
        let from = next.saturating_sub(TRUNCATED).max(first + 1);
        self.say(&format!("T {from}\n"))?;
        self.wal.truncate(from).await?;
        self.say(&format!("t {from}\n"))
    }

    async fn purge(&mut self) -> Outcome<()> {
        let Some(index) = self.wal.ledger().next.checked_sub(KEPT) else { return Ok(()) };
        self.say(&format!("P {index}\n"))?;
        self.wal.purge(Mark { index, id: Bytes::copy_from_slice(&index.to_le_bytes()) }).await?;
        self.say(&format!("p {index}\n"))
    }

    fn say(&self, lines: &str) -> Outcome<()> {
        if self.flags.quiet {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(lines.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

/// What the entry of this index and stamp must hold, down to the last byte.
fn body(index: u64, stamp: u64) -> Bytes {
    let mixed = (index ^ stamp.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = (mixed >> 32) % FILLER_LEN_MAX;
    let filler = (0..len).map(|at| (mixed >> (at % 57)) as u8);
    stamp.to_le_bytes().into_iter().chain(filler).collect()
}

fn number(bytes: &[u8]) -> Outcome<u64> {
    let (number, _) = bytes.split_first_chunk().ok_or("fewer than 8 bytes")?;
    Ok(u64::from_le_bytes(*number))
}

// --- check ---------------------------------------------------------------------------------------

fn check(dir: &Path, acks: &Path) -> ExitCode {
    let (wal, ledger, _) = match open(dir, Options::default()) {
        Ok(opened) => opened,
        Err(error) => return fail(2, &format!("does not open: {error}")),
    };
    let compare = || -> Outcome<()> {
        let promised = Promised::parse(&std::fs::read_to_string(acks)?)?;
        let found = block_on(found(&wal, &ledger))??;
        promised.check(&ledger, &found)?;
        std::fs::write(acks, report(&ledger, &found)?)?;
        println!("{} entries, {} of them promised", found.len(), promised.entries.len());
        Ok(())
    };
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

/// The stamps of all entries present, each compared with what it must hold.
async fn found(wal: &Wal, ledger: &Ledger) -> Outcome<BTreeMap<u64, u64>> {
    let bodies = wal.read(ledger.first..ledger.next, usize::MAX).await?;
    let mut found = BTreeMap::new();
    for (index, bytes) in (ledger.first..).zip(bodies) {
        let stamp = number(&bytes)?;
        if bytes != body(index, stamp) {
            return Err(format!("entry {index} holds something that was never written").into());
        }
        found.insert(index, stamp);
    }
    Ok(found)
}

fn report(ledger: &Ledger, found: &BTreeMap<u64, u64>) -> Outcome<String> {
    let mut lines = String::new();
    if let Some(vote) = &ledger.vote {
        writeln!(lines, "v {}", number(vote)?)?;
    }
    if let Some(committed) = &ledger.committed {
        writeln!(lines, "c {}", number(committed)?)?;
    }
    if let Some(purged) = &ledger.purged {
        writeln!(lines, "p {}", purged.index)?;
    }
    for (index, stamp) in found {
        writeln!(lines, "e {index} {stamp}")?;
    }
    Ok(lines)
}

/// What was acknowledged, and what was on its way.
#[derive(Default)]
struct Promised {
    entries: BTreeMap<u64, u64>,
    vote: u64,
    /// Only from what an earlier check reported: nobody waits for it, but what an open log says is on disk.
    committed: u64,
    purged: Option<u64>,
    /// Announced but not acknowledged: may have happened or not.
    truncating: Option<u64>,
    purging: Option<u64>,
}

impl Promised {
    fn parse(lines: &str) -> Outcome<Self> {
        let mut promised = Self::default();
        for line in lines.lines() {
            let mut words = line.split(' ');
            let kind = words.next().unwrap_or_default();
            let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
            match (kind, numbers.as_slice()) {
                ("e", [index, stamp]) => drop(promised.entries.insert(*index, *stamp)),
                ("v", [vote]) => promised.vote = *vote,
                ("c", [committed]) => promised.committed = *committed,
                ("T", [from]) => promised.truncating = Some(*from),
                ("P", [index]) => promised.purging = Some(*index),
                ("t", [from]) => {
                    promised.entries.split_off(from);
                    promised.truncating = None;
                }
                ("p", [index]) => {
                    promised.entries = promised.entries.split_off(&(index + 1));
                    (promised.purged, promised.purging) = (Some(*index), None);
                }
                ("F", []) => {}
                _ => return Err(format!("not a line of ours: {line:?}").into()),
            }
        }
        Ok(promised)
    }

    fn check(&self, ledger: &Ledger, found: &BTreeMap<u64, u64>) -> Outcome<()> {
        let vote = ledger.vote.as_deref().map_or(Ok(0), number)?;
        if vote < self.vote {
            return Err(format!("lost: vote {} is back at {vote}", self.vote).into());
        }
        let committed = ledger.committed.as_deref().map_or(Ok(0), number)?;
        if committed < self.committed {
            return Err(format!("lost: committed mark {} is back at {committed}", self.committed).into());
        }
        let purged = ledger.purged.as_ref().map(|mark| mark.index);
        if purged != self.purged && (purged.is_none() || purged != self.purging) {
            return Err(format!(
                "purged {purged:?}, which is neither {:?} nor {:?}",
                self.purged, self.purging
            )
            .into());
        }
        let lost = |(index, stamp): &(&u64, &u64)| {
            let may_be_gone = self.truncating.is_some_and(|from| **index >= from) || purged >= Some(**index);
            !may_be_gone && found.get(*index) != Some(*stamp)
        };
        let count = self.entries.iter().filter(lost).count();
        match self.entries.iter().find(lost) {
            None => Ok(()),
            Some((index, stamp)) => Err(format!(
                "lost: {count} entries, first {index} (stamp {stamp}), found {:?}; present {}..{}",
                found.get(index),
                ledger.first,
                ledger.next
            )
            .into()),
        }
    }
}
