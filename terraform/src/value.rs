//! Pure. Values of Terraform's types, and how they travel: MessagePack, in which what is not known before `apply` is an
//! extension.

use std::collections::BTreeMap;

use rmpv::Value as Pack;
use serde_json::Number;

use crate::wire::DynamicValue;

/// How deep a value may nest: specs nest far less, and each level is one on the stack.
const DEPTH_MAX: usize = 64;

/// A value of a configuration, a plan or a state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Left out.
    Null,
    /// Known after `apply`. What Terraform said of it beyond that is kept, for it compares.
    Unknown(i8, Vec<u8>),
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map, or an object.
    Object(BTreeMap<String, Value>),
}

/// Why bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Not MessagePack, or JSON where MessagePack is expected.
    #[error("a value of Terraform cannot be read: {0}")]
    Bytes(String),
    /// MessagePack of something that Terraform's types do not have.
    #[error("a value of Terraform holds {0}")]
    Kind(&'static str),
}

impl Value {
    /// Not known before `apply`.
    pub(crate) fn unknown() -> Self {
        Self::Unknown(0, vec![0])
    }

    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// What came; nothing is as null.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(crate) fn read(dynamic: Option<&DynamicValue>) -> Result<Self, Unreadable> {
        match dynamic {
            None => Ok(Self::Null),
            Some(dynamic) if dynamic.msgpack.is_empty() && dynamic.json.is_empty() => Ok(Self::Null),
            Some(dynamic) => {
                let mut bytes = &dynamic.msgpack[..];
                let packed = rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH_MAX);
                Self::unpacked(packed.map_err(|error| Unreadable::Bytes(error.to_string()))?)
            }
        }
    }

    /// As it is sent.
    pub(crate) fn to_wire(&self) -> Option<DynamicValue> {
        let mut msgpack = Vec::new();
        rmpv::encode::write_value(&mut msgpack, &self.packed()).expect("memory takes it");
        Some(DynamicValue { msgpack, json: Vec::new() })
    }

    /// The attribute `name` of an object; null where there is none.
    pub(crate) fn attribute(&self, name: &str) -> &Self {
        match self {
            Self::Object(fields) => fields.get(name).unwrap_or(&Self::Null),
            _ => &Self::Null,
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing in it is left to `apply`.
    pub(crate) fn known(&self) -> bool {
        match self {
            Self::Unknown(..) => false,
            Self::List(elements) => elements.iter().all(Self::known),
            Self::Object(fields) => fields.values().all(Self::known),
            _ => true,
        }
    }

    fn unpacked(packed: Pack) -> Result<Self, Unreadable> {
        Ok(match packed {
            Pack::Nil => Self::Null,
            Pack::Boolean(truth) => Self::Bool(truth),
            Pack::Integer(number) => Self::Number(match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => number.into(),
                (None, number) => number.unwrap_or_default().into(),
            }),
            Pack::F32(number) => fraction(number.into())?,
            Pack::F64(number) => fraction(number)?,
            Pack::String(text) => {
                Self::Text(text.into_str().ok_or(Unreadable::Kind("a text that is not UTF-8"))?)
            }
            Pack::Array(elements) => {
                Self::List(elements.into_iter().map(Self::unpacked).collect::<Result<_, _>>()?)
            }
            Pack::Map(fields) => Self::Object(fields.into_iter().map(field).collect::<Result<_, _>>()?),
            Pack::Ext(kind, said) => Self::Unknown(kind, said),
            Pack::Binary(_) => return Err(Unreadable::Kind("bytes")),
        })
    }

    fn packed(&self) -> Pack {
        match self {
            Self::Null => Pack::Nil,
            Self::Unknown(kind, said) => Pack::Ext(*kind, said.clone()),
            Self::Bool(truth) => Pack::Boolean(*truth),
            Self::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Pack::from(number),
                (None, Some(number)) => Pack::from(number),
                (None, None) => Pack::from(number.as_f64().unwrap_or_default()),
            },
            Self::Text(text) => Pack::from(text.as_str()),
            Self::List(elements) => Pack::Array(elements.iter().map(Self::packed).collect()),
            Self::Object(fields) => Pack::Map(
                fields.iter().map(|(name, value)| (Pack::from(name.as_str()), value.packed())).collect(),
            ),
        }
    }
}

fn fraction(number: f64) -> Result<Value, Unreadable> {
    Number::from_f64(number).map(Value::Number).ok_or(Unreadable::Kind("a number without an end"))
}

fn field((name, value): (Pack, Pack)) -> Result<(String, Value), Unreadable> {
    match name {
        Pack::String(name) => {
            let name = name.into_str().ok_or(Unreadable::Kind("a name that is not UTF-8"))?;
            Ok((name, Value::unpacked(value)?))
        }
        _ => Err(Unreadable::Kind("a name that is no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_and_what_is_unknown_stays_so() {
        let refined = Value::Unknown(12, vec![0x81, 0x01, 0xc2]);
        let object = BTreeMap::from([
            ("null".to_owned(), Value::Null),
            ("number".to_owned(), Value::Number(1_000_000.into())),
            ("negative".to_owned(), Value::Number((-7).into())),
            ("list".to_owned(), Value::List(vec![Value::Bool(true), Value::text("a"), refined.clone()])),
        ]);
        let value = Value::Object(object);
        assert_eq!(Value::read(value.to_wire().as_ref()), Ok(value.clone()));
        assert!(!value.known() && Value::Null.known());
        assert_eq!(Value::unknown().to_wire().expect("bytes").msgpack, [0xd4, 0, 0]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let read =
            |msgpack: &[u8]| Value::read(Some(&DynamicValue { msgpack: msgpack.to_vec(), json: Vec::new() }));
        assert!(read(&[0x92, 1]).is_err(), "cut off");
        assert_eq!(read(&[0xc4, 1, 0]), Err(Unreadable::Kind("bytes")));
        assert_eq!(read(&[0x81, 1, 1]), Err(Unreadable::Kind("a name that is no text")));
        let deep = [vec![0x91; DEPTH_MAX + 1], vec![0xc0]].concat();
        assert!(read(&deep).is_err(), "deeper than anything of ours");
        assert_eq!(Value::read(None), Ok(Value::Null));
    }
}
