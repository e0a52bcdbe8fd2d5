//! The log of calls: JSON lines, written by a thread of its own. A call leaves its line behind and goes on; the writer
//! comes for what was left in a while, and writes it at once. Where it cannot keep up, lines are dropped and counted.

use std::{
    borrow::Cow,
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use serde::Serialize;
use traffic::policy::{Remark, RuleId};

use super::Outcome;
use crate::{clock, settings::Output};

mod journal;
mod writer;

use journal::Journal;
pub use writer::ACCESS_LOG_LINES_MAX;
use writer::{Desk, Lines};

/// The longest path that a line shows, in bytes.
const PATH_BYTES_MAX: usize = 1_024;

/// Where the calls of one runtime thread leave their lines. Cheap to clone; with the last clone of all threads' the writer
/// ends, and all is written.
#[derive(Clone, Default)]
pub struct AccessLog(Option<(Arc<Lines>, Arc<Desk>)>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: model::duration::Millis,
    direction: &'a str,
    source: Option<&'a model::name::ServiceName>,
    destination: Option<&'a model::name::ServiceName>,
    route: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    protocol: &'a str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    mtls: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls: bool,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<std::net::SocketAddr>,
    retries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    traceparent: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    refusal: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
}

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
        desk.leave(lines, |text| serde_json::to_writer(text, &Line::of(outcome)).expect("texts and numbers"));
    }
}

impl<'a> Line<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let note = &outcome.note;
        Self {
            time: clock::wall(),
            direction: outcome.direction.as_str(),
            source: outcome.source.as_ref(),
            destination: outcome.destination.as_ref(),
            route: outcome.route.as_str(),
            method: note.method(),
            authority: note.authority(),
            path: cut(note.path()),
            protocol: outcome.spoken.as_str(),
            code: outcome.code,
            grpc_status: outcome.grpc_status,
            mtls: outcome.mtls,
            tls: note.tls,
            duration_ms: (outcome.took.as_secs_f64() * 1e6).round() / 1e3,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
            peer: note.peer,
            endpoint: note.endpoint,
            retries: note.retries,
            request_id: note.request_id(),
            traceparent: note.traceparent(),
            reason: &note.reason,
            rule: outcome.judged.denied.as_ref().map(RuleId::as_str),
            refusal: &note.refusal,
            remarks: outcome.judged.remarks.iter().map(remark).collect(),
        }
    }
}

/// As much of a path as a line shows.
fn cut(path: &str) -> &str {
    let ends = |path: &str| path.char_indices().map(|(at, _)| at).find(|&at| at >= PATH_BYTES_MAX);
    let end = if path.len() > PATH_BYTES_MAX { ends(path) } else { None };
    &path[..end.unwrap_or(path.len())]
}

/// `would-deny default/orders/guests`.
fn remark(remark: &Remark) -> String {
    format!("{} {}", remark.kind.as_str(), remark.rule)
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}
