//! The only place of this crate that reads clocks and draws dice: everything else is handed what it needs.
#![expect(clippy::disallowed_methods, reason = "this is the crate's clock.rs")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::duration::Millis;
use rand::Rng;
use rustls::pki_types::UnixTime;
use tokio::time::Instant;

/// The wall clock, in milliseconds since 1970.
pub fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock, as certificates count it.
pub fn unix() -> UnixTime {
    UnixTime::now()
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Where TLS handshakes read the time.
pub fn tls() -> svid::tls::Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// Any number.
pub fn dice() -> u32 {
    rand::rng().next_u32()
}

/// So many random bytes, fit for secrets: the generator is seeded by the system and cryptographically strong.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
