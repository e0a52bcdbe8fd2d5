//! Which fields go on: as a list of our own, by RFC 9110 §7.6.1 and docs, has it, on every leg. An application that takes
//! `_` for `-` sees nothing that another would not. A line of the input is a field; the first byte is the leg.
#![no_main]

use traffic::headers::{Leg, is_dropped, is_identity, is_trailer, named_by_connection, port, reserved};

const LEGS: [Leg; 4] = [Leg::RequestOut, Leg::RequestIn, Leg::AnswerOut, Leg::AnswerIn];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((leg, rest)) = data.split_first() else { return };
    let leg = LEGS[usize::from(*leg) % LEGS.len()];
    for line in rest.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        let Ok(name) = std::str::from_utf8(name) else { continue };
        field(leg, &name.to_ascii_lowercase(), value);
        connection(value);
        if let Some(number) = port(value) {
            assert!(number > 0 && value.len() <= 5);
            assert_eq!(std::str::from_utf8(value).expect("digits").parse(), Ok(number));
        }
    }
});

fn field(leg: Leg, name: &str, value: &[u8]) {
    let dropped = is_dropped(leg, name, value);
    let seen = name.replace('_', "-");
    assert_eq!(dropped, stays_behind(leg, name, &seen, value), "{leg:?} {name:?} {:?}", value.escape_ascii());
    if dropped && !name.contains('_') {
        assert!(reserved(name).is_some(), "a route may set {name:?}, which stays behind");
    }
    if is_trailer(name) {
        assert!(
            !is_identity(name) && reserved(name).is_none(),
            "{name:?} says in a trailer what a head says"
        );
    }
}

/// The same, read from the documents.
fn stays_behind(leg: Leg, name: &str, seen: &str, value: &[u8]) -> bool {
    let hop = |name: &str| {
        matches!(
            name,
            "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
        )
    };
    let ours = |name: &str| {
        let who = name == "forwarded" || name.starts_with("x-forwarded-");
        name.starts_with("x-mesh-")
            || name == "x-forwarded-client-cert"
            || matches!(leg, Leg::RequestIn) && who
    };
    let trailers = name == "te" && value.trim_ascii().eq_ignore_ascii_case(b"trailers");
    let framing = matches!(seen, "content-length" | "trailer" | "expect");
    (hop(name) && !trailers) || ours(name) || (name != seen && (hop(seen) || framing || ours(seen)))
}

fn connection(value: &[u8]) {
    for name in named_by_connection(std::iter::once(value)) {
        assert!(!name.is_empty() && name.trim() == name && !name.contains(','), "{name:?}");
        let text = std::str::from_utf8(value).expect("names come of texts");
        assert!(text.split(',').any(|part| part.trim() == name), "{name:?}");
    }
}
