//! Saves a snapshot of this server's state now and then, into a folder of its own, and drops old ones. Each member does
//! so by itself: whichever survives has its own. A failure is told and counted, and tried again; it holds up nobody.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use model::duration::Millis;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use registry::{Registry, saved};
use tokio_util::sync::CancellationToken;

use crate::{
    backup::{self, BackupError},
    clock,
    settings::Schedule,
};

/// What the files end with.
pub(crate) const EXTENSION: &str = ".snapshot";
/// What they begin with.
const PREFIX: &str = "mesh-";
/// After a failure it is tried again so much later, or sooner where snapshots come more often.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is counted of them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// When the last one was saved, in seconds since 1970; 0: none since the start.
    pub last_success: Gauge<i64, AtomicI64>,
    /// Those that could not be saved.
    pub failed: Counter,
}

/// Saves snapshots until `stop`.
pub async fn run(schedule: Schedule, registry: Registry, counts: Counts, stop: CancellationToken) {
    let schedule = Arc::new(schedule);
    let mut pause = first_pause(&schedule);
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let (what, from) = (schedule.clone(), registry.clone());
        let saved = tokio::task::spawn_blocking(move || save(&what, &from)).await;
        pause = match saved {
            Ok(Ok(path)) => {
                tracing::info!(file = %path.display(), "snapshot saved");
                let seconds = i64::try_from(clock::wall().0 / 1_000).unwrap_or(i64::MAX);
                counts.last_success.inner().store(seconds, Ordering::Relaxed);
                schedule.every.duration()
            }
            Ok(Err(error)) => {
                counts.failed.inc();
                tracing::error!(%error, "the scheduled snapshot could not be saved");
                RETRY_AFTER.min(schedule.every.duration())
            }
            Err(error) => {
                counts.failed.inc();
                tracing::error!(%error, "the scheduled snapshot was cut off");
                RETRY_AFTER
            }
        };
    }
}

/// A server that is started often does not save more often.
fn first_pause(schedule: &Schedule) -> Duration {
    let newest = files(&schedule.folder).last().and_then(|name| saved_at(name));
    newest.map_or(Duration::ZERO, |newest| due_in(newest, clock::wall(), schedule.every.duration()))
}

fn save(schedule: &Schedule, registry: &Registry) -> Result<PathBuf, BackupError> {
    backup::folder(&schedule.folder)?;
    let (state, now) = (registry.applied(), clock::wall());
    let head = saved::head(&state, &registry.folder().cluster.to_string(), now);
    let path = schedule.folder.join(file_name(now, head.revision));
    backup::save(&state, &head, &path)?;
    for name in surplus(files(&schedule.folder), schedule.keep) {
        let old = schedule.folder.join(name);
        // It is tried again after the next one.
        if let Err(error) = fs::remove_file(&old) {
            tracing::warn!(file = %old.display(), %error, "an old snapshot could not be removed");
        }
    }
    Ok(path)
}

/// The snapshots of a folder by name, oldest first; other files are not ours.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| saved_at(name).is_some()).collect();
    names.sort();
    names
}

/// `mesh-2026-11-23T04-00-00Z-r00000000000000000042.snapshot`: in the order of time, then of revisions.
fn file_name(at: Millis, revision: u64) -> String {
    let at = Millis(at.0 / 1_000 * 1_000).to_string().replace(':', "-");
    format!("{PREFIX}{at}-r{revision:020}{EXTENSION}")
}

/// When a file of that name was saved; `None` if it is not one of ours.
fn saved_at(name: &str) -> Option<Millis> {
    let (time, revision) = name.strip_prefix(PREFIX)?.strip_suffix(EXTENSION)?.rsplit_once("-r")?;
    revision.parse::<u64>().ok()?;
    let (day, clock) = time.split_once('T')?;
    format!("{day}T{}", clock.replace('-', ":")).parse().ok()
}

/// All but the newest `keep`.
fn surplus(mut oldest_first: Vec<String>, keep: usize) -> Vec<String> {
    oldest_first.truncate(oldest_first.len().saturating_sub(keep));
    oldest_first
}

/// How long until the next one; one that is said to come from the future does not count.
fn due_in(newest: Millis, now: Millis, every: Duration) -> Duration {
    let next = newest.after(every).0;
    if newest > now { Duration::ZERO } else { Duration::from_millis(next.saturating_sub(now.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_795_406_400_500);

    #[test]
    fn names_sort_by_time_and_tell_it() {
        let name = file_name(NOW, 42);
        assert_eq!(saved_at(&name), Some(Millis(1_795_406_400_000)), "{name}");
        assert!(file_name(NOW, 42) < file_name(NOW, 1_000));
        assert!(file_name(NOW, 1_000) < file_name(NOW.after(Duration::from_secs(1)), 1));
        for other in
            ["mesh.snapshot", "mesh-x-r1.snapshot", "notes", "mesh-2026-11-23T04-00-00Z-r1.snapshot.partial"]
        {
            assert_eq!(saved_at(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_stay_and_what_is_not_ours_is_left_alone() {
        let place = tempfile::tempdir().expect("a folder");
        for second in 0..5 {
            let name = file_name(NOW.after(Duration::from_secs(second)), second);
            fs::write(place.path().join(name), "x").expect("written");
        }
        fs::write(place.path().join("mine.txt"), "x").expect("written");
        let all = files(place.path());
        assert_eq!(all.len(), 5);
        assert_eq!(surplus(all.clone(), 3), all[..2]);
        assert!(surplus(all, 9).is_empty());
    }

    #[test]
    fn a_restart_does_not_bring_the_next_one_nearer() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(due_in(NOW, NOW.after(hour / 2), hour), hour / 2);
        assert_eq!(due_in(NOW, NOW.after(hour * 2), hour), Duration::ZERO);
        assert_eq!(due_in(NOW.after(hour), NOW, hour), Duration::ZERO, "a clock that went back");
    }
}
