//! Pure. W3C trace context and request ids: what a request brings is passed on unchanged, what it lacks is made.
//! Source: Trace Context §3.2 (<https://www.w3.org/TR/trace-context/>). Dice are arguments.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names the request in every log that it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Names the trace that it is part of.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest request id that is passed on, in bytes: it is held in every log line.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Sees to it that a request has both; `dice` is asked for numbers only where one is missing.
pub fn ensure(headers: &mut HeaderMap, mut dice: impl FnMut() -> u64) {
    if headers.get(&REQUEST_ID).is_none_or(|id| id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX) {
        headers.insert(REQUEST_ID, value(id(&mut dice)));
    }
    if headers.get(&TRACEPARENT).is_none_or(|parent| !is_traceparent(parent.as_bytes())) {
        // Not sampled: nobody has decided to keep this trace.
        let (trace, span) = (u128::from_be_bytes(bytes(&mut dice)).max(1), dice().max(1));
        headers.insert(TRACEPARENT, value(format!("00-{trace:032x}-{span:016x}-00")));
    }
}

/// An id that nobody else has.
pub fn id(dice: impl FnMut() -> u64) -> String {
    uuid::Builder::from_random_bytes(bytes(dice)).into_uuid().to_string()
}

/// `version-trace-parent-flags`, each in lower-case hex of its length, trace and parent not zero, version not `ff`.
fn is_traceparent(text: &[u8]) -> bool {
    let parts: Vec<&[u8]> = text.split(|&byte| byte == b'-').collect();
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    let hex = |part: &[u8], length| {
        part.len() == length && part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let zero = |part: &[u8]| part.iter().all(|&byte| byte == b'0');
    let shape = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    shape && !zero(trace) && !zero(parent) && *version != b"ff" && (rest.is_empty() || *version != b"00")
}

fn bytes(mut dice: impl FnMut() -> u64) -> [u8; 16] {
    ((u128::from(dice()) << 64) | u128::from(dice())).to_be_bytes()
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("hex digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn ensured(pairs: &[(&'static str, &str)]) -> (String, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        let mut next = 0;
        ensure(&mut headers, || {
            next += 1;
            next
        });
        let text = |name| {
            headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).expect("set").to_owned()
        };
        (text(REQUEST_ID), text(TRACEPARENT))
    }

    #[test]
    fn what_is_there_is_passed_on_unchanged() {
        let got = ensured(&[("x-request-id", "abc"), ("traceparent", PARENT)]);
        assert_eq!(got, ("abc".to_owned(), PARENT.to_owned()));
    }

    #[test]
    fn what_is_missing_or_malformed_is_made() {
        let made = "00-00000000000000030000000000000004-0000000000000005-00";
        for wrong in
            ["", "x", "00-0-0-0", &PARENT.to_uppercase(), &format!("{PARENT}-00"), &PARENT.replace('b', "g")]
        {
            let (id, parent) = ensured(&[("traceparent", wrong)]);
            assert_eq!(parent, made, "{wrong}");
            assert_eq!(id.len(), 36);
        }
        let (id, _) = ensured(&[("x-request-id", &"x".repeat(129))]);
        assert_eq!(id.len(), 36, "an id that is too long is replaced");
    }
}
