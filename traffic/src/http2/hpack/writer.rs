//! Pure. Sections of fields, written.

use super::indexed;

/// A field is known by its number alone (§6.1).
const INDEXED: u8 = 0x80;
/// A literal that no table keeps, and one that none may ever keep (§6.2.2, §6.2.3).
const LITERAL: (u8, u8) = (0x00, 0x10);
/// The reader's table gets another size (§6.3).
const TABLE_SIZE: u8 = 0x20;

/// A section of fields that is being written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Writes behind what `memory` holds.
    pub fn behind(memory: Vec<u8>) -> Self {
        Self(memory)
    }

    /// What was written, and what was there before.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// That no table is used, where the reader wants less of it than it has at first.
    pub(in crate::http2) fn without_table(&mut self) {
        self.0.push(TABLE_SIZE);
    }

    /// What was written by another one.
    pub(in crate::http2) fn append(&mut self, section: &[u8]) {
        self.0.extend_from_slice(section);
    }

    /// What a request has in place of its first line (RFC 9113 §8.3.1).
    pub fn request(&mut self, method: &str, scheme: &str, authority: &str, path: &str) {
        match method {
            "GET" => self.0.push(INDEXED | 2),
            "POST" => self.0.push(INDEXED | 3),
            _ => self.literal(2, "", method.as_bytes(), LITERAL.0),
        }
        match scheme {
            "http" => self.0.push(INDEXED | 6),
            "https" => self.0.push(INDEXED | 7),
            _ => self.literal(6, "", scheme.as_bytes(), LITERAL.0),
        }
        if !authority.is_empty() {
            self.literal(1, "", authority.as_bytes(), LITERAL.0);
        }
        match path {
            "/" => self.0.push(INDEXED | 4),
            _ => self.literal(4, "", path.as_bytes(), LITERAL.0),
        }
    }

    /// What an answer has in place of its first line (RFC 9113 §8.3.2): three digits.
    pub fn status(&mut self, status: u16) {
        match status {
            200 => self.0.push(INDEXED | 8),
            204 => self.0.push(INDEXED | 9),
            206 => self.0.push(INDEXED | 10),
            304 => self.0.push(INDEXED | 11),
            400 => self.0.push(INDEXED | 12),
            404 => self.0.push(INDEXED | 13),
            500 => self.0.push(INDEXED | 14),
            _ => {
                let digit = |place: u16| b'0' + (status / place % 10) as u8;
                self.literal(8, "", &[digit(100), digit(10), digit(1)], LITERAL.0);
            }
        }
    }

    /// A field; its name in lower case. One that is `secret` is put into no table on its way.
    pub fn field(&mut self, name: &str, value: &[u8], secret: bool) {
        let kind = if secret { LITERAL.1 } else { LITERAL.0 };
        self.literal(indexed::name(name).unwrap_or(0), name, value, kind);
    }

    fn literal(&mut self, index: u8, name: &str, value: &[u8], kind: u8) {
        self.number(kind, 4, usize::from(index));
        if index == 0 {
            self.string(name.as_bytes());
        }
        self.string(value);
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(0, 7, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A number behind a kind, in so many bits and more bytes as it takes (§5.1).
    fn number(&mut self, kind: u8, bits: u32, number: usize) {
        let most = (1_usize << bits) - 1;
        if number < most {
            self.0.push(kind | number as u8);
            return;
        }
        self.0.push(kind | most as u8);
        let mut rest = number - most;
        while rest >= 0x80 {
            self.0.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }
}
