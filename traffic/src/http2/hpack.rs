//! Pure. HPACK (RFC 7541). What is read may use all of it; what is written uses neither Huffman's code nor a table of its own:
//! it mostly goes no further than this host, where bytes cost less than looking for them.

mod decoder;
mod huffman;
mod indexed;
mod writer;

pub use decoder::{Decoder, Malformed};
pub use writer::Writer;

use bytes::Bytes;

/// A field, or what stands in place of a first line, such as `:status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case, if it is none of the malformed.
    pub name: Bytes,
    /// Any bytes.
    pub value: Bytes,
}

impl Field {
    /// What it counts as (RFC 7541 §4.1).
    pub fn size(&self) -> usize {
        self.name.len() + self.value.len() + 32
    }
}
