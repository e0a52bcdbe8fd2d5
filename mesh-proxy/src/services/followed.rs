//! Tells that files of a folder may have changed (inotify), also of one that is made later. What changed is for whoever
//! reads the folder to find out.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{net::unix::pipe::Receiver, time::timeout};

/// For so long nothing may have happened: who installs several files at once is heard once.
pub const QUIET: Duration = Duration::from_millis(100);
/// After so long it is told all the same, whatever goes on.
pub const QUIET_MAX: Duration = Duration::from_secs(2);
/// How often it is told although nothing was seen, for what the kernel does not tell: a folder on another machine, one
/// whose parent was moved, a user of the system that was missing so far.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of events that are read at once: some tens.
const EVENTS_BYTES_MAX: usize = 4_096;

/// A folder whose changes are told.
#[derive(Debug)]
pub struct Followed {
    folder: PathBuf,
    /// `None` where the kernel has no more of them: then only the interval tells. It is no pipe, but is read like one.
    inotify: Option<Receiver>,
    /// The watch of the nearest folder above, while there is none of the folder itself.
    above: Option<i32>,
    /// Something was seen and not told yet.
    pending: bool,
}

impl Followed {
    /// Follows a folder from now on. To be called on a runtime.
    pub fn new(folder: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(io::Error::from);
        let inotify = inotify.and_then(Receiver::from_owned_fd_unchecked).inspect_err(|error| {
            tracing::warn!(%error, folder = %folder.display(), "changes are seen late: the folder cannot be watched");
        });
        let mut followed =
            Self { folder: folder.to_owned(), inotify: inotify.ok(), above: None, pending: false };
        followed.watch();
        followed
    }

    /// Waits until something may have changed, and for a moment nothing more has. What was seen is kept if the wait is
    /// given up.
    pub async fn changed(&mut self) {
        if !self.pending && timeout(LOOK_INTERVAL, self.seen()).await.is_err() {
            // Its parent may be another one by now.
            self.watch();
            return;
        }
        self.pending = true;
        let quiet = async { while timeout(QUIET, self.seen()).await.is_ok() {} };
        // Whatever goes on is seen again.
        let _ = timeout(QUIET_MAX, quiet).await;
        self.pending = false;
    }

    /// Waits until something is seen of the folder itself.
    async fn seen(&mut self) {
        loop {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            if inotify.readable().await.is_err() {
                return std::future::pending().await;
            }
            drain(inotify);
            let was_there = self.above.is_none();
            if self.watch() || was_there {
                return;
            }
        }
    }

    /// Watches the folder, or the nearest one above it that there is; whether it is the folder itself.
    fn watch(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let inside = WatchFlags::CLOSE_WRITE | WatchFlags::CREATE | WatchFlags::ATTRIB;
        let gone = WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let flags = inside | gone | WatchFlags::ONLYDIR;
        let mut above = self.above.take();
        loop {
            let own = inotify::add_watch(inotify, &self.folder, flags).is_ok();
            if let Some(watch) = above.take_if(|_| own) {
                // It is gone by itself if its folder is.
                let _ = inotify::remove_watch(inotify, watch);
            }
            let nearest = self.folder.ancestors().skip(1).find(|folder| folder.is_dir());
            if own || nearest.is_none() {
                return own;
            }
            let come =
                WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
            let watch = nearest.and_then(|folder| inotify::add_watch(inotify, folder, come).ok());
            // The folder may have come just before it was watched for: it is tried once more after that.
            if watch.is_none() || watch == above {
                self.above = watch;
                return false;
            }
            if let Some(old) = above.filter(|old| Some(*old) != watch) {
                let _ = inotify::remove_watch(inotify, old);
            }
            above = watch;
        }
    }
}

/// Takes what there is to be read: that there was something is all that counts.
fn drain(inotify: &Receiver) {
    let mut bytes = [0; EVENTS_BYTES_MAX];
    while inotify.try_read(&mut bytes).is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No step takes longer, but for the interval, which must not be what tells.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[track_caller]
    fn write(path: &Path) {
        std::fs::write(path, "x").expect("written");
    }

    async fn told(followed: &mut Followed, what: &str) {
        assert!(timeout(PATIENCE, followed.changed()).await.is_ok(), "{what} was not told");
    }

    #[tokio::test]
    async fn changes_are_told_also_of_a_folder_that_comes_and_goes() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("mesh/services.d");
        let file = folder.join("a.toml");
        let mut followed = Followed::new(&folder);
        write(&scratch.path().join("beside"));
        assert!(timeout(QUIET * 3, followed.changed()).await.is_err(), "what is beside it is nothing new");
        std::fs::create_dir_all(&folder).expect("made");
        told(&mut followed, "a new folder").await;
        write(&file);
        told(&mut followed, "a new file").await;
        write(&folder.join(".new"));
        std::fs::rename(folder.join(".new"), &file).expect("renamed");
        told(&mut followed, "a file that was put in place").await;
        std::fs::remove_file(&file).expect("removed");
        told(&mut followed, "a file that is gone").await;
        std::fs::rename(&folder, scratch.path().join("mesh/old")).expect("renamed");
        told(&mut followed, "a folder that is gone").await;
        std::fs::create_dir(&folder).expect("made");
        told(&mut followed, "another folder").await;
        write(&file);
        told(&mut followed, "a file in it").await;
        std::fs::remove_dir_all(scratch.path().join("mesh")).expect("removed");
        told(&mut followed, "all of it gone").await;
        std::fs::create_dir_all(&folder).expect("made");
        told(&mut followed, "all of it back").await;
        assert!(timeout(QUIET * 3, followed.changed()).await.is_err(), "nothing is told twice");
    }

    /// What cannot be watched, such as a file in its place, is no reason to wait for ever, nor to spin.
    #[tokio::test]
    async fn what_cannot_be_watched_is_waited_for() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("services.d");
        write(&folder);
        let mut followed = Followed::new(&folder);
        std::fs::remove_file(&folder).expect("removed");
        std::fs::create_dir(&folder).expect("made");
        told(&mut followed, "a folder in its place").await;
    }

    #[tokio::test]
    async fn what_was_seen_is_told_although_the_wait_was_given_up() {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut followed = Followed::new(scratch.path());
        write(&scratch.path().join("a.toml"));
        // Given up as soon as it was seen.
        followed.seen().await;
        followed.pending = true;
        assert!(timeout(Duration::ZERO, followed.changed()).await.is_err());
        told(&mut followed, "a new file").await;
    }
}
