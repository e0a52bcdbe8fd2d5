//! proxy.toml, a file of services.d and meshd.toml: any text is taken or refused, and a refusal names a line that the
//! text has.
#![no_main]

use meshd::settings;
use proxy::settings::{parse_proxy, parse_service};

// By file: to link the daemons would build their TLS and HTTP stacks a second time for two pure modules.
#[allow(dead_code, unused_imports, reason = "only the parsers are called")]
#[path = "../../mesh-proxy/src"]
mod proxy {
    pub mod settings;
}
#[allow(dead_code, reason = "only the parser is called")]
#[path = "../../meshd/src"]
mod meshd {
    pub mod load;
    pub mod settings;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.matches('\n').count() + 1;
    if let Err(error) = parse_proxy(text, "proxy.toml") {
        assert!((1..=lines).contains(&error.line), "{error}");
        assert!(!error.message.is_empty());
    }
    if let Err(error) = parse_service(text, "orders.toml", |_| Ok(1)) {
        assert!((1..=lines).contains(&error.line), "{error}");
        assert!(!error.message.is_empty());
    }
    if let Err(error) = settings::parse(text, "meshd.toml") {
        assert!(!error.faults.is_empty());
        for fault in &error.faults {
            assert!((1..=lines).contains(&fault.line) && !fault.message.is_empty(), "{error}");
        }
    }
});
