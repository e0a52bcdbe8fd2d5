//! `mesh-proxy capture`: the rules of the kernel by which calls of this host's programs come to the proxy. Loaded whole or
//! not at all, tried for a while if that is asked for, and taken away without a trace. The proxy itself has no part in it
//! and needs no rights for it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

mod facts;
mod kernel;
mod resolved;
mod resolvers;
mod rules;
mod ssh;
mod trial;

pub use resolvers::RESOLVERS_MAX;
pub use rules::{Family, Inbound, Plan, TABLE, Wanted};
pub use trial::{TRIAL_MAX, keep_watch};

use crate::{
    config::cache::CacheError,
    disk::{self, DiskError},
    identity::IdentityError,
    settings::Settings,
};
use kernel::Standing;
use trial::Trial;

/// Held while rules are changed: two at once would restore each other's.
const LOCK: &str = "capture.lock";

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
    /// The last good configuration.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Who this host is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
/// If the settings do not fit it, or its last good configuration cannot be read.
pub fn plan(settings: &Settings) -> Result<Plan, CaptureError> {
    facts::wanted(settings).map(|wanted| wanted.plan())
}

/// Loads the rules, for good or until nobody confirms them in time; in place of those of before.
///
/// # Errors
/// If that fails; the rules are then as before.
pub fn apply(settings: &Settings, confirm_within: Option<Duration>) -> Result<(), CaptureError> {
    let (plan, folder) = (plan(settings)?, &settings.capture.run_dir);
    let _lock = lock(folder)?;
    let before = Standing::read()?;
    match confirm_within {
        Some(patience) => Trial::begin(folder, &before, patience)?,
        None => Trial::end(folder)?,
    }
    let loaded = kernel::load(&plan).inspect_err(|error| {
        tracing::error!(%error, "the rules stay as they were");
        if let Err(error) = kernel::restore(&before).and_then(|()| Trial::end(folder)) {
            tracing::error!(%error, "nor could they be restored");
        }
    });
    loaded.and_then(|()| resolved::tell(&settings.listen.dns.0))
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
    kernel::restore(&Standing::default())?;
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
