//! The thread beside the writer: it prepares the next segment before it is needed, and unlinks purged
//! ones. It never touches a segment that is written to.
//!
//! **A full disk.** Without room for the next segment it says so (`Metrics::disk_full`) and tries again
//! every second; the active segment goes on until it is full itself. When the writer then needs the next
//! one, it waits: nothing that was acknowledged is at stake, and when there is room all goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::OnFatal;
use super::error::{Doing, Error};
use super::metrics::Metrics;
use super::segment::Folder;

/// How long to wait before looking for room again on a full disk.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// The writer's handle. Dropping it ends the thread once everything is unlinked.
pub(super) struct Housekeeper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What lies between the two threads.
struct Desk {
    work: Mutex<Work>,
    changed: Condvar,
}

struct Work {
    spare: Spare,
    /// Numbers of purged segments, oldest first.
    unlink: VecDeque<u64>,
    closed: bool,
}

/// The next segment. At any time only one side may touch its file.
enum Spare {
    /// The housekeeper shall make one of so many bytes.
    Wanted(u64),
    /// The housekeeper is making it.
    Preparing,
    /// It waits for the writer.
    Ready(File, u64),
    /// No room for so many bytes; the housekeeper will try again.
    Full(u64),
    /// The writer has it.
    Taken,
    /// The housekeeper has ended.
    Broken,
}

impl Housekeeper {
    /// Starts the thread, which begins by preparing a segment of `len` bytes.
    pub(super) fn start(
        folder: Arc<Folder>,
        len: u64,
        metrics: Arc<Metrics>,
        on_fatal: OnFatal,
    ) -> Result<Self, Error> {
        let work = Work { spare: Spare::Wanted(len), unlink: VecDeque::new(), closed: false };
        let desk = Arc::new(Desk { work: Mutex::new(work), changed: Condvar::new() });
        let dir = folder.path().to_owned();
        let keeper = Keeper { folder, desk: Arc::clone(&desk), metrics };
        let run = move || {
            if let Err(error) = keeper.run() {
                on_fatal(&error);
            }
            keeper.desk.set(Spare::Broken);
        };
        let thread = thread::Builder::new()
            .name("wal-files".into())
            .spawn(run)
            .map_err(Error::io(Doing::Spawn, &dir))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// A prepared file of at least `len` bytes and its length; waits for it if need be, on a full disk until
    /// `closed`, which is [`Error::Stopped`]. The caller has it alone until it calls [`Housekeeper::prepare`].
    pub(super) fn take(&self, len: u64, closed: &dyn Fn() -> bool) -> Result<(File, u64), Error> {
        let mut work = self.desk.work.lock();
        let mut asked = false;
        loop {
            match std::mem::replace(&mut work.spare, Spare::Taken) {
                Spare::Ready(file, ready) if ready >= len => return Ok((file, ready)),
                Spare::Full(wanted) if asked => {
                    work.spare = Spare::Full(wanted);
                    if closed() {
                        return Err(Error::Stopped);
                    }
                    self.desk.changed.wait_for(&mut work, FULL_RETRY);
                    continue;
                }
                Spare::Broken => return Err(Error::Stopped),
                Spare::Ready(..) | Spare::Full(..) | Spare::Taken => {
                    asked = true;
                    work.spare = Spare::Wanted(len);
                    self.desk.changed.notify_all();
                }
                pending @ (Spare::Wanted(_) | Spare::Preparing) => work.spare = pending,
            }
            self.desk.changed.wait(&mut work);
        }
    }

    /// Asks for the next segment, after the taken one got its name.
    pub(super) fn prepare(&self, len: u64) {
        self.desk.set(Spare::Wanted(len));
    }

    /// Hands over segments to be removed, oldest first.
    pub(super) fn unlink(&self, numbers: impl IntoIterator<Item = u64>) {
        self.desk.work.lock().unlink.extend(numbers);
        self.desk.changed.notify_all();
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.desk.work.lock().closed = true;
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It ended in a panic: that was reported, and there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn set(&self, spare: Spare) {
        let mut work = self.work.lock();
        if !matches!(work.spare, Spare::Broken) {
            work.spare = spare;
        }
        self.changed.notify_all();
    }
}

/// The thread's side.
struct Keeper {
    folder: Arc<Folder>,
    desk: Arc<Desk>,
    metrics: Arc<Metrics>,
}

enum Job {
    Unlink(u64),
    Prepare(u64),
    Close,
}

impl Keeper {
    fn run(&self) -> Result<(), Error> {
        loop {
            match self.next_job() {
                Job::Unlink(number) => self.folder.unlink(number)?,
                Job::Prepare(len) => self.prepare(len)?,
                Job::Close => return Ok(()),
            }
        }
    }

    /// The next segment comes first: the writer may be waiting for it. Unlinking is never left undone.
    fn next_job(&self) -> Job {
        let mut work = self.desk.work.lock();
        loop {
            if let (Spare::Wanted(len), false) = (&work.spare, work.closed) {
                let len = *len;
                work.spare = Spare::Preparing;
                return Job::Prepare(len);
            }
            if let Some(number) = work.unlink.pop_front() {
                return Job::Unlink(number);
            }
            if work.closed {
                return Job::Close;
            }
            if let Spare::Full(len) = work.spare {
                let timed_out = self.desk.changed.wait_for(&mut work, FULL_RETRY).timed_out();
                if timed_out && matches!(work.spare, Spare::Full(..)) {
                    work.spare = Spare::Wanted(len);
                }
            } else {
                self.desk.changed.wait(&mut work);
            }
        }
    }

    fn prepare(&self, len: u64) -> Result<(), Error> {
        match self.folder.prepare(len) {
            Ok(file) => {
                self.metrics.set_disk_full(false);
                self.desk.set(Spare::Ready(file, len));
            }
            Err(error) if error.is_full() => {
                // What was written so far would only keep the disk full.
                self.folder.remove_unfinished()?;
                if !self.metrics.set_disk_full(true) {
                    tracing::error!(%error, "no room for the log's next segment; free some before the active one is full");
                }
                self.desk.set(Spare::Full(len));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(folder: &Arc<Folder>, len: u64) -> Housekeeper {
        let on_fatal: OnFatal = Arc::new(|error| panic!("{error}"));
        Housekeeper::start(Arc::clone(folder), len, Arc::default(), on_fatal).unwrap()
    }

    #[test]
    fn a_spare_is_taken_and_the_next_one_is_made_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let housekeeper = start(&folder, 100);
        let (first, len) = housekeeper.take(80, &|| false).unwrap();
        assert_eq!((len, first.metadata().unwrap().len()), (100, 100));
        std::fs::rename(dir.path().join("new.tmp"), dir.path().join("used")).unwrap();
        housekeeper.prepare(100);
        let (_, len) = housekeeper.take(100, &|| false).unwrap();
        assert_eq!(len, 100);
        assert_eq!(first.metadata().unwrap().len(), 100);
    }

    #[test]
    fn a_larger_one_is_made_when_the_spare_is_too_small() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let (file, len) = start(&folder, 100).take(5_000, &|| false).unwrap();
        assert_eq!((len, file.metadata().unwrap().len()), (5_000, 5_000));
    }

    #[test]
    fn unlinking_is_done_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let paths = [4, 5].map(|number| dir.path().join(super::super::recover::segment_name(number)));
        paths.iter().for_each(|path| std::fs::write(path, "purged").unwrap());
        let housekeeper = start(&folder, 100);
        housekeeper.unlink([4, 5]);
        drop(housekeeper);
        assert_eq!(paths.map(|path| path.exists()), [false, false]);
    }
}
