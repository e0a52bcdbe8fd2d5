//! Pure. What an entry of the log carries: a command, encoded once by who leads and decoded once by each member, where it
//! is applied. On its way through logs and connections nobody looks into it.

use std::{fmt, io};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::command::Entry;

/// The version of commands that every member of a cluster understands which takes them packed. 0.1.0 does not.
const PACKED_SINCE: u32 = 2;
/// What stands around commands that were measured, in bytes.
const AROUND: usize = 64;

/// A command with its time.
#[derive(Clone, PartialEq)]
pub(crate) enum Payload {
    /// As it is: what 0.1.0 writes and understands.
    Plain(Entry),
    /// As msgpack with field names.
    Packed(Bytes),
}

impl Payload {
    /// Packs what will take about so many bytes, if no member can come that would not understand it: the log holds commands
    /// of version `used`.
    pub(super) fn new(entry: Entry, bytes: usize, used: u32) -> Self {
        if used < PACKED_SINCE {
            return Self::Plain(entry);
        }
        let mut packed = Vec::with_capacity(bytes + AROUND);
        rmp_serde::encode::write_named(&mut packed, &entry).expect("it was measured in the same way");
        Self::Packed(packed.into())
    }

    /// What is to be applied.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: it holds what this program does not understand.
    pub(super) fn into_entry(self) -> io::Result<Entry> {
        match self {
            Self::Plain(entry) => Ok(entry),
            Self::Packed(bytes) => rmp_serde::from_slice(&bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(entry) => entry.serialize(serializer),
            Self::Packed(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// Reads both forms: bytes, or a map of fields.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command, or its bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Payload::Packed(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(Payload::Packed(bytes.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Payload, A::Error> {
        Entry::deserialize(MapAccessDeserializer::new(map)).map(Payload::Plain)
    }
}

/// For the log engine's messages.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(entry) => entry.fmt(f),
            Self::Packed(bytes) => write!(f, "a command of {} bytes", bytes.len()),
        }
    }
}

/// As short: it may hold what does not belong in logs.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use model::duration::Millis;

    use super::*;
    use crate::{
        command::{Command, SessionRef, TrustChange},
        raft::lead::size,
    };

    fn entry() -> Entry {
        let sealed = Command::Trust(TrustChange::SealRoot { blob: vec![0xc1; 40] });
        let gone = SessionRef { node: "host-a".parse().expect("a name"), generation: 7 };
        Entry { at: Millis(5), command: Command::Batch(vec![sealed, Command::Expire(vec![gone])]) }
    }

    fn written(payload: &Payload) -> Vec<u8> {
        rmp_serde::to_vec_named(payload).expect("it is written")
    }

    #[test]
    fn it_comes_back_in_both_forms() {
        let bytes = size(&entry().command);
        for used in [1, PACKED_SINCE] {
            let payload = Payload::new(entry(), bytes, used);
            assert_eq!(matches!(payload, Payload::Packed(_)), used == PACKED_SINCE);
            let read: Payload = rmp_serde::from_slice(&written(&payload)).expect("it reads");
            assert_eq!(read, payload);
            assert_eq!(read.into_entry().expect("it is understood"), entry());
        }
    }

    #[test]
    fn a_plain_one_is_what_older_members_write_and_read() {
        let plain = written(&Payload::new(entry(), 0, 1));
        assert_eq!(plain, rmp_serde::to_vec_named(&entry()).expect("it is written"));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let newer = Payload::Packed(Bytes::from_static(b"\x82\xa2at\x05\xa7command\xa5Dance"));
        let error = newer.into_entry().expect_err("there is no such command");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("Dance"), "{error}");
        rmp_serde::from_slice::<Payload>(b"\x07").expect_err("neither form");
    }
}
