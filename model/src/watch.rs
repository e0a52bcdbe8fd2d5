//! Pure. The lines of `GET /v1/watch`: history, revision by revision.

use serde::{Deserialize, Serialize};

use crate::object::Object;

/// The longest line of a watch stream, in bytes: the largest object with its envelope fits twice.
pub const WATCH_LINE_BYTES_MAX: usize = 4 << 20;

/// One line of the stream (NDJSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// An object was created or changed, or (in the initial set) is there.
    Put {
        /// The revision of the change.
        revision: u64,
        /// On the last event of a revision.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        last: bool,
        /// The object.
        object: Object,
    },
    /// An object was removed.
    Delete {
        /// The revision of the change.
        revision: u64,
        /// On the last event of a revision.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        last: bool,
        /// The object as it was.
        object: Object,
    },
    /// Everything up to `revision` was sent: a place to resume from.
    Bookmark {
        /// The revision.
        revision: u64,
    },
    /// The stream ends: start again without `from`.
    Error {
        /// 410: compacted, or too slow.
        status: u16,
        /// The oldest revision that can be resumed from.
        #[serde(default)]
        oldest: u64,
    },
}

/// Reads one line of a stream, leniently.
///
/// # Errors
/// If it is no event that this version knows.
pub fn parse_line(line: &[u8]) -> Result<Event, serde_json::Error> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_have_the_documented_form() {
        let object: Object =
            serde_json::from_value(json!({"kind": "Namespace", "metadata": {"name": "a"}, "spec": {}}))
                .expect("valid");
        let put = Event::Put { revision: 7, last: true, object };
        let value = serde_json::to_value(&put).expect("serialises");
        assert_eq!(
            (&value["type"], &value["revision"], &value["last"]),
            (&json!("put"), &json!(7), &json!(true))
        );
        assert_eq!(parse_line(value.to_string().as_bytes()).expect("parses"), put);
        let bookmark = serde_json::to_value(Event::Bookmark { revision: 9 }).expect("serialises");
        assert_eq!(bookmark, json!({"type": "bookmark", "revision": 9}));
        assert_eq!(
            parse_line(br#"{"type":"error","status":410,"oldest":5,"new":1}"#).expect("parses"),
            Event::Error { status: 410, oldest: 5 }
        );
        assert!(parse_line(br#"{"type":"rewind"}"#).is_err());
    }
}
