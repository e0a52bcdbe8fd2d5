//! Pure. One JSON object (RFC 8259) on one line, written member by member into a buffer. By hand, not by serde: the access
//! log writes one for each call, on both sides, which was a sixth of all instructions of a request (docs/performance.md).

use std::{io::Write, net::SocketAddr, time::Duration};

/// A member's key, with all that stands around it: one of [`key!`].
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

/// A key of this name. Names are ours, and need no escapes. For who has [`Key`].
macro_rules! key {
    ($name:literal) => {
        Key(concat!(",\"", $name, "\":"))
    };
}
pub(super) use key;

/// The longest address of IPv4 with its port and its quotes, in bytes.
const ADDRESS_BYTES: usize = "\"255.255.255.255:65535\"".len();

/// An object that is being written.
pub(super) struct Object<'a> {
    text: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins an object behind what is in `text`.
    pub(super) fn begin(text: &'a mut Vec<u8>) -> Self {
        Self { text, first: true }
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.text.extend_from_slice(if self.first { b"{}" } else { b"}" });
    }

    /// Any text.
    pub(super) fn text(&mut self, key: Key, value: &str) {
        self.key(key);
        escaped(self.text, value);
    }

    /// A text that is left out where it is empty.
    pub(super) fn some_text(&mut self, key: Key, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// A text in parts in which, as whoever calls knows, nothing has to be escaped.
    pub(super) fn plain(&mut self, key: Key, parts: &[&str]) {
        self.key(key);
        self.text.push(b'"');
        for part in parts {
            debug_assert!(!needs_escapes(part), "{part}");
            self.text.extend_from_slice(part.as_bytes());
        }
        self.text.push(b'"');
    }

    /// Any texts, as an array; left out where there are none.
    pub(super) fn texts(&mut self, key: Key, values: impl Iterator<Item = impl AsRef<str>>) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return;
        }
        self.key(key);
        let mut before = b'[';
        for value in values {
            self.text.push(std::mem::replace(&mut before, b','));
            escaped(self.text, value.as_ref());
        }
        self.text.push(b']');
    }

    /// `null`.
    pub(super) fn null(&mut self, key: Key) {
        self.key(key);
        self.text.extend_from_slice(b"null");
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: Key, value: impl itoa::Integer) {
        self.key(key);
        self.digits(value);
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: Key, value: bool) {
        self.key(key);
        self.text.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A time in milliseconds, rounded to the microsecond.
    pub(super) fn millis(&mut self, key: Key, value: Duration) {
        let micros = (value.as_nanos() + 500) / 1_000;
        self.number(key, micros / 1_000);
        self.text.push(b'.');
        for unit in [100, 10, 1] {
            self.text.push(b'0' + u8::try_from(micros / unit % 10).expect("a digit"));
        }
    }

    /// `"10.0.0.1:80"`, `"[2001:db8::1]:80"`.
    pub(super) fn address(&mut self, key: Key, value: SocketAddr) {
        self.key(key);
        let SocketAddr::V4(v4) = value else {
            return write!(self.text, "\"{value}\"").expect("memory takes it");
        };
        let (mut text, mut length) = ([0; ADDRESS_BYTES], 0);
        let mut put = |byte| {
            text[length] = byte;
            length += 1;
        };
        for (before, number) in
            b"\"...:".iter().zip(v4.ip().octets().map(u16::from).into_iter().chain([v4.port()]))
        {
            put(*before);
            let units = [10_000, 1_000, 100, 10, 1].into_iter().filter(|&unit| number >= unit || unit == 1);
            units.for_each(|unit| put(b'0' + (number / unit % 10) as u8));
        }
        put(b'"');
        self.text.extend_from_slice(&text[..length]);
    }

    fn key(&mut self, Key(key): Key) {
        if std::mem::take(&mut self.first) {
            self.text.push(b'{');
            self.text.extend_from_slice(&key.as_bytes()[1..]);
        } else {
            self.text.extend_from_slice(key.as_bytes());
        }
    }

    fn digits(&mut self, value: impl itoa::Integer) {
        self.text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// A string (RFC 8259 §7). Hardly any has something to escape.
fn escaped(text: &mut Vec<u8>, value: &str) {
    if needs_escapes(value) {
        return serde_json::to_writer(text, value).expect("memory takes a text");
    }
    text.push(b'"');
    text.extend_from_slice(value.as_bytes());
    text.push(b'"');
}

/// Looks at all of it: with no way out in between, the compiler looks at many bytes at once.
fn needs_escapes(value: &str) -> bool {
    let one = |byte: &u8| (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    value.as_bytes().iter().fold(false, |any, byte| any | one(byte))
}
