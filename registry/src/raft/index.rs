//! The applied state as records in a store, so that a restart reads it and replays only the rest of the log. Written by
//! a thread of its own that nobody waits for; each batch carries the entry that it stands for and the state's hash.
//! What does not prove itself at a start is not used: the snapshot and the log are the truth.

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use openraft::alias::{LogIdOf, StoredMembershipOf};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    Types,
    machine::{Applied, View},
};
use crate::{
    audit, background, clock,
    state::{State, Sum},
    store::{Batch, Error, Sled, Store},
};

/// Under this key stands what the records add up to; tables' tags begin at 1.
const META: &[u8] = &[0];
/// The format of the records. Version 1 had no blocks, and version 2 had the history's tail unpacked: what 0.1.0 left is
/// made anew.
const VERSION: u16 = 3;
/// Between two batches at least: what changes meanwhile is written once, and the audit synced once. The store itself tells
/// the system of what it holds no more often.
const PAUSE: Duration = Duration::from_secs(1);
/// The index may take one part in so many of a core's time: under load it falls behind, by some seconds at most, as what
/// the history lets go of need not be written, and a start replays so much more of the log.
const SHARE: u32 = 25;
/// Records in one batch; a larger change is marked incomplete until its last batch.
const BATCH_RECORDS_MAX: usize = 1_000;

/// A record as it is now; `None` is gone.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// What the records add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meta {
    version: u16,
    log_id: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    sum: Sum,
}

/// A state that was read from a store and proved itself.
pub(super) struct Indexed {
    state: State,
    pub(super) log_id: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Indexed {
    pub(super) fn into_applied(self) -> Applied {
        Applied { state: Arc::new(self.state), log_id: self.log_id, membership: self.membership }
    }
}

/// Opens the index; without one a member works all the same.
pub(super) fn open(path: &Path) -> Option<Arc<dyn Store>> {
    match Sled::open(path) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            tracing::warn!(%error, "there will be no index");
            None
        }
    }
}

/// Opens the index, and reads the state, if it is whole. An index that does not prove itself is made anew: even emptying it
/// could go round in a circle.
pub(super) fn open_proven(path: &Path, history_max: usize) -> (Option<Arc<dyn Store>>, Option<Indexed>) {
    let Some(store) = open(path) else { return (None, None) };
    match try_load(&*store, history_max) {
        Ok(indexed) => (Some(store), indexed),
        Err(reason) => {
            tracing::warn!(reason, "the index is not used, it is made anew");
            drop(store);
            if let Err(error) = std::fs::remove_dir_all(path) {
                tracing::warn!(%error, "it cannot be removed");
            }
            (open(path), None)
        }
    }
}

/// Reads the state, if it is whole.
pub(super) fn load(store: &dyn Store, history_max: usize) -> Option<Indexed> {
    match try_load(store, history_max) {
        Ok(indexed) => indexed,
        Err(reason) => {
            tracing::warn!(reason, "the index is not used");
            None
        }
    }
}

fn try_load(store: &dyn Store, history_max: usize) -> Result<Option<Indexed>, String> {
    let text = |error: Error| error.to_string();
    let Some(meta) = store.get(META).map_err(text)? else { return Ok(None) };
    let meta: Meta = rmp_serde::from_slice(&meta).map_err(|error| error.to_string())?;
    if meta.version != VERSION {
        return Err(format!("its format is {}, this version reads {VERSION}", meta.version));
    }
    let records = store.scan(&[]).map_err(text)?.into_iter().filter(|(key, _)| key != META);
    let state = State::from_records(meta.sum, records, history_max).map_err(|error| error.to_string())?;
    Ok(Some(Indexed { state, log_id: meta.log_id, membership: meta.membership }))
}

/// Writes what is applied from now on, each time after its `audit` is on disk: what the index holds is not replayed, so its
/// lines would not come again. `base` is what the store holds, if it is known.
pub(super) fn start(
    store: Arc<dyn Store>,
    view: Arc<View>,
    base: Option<Arc<Applied>>,
    audit: audit::Sink,
    stop: CancellationToken,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = Handle::current();
    background::spawn("index", move || {
        if let Err(error) = run(&*store, &view, base, &audit, &stop, &runtime) {
            tracing::warn!(%error, "the index is no longer written; the next start takes longer");
        }
    })
}

fn run(
    store: &dyn Store,
    view: &View,
    mut held: Option<Arc<Applied>>,
    audit: &audit::Sink,
    stop: &CancellationToken,
    runtime: &Handle,
) -> Result<(), Error> {
    let mut applied = view.index.subscribe();
    loop {
        let (began, stopped) = (clock::now(), stop.is_cancelled());
        let now = view.applied();
        if held.as_ref().is_none_or(|held| held.log_id != now.log_id) {
            runtime.block_on(audit.synced()).map_err(|error| Error(error.to_string()))?;
            write(store, held.as_deref(), &now)?;
            held = Some(now);
        }
        if stopped {
            return store.flush();
        }
        let pause = pause_after(clock::now().duration_since(began));
        let changed_later = async {
            let _ = applied.changed().await;
            tokio::time::sleep(pause).await;
        };
        runtime.block_on(stop.run_until_cancelled(changed_later));
    }
}

/// How long the index rests after a batch that took so long.
fn pause_after(took: Duration) -> Duration {
    PAUSE.max(took * SHARE)
}

/// Brings the store from one state to another.
fn write(store: &dyn Store, held: Option<&Applied>, now: &Applied) -> Result<(), Error> {
    let continues = |held: &&Applied| {
        held.state.epoch() == now.state.epoch() && held.state.revision() <= now.state.revision()
    };
    let changes: Box<dyn Iterator<Item = Change> + '_> = match held.filter(continues) {
        Some(held) => Box::new(now.state.record_changes(&held.state)),
        None => {
            store.clear()?;
            Box::new(now.state.records().map(|(key, value)| (key, Some(value))))
        }
    };
    let mut changes = changes.peekable();
    let mut batch: Vec<Change> = changes.by_ref().take(BATCH_RECORDS_MAX).collect();
    if changes.peek().is_some() {
        // Not whole before its last batch, which brings this back.
        store.write(Batch { changes: vec![(META.to_vec(), None)] })?;
    }
    while changes.peek().is_some() {
        store.write(Batch { changes: std::mem::take(&mut batch) })?;
        batch.extend(changes.by_ref().take(BATCH_RECORDS_MAX));
    }
    let (log_id, membership) = (now.log_id, now.membership.clone());
    let meta = Meta { version: VERSION, log_id, membership, sum: now.state.sum() };
    let meta = rmp_serde::to_vec_named(&meta).map_err(|error| Error(error.to_string()))?;
    batch.push((META.to_vec(), Some(meta)));
    store.write(Batch { changes: batch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::ByHand, state::HISTORY_REVISIONS_MAX, store::Memory};

    #[test]
    fn batches_that_take_long_are_rare() {
        assert_eq!(pause_after(Duration::from_millis(1)), PAUSE);
        let took = Duration::from_millis(400);
        assert!(took * 20 < pause_after(took), "less than one part in twenty");
    }

    #[test]
    fn nothing_is_indexed_before_its_audit_is_on_disk() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let runtime = runtime.expect("a runtime");
        let _entered = runtime.enter();
        let store = Arc::new(Memory::default());
        let membership = StoredMembershipOf::<Types>::default();
        let applied = Applied { state: Arc::new(State::new()), log_id: None, membership };
        let (audit, mut by_hand) = ByHand::new();
        let stop = CancellationToken::new();
        let view = Arc::new(View::new(applied));
        let thread = start(store.clone(), view, None, audit, stop.clone()).expect("a thread");
        let done = by_hand.asked();
        assert!(store.scan(&[]).expect("memory").is_empty());
        stop.cancel();
        done.send(()).expect("it is waited for");
        thread.join().expect("it ends");
        assert!(load(&*store, HISTORY_REVISIONS_MAX).is_some(), "then it is written");
    }

    #[test]
    fn an_index_that_does_not_prove_itself_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index");
        let store = open(&path).expect("it opens");
        store.write(Batch { changes: vec![(META.to_vec(), Some(b"nonsense".to_vec()))] }).expect("written");
        store.flush().expect("on disk");
        drop(store);
        let (store, indexed) = open_proven(&path, HISTORY_REVISIONS_MAX);
        assert!(indexed.is_none());
        assert!(store.expect("another one").scan(&[]).expect("it reads").is_empty(), "nothing is left of it");
    }
}
