//! Pure. What programs are answered with, declared once: `answer!` gives the type, how serde writes and reads it, and its JSON
//! schema. An answer is read leniently, by a reader that may be one version behind; what users write, and every wrong field of
//! it, is [`shape`](crate::shape)'s matter.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    duration::{Millis, Timespan},
    identity::{SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    rejoin::Standing,
    shape::Shape,
};

/// What may stand in an answer.
pub trait Answer {
    /// Whether a field that holds it may be left out.
    const OPTIONAL: bool = false;

    /// Its JSON schema (draft 2020-12, as OpenAPI 3.1 uses it).
    fn schema() -> Value;
}

/// Declares a struct of an answer. Each field: doc, wire name, what else serde is told, name, type; and after `as` the type
/// that it looks like on the wire, where its own is not the model's.
#[macro_export]
macro_rules! answer {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $key:literal $(#[$serde:meta])* $field_vis:vis $field:ident : $type:ty $(as $wire:ty)?,)*
    }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        $vis struct $name {
            $($(#[doc = $doc])+ #[serde(rename = $key)] $(#[$serde])* $field_vis $field: $type,)*
        }

        impl $crate::answer::Answer for $name {
            fn schema() -> serde_json::Value {
                $crate::answer::record([
                    $($crate::answer!(@field $key, concat!($($doc),+), $type $(, $wire)?)),*
                ])
            }
        }
    };
    (@field $key:literal, $doc:expr, $type:ty) => {
        $crate::answer::Field::of::<$type>($key, $doc)
    };
    (@field $key:literal, $doc:expr, $type:ty, $wire:ty) => {
        $crate::answer::Field::of::<$wire>($key, $doc)
    };
}

/// A field as its schema says it.
#[derive(Debug)]
pub struct Field {
    key: &'static str,
    schema: Value,
    required: bool,
}

impl Field {
    /// A field of this type.
    pub fn of<T: Answer>(key: &'static str, doc: &str) -> Self {
        let mut schema = T::schema();
        crate::shape::document(&mut schema, doc, None);
        Self { key, schema, required: !T::OPTIONAL }
    }
}

/// The schema of an object with these fields. Of a later version it may have others.
pub fn record(fields: impl IntoIterator<Item = Field>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for Field { key, schema, required: always } in fields {
        properties.insert(key.to_owned(), schema);
        required.extend(always.then_some(key));
    }
    json!({"type": "object", "properties": properties, "required": required})
}

impl Answer for u64 {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": 0})
    }
}

impl Answer for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

impl Answer for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }
}

impl Answer for TrustDomain {
    fn schema() -> Value {
        String::schema()
    }
}

/// Left out where there is nothing.
impl<T: Answer> Answer for Option<T> {
    const OPTIONAL: bool = true;

    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Answer> Answer for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
}

/// Keys are texts in JSON.
impl<K, V: Answer> Answer for BTreeMap<K, V> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": V::schema()})
    }
}

/// What looks in an answer as users write it.
macro_rules! shaped {
    ($($type:ty),+) => {$(
        impl Answer for $type {
            fn schema() -> Value {
                <Self as Shape>::schema()
            }
        }
    )+};
}
shaped!(Name, ServiceName, SpiffeId, Millis, Timespan, Standing);

#[cfg(test)]
mod tests {
    use super::*;

    answer! {
        /// One of each.
        #[derive(Debug, PartialEq)]
        struct Told {
            /// How
            /// many.
            "howMany" how_many: u64,
            /// Maybe.
            "maybe" #[serde(skip_serializing_if = "Option::is_none")] maybe: Option<bool>,
            /// Of none of the model's types.
            "other" other: std::net::IpAddr as String,
            /// Where older versions say nothing.
            "later" #[serde(default)] later: Vec<String>,
        }
    }

    #[test]
    fn one_declaration_writes_reads_and_describes() {
        let told = Told { how_many: 1, maybe: None, other: [127, 0, 0, 1].into(), later: Vec::new() };
        let wire = json!({"howMany": 1, "other": "127.0.0.1", "later": []});
        assert_eq!(serde_json::to_value(&told).expect("it is written"), wire);
        let older = json!({"howMany": 1, "other": "127.0.0.1", "newer": {}});
        assert_eq!(serde_json::from_value::<Told>(older).expect("it is read"), told);
        let schema = json!({
            "type": "object",
            "properties": {
                "howMany": {"type": "integer", "minimum": 0, "description": "How many."},
                "maybe": {"type": "boolean", "description": "Maybe."},
                "other": {"type": "string", "description": "Of none of the model's types."},
                "later": {"type": "array", "items": {"type": "string"}, "description": "Where older versions say nothing."},
            },
            "required": ["howMany", "other", "later"],
        });
        assert_eq!(Told::schema(), schema);
    }
}
