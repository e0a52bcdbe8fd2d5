//! Watchers on TLS connections of their own: how long until the last one is told of a change, and what those cost that
//! only wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::{
    system::{Client, System},
    watching::Watching,
};
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
    _crowd: Crowd,
    told: Arc<Count>,
    client: Client,
}

/// How many watchers were told of the change that is looked for.
#[derive(Default)]
struct Count {
    change: AtomicUsize,
    told: AtomicUsize,
    /// Rung by the last one.
    all: Notify,
}

impl Count {
    fn add(&self, change: usize) {
        if change == self.change.load(Ordering::SeqCst)
            && self.told.fetch_add(1, Ordering::SeqCst) + 1 == WATCHERS
        {
            self.all.notify_one();
        }
    }
}

/// What one system's changes took.
#[derive(Default)]
struct Told {
    millis: Rounds,
    cpu_micros: Rounds,
}

impl Told {
    async fn add(&mut self, watched: &mut Watched<'_>, change: usize) -> anyhow::Result<()> {
        let pids = watched.system.pids();
        let before = usage::cpu(&pids);
        self.millis.0.push(watched.change(change).await?);
        let used = usage::cpu(&pids).saturating_sub(before).as_secs_f64();
        self.cpu_micros.0.push(used * 1e6 / WATCHERS as f64);
        Ok(())
    }
}

/// Both measurements.
pub(super) async fn compare_all(systems: &[System; 2]) -> anyhow::Result<Vec<Comparison>> {
    let [ours, theirs] = systems;
    let told = {
        let (mut ours, mut theirs) = (Watched::start(ours).await?, Watched::start(theirs).await?);
        let mut figures = [Told::default(), Told::default()];
        for change in 0..CHANGES {
            figures[0].add(&mut ours, change).await?;
            figures[1].add(&mut theirs, change).await?;
        }
        let [ours, theirs] = figures;
        let name = format!("change → last of {WATCHERS} watchers, p50");
        let cpu = "CPU of all members for each watcher that is told";
        [
            compare(&name, "ms", &ours.millis, "etcd", &theirs.millis).with_goal(Goal::AtMost(TOLD_GOAL)),
            compare(cpu, "µs", &ours.cpu_micros, "etcd", &theirs.cpu_micros),
        ]
    };
    Ok(told.into_iter().chain([hold(ours).await?]).collect())
}

impl<'a> Watched<'a> {
    async fn start(system: &'a System) -> anyhow::Result<Self> {
        eprintln!("{WATCHERS} watchers · {}", system.name());
        let mut client = system.client(0).await?;
        client.put_value(system, 0, "~0~").await?;
        let told = Arc::new(Count::default());
        let counted = told.clone();
        let crowd = Crowd::open(system, WATCHERS, move |number| counted.add(number)).await?;
        let mut watched = Self { system, _crowd: crowd, told, client };
        // Everyone is told of one change before any is timed: by then all watches stand.
        watched.change(CHANGES).await?;
        Ok(watched)
    }

    /// The time from sending a change until the last watcher has it, in milliseconds.
    async fn change(&mut self, change: usize) -> anyhow::Result<f64> {
        let number = change + 1;
        self.told.told.store(0, Ordering::SeqCst);
        self.told.change.store(number, Ordering::SeqCst);
        let sent = now();
        self.client.put_value(self.system, 0, &format!("~{number}~")).await?;
        let all = tokio::time::timeout(PATIENCE, self.told.all.notified()).await;
        all.with_context(|| format!("only {:?} of {WATCHERS} watchers heard of it", self.told.told))?;
        Ok(since(sent).as_secs_f64() * 1e3)
    }
}

/// Watchers on one thread of their own, apart from what opens connections and writes: woken for what they are told, and
/// for nothing else.
struct Crowd {
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

impl Crowd {
    /// Opens as many watches, and says the number of each change that arrives. Values begin with `~number~`.
    async fn open(
        system: &System,
        count: usize,
        told: impl Fn(usize) + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        let (opened, mut opens) = mpsc::channel(count);
        let turns = Arc::new(Semaphore::new(OPENING));
        for index in 0..count {
            let (ask, turns, opened, told) =
                (system.watch(index)?, turns.clone(), opened.clone(), told.clone());
            runtime.spawn(async move {
                let turn = turns.acquire().await;
                let watching = Watching::open(ask).await;
                drop(turn);
                match watching {
                    Ok(watching) => {
                        drop(opened.send(Ok(())).await);
                        follow(watching, told).await;
                    }
                    Err(error) => drop(opened.send(Err(error)).await),
                }
            });
        }
        std::thread::Builder::new()
            .name("watchers".to_owned())
            .spawn(move || runtime.block_on(ended).ok())?;
        for _ in 0..count {
            opens.recv().await.context("each says how it went")??;
        }
        Ok(Self { _end: end })
    }
}

async fn follow(mut watching: Watching, told: impl Fn(usize)) {
    let mut rest = Vec::new();
    while watching.read(&mut rest).await.is_ok_and(|read| read > 0) {
        while let Some((number, end)) = marked(&rest) {
            rest.drain(..end);
            told(number);
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
    let (told, mut hears) = mpsc::channel(HELD);
    let _crowd = Crowd::open(system, HELD, move |number| {
        // Nobody listens any more once all have begun.
        let _ = told.try_send(number);
    })
    .await?;
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
