//! A test's temporary folder: gone when the test passed, kept when it failed, and then the ends of all logs are shown.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;

/// As many lines of each log are shown when a test fails.
const TAIL_LINES: usize = 12;

/// A folder for one test. Declare it before what runs in it, so that it is dropped after.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// A new folder.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("mesh-{name}-")).tempdir();
        Self(Some(folder.expect("a temporary folder can be made")))
    }

    /// Where it is.
    ///
    /// # Panics
    /// Never: it is there until it is dropped.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until it is dropped").path()
    }

    /// Writes a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("the folder takes files");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(folder) = self.0.take().filter(|_| std::thread::panicking()) else { return };
        let folder = folder.keep();
        eprintln!("the test failed; its files stand in {}", folder.display());
        let mut logs = Vec::new();
        collect(&folder, &mut logs);
        for log in logs {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("--- the end of {}\n{}", log.display(), tail.join("\n"));
        }
    }
}

/// All `.log` files below a folder.
fn collect(folder: &Path, logs: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // A booted host's own files are its journal's matter.
        if path.is_dir() && !["upper", "root", "work"].iter().any(|layer| path.ends_with(layer)) {
            collect(&path, logs);
        } else if path.extension().is_some_and(|end| end == "log") {
            logs.push(path);
        }
    }
}

/// What a command said, for assertions.
#[derive(Debug)]
pub struct Said {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Its stdout, if it went well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn fine(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// Its stderr, if it failed with this exit code.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self.err
    }
}
