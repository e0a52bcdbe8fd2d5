//! The log of calls: JSON lines, written by a thread of its own. A call leaves its line behind and goes on; the writer
//! comes for what was left in a while, and writes it at once. Where it cannot keep up, lines are dropped and counted.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use super::Outcome;
use crate::{clock, settings::Output};

mod journal;
mod json;
mod line;
mod writer;

use journal::Journal;
pub use writer::ACCESS_LOG_LINES_MAX;
use writer::{Desk, Lines};

/// Where the calls of one runtime thread leave their lines. Cheap to clone; with the last clone of all threads' the writer
/// ends, and all is written.
#[derive(Clone, Default)]
pub struct AccessLog(Option<(Arc<Lines>, Arc<Desk>)>);

impl AccessLog {
    /// A log that goes nowhere.
    pub fn off() -> Self {
        Self::default()
    }

    /// The log that the settings ask for.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(output: &Output) -> io::Result<Self> {
        match output {
            Output::Off => Ok(Self::off()),
            Output::Stdout => Ok(Self::to(io::stdout())),
            Output::Journal => Ok(Self::to(Journal::open(Path::new(journal::SOCKET))?)),
            Output::File(path) => Ok(Self::to(append(path)?)),
        }
    }

    /// A log to `writer`.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        match Desk::open(writer) {
            Ok(desk) => Self(Some((desk.lines(), Arc::new(desk)))),
            Err(error) => {
                tracing::error!(%error, "calls are not logged");
                Self::off()
            }
        }
    }

    /// The same log, for another thread.
    #[must_use]
    pub fn for_thread(&self) -> Self {
        Self(self.0.as_ref().map(|(_, desk)| (desk.lines(), desk.clone())))
    }

    /// How many lines were lost so far.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |(_, desk)| desk.dropped())
    }

    /// Leaves a call's line behind, or drops it.
    pub fn finished(&self, outcome: &Outcome) {
        let Some((lines, desk)) = &self.0 else { return };
        desk.leave(lines, |text| clock::with_stamp(|now| line::write(text, now, outcome)));
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}
