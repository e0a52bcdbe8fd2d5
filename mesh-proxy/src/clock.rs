//! The one place of this crate that reads clocks and draws dice. Decisions are handed what they need from here.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;
use model::duration::Millis;
use rustls_pki_types::UnixTime;

/// Now, for spans of time.
#[expect(clippy::disallowed_methods, reason = "the crate's one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Now, for certificates.
#[expect(clippy::disallowed_methods, reason = "the crate's one reader of the clock")]
pub fn unix() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// Now, for logs.
#[expect(clippy::disallowed_methods, reason = "the crate's one reader of the clock")]
pub fn wall() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now, as logs say it (RFC 3339, UTC, to the millisecond). All but the milliseconds is made once a second on each thread.
pub fn with_stamp<R>(take: impl FnOnce(&str) -> R) -> R {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    LAST.with_borrow_mut(|(second, text)| {
        stamp(wall(), second, text);
        take(text)
    })
}

/// Makes `text` the stamp of `now`; it is one of `second`.
fn stamp(now: Millis, second: &mut u64, text: &mut String) {
    const MILLIS: &str = "000Z";
    if *second != now.0 / 1_000 {
        *second = now.0 / 1_000;
        let whole = Millis(*second * 1_000).to_string();
        *text = format!("{}.{MILLIS}", whole.trim_end_matches('Z'));
    }
    text.truncate(text.len() - MILLIS.len());
    for unit in [100, 10, 1] {
        text.push(char::from(b'0' + u8::try_from(now.0 / unit % 10).expect("a digit")));
    }
    text.push('Z');
}

/// Now, as heads say it (RFC 9110 §5.6.7); made once a second on each thread.
pub fn http_date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let second = unix().as_secs();
    LAST.with_borrow_mut(|last| {
        if last.0 != second {
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            *last = (second, HeaderValue::try_from(date).expect("a date is ASCII"));
        }
        last.1.clone()
    })
}

/// The clock that TLS handshakes read.
pub fn tls() -> svid::tls::Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// A number that nobody can guess.
#[expect(clippy::disallowed_methods, reason = "the crate's one thrower of dice")]
pub fn dice() -> u64 {
    rand::random()
}

/// `span`, lengthened by up to half, so that those who wait together do not come back together.
pub fn jittered(span: Duration) -> Duration {
    let share = u32::try_from(dice() % 512).unwrap_or(0);
    span + span * share / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_follow_the_clock_by_milliseconds_and_seconds_and_back() {
        let (mut second, mut text) = (u64::MAX, String::new());
        for (now, want) in [
            (1_795_805_401_007, "2026-11-27T18:50:01.007Z"),
            (1_795_805_401_250, "2026-11-27T18:50:01.250Z"),
            (1_795_805_402_000, "2026-11-27T18:50:02.000Z"),
            (1_795_805_399_999, "2026-11-27T18:49:59.999Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            stamp(Millis(now), &mut second, &mut text);
            assert_eq!(text, want);
            assert_eq!(text.parse::<Millis>().expect("a time"), Millis(now));
        }
    }
}
