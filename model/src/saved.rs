//! Pure. What a saved snapshot's file says of itself: magic, format, and a head that tells what is in it without reading
//! on. The records behind the head are the registry's matter (`registry::saved`), the checksum at the end is whoever's
//! who reads the file.
//!
//! `MESHSAVE`, format (u16), length of the head (u32), head (JSON), pieces (u32 length, bytes), a piece of length 0,
//! SHA-256 over all before it. Numbers are little-endian.

use std::collections::BTreeMap;

use crate::{answer, duration::Millis, identity::TrustDomain};

/// What a file starts with.
pub const MAGIC: &[u8; 8] = b"MESHSAVE";
/// What the files start with that version 0.1.0 saved: members' own snapshots, whose head is not for others.
pub const OLD_MAGIC: &[u8; 8] = b"MESHSNAP";
/// The format of the file.
pub const FORMAT: u16 = 1;
/// Bytes before the head: magic, format, length of the head.
pub const FIXED_BYTES: usize = 8 + 2 + 4;
/// Bytes of the checksum at the end.
pub const CHECKSUM_BYTES: usize = 32;
/// The longest head, in bytes: some numbers and a count for each kind.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The largest file, in bytes: it is read whole where it is restored, and the state stands in memory beside it.
pub const SAVED_BYTES_MAX: usize = 512 * 1024 * 1024;

answer! {
    /// What a file says of itself.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Head {
        /// The cluster that it was saved from.
        "cluster" pub cluster: String,
        /// That cluster's history then.
        "epoch" pub epoch: String,
        /// What all identities in it stand under.
        "trustDomain" #[serde(skip_serializing_if = "Option::is_none")] pub trust_domain: Option<TrustDomain>,
        /// The state's revision.
        "revision" pub revision: u64,
        /// Log time: when the last entry in it was made.
        "time" pub time: Millis,
        /// When it was saved, by the clock of who saved it.
        "savedAt" pub saved_at: Millis,
        /// The version of the program that saved it.
        "program" pub program: String,
        /// How many objects of each kind are in it.
        "objects" pub objects: BTreeMap<String, u64>,
        /// What its records add up to, in hexadecimal.
        "hash" pub hash: String,
    }
}

/// Why bytes are no saved snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// They begin like something else.
    #[error("it is no snapshot of a mesh")]
    Magic,
    /// A later version wrote it.
    #[error("its format is {0}, this version reads {FORMAT}; use a newer program")]
    Format(u16),
    /// The file ends too early.
    #[error("it is cut off")]
    Cut,
    /// The checksum is not that of the content.
    #[error("its checksum does not fit: it was damaged or cut")]
    Checksum,
    /// The head cannot be read.
    #[error("its head cannot be read: {0}")]
    Head(String),
    /// The content does not make a state.
    #[error("its content makes no state: {0}")]
    Content(String),
    /// It is larger than can be restored.
    #[error("it has {bytes} bytes, at most {SAVED_BYTES_MAX} can be restored")]
    Large {
        /// How many.
        bytes: u64,
    },
}

impl Head {
    /// All that stands before the pieces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a head is made of texts and numbers");
        let length = u32::try_from(json.len()).expect("a head is far below 4 GiB");
        [MAGIC, &FORMAT.to_le_bytes()[..], &length.to_le_bytes(), &json].concat()
    }

    /// Reads a head, and answers how many bytes stand before the pieces. Says nothing of whether the rest is sound.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Damaged> {
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return Err(Damaged::Magic);
        }
        let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES).ok_or(Damaged::Cut)?;
        let (format, length) = fixed[MAGIC.len()..].split_at(2);
        let format = u16::from_le_bytes(format.try_into().map_err(|_| Damaged::Cut)?);
        if format != FORMAT {
            return Err(Damaged::Format(format));
        }
        let length = u32::from_le_bytes(length.try_into().map_err(|_| Damaged::Cut)?) as usize;
        if length > HEAD_BYTES_MAX {
            return Err(Damaged::Head(format!("it would have {length} bytes")));
        }
        let json = rest.get(..length).ok_or(Damaged::Cut)?;
        let head = serde_json::from_slice(json).map_err(|error| Damaged::Head(error.to_string()))?;
        Ok((head, FIXED_BYTES + length))
    }

    /// How many objects are in it.
    pub fn count(&self) -> u64 {
        self.objects.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            cluster: "c".to_owned(),
            epoch: "e".to_owned(),
            trust_domain: Some("mesh.internal".parse().expect("a domain")),
            revision: 7,
            time: Millis(1_000),
            saved_at: Millis(2_000),
            program: "0.2.0".to_owned(),
            objects: BTreeMap::from([("services".to_owned(), 2), ("nodes".to_owned(), 1)]),
            hash: "00".to_owned(),
        }
    }

    #[test]
    fn a_head_comes_back_and_says_what_is_wrong_with_others() {
        let bytes = head().to_bytes();
        let (read, used) = Head::parse(&bytes).expect("its own");
        assert_eq!((read.clone(), used, read.count()), (head(), bytes.len(), 3));
        assert_eq!(Head::parse(&bytes[..bytes.len() - 1]), Err(Damaged::Cut));
        assert_eq!(Head::parse(b"MESHSAVE"), Err(Damaged::Cut));
        assert_eq!(Head::parse(b"MESHSNAP and something else"), Err(Damaged::Magic));
        let mut newer = bytes.clone();
        newer[8] = 9;
        assert_eq!(Head::parse(&newer), Err(Damaged::Format(9)));
        let mut long = bytes;
        long[13] = 0xff;
        assert!(matches!(Head::parse(&long), Err(Damaged::Head(_))));
    }
}
