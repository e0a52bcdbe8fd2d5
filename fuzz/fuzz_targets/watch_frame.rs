//! The lines of both watch streams: any bytes give an event or an error, and an event that was read is written and
//! read to the same.
#![no_main]

use model::{proxy, watch};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(event) = watch::parse_line(data) {
        let line = serde_json::to_vec(&event).expect("events serialise");
        assert_eq!(watch::parse_line(&line).expect("reads what it wrote"), event);
    }
    if let Ok(line) = proxy::parse_line(data) {
        let written = serde_json::to_vec(&line).expect("lines serialise");
        assert_eq!(proxy::parse_line(&written).expect("reads what it wrote"), line);
    }
});
