//! Child processes that never outlive their owner, with their output in files.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(name: &str, folder: &Path, command: &mut Command) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        Self::start(name, log, command)
    }

    /// Starts `command` with its stdout for the caller to read; stderr goes to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_piped(
        name: &str,
        folder: &Path,
        command: &mut Command,
    ) -> anyhow::Result<(Self, std::process::ChildStdout)> {
        let log = folder.join(format!("{name}.log"));
        command
            .stdin(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .stdout(Stdio::piped());
        let mut process = Self::start(name, log, command)?;
        let stdout = process.child.stdout.take().context("stdout was asked for")?;
        Ok((process, stdout))
    }

    fn start(name: &str, log: PathBuf, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end (SIGTERM) and waits until it did.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let what = format!("{} ends after SIGTERM", self.name);
        until(&what, limit, || {
            let ended = self.child.try_wait();
            async { ended.map_err(|error| error.to_string())?.ok_or_else(|| "it runs".to_owned()) }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// If it fails; the error has its stderr.
pub async fn run(command: &mut tokio::process::Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let end = output
        .status
        .code()
        .map_or_else(|| format!("signal {:?}", output.status.signal()), |code| format!("exit code {code}"));
    anyhow::bail!("{command:?} ended with {end}:\n{stdout}{stderr}")
}
