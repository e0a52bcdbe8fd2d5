//! Threads of their own for what keeps the cluster together: Raft, connections among members, signs of life on their way
//! to the leader. However many requests wait for the API's threads, a heartbeat does not wait behind them.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// An entry passes from task to task, which costs least where no other thread has to be woken (docs/adr/0014).
const THREADS: usize = 1;

/// A runtime beside the one that serves requests. It ends, without waiting, when this is dropped.
#[derive(Debug)]
pub struct Apart(Option<Runtime>);

impl Apart {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has none left.
    pub fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("raft").enable_all().build();
        runtime.map(|runtime| Self(Some(runtime)))
    }

    /// Where to spawn.
    ///
    /// # Panics
    /// Never: it has its runtime until it is dropped.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken by drop alone").handle()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
