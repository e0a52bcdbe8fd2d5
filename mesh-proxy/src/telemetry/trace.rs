//! Pure. W3C trace context and request ids: what a request brings is passed on unchanged, what it lacks is made.
//! Source: Trace Context §3.2 (<https://www.w3.org/TR/trace-context/>). Dice are arguments.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::short;

/// Names the request in every log that it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Names the trace that it is part of.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The flag of a trace that somebody keeps (Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 1;
/// Where what stands in a traceparent, and how long it is, of the present version.
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;
const LENGTH: usize = FLAGS.end;
/// The longest request id that is passed on, in bytes: it is held in every log line.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// What this proxy makes of traces.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Spans are kept.
    pub kept: bool,
    /// Of the traces that begin here, the share that is sampled, in 2^-32.
    pub share: u32,
}

/// This proxy's own span of a sampled trace, in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The trace.
    pub trace: String,
    /// The span.
    pub span: String,
    /// The span that it is part of; `None` if the trace begins here.
    pub parent: Option<String>,
}

/// What a request says of its trace, as it goes on.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// W3C trace context.
    pub traceparent: Option<HeaderValue>,
    /// This proxy's span, where the trace is sampled and its spans are kept.
    pub own: Option<Own>,
}

/// Sees to it that a request has both; `dice` is asked for numbers only where one is missing. Where the trace is sampled
/// and its spans are kept, what is passed on is part of a span of ours.
pub fn begin(headers: &mut HeaderMap, rules: Rules, mut dice: impl FnMut() -> u64) -> Context {
    let fits = |id: &&HeaderValue| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX;
    let request_id = headers.get(&REQUEST_ID).filter(fits).cloned().unwrap_or_else(|| {
        let id = uuid(&mut dice).hyphenated();
        let id = value(id.encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
        headers.insert(REQUEST_ID, id.clone());
        id
    });
    let came = headers.get(&TRACEPARENT).filter(|came| is_traceparent(came.as_bytes())).cloned();
    // What came goes on as it is, where nothing of ours stands between.
    let (ours, own) = match &came {
        Some(came) => {
            let own = followed(came.as_bytes(), rules, dice);
            (own.as_ref().map(|own| value(format!("00-{}-{}-01", own.trace, own.span).as_bytes())), own)
        }
        None => {
            let (parent, own) = begun(rules, dice);
            (Some(value(&parent)), own)
        }
    };
    if let Some(ours) = &ours {
        headers.insert(TRACEPARENT, ours.clone());
    }
    Context { request_id: Some(request_id), traceparent: ours.or(came), own }
}

/// A trace that begins here.
fn begun(rules: Rules, mut dice: impl FnMut() -> u64) -> ([u8; LENGTH], Option<Own>) {
    let mut parent = parent(u128::from_be_bytes(bytes(&mut dice)).max(1), dice().max(1));
    let sampled = rules.kept && rules.share > 0 && (dice() as u32) <= rules.share;
    // Otherwise nobody has decided to keep this trace.
    let own = sampled.then(|| Own { trace: part(&parent, TRACE), span: part(&parent, SPAN), parent: None });
    parent[FLAGS.end - 1] = b'0' + u8::from(sampled);
    (parent, own)
}

/// Our span of a trace that came, where it is sampled and kept.
fn followed(came: &[u8], rules: Rules, mut dice: impl FnMut() -> u64) -> Option<Own> {
    let flags = str::from_utf8(&came[FLAGS]).ok().and_then(|flags| u8::from_str_radix(flags, 16).ok());
    let sampled = flags.is_some_and(|flags| flags & SAMPLED != 0);
    (rules.kept && sampled).then(|| Own {
        trace: part(came, TRACE),
        span: hex(dice().max(1)),
        parent: Some(part(came, SPAN)),
    })
}

/// An id that nobody else has.
pub fn id(dice: impl FnMut() -> u64) -> String {
    uuid(dice).to_string()
}

fn uuid(dice: impl FnMut() -> u64) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(bytes(dice)).into_uuid()
}

/// `version-trace-parent-flags`, each in lower-case hex of its length, trace and parent not zero, version not `ff`. Versions
/// to come may have more behind it.
fn is_traceparent(text: &[u8]) -> bool {
    let (Some(text), rest) = (text.get(..LENGTH), text.get(LENGTH..).unwrap_or_default()) else {
        return false;
    };
    let (version, trace, parent) = (&text[..2], &text[TRACE], &text[SPAN]);
    let hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let zero = |part: &[u8]| part.iter().all(|&byte| byte == b'0');
    let dashes = [2, TRACE.end, SPAN.end].iter().all(|at| text[*at] == b'-');
    let shape = dashes && [version, trace, parent, &text[FLAGS]].into_iter().all(hex);
    let more = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    shape && !zero(trace) && !zero(parent) && version != b"ff" && more
}

/// A traceparent that is not sampled.
fn parent(trace: u128, span: u64) -> [u8; LENGTH] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let digits = |text: &mut [u8], number: u128| {
        for (at, digit) in text.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * at)) as usize % 16];
        }
    };
    digits(&mut text[TRACE], trace);
    digits(&mut text[SPAN], u128::from(span));
    text
}

fn part(text: &[u8], of: Range<usize>) -> String {
    String::from_utf8_lossy(&text[of]).into_owned()
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn bytes(mut dice: impl FnMut() -> u64) -> [u8; 16] {
    ((u128::from(dice()) << 64) | u128::from(dice())).to_be_bytes()
}

fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_maybe_shared(short::copied(text).freeze()).expect("hex digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    const OFF: Rules = Rules { kept: false, share: u32::MAX };

    fn begun(pairs: &[(&'static str, &str)], rules: Rules) -> (String, String, Option<Own>) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        let mut next = 0;
        let context = begin(&mut headers, rules, || {
            next += 1;
            next
        });
        let text = |name| {
            headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).expect("set").to_owned()
        };
        assert_eq!(context.request_id.as_ref(), headers.get(REQUEST_ID));
        assert_eq!(context.traceparent.as_ref(), headers.get(TRACEPARENT));
        (text(REQUEST_ID), text(TRACEPARENT), context.own)
    }

    fn ensured(pairs: &[(&'static str, &str)]) -> (String, String) {
        let (id, parent, own) = begun(pairs, OFF);
        assert_eq!(own, None);
        (id, parent)
    }

    #[test]
    fn a_span_of_ours_stands_between_those_around_it_where_the_trace_is_sampled() {
        let kept = Rules { kept: true, share: 0 };
        let (_, forwarded, own) = begun(&[("x-request-id", "abc"), ("traceparent", PARENT)], kept);
        assert_eq!(forwarded, "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
        let own = own.expect("it is sampled");
        assert_eq!(
            (own.trace.as_str(), own.span.as_str(), own.parent.as_deref()),
            ("0af7651916cd43dd8448eb211c80319c", "0000000000000001", Some("b7ad6b7169203331"))
        );
        let unsampled = PARENT.replace("-01", "-02");
        let (_, forwarded, own) = begun(&[("traceparent", &unsampled)], kept);
        assert_eq!((forwarded, own), (unsampled, None));
        let (_, forwarded, own) = begun(&[], kept);
        assert!(own.is_none() && forwarded.ends_with("-00"), "{forwarded}");
    }

    #[test]
    fn of_traces_that_begin_here_a_share_is_sampled() {
        let all = Rules { kept: true, share: u32::MAX };
        let (_, forwarded, own) = begun(&[], all);
        let own = own.expect("all are");
        assert_eq!((forwarded, own.parent), (format!("00-{}-{}-01", own.trace, own.span), None));
        let mut seeded = traffic::Dice::seeded(7);
        let tenth = Rules { kept: true, share: u32::MAX / 10 };
        let sampled =
            (0..10_000).filter(|_| begin(&mut HeaderMap::new(), tenth, || seeded.roll()).own.is_some());
        let sampled = sampled.count();
        assert!((850..1_150).contains(&sampled), "{sampled}");
    }

    #[test]
    fn what_is_there_is_passed_on_unchanged() {
        let got = ensured(&[("x-request-id", "abc"), ("traceparent", PARENT)]);
        assert_eq!(got, ("abc".to_owned(), PARENT.to_owned()));
        for later in [format!("01{}", &PARENT[2..]), format!("01{}-more", &PARENT[2..])] {
            assert_eq!(ensured(&[("traceparent", &later)]).1, later, "a version to come");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_made() {
        let made = "00-00000000000000030000000000000004-0000000000000005-00";
        for wrong in [
            "",
            "x",
            "00-0-0-0",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-00"),
            &format!("{PARENT}0"),
            &PARENT.replace('b', "g"),
            &PARENT.replace("-b", "bb"),
            &PARENT[..54],
            &format!("ff{}", &PARENT[2..]),
            &format!("01{}0", &PARENT[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            let (id, parent) = ensured(&[("traceparent", wrong)]);
            assert_eq!(parent, made, "{wrong}");
            assert_eq!(id.len(), 36);
        }
        let (id, _) = ensured(&[("x-request-id", &"x".repeat(129))]);
        assert_eq!(id.len(), 36, "an id that is too long is replaced");
    }
}
