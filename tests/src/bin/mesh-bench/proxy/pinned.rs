//! Load that this program makes itself, on the core that load and application share: the other one is the proxies'.

use std::thread;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{runtime::Builder, sync::oneshot};

/// Runs `work` to its end on a thread and a runtime of its own, bound to core `core`.
///
/// # Errors
/// There is no thread, no such core, or the work fails.
pub(super) async fn on_core<T, F>(core: usize, work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let (done, ended) = oneshot::channel();
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let result = bound(core).and_then(|()| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        // Nobody waits any more where the measurement was given up.
        drop(done.send(result));
    })?;
    ended.await.context("the load ended without a result")?
}

fn bound(core: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("the load cannot run on core {core} alone"))
}
