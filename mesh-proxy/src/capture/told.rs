//! What the proxy tells about ports, in a file of its own: written there by the worker that speaks for the host, read by
//! whoever loads the rules. systemd sees that it was replaced, and has the rules refreshed.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::ports::{PORTS_BYTES_MAX, Ports};
use crate::{
    disk::{self, DiskError},
    shared::Shared,
};

/// Its file in `data_dir`.
const FILE: &str = "ports.json";
/// Between two times that it is told: each makes root load rules.
const PACE: Duration = Duration::from_secs(1);
/// After so long it is told once more: systemd does not look while the rules are being loaded; and a disk that was full
/// may have room again.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells which ports are open, now and whenever that changes, for as long as it is polled.
pub async fn tell(shared: Arc<Shared>, data_dir: PathBuf) {
    let mut changes = shared.changes();
    let path = data_dir.join(FILE);
    let mut told = heard(&path, None).ok().flatten();
    let (mut again, mut failing) = (false, false);
    loop {
        changes.mark_unchanged();
        let snapshot = shared.config().snapshot.clone();
        let ports = Ports::of(&snapshot);
        let differs = told.as_ref() != Some(&ports);
        // Before anything is known, what was known before the start is better than nothing.
        if snapshot.revision > 0 && (differs || again) {
            let written = write(path.clone(), &ports).await;
            if let Some(error) = written.as_ref().err().filter(|_| !failing) {
                tracing::error!(%error, "the rules of capture do not follow modes and services, for now");
            }
            failing = written.is_err();
            // What could not be written is tried again, and so is what nobody may have seen.
            again = differs || written.is_err();
            told = written.is_ok().then_some(ports).or(told);
            sleep(PACE).await;
        }
        let changed = changes.changed();
        let lives = if again { timeout(AGAIN, changed).await.unwrap_or(Ok(())) } else { changed.await };
        if lives.is_err() {
            return;
        }
    }
}

async fn write(path: PathBuf, ports: &Ports) -> Result<(), DiskError> {
    let text = ports.text();
    spawn_blocking(move || disk::write(&path, &text)).await.expect("it does not panic")
}

/// What the proxy of `uid` told last; `None` if it never did.
pub(super) fn read(data_dir: &Path, uid: u32) -> Result<Option<Ports>, DiskError> {
    let path = data_dir.join(FILE);
    heard(&path, Some(uid)).map_err(|source| DiskError { path, source })
}

/// A plain file, of root or of that user, and no larger than it may be: whatever else stands in its place is not opened up
/// for whoever put it there, nor waited for.
fn heard(path: &Path, uid: Option<u32>) -> io::Result<Option<Ports>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let found = file.metadata()?;
    if !found.is_file() || uid.is_some_and(|uid| ![0, uid].contains(&found.uid())) {
        return Err(io::Error::other("it is no file of the proxy's user"));
    }
    let mut text = Vec::new();
    file.take(PORTS_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ports::parse(&text).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_small_file_of_the_proxy_s_user_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, own) = (folder.path().join(FILE), rustix::process::getuid().as_raw());
        let said = || read(folder.path(), own).map_err(|error| error.to_string());
        assert_eq!(said(), Ok(None));
        let ports = Ports { permissive: [80].into(), ..Ports::default() };
        disk::write(&path, &ports.text()).expect("written");
        assert_eq!(said(), Ok(Some(ports.clone())));
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).expect("moved");
        symlink(&elsewhere, &path).expect("made");
        assert!(said().is_err(), "a way to another file is not followed");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(said().is_err());
        std::fs::remove_dir(&path).expect("removed");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("made");
        assert!(said().expect_err("nobody is waited for").contains("no file"));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, vec![b' '; PORTS_BYTES_MAX + 1]).expect("written");
        assert!(said().is_err());
        if own == 0 {
            disk::write(&path, &ports.text()).expect("written");
            std::os::unix::fs::chown(&path, Some(1), None).expect("root may");
            assert!(read(folder.path(), 2).is_err(), "another user's");
            assert!(read(folder.path(), 1).is_ok());
        }
    }
}
