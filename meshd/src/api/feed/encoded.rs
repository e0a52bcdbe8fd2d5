//! Pure. The texts of events, as lines of JSON or as server-sent events. A change is encoded once for all watchers that
//! see it the same way; the bytes are shared.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use model::{object::Object, watch::Event};
use parking_lot::Mutex;
use serde::Serialize;
use uuid::Uuid;

/// As many bytes of encoded events are kept: those that watchers are just being told of. Who is slower encodes again.
pub const ENCODED_BYTES_MAX: usize = 4 << 20;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A line of JSON each.
    Ndjson,
    /// Server-sent events (WHATWG HTML §9.2): the same JSON as `data`, and an `id` where a client may resume.
    Sse,
}

/// Which event of which change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// The history: another one has other revisions of the same number.
    pub epoch: Option<Uuid>,
    /// How it is written.
    pub form: Form,
    /// The revision.
    pub revision: u64,
    /// Which of its changes.
    pub index: usize,
    /// Whether the object is there, or gone.
    pub put: bool,
    /// Whether it is the last of the revision that its watcher sees.
    pub last: bool,
}

/// Encoded events.
#[derive(Debug, Default)]
pub struct Encoded {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What was asked for last: of a thousand watchers that are woken at once nearly all ask for the same.
    last: Option<(Line, Bytes)>,
    lines: HashMap<Line, Bytes>,
    order: VecDeque<Line>,
    bytes: usize,
    made: u64,
}

/// As [`Event::Put`] and [`Event::Delete`], without copying the object.
#[derive(Serialize)]
struct Borrowed<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    revision: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    last: bool,
    object: &'a Object,
}

impl Encoded {
    /// One event.
    pub fn line(&self, line: Line, object: &Arc<Object>) -> Bytes {
        // Encoded under the lock: a thousand watchers that are woken at once must not all do it.
        let mut kept = self.kept.lock();
        if let Some((_, bytes)) = kept.last.as_ref().filter(|(last, _)| *last == line) {
            return bytes.clone();
        }
        let bytes = kept.lines.get(&line).cloned().unwrap_or_else(|| {
            let bytes = event(line, object);
            kept.keep(line, bytes.clone());
            bytes
        });
        kept.last = Some((line, bytes.clone()));
        bytes
    }

    /// How many were encoded so far.
    pub fn made(&self) -> u64 {
        self.kept.lock().made
    }
}

impl Kept {
    fn keep(&mut self, line: Line, bytes: Bytes) {
        self.made += 1;
        self.bytes += bytes.len();
        self.lines.insert(line, bytes);
        self.order.push_back(line);
        while self.bytes > ENCODED_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.lines.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

fn event(line: Line, object: &Object) -> Bytes {
    let Line { form, revision, put, last, .. } = line;
    let kind = if put { "put" } else { "delete" };
    text(form, kind, last.then_some(revision), &Borrowed { kind, revision, last, object })
}

/// What a stream begins with: how soon a client of server-sent events shall come back.
pub fn opening(form: Form) -> Bytes {
    match form {
        Form::Ndjson => Bytes::new(),
        Form::Sse => Bytes::from_static(b"retry: 1000\n\n"),
    }
}

/// An object of the initial state: no place to resume from.
pub fn present(form: Form, object: &Object) -> Bytes {
    text(
        form,
        "put",
        None,
        &Borrowed { kind: "put", revision: object.metadata.revision, last: false, object },
    )
}

/// Everything up to there was told.
pub fn bookmark(form: Form, revision: u64) -> Bytes {
    text(form, "bookmark", Some(revision), &Event::Bookmark { revision })
}

/// Why the stream ends.
pub fn error(form: Form, status: u16, oldest: u64) -> Bytes {
    text(form, "error", None, &Event::Error { status, oldest })
}

/// `id` is where a client may resume: a revision is told whole up to there.
fn text(form: Form, kind: &str, id: Option<u64>, event: &impl Serialize) -> Bytes {
    let mut text = Vec::with_capacity(512);
    if form == Form::Sse {
        if let Some(id) = id {
            text.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        text.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    }
    // JSON of one line: line breaks inside texts are escaped.
    serde_json::to_writer(&mut text, event)
        .expect("events are made of texts and numbers, and memory takes them");
    text.extend_from_slice(if form == Form::Sse { b"\n\n" } else { b"\n" });
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::object;

    fn line(revision: u64, last: bool, form: Form) -> Line {
        Line { epoch: None, form, revision, index: 0, put: true, last }
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_same_is_encoded_once_and_shared() {
        let (encoded, object) = (Encoded::default(), Arc::new(object("Service default/a")));
        let first = encoded.line(line(1, true, Form::Ndjson), &object);
        let again = encoded.line(line(1, true, Form::Ndjson), &object);
        assert_eq!((first.as_ptr(), encoded.made()), (again.as_ptr(), 1));
        encoded.line(line(1, false, Form::Ndjson), &object);
        encoded.line(line(2, true, Form::Ndjson), &object);
        assert_eq!(encoded.made(), 3);
        encoded.line(Line { epoch: Some(Uuid::from_u128(7)), ..line(1, true, Form::Ndjson) }, &object);
        assert_eq!(encoded.made(), 4);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let encoded = Encoded::default();
        let large = format!("Service default/a {{\"x\":\"{}\"}}", "y".repeat(ENCODED_BYTES_MAX / 3));
        let large = Arc::new(object(&large));
        for revision in 1..=9 {
            encoded.line(line(revision, true, Form::Ndjson), &large);
        }
        let kept = encoded.kept.lock();
        assert!(kept.bytes <= ENCODED_BYTES_MAX && kept.lines.len() == 2 && kept.order.len() == 2);
    }

    #[test]
    fn lines_are_read_as_events() {
        let object = object("Service default/a");
        for (put, last) in [(true, true), (true, false), (false, true)] {
            let line = Line { put, ..line(7, last, Form::Ndjson) };
            let read =
                model::watch::parse_line(text(&event(line, &object)).trim_end().as_bytes()).expect("reads");
            let want = match put {
                true => Event::Put { revision: 7, last, object: object.clone() },
                false => Event::Delete { revision: 7, last, object: object.clone() },
            };
            assert_eq!(read, want);
        }
    }

    #[test]
    fn a_server_sent_event_has_an_id_only_where_a_client_may_resume() {
        let object = object("Service default/a {\"x\":\"a\\nb\"}");
        let whole = text(&event(line(7, true, Form::Sse), &object));
        assert!(
            whole.starts_with("id: 7\nevent: put\ndata: {\"type\":\"put\",\"revision\":7,\"last\":true"),
            "{whole}"
        );
        assert!(whole.ends_with("}\n\n") && whole.matches('\n').count() == 4, "{whole}");
        assert!(text(&event(line(7, false, Form::Sse), &object)).starts_with("event: put\ndata: "));
        assert!(text(&present(Form::Sse, &object)).starts_with("event: put\ndata: "));
        assert_eq!(
            text(&bookmark(Form::Sse, 9)),
            "id: 9\nevent: bookmark\ndata: {\"type\":\"bookmark\",\"revision\":9}\n\n"
        );
        assert!(text(&error(Form::Sse, 410, 3)).starts_with("event: error\ndata: "));
    }
}
