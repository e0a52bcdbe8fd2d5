//! Rules on trial: what stood before is kept, and a process of its own brings it back unless somebody confirms in time.
//! That process has no part in the shell that started it: who is locked out by the rules gets in again.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    CaptureError,
    kernel::{self, Standing},
    lock, refresh_locked,
};
use crate::{clock, disk, telemetry::trace};

/// The longest trial: a forgotten one ends within the hour.
pub const TRIAL_MAX: Duration = Duration::from_secs(3_600);
/// How often it is looked whether somebody has confirmed.
const LOOK: Duration = Duration::from_millis(200);
/// Its file in `capture.run_dir`.
const FILE: &str = "capture-trial.json";
/// Where there is a systemd, the process is a unit of its own: logind may end all that a session started.
const SYSTEMD: &str = "/run/systemd/system";

/// What is tried.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trial {
    /// Which one: a process whose trial was followed by another one has nothing to do any more.
    id: String,
    /// What comes back.
    before: Standing,
}

impl Trial {
    /// The one that goes on, if any.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, CaptureError> {
        let text = disk::read(&folder.join(FILE))?;
        // One that cannot be read brings nothing back.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Begins one: from now on `before` comes back, or what stood before the trial that goes on already.
    pub(super) fn begin(folder: &Path, before: &Standing, patience: Duration) -> Result<(), CaptureError> {
        let before = Self::read(folder)?.map_or_else(|| before.clone(), |trial| trial.before);
        let trial = Self { id: trace::id(clock::dice), before };
        let bytes = serde_json::to_vec(&trial).expect("texts and lists");
        disk::write(&folder.join(FILE), &bytes)?;
        start_watch(folder, &trial.id, patience)
    }

    /// Ends it: nothing comes back any more.
    pub(super) fn end(folder: &Path) -> Result<(), CaptureError> {
        let path = folder.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CaptureError::Io { what: path.display().to_string(), source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Starts the process that brings back what stood before, and waits until it stands on its own feet.
fn start_watch(folder: &Path, id: &str, patience: Duration) -> Result<(), CaptureError> {
    let failed = |source| CaptureError::Io { what: "the watch over the trial".to_owned(), source };
    let own = std::env::current_exe().map_err(failed)?;
    let seconds = patience.as_secs_f64().to_string();
    let arguments: [PathBuf; 8] = ["capture", "watch", "--trial", id, "--seconds", &seconds, "--folder"]
        .map(PathBuf::from)
        .into_iter()
        .chain([folder.to_owned()])
        .collect::<Vec<_>>()
        .try_into()
        .expect("eight of them");
    if Path::new(SYSTEMD).exists() && is_systemd_s_network() {
        let unit = format!("--unit=mesh-capture-trial-{id}");
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", &unit]).arg(&own).args(&arguments);
        if command.output().is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
    }
    let mut command = Command::new(own);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe was asked for"))
        .read_line(&mut line)
        .map_err(failed)?;
    match line.is_empty() {
        true => Err(failed(std::io::Error::other("it ended at once"))),
        false => Ok(()),
    }
}

/// Whether what systemd starts sees the same network as this process.
fn is_systemd_s_network() -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
    matches!((network("self"), network("1")), (Ok(own), Ok(first)) if own == first)
}

/// The process itself: waits, and brings back what stood before if nobody has confirmed.
///
/// # Errors
/// If it could not be brought back.
pub fn keep_watch(folder: &Path, id: &str, patience: Duration) -> Result<(), CaptureError> {
    // Of a session of its own already where systemd started it.
    let _ = rustix::process::setsid();
    // Nobody may listen any more.
    let _ = writeln!(std::io::stdout(), "watching");
    let until = clock::now() + patience.min(TRIAL_MAX);
    while clock::now() < until {
        if Trial::read(folder)?.is_none_or(|trial| trial.id != id) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    let _lock = lock(folder)?;
    match Trial::read(folder)? {
        Some(trial) if trial.id == id => {
            kernel::restore(&trial.before, folder).and_then(|()| Trial::end(folder))?;
            // Modes may have changed while others were tried.
            refresh_locked(folder).map(drop)
        }
        _ => Ok(()),
    }
}
