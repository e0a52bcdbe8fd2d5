//! A line of the access log: whatever texts and numbers a call brings, it is one line, one JSON object, and says just them.
//! Texts of the input are parted by newlines where the first byte is even, else by zeros.
#![no_main]

use std::{net::SocketAddr, time::Duration};

use json::{Key, Object, key};
use serde_json::Value;

// By file: to link the proxy would build its TLS and HTTP stacks a second time for one pure module.
#[allow(dead_code, reason = "as not all sorts of values are written")]
#[path = "../../mesh-proxy/src/telemetry/access_log/json.rs"]
mod json;

/// As they are read, and as they are written.
const KEYS: [(&str, Key); 6] = [
    ("a", key!("a")),
    ("b", key!("b")),
    ("c", key!("c")),
    ("d", key!("d")),
    ("e", key!("e")),
    ("f", key!("f")),
];

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
    KEYS.iter().zip(&texts).for_each(|((_, key), text)| object.text(*key, text));
    object.texts(key!("all"), texts.iter().map(String::as_str));
    object.number(key!("number"), number);
    object.millis(key!("took"), Duration::from_nanos(number));
    let at = SocketAddr::from(((number as u32).to_be_bytes(), (number >> 32) as u16));
    object.address(key!("at"), at);
    object.end();
    let line = line.strip_prefix(b"kept\n").expect("what stood there stays");
    assert!(line.iter().all(|byte| *byte >= b' '), "it is one line");
    let read: Value = serde_json::from_slice(line).expect("it is JSON");
    for ((key, _), text) in KEYS.iter().zip(&texts) {
        assert_eq!(read[key], *text.as_str());
    }
    assert_eq!(read["all"], Value::from(texts));
    assert_eq!(read["number"], number);
    assert_eq!(read["at"], at.to_string());
    let took = read["took"].as_f64().expect("a number");
    let exact = number as f64 / 1e6;
    assert!((took - exact).abs() <= 0.000_5 + exact * 1e-12, "{took} of {number}");
});
