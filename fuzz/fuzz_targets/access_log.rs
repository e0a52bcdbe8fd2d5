//! A line of the access log: whatever texts and numbers a call brings, it is one line, one JSON object, and says just them.
//! Texts of the input are parted by newlines where the first byte is even, else by zeros.
#![no_main]

use std::time::Duration;

use json::Object;
use serde_json::Value;

// By file: to link the proxy would build its TLS and HTTP stacks a second time for one pure module.
#[allow(dead_code, reason = "as not all sorts of values are written")]
#[path = "../../mesh-proxy/src/telemetry/access_log/json.rs"]
mod json;

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((by, rest)) = data.split_first() else { return };
    let parting = if by % 2 == 0 { b'\n' } else { 0 };
    let texts: Vec<String> = rest
        .split(|byte| *byte == parting)
        .take(KEYS.len())
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let number = rest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut line = b"kept\n".to_vec();
    let mut object = Object::begin(&mut line);
    KEYS.iter().zip(&texts).for_each(|(key, text)| object.text(key, text));
    object.texts("all", texts.iter().map(String::as_str));
    object.number("number", number);
    object.millis("took", Duration::from_nanos(number));
    object.end();
    let line = line.strip_prefix(b"kept\n").expect("what stood there stays");
    assert!(line.iter().all(|byte| *byte >= b' '), "it is one line");
    let read: Value = serde_json::from_slice(line).expect("it is JSON");
    for (key, text) in KEYS.iter().zip(&texts) {
        assert_eq!(read[key], *text.as_str());
    }
    assert_eq!(read["all"], Value::from(texts));
    assert_eq!(read["number"], number);
    let took = read["took"].as_f64().expect("a number");
    let exact = number as f64 / 1e6;
    assert!((took - exact).abs() <= 0.000_5 + exact * 1e-12, "{took} of {number}");
});
