//! Watchers on TLS connections of their own: how long until the last one is told of a change, and what those cost that
//! only wait.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use tokio::{sync::mpsc, task::JoinSet};

use super::system::{Client, System, Watching};
use crate::{
    clock::{now, since},
    results::{Comparison, Goal, Rounds, alone, compare},
    usage,
};

/// How many watchers are told of a change.
const WATCHERS: usize = 1_000;
/// How many changes they are told of, each timed, by turns.
const CHANGES: usize = 30;
/// How many watchers are held.
const HELD: usize = 5_000;
/// What they may cost all members together over idle, in MB.
const HELD_MB_GOAL: f64 = 300.0;
/// The last one's time, as a ratio to etcd's.
const TOLD_GOAL: f64 = 0.5;
/// Connections that are opened at once.
const OPENING: usize = 32;
/// How long nothing may be heard. At first each watcher is sent all that there is, which is a gigabyte in all: on a
/// machine that has other work, too, the last of them waits for it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Memory is read when it has not grown for so long: handshakes leave buffers behind that go.
const SETTLE: Duration = Duration::from_secs(3);

/// The watchers of one system, and a client that changes what they watch.
struct Watched<'a> {
    system: &'a System,
    _watchers: JoinSet<()>,
    hears: mpsc::Receiver<usize>,
    client: Client,
}

/// Both measurements.
pub(super) async fn compare_all(systems: &[System; 2]) -> anyhow::Result<Vec<Comparison>> {
    let [ours, theirs] = systems;
    let told = {
        let (mut ours, mut theirs) = (Watched::start(ours).await?, Watched::start(theirs).await?);
        let mut rounds = (Rounds::default(), Rounds::default());
        for change in 0..CHANGES {
            rounds.0.0.push(ours.change(change).await?);
            rounds.1.0.push(theirs.change(change).await?);
        }
        compare(&format!("change → last of {WATCHERS} watchers, p50"), "ms", &rounds.0, "etcd", &rounds.1)
            .with_goal(Goal::AtMost(TOLD_GOAL))
    };
    Ok(vec![told, hold(ours).await?])
}

impl<'a> Watched<'a> {
    async fn start(system: &'a System) -> anyhow::Result<Self> {
        eprintln!("{WATCHERS} watchers · {}", system.name());
        let mut client = system.client(0).await?;
        client.put_value(system, 0, "~0~").await?;
        let (told, hears) = mpsc::channel(WATCHERS * 2);
        let mut watchers = JoinSet::new();
        for watching in open(system, WATCHERS).await? {
            watchers.spawn(follow(watching, told.clone()));
        }
        let mut watched = Self { system, _watchers: watchers, hears, client };
        // Everyone is told of one change before any is timed: by then all watches stand.
        watched.change(CHANGES).await?;
        Ok(watched)
    }

    /// The time from sending a change until the last watcher has it, in milliseconds.
    async fn change(&mut self, change: usize) -> anyhow::Result<f64> {
        let number = change + 1;
        let sent = now();
        self.client.put_value(self.system, 0, &format!("~{number}~")).await?;
        let mut heard = 0;
        while heard < WATCHERS {
            let one = tokio::time::timeout(PATIENCE, self.hears.recv()).await;
            let one = one.with_context(|| format!("only {heard} of {WATCHERS} watchers heard of it"))?;
            heard += usize::from(one == Some(number));
        }
        Ok(since(sent).as_secs_f64() * 1e3)
    }
}

async fn open(system: &System, count: usize) -> anyhow::Result<Vec<Watching>> {
    let opening = stream::iter(0..count).map(|index| system.watch(index));
    opening.buffer_unordered(OPENING).try_collect().await
}

/// Tells the number of each change that arrives. Values begin with `~number~`.
async fn follow(mut watching: Watching, told: mpsc::Sender<usize>) {
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = watching.body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some((number, end)) = marked(&rest) {
            rest.drain(..end);
            if told.send(number).await.is_err() {
                return;
            }
        }
        let surplus = rest.len().saturating_sub(MARK_BYTES_MAX);
        rest.drain(..surplus);
    }
}

/// As much of what came may be the beginning of a mark.
const MARK_BYTES_MAX: usize = 16;

/// The first number between two `~`, and where it ends.
fn marked(bytes: &[u8]) -> Option<(usize, usize)> {
    let start = bytes.iter().position(|byte| *byte == b'~')? + 1;
    let end = start + bytes[start..].iter().position(|byte| *byte == b'~')?;
    let number = std::str::from_utf8(&bytes[start..end]).ok()?.parse().ok()?;
    Some((number, end + 1))
}

async fn hold(system: &System) -> anyhow::Result<Comparison> {
    eprintln!("{HELD} watchers held · {}", system.name());
    let before = usage::memory_mb(&system.pids());
    let watches = open(system, HELD).await?;
    let mut watchers = JoinSet::new();
    let (told, mut hears) = mpsc::channel(HELD);
    for watching in watches {
        watchers.spawn(follow(watching, told.clone()));
    }
    // Each has said its first word: the current state, in which the first key's mark stands.
    for heard in 0..HELD {
        let one = tokio::time::timeout(PATIENCE, hears.recv()).await;
        one.with_context(|| format!("only {heard} of {HELD} watchers began"))?;
    }
    // Pace: what is measured is rest.
    tokio::time::sleep(SETTLE).await;
    let over = usage::memory_mb(&system.pids()) - before;
    let held = alone(&format!("{HELD} watchers held, all members over idle"), "MB", &Rounds(vec![over]));
    Ok(held.with_goal(Goal::AtMost(HELD_MB_GOAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_whole() {
        assert_eq!(marked(b"{\"value\":\"~17~vvv"), Some((17, 14)));
        assert_eq!(marked(b"~1"), None);
        assert_eq!(marked(b"no mark"), None);
    }
}
