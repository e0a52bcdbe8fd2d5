//! Pure. Spans of time as users write them, and points in time as the API prints them.
//! Nothing here reads a clock.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::as_text;

/// A span of time in Gateway API's form (GEP-2257): one to four of `<digits>h`, `m`, `s`, `ms`, each number of at most
/// five digits: `1m30s`. Printed in its shortest form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timespan(Duration);

/// Why a text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a duration such as 1m30s, 500ms or 2h (units h, m, s, ms): '{0}' is not")]
pub struct TimespanError(String);

impl Timespan {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Timespan {
    type Err = TimespanError;

    fn from_str(text: &str) -> Result<Self, TimespanError> {
        let wrong = || TimespanError(text.chars().take(40).collect());
        let (mut rest, mut millis, mut parts) = (text, 0_u64, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let (unit, length) = match rest.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b'h', ..] => (3_600_000, 1),
                [b'm', ..] => (60_000, 1),
                [b's', ..] => (1_000, 1),
                _ => return Err(wrong()),
            };
            if digits > 5 {
                return Err(wrong());
            }
            millis += number * unit;
            (rest, parts) = (&rest[length..], parts + 1);
        }
        if (1..=4).contains(&parts) { Ok(Self::from_millis(millis)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (size, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

as_text!(Timespan);

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. Printed as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `span` later.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Millis {
    /// The time that a date of HTTP says (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn of_http_date(text: &str) -> Option<Self> {
        let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(zoned.as_millisecond()).ok().map(Self)
    }
}

impl FromStr for Millis {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let stamp: jiff::Timestamp = text.parse()?;
        Ok(Self(u64::try_from(stamp.as_millisecond()).unwrap_or(0)))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{stamp}")
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text for people (JSON, YAML), the number where the format is binary (log, snapshot).
impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_parse_and_print_in_their_shortest_form() {
        for (text, millis, printed) in [
            ("1m30s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "1m30s"),
            ("720h", 2_592_000_000, "720h"),
            ("0s", 0, "0s"),
        ] {
            let span: Timespan = text.parse().expect(text);
            assert_eq!((span.duration().as_millis(), span.to_string().as_str()), (millis, printed));
        }
        for wrong in ["", "1", "s", "1d", "1.5s", "-1s", "1m 30s", "100000s", "1s1s1s1s1s", "９s"] {
            assert!(wrong.parse::<Timespan>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_json_and_numbers_in_binary() {
        let at = Millis(1_795_406_400_123);
        assert_eq!(at.to_string(), "2026-11-23T04:00:00.123Z");
        assert_eq!(
            serde_json::from_value::<Millis>(serde_json::json!("2026-11-23T04:00:00.123Z")).expect("a time"),
            at
        );
        assert_eq!(at.after(Duration::from_secs(1)), Millis(1_795_406_401_123));
    }
}
