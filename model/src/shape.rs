//! Pure. How a value looks on the wire, declared once: `record!` and `choice!` give the type, its strict decoding
//! with every wrong field reported, and its JSON schema.
//!
//! It decodes what users write (`Strict`: unknown fields are errors) and what this or another version stored
//! (`Lenient`: unknown fields are passed over), from JSON values; texts are parsed to values elsewhere.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::{Map, Value, json};

use crate::invalid::{FIELD_ERRORS_MAX, FieldError, Invalid};

mod scalar;

pub use scalar::{Ignored, Int, Lines, Text};

/// Whether unknown fields are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For what users write.
    Strict,
    /// For log, snapshot, disk caches and watch streams: the writer may be one version ahead.
    Lenient,
}

/// A place in a JSON document, as a chain through the stack of the decoding functions.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// The document itself.
    Root,
    /// A field of an object.
    Field(&'a Path<'a>, &'a str),
    /// An element of an array.
    Index(&'a Path<'a>, usize),
}

/// Collects the errors of one decoding.
pub struct Decoder {
    mode: Mode,
    errors: Vec<FieldError>,
}

/// A type that has one shape on the wire.
pub trait Shape: Sized {
    /// Its JSON schema (draft 2020-12, as OpenAPI 3.1 uses it).
    fn schema() -> Value;

    /// The value at `at`; `None` after having reported to `decoder` why not.
    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self>;

    /// What stands for a field that is left out; `None` where the field is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether the field is left out when written.
    fn is_absent(&self) -> bool {
        false
    }
}

/// Decodes a whole document.
///
/// # Errors
/// Every wrong field, by its path.
pub fn decode<T: Shape>(value: &Value, mode: Mode) -> Result<T, Invalid> {
    decode_at(value, &Path::Root, mode)
}

/// Decodes the part of a document that stands at `at`.
///
/// # Errors
/// Every wrong field, by its path from the document's root.
pub fn decode_at<T: Shape>(value: &Value, at: &Path<'_>, mode: Mode) -> Result<T, Invalid> {
    let mut decoder = Decoder { mode, errors: Vec::new() };
    let decoded = T::decode(value, at, &mut decoder);
    decoder.finish()?;
    decoded.ok_or_else(|| Invalid::one(at, "is not valid"))
}

// === impl Decoder ===

impl Decoder {
    /// An empty one.
    pub fn new(mode: Mode) -> Self {
        Self { mode, errors: Vec::new() }
    }

    /// Reports one wrong field.
    pub fn report(&mut self, at: &Path<'_>, message: impl fmt::Display) {
        if self.errors.len() < FIELD_ERRORS_MAX {
            self.errors.push(FieldError { path: at.to_string(), message: message.to_string() });
        }
    }

    /// Whether something was reported, all of it.
    ///
    /// # Errors
    /// What was reported.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.errors.is_empty() { Ok(()) } else { Err(Invalid { errors: self.errors }) }
    }

    /// The value as an object whose fields are among `known`.
    pub fn object<'v>(
        &mut self,
        value: &'v Value,
        at: &Path<'_>,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Value::Object(fields) = value else {
            self.report(at, format_args!("must be an object, is {}", describe(value)));
            return None;
        };
        if self.mode == Mode::Strict {
            for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
                self.report(
                    &Path::Field(at, field),
                    format_args!("unknown field; known are {}", known.join(", ")),
                );
            }
        }
        Some(fields)
    }

    /// The field `name`, or what stands for it when it is absent or null.
    pub fn field<T: Shape>(
        &mut self,
        fields: &Map<String, Value>,
        at: &Path<'_>,
        name: &str,
        default: Option<fn() -> T>,
    ) -> Option<T> {
        match fields.get(name) {
            Some(value) if !value.is_null() => T::decode(value, &Path::Field(at, name), self),
            _ => {
                let value = default.map(|default| default()).or_else(T::absent);
                if value.is_none() {
                    self.report(&Path::Field(at, name), "is required");
                }
                value
            }
        }
    }
}

/// What a value is, for a message: `the text "x"`, `a list`.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 80 => format!("{text:?}"),
        Value::String(_) => "a long text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

// === shapes made of shapes ===

impl<T: Shape> Shape for Option<T> {
    fn schema() -> Value {
        T::schema()
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        T::decode(value, at, decoder).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// As many elements as one list may have; more is a manifest that should be several objects.
pub const LIST_ELEMENTS_MAX: usize = 4_096;

impl<T: Shape> Shape for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema(), "maxItems": LIST_ELEMENTS_MAX})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let Value::Array(elements) = value else {
            decoder.report(at, format_args!("must be a list, is {}", describe(value)));
            return None;
        };
        if elements.len() > LIST_ELEMENTS_MAX {
            decoder.report(
                at,
                format_args!("must have at most {LIST_ELEMENTS_MAX} elements, has {}", elements.len()),
            );
            return None;
        }
        let decode = |(index, element)| T::decode(element, &Path::Index(at, index), decoder);
        let decoded: Vec<Option<T>> = elements.iter().enumerate().map(decode).collect();
        decoded.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K: FromStr<Err: fmt::Display> + Ord, V: Shape> Shape for BTreeMap<K, V> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": V::schema(), "maxProperties": LIST_ELEMENTS_MAX})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let Value::Object(fields) = value else {
            decoder.report(at, format_args!("must be an object, is {}", describe(value)));
            return None;
        };
        if fields.len() > LIST_ELEMENTS_MAX {
            decoder.report(
                at,
                format_args!("must have at most {LIST_ELEMENTS_MAX} fields, has {}", fields.len()),
            );
            return None;
        }
        let mut decoded = Some(BTreeMap::new());
        for (key, value) in fields {
            let at = Path::Field(at, key);
            let pair = key
                .parse::<K>()
                .map_err(|error| decoder.report(&at, error))
                .ok()
                .zip(V::decode(value, &at, decoder));
            match (pair, &mut decoded) {
                (Some((key, value)), Some(map)) => drop(map.insert(key, value)),
                (Some(_), None) => {}
                (None, _) => decoded = None,
            }
        }
        decoded
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Declares a struct with its shape. Each field: doc, wire name, name, type, and what stands for it when left out.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $doc:literal])+ $key:literal $field:ident : $type:ty $(= $default:expr)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[allow(unreachable_pub, reason = "tests declare records too")]
        pub struct $name {
            $($(#[doc = $doc])+ #[serde(rename = $key, skip_serializing_if = "crate::shape::Shape::is_absent")] pub $field: $type,)*
        }

        impl crate::shape::Shape for $name {
            fn schema() -> serde_json::Value {
                #[allow(unused_mut, reason = "a record may have no fields")]
                let (mut properties, mut required) = (serde_json::Map::new(), Vec::<&str>::new());
                $(
                    let mut schema = <$type as crate::shape::Shape>::schema();
                    let default: Option<fn() -> $type> = None $(.or(Some((|| $default) as fn() -> $type)))?;
                    crate::shape::document(&mut schema, concat!($($doc),+), default.map(|value| serde_json::json!(value())));
                    if default.is_none() && <$type as crate::shape::Shape>::absent().is_none() {
                        required.push($key);
                    }
                    properties.insert($key.to_owned(), schema);
                )*
                serde_json::json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }

            fn decode(value: &serde_json::Value, at: &crate::shape::Path<'_>, decoder: &mut crate::shape::Decoder) -> Option<Self> {
                #[allow(unused_variables, reason = "a record may have no fields")]
                let fields = decoder.object(value, at, &[$($key),*])?;
                $(
                    let default: Option<fn() -> $type> = None $(.or(Some((|| $default) as fn() -> $type)))?;
                    let $field = decoder.field::<$type>(fields, at, $key, default);
                )*
                Some(Self { $($field: $field?),* })
            }
        }
    };
}
pub(crate) use record;

/// Declares an enum of fixed words with its shape.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(unreachable_pub, reason = "tests declare choices too")]
        pub enum $name { $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// The word on the wire.
            #[allow(unreachable_pub, reason = "tests declare choices too")]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::shape::Shape for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": [$($word),+]})
            }

            fn decode(value: &serde_json::Value, at: &crate::shape::Path<'_>, decoder: &mut crate::shape::Decoder) -> Option<Self> {
                match value.as_str() {
                    $(Some($word) => Some(Self::$variant),)+
                    _ => {
                        let known = [$($word),+].join(", ");
                        decoder.report(at, format_args!("must be one of {known}; is {}", crate::shape::describe(value)));
                        None
                    }
                }
            }
        }
    };
}
pub(crate) use choice;

/// Adds a field's words and default to its schema.
pub(crate) fn document(schema: &mut Value, doc: &str, default: Option<Value>) {
    if let Value::Object(schema) = schema {
        schema.insert("description".to_owned(), doc.trim().into());
        if let Some(default) = default {
            schema.insert("default".to_owned(), default);
        }
    }
}

#[cfg(test)]
mod tests;
