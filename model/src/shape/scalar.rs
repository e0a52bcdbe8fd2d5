//! Pure. The shapes that are made of nothing else: bounded numbers and texts, names, times.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Decoder, Path, Shape, describe};
use crate::{
    duration::{Millis, Timespan},
    identity::SpiffeId,
    name::{Name, NameGlob, ServiceGlob, ServiceName},
};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Int<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Int<MIN, MAX> {
    /// The number, if it is in range.
    pub const fn new(number: u64) -> Option<Self> {
        if number >= MIN && number <= MAX { Some(Self(number)) } else { None }
    }

    /// The number, brought into range.
    pub const fn clamped(number: u64) -> Self {
        Self(if number < MIN {
            MIN
        } else if number > MAX {
            MAX
        } else {
            number
        })
    }

    /// The number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Int<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u64, const MAX: u64> Shape for Int<MIN, MAX> {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let number = value.as_u64().and_then(Self::new);
        if number.is_none() {
            decoder.report(
                at,
                format_args!("must be a whole number from {MIN} to {MAX}, is {}", describe(value)),
            );
        }
        number
    }
}

/// A text of at most `MAX` bytes, without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text, if it fits.
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.len() <= MAX && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> Shape for Text<MAX> {
    fn schema() -> Value {
        json!({"type": "string", "maxLength": MAX})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let text = value.as_str().and_then(Self::new);
        if text.is_none() {
            let is = describe(value);
            decoder.report(
                at,
                format_args!("must be a text of at most {MAX} bytes without control characters, is {is}"),
            );
        }
        text
    }
}

/// A text of at most `MAX` bytes that may have several lines: of control characters it has line ends and tabs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lines<const MAX: usize>(String);

impl<const MAX: usize> Lines<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Shape for Lines<MAX> {
    fn schema() -> Value {
        json!({"type": "string", "maxLength": MAX})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        let text = value.as_str().filter(|text| text.len() <= MAX && text.chars().all(plain));
        if text.is_none() {
            let is = describe(value);
            decoder.report(
                at,
                format_args!(
                    "must be a text of at most {MAX} bytes without control characters but line ends and tabs, is {is}"
                ),
            );
        }
        text.map(|text| Self(text.to_owned()))
    }
}

impl Shape for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let decoded = value.as_bool();
        if decoded.is_none() {
            decoder.report(at, format_args!("must be true or false, is {}", describe(value)));
        }
        decoded
    }
}

/// A field that is taken, whatever it holds, and means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored;

impl Serialize for Ignored {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl Shape for Ignored {
    fn schema() -> Value {
        json!({})
    }

    fn decode(_: &Value, _: &Path<'_>, _: &mut Decoder) -> Option<Self> {
        Some(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self)
    }

    fn is_absent(&self) -> bool {
        true
    }
}

/// Shapes that are texts with a parser of their own.
macro_rules! parsed {
    ($($type:ty, $schema:expr;)+) => {$(
        impl Shape for $type {
            fn schema() -> Value {
                $schema
            }

            fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
                let Value::String(text) = value else {
                    decoder.report(at, format_args!("must be a text, is {}", describe(value)));
                    return None;
                };
                text.parse().map_err(|error| decoder.report(at, error)).ok()
            }
        }
    )+};
}

parsed! {
    Name, json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63});
    NameGlob, json!({"type": "string", "pattern": "^[-a-z0-9*]+$", "maxLength": 63});
    ServiceName, json!({"type": "string", "pattern": "^[-a-z0-9]+/[-a-z0-9]+$"});
    ServiceGlob, json!({"type": "string", "pattern": "^[-a-z0-9*]+/[-a-z0-9*]+$"});
    SpiffeId, json!({"type": "string", "format": "uri", "maxLength": 2048});
    Millis, json!({"type": "string", "format": "date-time"});
    Timespan, json!({"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$", "examples": ["1m30s"]});
    std::net::IpAddr, json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]});
}
