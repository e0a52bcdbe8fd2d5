//! systemd's units, as a command that root types sees them.

use std::{
    io,
    path::Path,
    process::{Command, Output},
};

/// Where packages and administrators put units.
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// As many lines of its log are shown when a unit does not start.
const LINES: &str = "20";

/// A unit does not run.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// systemctl cannot be run.
    #[error("systemctl: {0}")]
    Systemctl(#[from] io::Error),
    /// It did not start.
    #[error("{unit} does not start: {told}\n{log}\nMore: journalctl -u {unit}")]
    Failed {
        /// Which.
        unit: String,
        /// What systemctl said.
        told: String,
        /// What the unit logged last.
        log: String,
    },
    /// It did not stop.
    #[error("{unit} does not stop: {told}")]
    Runs {
        /// Which.
        unit: String,
        /// What systemctl said.
        told: String,
    },
}

/// Whether this process may start the unit: it is root on a host that systemd runs, and the unit is installed.
pub fn can_start(unit: &str) -> bool {
    let installed = || FOLDERS.iter().any(|folder| Path::new(folder).join(unit).exists());
    rustix::process::geteuid().is_root() && Path::new("/run/systemd/system").is_dir() && installed()
}

/// Starts a unit, now and at each boot, and waits until it is ready.
///
/// # Errors
/// If it does not become ready; its last words are in the error.
pub fn start(unit: &str) -> Result<(), UnitError> {
    carry_out(&["enable", "--now", "--quiet", unit], unit)
}

/// Starts a unit anew, whether it ran or not, and at each boot; waits until it is ready.
///
/// # Errors
/// If it does not become ready; its last words are in the error.
pub fn restart(unit: &str) -> Result<(), UnitError> {
    carry_out(&["enable", "--quiet", unit], unit)?;
    carry_out(&["restart", unit], unit)
}

/// Stops a unit, now and at each boot, and waits until it has ended.
///
/// # Errors
/// If it still runs.
pub fn stop(unit: &str) -> Result<(), UnitError> {
    end(&["disable", "--now", "--quiet", unit], unit)
}

/// Stops a unit, and lets stand whether it is started at boots.
///
/// # Errors
/// If it still runs.
pub fn halt(unit: &str) -> Result<(), UnitError> {
    end(&["stop", unit], unit)
}

fn end(arguments: &[&str], unit: &str) -> Result<(), UnitError> {
    let output = Command::new("systemctl").args(arguments).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(UnitError::Runs { unit: unit.to_owned(), told: text(&output.stderr) }),
    }
}

fn carry_out(arguments: &[&str], unit: &str) -> Result<(), UnitError> {
    let output = Command::new("systemctl").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let log = Command::new("journalctl")
        .args(["--unit", unit, "--lines", LINES, "--no-pager", "--output", "cat"])
        .output();
    let told = text(&output.stderr);
    let log = log.map(|Output { stdout, .. }| text(&stdout)).unwrap_or_default();
    Err(UnitError::Failed { unit: unit.to_owned(), told, log })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_not_there_cannot_be_started() {
        assert!(!can_start("mesh-nothing-of-this-name.service"));
    }
}
