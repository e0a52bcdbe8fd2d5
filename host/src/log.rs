//! The log of a daemon: to the journal, with its fields, where systemd connected standard error with it; to standard error
//! otherwise.

use std::{env, io, io::IsTerminal};

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The variable that says which levels are logged: `info`, `debug`, `registry=trace,info`.
const LEVEL: &str = "MESH_LOG";

/// Starts the log, with these levels where nothing else is said.
pub fn start(levels: &str) {
    let filter = || EnvFilter::try_from_env(LEVEL).unwrap_or_else(|_| EnvFilter::new(levels));
    let journal = is_the_journal().then(tracing_journald::layer).and_then(Result::ok);
    match journal {
        Some(journal) => {
            let journal = journal.with_field_prefix(Some("MESH".to_owned())).with_filter(filter());
            tracing_subscriber::registry().with(journal).init();
        }
        None => {
            let colours = io::stderr().is_terminal();
            let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours);
            tracing_subscriber::registry().with(text.with_filter(filter())).init();
        }
    }
}

/// Whether standard error leads there: systemd says which file it is (systemd.exec(5), `JOURNAL_STREAM`).
fn is_the_journal() -> bool {
    let Ok(said) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    said == format!("{}:{}", stat.st_dev, stat.st_ino)
}
