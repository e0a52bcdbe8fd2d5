//! `mesh-proxy capture`: the rules of the kernel by which calls of this host's programs come to the proxy. Loaded whole or
//! not at all, tried for a while if that is asked for, and taken away without a trace. The proxy itself needs no rights for
//! it: all that it may do is to tell which ports are open.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

mod applied;
mod facts;
mod kernel;
mod ports;
mod resolved;
mod resolvers;
mod rules;
mod ssh;
mod told;
mod trial;

pub use ports::{PORTS_BYTES_MAX, PORTS_MAX, Ports};
pub use resolved::DropIn;
pub use resolvers::RESOLVERS_MAX;
pub use rules::{Family, Inbound, Plan, TABLE, Wanted};
pub use told::tell;
pub use trial::{TRIAL_MAX, keep_watch};

use crate::{
    disk::{self, DiskError},
    settings::Settings,
};
use applied::Applied;
use kernel::Standing;
use trial::Trial;

/// Held while rules are changed: two at once would restore each other's.
const LOCK: &str = "capture.lock";
/// How often rules are refreshed at once, where ports change meanwhile.
pub const REFRESHES_MAX: usize = 8;

/// Why rules could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A program is missing.
    #[error("{program} is missing: install it (Debian and RPM package {package})")]
    Missing {
        /// Which.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// A program refuses.
    #[error("{program}: {said}")]
    Refused {
        /// Which, with its arguments.
        program: String,
        /// What it says.
        said: String,
    },
    /// The settings do not fit this host.
    #[error("{0}")]
    Settings(String),
    /// There is nothing to confirm.
    #[error("nothing waits to be confirmed: it was confirmed already, or rolled back as nobody did in time")]
    NoTrial,
    /// Our files.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What would be loaded on this host.
///
/// # Errors
/// If the settings do not fit it.
pub fn plan(settings: &Settings) -> Result<Plan, CaptureError> {
    Applied::by(settings).map(|applied| whole(settings, &applied))
}

/// The rules, and whom systemd-resolved is to ask.
fn whole(settings: &Settings, applied: &Applied) -> Plan {
    Plan { resolved: resolved::drop_in(&settings.listen.dns.0), ..applied.wanted.plan() }
}

/// Loads the rules, for good or until nobody confirms them in time; in place of those of before.
///
/// # Errors
/// If that fails; the rules are then as before.
pub fn apply(settings: &Settings, confirm_within: Option<Duration>) -> Result<(), CaptureError> {
    let folder = &settings.capture.run_dir;
    let _lock = lock(folder)?;
    let (applied, before) = (Applied::by(settings)?, Standing::read(folder)?);
    let plan = whole(settings, &applied);
    match confirm_within {
        Some(patience) => Trial::begin(folder, &before, patience)?,
        None => Trial::end(folder)?,
    }
    let loaded = Applied::keep(Some(&applied), folder).and_then(|()| kernel::load(&plan));
    let loaded = loaded.inspect_err(|_| put_back(&before, folder, || Trial::end(folder)));
    loaded.and_then(|()| resolved::tell(plan.resolved.as_ref()))
}

fn put_back(before: &Standing, folder: &Path, then: impl FnOnce() -> Result<(), CaptureError>) {
    tracing::error!("the rules stay as they were");
    if let Err(error) = kernel::restore(before, folder).and_then(|()| then()) {
        tracing::error!(%error, "nor could they be restored");
    }
}

/// Has the rules follow which ports are open, as the proxy tells. Nothing but that changes of what was applied last, be it
/// on trial or for good, and where nothing was applied, nothing is. Whether something changed.
///
/// # Errors
/// If that fails; the rules are then as before.
pub fn refresh(settings: &Settings) -> Result<bool, CaptureError> {
    let _lock = lock(&settings.capture.run_dir)?;
    refresh_locked(&settings.capture.run_dir)
}

fn refresh_locked(folder: &Path) -> Result<bool, CaptureError> {
    for round in 0..REFRESHES_MAX {
        let Some(applied) = Applied::read(folder)? else { return Ok(false) };
        let now = applied.refreshed()?;
        if now == applied {
            return Ok(round > 0);
        }
        let before = Standing::read(folder)?;
        let loaded = Applied::keep(Some(&now), folder).and_then(|()| kernel::load_rules(&now.wanted.plan()));
        loaded.inspect_err(|_| put_back(&before, folder, || Ok(())))?;
    }
    Ok(true)
}

/// What was loaded to be tried stays.
///
/// # Errors
/// If nothing is tried any more.
pub fn confirm(settings: &Settings) -> Result<(), CaptureError> {
    let _lock = lock(&settings.capture.run_dir)?;
    match Trial::read(&settings.capture.run_dir)? {
        Some(_) => Trial::end(&settings.capture.run_dir),
        None => Err(CaptureError::NoTrial),
    }
}

/// Takes away all that was ever loaded.
///
/// # Errors
/// If something of it may be left.
pub fn remove(settings: &Settings) -> Result<(), CaptureError> {
    let _lock = lock(&settings.capture.run_dir)?;
    Trial::end(&settings.capture.run_dir)?;
    kernel::restore(&Standing::default(), &settings.capture.run_dir)?;
    resolved::forget()
}

/// Whether rules of ours stand in the kernel.
///
/// # Errors
/// If it cannot be seen: only root can.
pub fn is_loaded() -> Result<bool, CaptureError> {
    kernel::has_table()
}

fn lock(folder: &Path) -> Result<File, CaptureError> {
    let path = folder.join(LOCK);
    let failed = |source| CaptureError::Io { what: path.display().to_string(), source };
    disk::make_folder(folder)?;
    let file = File::create(&path).map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(file)
}

/// A file of this host, whose text is empty if there is none.
fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The files of a folder, in their order.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
