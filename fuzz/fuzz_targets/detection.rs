//! What a connection speaks, by its first bytes: whatever came, the answer stands however much more comes, and it comes at
//! last. What it says of requests and names is so.
#![no_main]

use traffic::protocol::{DETECT_BYTES_MAX, Detected, detect};

/// Of longer inputs not each beginning is looked at.
const EACH: usize = 128;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let lengths =
        (0..=data.len()).filter(|length| *length <= EACH || length % 61 == 0 || *length == data.len());
    let mut before = Detected::NeedMore;
    for length in lengths {
        let now = detect(&data[..length]);
        assert!(before == Detected::NeedMore || now == before, "{before:?} became {now:?} at {length}");
        before = now;
    }
    is_so(&before, data);
    let mut long = data.to_vec();
    long.resize(DETECT_BYTES_MAX.max(data.len()), data.last().copied().unwrap_or_default());
    assert_ne!(detect(&long), Detected::NeedMore, "it can be told at last");
});

fn is_so(detected: &Detected, data: &[u8]) {
    match detected {
        Detected::Http2 => assert!(data.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Detected::Http1 if data.len() < DETECT_BYTES_MAX => {
            let text = data.trim_ascii_start();
            let line = text.split(|byte| *byte == b'\n').next().expect("there is one").trim_ascii_end();
            assert!(line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"), "{}", line.escape_ascii());
        }
        Detected::Tls { server_name } => {
            assert_eq!(data.first(), Some(&0x16));
            let Some(name) = server_name else { return };
            assert!(!name.is_empty() && name.len() <= 255, "{name:?}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()),
                "{name:?}"
            );
        }
        Detected::Http1 | Detected::Tcp | Detected::NeedMore => {}
    }
}
