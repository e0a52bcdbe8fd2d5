//! Pure. How long a gRPC caller still waits, as `grpc-timeout` says it (gRPC over HTTP/2, Timeout): at most eight digits
//! and a unit. Nobody works for a caller that is gone: no call takes longer, and what is forwarded is never longer than
//! what the route allows. Between proxies each request says it, in `x-mesh-deadline`: a span, as clocks differ.

use std::time::Duration;

use crate::{request::RequestHead, route::Timeouts};

/// The field that says it.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The greatest number that eight digits can say.
const NUMBER_MAX: u128 = 99_999_999;
/// The units, the finest first, with their nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// How long the caller waits from its request's head on; `None` if it does not say so, or not in this form.
pub fn said(head: &RequestHead<'_>) -> Option<Duration> {
    let value = head.field_text(GRPC_TIMEOUT)?;
    let (digits, unit) = value.as_bytes().split_at_checked(value.len().checked_sub(1)?)?;
    let fits = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(digits).ok().filter(|_| fits)?.parse().ok()?;
    let (_, nanos) = UNITS.iter().find(|(own, _)| [*own] == *unit)?;
    let span = u128::from(number) * nanos;
    Some(Duration::new((span / 1_000_000_000) as u64, (span % 1_000_000_000) as u32))
}

/// The value that says a span, in the finest unit that can; cut off, so that it is never longer.
pub fn value(span: Duration) -> String {
    let nanos = span.as_nanos();
    let fits = |(_, size): &&(u8, u128)| nanos / size <= NUMBER_MAX;
    let (unit, size) = UNITS.iter().find(fits).unwrap_or(&UNITS[UNITS.len() - 1]);
    format!("{}{}", (nanos / size).min(NUMBER_MAX), char::from(*unit))
}

/// What a gRPC call's next hop is told: the shortest of what the caller and the rule allow.
pub fn forwarded(timeouts: &Timeouts) -> Option<Duration> {
    [timeouts.call, timeouts.request, timeouts.backend_request].into_iter().flatten().min()
}

/// The value of [`headers::DEADLINE`](crate::headers::DEADLINE) that says a span: in milliseconds, rounded up, so that
/// the caller gives up first.
pub fn between_proxies(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The span that a value of [`headers::DEADLINE`](crate::headers::DEADLINE) says; `None` if it is none.
pub fn of_proxy(value: &[u8]) -> Option<Duration> {
    let fits = (1..=20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let millis = std::str::from_utf8(value).ok().filter(|_| fits)?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Strictness, normalize};

    /// The span that a field says, and how it is said again.
    #[track_caller]
    fn check(field: &str, want: Option<(Duration, &str)>) {
        let path = normalize("/a.B/C", Strictness::Plain).expect("a path");
        let fields = [("Grpc-Timeout", field)];
        let head = RequestHead { method: "POST", path: &path, authority: "a", fields: &fields };
        let got = said(&head);
        assert_eq!(got, want.map(|(span, _)| span), "{field}");
        assert_eq!(got.map(value).as_deref(), want.map(|(_, text)| text), "{field}");
    }

    #[test]
    fn spans_are_eight_digits_and_a_unit() {
        check("100m", Some((Duration::from_millis(100), "100000u")));
        check("1S", Some((Duration::from_secs(1), "1000000u")));
        check("5n", Some((Duration::from_nanos(5), "5n")));
        check("99999999n", Some((Duration::from_nanos(99_999_999), "99999999n")));
        check("2H", Some((Duration::from_secs(7_200), "7200000m")));
        check("99999999H", Some((Duration::from_secs(99_999_999 * 3_600), "99999999H")));
        check("0S", Some((Duration::ZERO, "0n")));
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "1 S", "1SS"] {
            check(wrong, None);
        }
    }

    #[test]
    fn proxies_tell_each_other_milliseconds() {
        for (nanos, want) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (15_000_000_000, 15_000)] {
            let value = between_proxies(Duration::from_nanos(nanos));
            assert_eq!(
                (value, of_proxy(value.to_string().as_bytes())),
                (want, Some(Duration::from_millis(want)))
            );
        }
        for wrong in ["", "-1", "1.5", "1s", " 1", "99999999999999999999", "111111111111111111111"] {
            assert_eq!(of_proxy(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_shortest_is_told() {
        let [one, two, three] = [1, 2, 3].map(Duration::from_secs);
        let told = |call, request, backend_request| forwarded(&Timeouts { request, backend_request, call });
        assert_eq!(told(None, None, None), None);
        assert_eq!(told(Some(three), Some(two), Some(one)), Some(one));
        assert_eq!(told(Some(one), Some(two), None), Some(one));
        assert_eq!(told(Some(three), Some(two), None), Some(two));
    }
}
