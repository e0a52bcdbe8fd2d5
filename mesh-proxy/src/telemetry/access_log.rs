//! The log of calls: JSON lines, written by a thread of its own. A call hands its line over and goes on; where the
//! writer cannot keep up, lines are dropped and counted.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

use serde::Serialize;
use traffic::policy::{Remark, RuleId};

use super::Outcome;
use crate::{clock, settings::Output};

/// Lines that wait to be written, of some 500 bytes each: a second of a busy host.
pub const ACCESS_LOG_LINES_MAX: usize = 8_192;
/// The longest path that a line shows, in bytes.
const PATH_BYTES_MAX: usize = 1_024;

/// Where calls hand their lines over. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

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
    authority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    protocol: &'a str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    mtls: bool,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<std::net::SocketAddr>,
    retries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    traceparent: &'a str,
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
        Self { lines: None, dropped: Arc::default() }
    }

    /// The log that the settings ask for; its thread ends when the last clone is gone.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(output: &Output) -> io::Result<Self> {
        match output {
            Output::Off => Ok(Self::off()),
            Output::Stdout => Ok(Self::to(io::stdout())),
            Output::File(path) => Ok(Self::to(append(path)?)),
        }
    }

    /// A log to `writer`.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(ACCESS_LOG_LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let lost = dropped.clone();
        let spawned = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(receiver, writer, &lost));
        Self { lines: spawned.is_ok().then_some(sender), dropped }
    }

    /// How many lines were lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands a call's line over, or drops it.
    pub fn finished(&self, outcome: &Outcome) {
        let Some(lines) = &self.lines else { return };
        let mut line = serde_json::to_vec(&Line::of(outcome)).expect("texts and numbers");
        line.push(b'\n');
        if lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> Line<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let note = &outcome.note;
        let cut = note.path.char_indices().map(|(at, _)| at).find(|&at| at >= PATH_BYTES_MAX);
        let end = cut.unwrap_or(note.path.len());
        Self {
            time: clock::wall(),
            direction: outcome.direction.as_str(),
            source: outcome.source.as_ref(),
            destination: outcome.destination.as_ref(),
            route: outcome.route.as_str(),
            method: &note.method,
            authority: &note.authority,
            path: &note.path[..end],
            protocol: outcome.spoken.as_str(),
            code: outcome.code,
            grpc_status: outcome.grpc_status,
            mtls: outcome.mtls,
            duration_ms: (outcome.took.as_secs_f64() * 1e6).round() / 1e3,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
            peer: note.peer,
            endpoint: note.endpoint,
            retries: note.retries,
            request_id: &note.request_id,
            traceparent: &note.traceparent,
            reason: &note.reason,
            rule: outcome.judged.denied.as_ref().map(RuleId::as_str),
            refusal: &note.refusal,
            remarks: outcome.judged.remarks.iter().map(remark).collect(),
        }
    }
}

/// `would-deny default/orders/guests`.
fn remark(remark: &Remark) -> String {
    format!("{} {}", remark.kind.as_str(), remark.rule)
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes until nobody sends any more; flushes whenever nothing waits.
fn write(lines: Receiver<Vec<u8>>, writer: impl Write, dropped: &AtomicU64) {
    let mut writer = BufWriter::new(writer);
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => return drop(writer.flush()),
            Err(TryRecvError::Empty) => {
                let flushed = writer.flush();
                match (flushed, lines.recv()) {
                    (_, Err(_)) => return,
                    (_, Ok(line)) => line,
                }
            }
        };
        if writer.write_all(&line).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
