//! Pure. The first block of a segment: whose log it is, where it continues, and the ledger up to there,
//! so that every older segment may go. Written and synced before the segment gets its name, and never
//! changed after: a header that does not read back is damage, never a torn write.
//!
//! ```text
//! magic [8] | crc u32 | version u16 | cluster [16] | node u64 | number u64 | first sequence u64 | length u64
//! | first u64 | next u64 | purged (u8, u64, bytes) | vote (bytes) | committed (bytes) | zeros to HEADER_LEN
//! ```
//!
//! `bytes` are a u16 length, `u16::MAX` for none, and the bytes. The CRC covers all that follows it.

use bytes::Bytes;
use uuid::Uuid;

use super::ledger::{Ledger, Mark};

/// Bytes that the header takes; records begin after it. One page, so that no record shares it.
pub const HEADER_LEN: usize = 4096;

/// The longest serialised vote or log id, in bytes: three of them must fit into the header.
pub const MARK_LEN_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"mesh.wal";
const VERSION: u16 = 1;
const COVERED_FROM: usize = MAGIC.len() + 4;
const NONE: u16 = u16::MAX;

/// No count gets here in a lifetime; below it, adding one cannot overflow.
const COUNT_MAX: u64 = 1 << 62;
const _: () = assert!(3 * MARK_LEN_MAX + 256 < HEADER_LEN);

/// Whose log it is. A folder that was copied or mounted at the wrong place is refused by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that this member belongs to.
    pub cluster: Uuid,
    /// The member's Raft node id.
    pub node: u64,
}

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose log it is.
    pub identity: Identity,
    /// Counts segments, +1 each. The first is 1. The file's name says it too.
    pub number: u64,
    /// The sequence number of its first record.
    pub first_sequence: u64,
    /// Bytes of the whole file.
    pub len: u64,
    /// What all earlier records add up to.
    pub ledger: Ledger,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderDamage {
    /// The file ends within the header.
    #[error("the file has only {0} bytes, less than its header")]
    Short(usize),
    /// Not a segment of ours.
    #[error("the file does not begin with a log segment's mark")]
    Magic,
    /// The checksum does not match.
    #[error("the header's checksum is {found:08x} where {computed:08x} was expected")]
    Crc {
        /// What is stored.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Written by a newer version.
    #[error("the header has format version {0}, this program reads up to {VERSION}")]
    Version(u16),
    /// A sound checksum over fields that make no sense.
    #[error("the header's fields contradict each other")]
    Fields,
}

impl Header {
    /// The header as a block, and the seed of its segment's records, which is the header's checksum.
    pub fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.identity.cluster.as_bytes());
        let ledger = &self.ledger;
        for number in
            [self.identity.node, self.number, self.first_sequence, self.len, ledger.first, ledger.next]
        {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_u64(&mut out, ledger.purged.as_ref().map_or(0, |mark| mark.index));
        put_bytes(&mut out, ledger.purged.as_ref().map(|mark| &mark.id));
        put_bytes(&mut out, ledger.vote.as_ref());
        put_bytes(&mut out, ledger.committed.as_ref());
        assert!(out.len() <= HEADER_LEN, "the log refuses longer marks");
        out.resize(HEADER_LEN, 0);
        let crc = crc32fast::hash(&out[COVERED_FROM..]);
        out[MAGIC.len()..COVERED_FROM].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads the header and its segment's seed from the start of `file`. Never panics.
    ///
    /// # Errors
    /// [`HeaderDamage`] if it is not there, damaged, or of a newer version.
    pub fn decode(file: &[u8]) -> Result<(Self, u32), HeaderDamage> {
        let Some((block, _)) = file.split_first_chunk::<HEADER_LEN>() else {
            return Err(HeaderDamage::Short(file.len()));
        };
        if !block.starts_with(MAGIC) {
            return Err(HeaderDamage::Magic);
        }
        let mut fields = Fields(&block[MAGIC.len()..]);
        let found = fields.u32().ok_or(HeaderDamage::Fields)?;
        let computed = crc32fast::hash(&block[COVERED_FROM..]);
        if found != computed {
            return Err(HeaderDamage::Crc { found, computed });
        }
        match fields.u16() {
            Some(VERSION) => {}
            other => return Err(HeaderDamage::Version(other.unwrap_or_default())),
        }
        let header = fields.header().ok_or(HeaderDamage::Fields)?;
        Ok((header, found))
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    let len = bytes.map_or(NONE, |bytes| bytes.len() as u16);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes.map_or(&[], |bytes| bytes));
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn header(&mut self) -> Option<Header> {
        let identity = Identity { cluster: Uuid::from_bytes(self.take()?), node: self.u64()? };
        let (number, first_sequence, len) = (self.u64()?, self.u64()?, self.u64()?);
        let (first, next) = (self.u64()?, self.u64()?);
        let purged_index = self.u64()?;
        let purged = self.bytes()?.map(|id| Mark { index: purged_index, id });
        let ledger = Ledger { purged, first, next, vote: self.bytes()?, committed: self.bytes()? };
        let counts = [number, first_sequence].iter().all(|count| (1..COUNT_MAX).contains(count));
        let ordered = first <= next && ledger.purged.as_ref().is_none_or(|mark| mark.index < first);
        (counts && ordered).then_some(Header { identity, number, first_sequence, len, ledger })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The outer `None`: they do not fit. The inner one: none were written.
    fn bytes(&mut self) -> Option<Option<Bytes>> {
        let len = self.u16()?;
        if len == NONE {
            return Some(None);
        }
        let (bytes, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        Some(Some(Bytes::copy_from_slice(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let purged = Some(Mark { index: 9, id: Bytes::from_static(b"2.1.9") });
        let vote = Some(Bytes::from_static(b"3.1"));
        Header {
            identity: Identity { cluster: Uuid::from_u128(0xc1), node: 3 },
            number: 4,
            first_sequence: 120,
            len: 65_536,
            ledger: Ledger { purged, vote, committed: None, first: 10, next: 57 },
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let (block, seed) = header().encode();
        assert_eq!(block.len(), HEADER_LEN);
        assert_eq!(Header::decode(&block), Ok((header(), seed)));
    }

    #[test]
    fn the_longest_marks_fit() {
        let longest = Bytes::from(vec![7; MARK_LEN_MAX]);
        let mut header = header();
        header.ledger.vote = Some(longest.clone());
        header.ledger.committed = Some(longest.clone());
        header.ledger.purged = Some(Mark { index: 9, id: longest });
        assert_eq!(Header::decode(&header.encode().0).unwrap().0, header);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let sound = header().encode().0;
        for at in 0..HEADER_LEN {
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            assert!(Header::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut block = header().encode().0;
        block[COVERED_FROM] = 2;
        let crc = crc32fast::hash(&block[COVERED_FROM..]);
        block[MAGIC.len()..COVERED_FROM].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&block), Err(HeaderDamage::Version(2)));
    }

    #[test]
    fn a_short_or_foreign_file_is_named() {
        assert_eq!(Header::decode(b"mesh.wal"), Err(HeaderDamage::Short(8)));
        assert_eq!(Header::decode(&[0; HEADER_LEN]), Err(HeaderDamage::Magic));
    }
}
