//! Threads for what nobody waits for, index and snapshots: they give way to whatever else wants the processor.

use std::{io, thread};

use rustix::{
    process::{getpriority_process, setpriority_process},
    thread::gettid,
};
use tokio::sync::oneshot;

/// How far such a thread stands behind the others, in steps of `nice`: where both want one core it gets a tenth of it.
const STEPS: i32 = 10;

/// Starts a thread that gives way.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = give_way() {
            tracing::debug!(%error, "a background thread has the priority of all others");
        }
        work()
    })
}

/// On Linux each thread has a priority of its own; the system takes care of its bounds.
fn give_way() -> rustix::io::Result<()> {
    let thread = Some(gettid());
    setpriority_process(thread, getpriority_process(thread)? + STEPS)
}

/// Does on such a thread what takes a while, and waits for it.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, wait) = oneshot::channel();
    drop(spawn(name, move || done.send(work()))?);
    wait.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_give_way_and_no_others() {
        let own = || Ok(getpriority_process(Some(gettid()))?);
        let before = own().expect("it has one");
        let inside = run("test", own).await.expect("it is done");
        assert_eq!((inside, own().expect("it has one")), ((before + STEPS).min(19), before));
        let failed = run("test", || Err::<(), _>(io::Error::other("no"))).await;
        assert_eq!(failed.expect_err("it says why").to_string(), "no");
    }
}
