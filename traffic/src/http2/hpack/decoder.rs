//! Pure. Sections of fields, read.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Field, huffman, indexed};

/// What the table may hold, in bytes as §4.1 counts them: the size that it has where nothing else is said.
const TABLE_BYTES_MAX: usize = 4_096;
/// What is allocated at once for texts, in bytes. They live about as long as a message.
const CHUNK_BYTES: usize = 4 * 1_024;

/// Why a section of fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// One side's reader, with the table that the other side fills.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<Field>,
    bytes: usize,
    bytes_max: usize,
    /// Where texts lie behind each other.
    texts: BytesMut,
    /// What Huffman's code stood for.
    plain: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        let (table, texts, plain) = (VecDeque::new(), BytesMut::new(), Vec::new());
        Self { table, bytes: 0, bytes_max: TABLE_BYTES_MAX, texts, plain }
    }
}

impl Decoder {
    /// Reads a whole section, field by field.
    ///
    /// # Errors
    /// If it is none: nothing that follows on the connection can be read, then.
    pub fn read(&mut self, section: &[u8], mut take: impl FnMut(Field)) -> Result<(), Malformed> {
        let (mut rest, mut begun) = (section, false);
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let size = number(&mut rest, 5)?;
                if begun || size > TABLE_BYTES_MAX {
                    return Err(Malformed("the table's size changes where or how it may not"));
                }
                self.bytes_max = size;
                self.evict(0);
                continue;
            }
            begun = true;
            if first & 0x80 != 0 {
                let index = number(&mut rest, 7)?;
                take(self.indexed(index)?);
                continue;
            }
            let kept = first & 0x40 != 0;
            let index = number(&mut rest, if kept { 6 } else { 4 })?;
            let name = if index == 0 { self.text(&mut rest)? } else { self.indexed(index)?.name };
            let field = Field { name, value: self.text(&mut rest)? };
            if kept {
                self.keep(&field);
            }
            take(field);
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<Field, Malformed> {
        let of_both = index.checked_sub(1).and_then(|at| indexed::TABLE.get(at));
        if let Some((name, value)) = of_both {
            let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
            return Ok(Field { name: bytes(name), value: bytes(value) });
        }
        let of_table = index.checked_sub(indexed::TABLE.len() + 1).and_then(|at| self.table.get(at));
        of_table.cloned().ok_or(Malformed("a number stands for no field"))
    }

    /// Keeps a copy, of its own: it may outlive the message by long.
    fn keep(&mut self, field: &Field) {
        self.evict(field.size());
        if field.size() > self.bytes_max {
            return;
        }
        self.bytes += field.size();
        let both = Bytes::from([&field.name[..], &field.value[..]].concat());
        let (name, value) = (both.slice(..field.name.len()), both.slice(field.name.len()..));
        self.table.push_front(Field { name, value });
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max
            && let Some(oldest) = self.table.pop_back()
        {
            self.bytes -= oldest.size();
        }
    }

    fn text(&mut self, rest: &mut &[u8]) -> Result<Bytes, Malformed> {
        let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = number(rest, 7)?;
        let (bytes, after) = rest.split_at_checked(length).ok_or(Malformed("a text is cut short"))?;
        *rest = after;
        if !coded {
            return Ok(copied(&mut self.texts, bytes));
        }
        self.plain.clear();
        huffman::decode(bytes, &mut self.plain)?;
        Ok(copied(&mut self.texts, &self.plain))
    }
}

/// Short ones lie behind each other in one allocation.
fn copied(texts: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if bytes.len() > CHUNK_BYTES / 2 {
        return Bytes::copy_from_slice(bytes);
    }
    if !texts.try_reclaim(bytes.len()) {
        *texts = BytesMut::with_capacity(CHUNK_BYTES);
    }
    texts.extend_from_slice(bytes);
    texts.split().freeze()
}

/// A number behind a kind, in so many bits and the bytes that follow (§5.1). Longer ones than any message has are refused.
fn number(rest: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    const CUT: Malformed = Malformed("a number is cut short");
    let (&first, after) = rest.split_first().ok_or(CUT)?;
    *rest = after;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(first) & most;
    if number < most {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first().ok_or(CUT)?;
        *rest = after;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::{super::Writer, *};

    fn read(decoder: &mut Decoder, section: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = Vec::new();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        decoder.read(section, |field| fields.push((text(&field.name), text(&field.value))))?;
        Ok(fields)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex");
        digits.chunks(2).map(byte).collect()
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// RFC 7541, appendix C.4: three requests on one connection, with Huffman's code.
    #[test]
    fn the_papers_requests_are_read() {
        let mut decoder = Decoder::default();
        let first =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        let got = read(&mut decoder, &bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"));
        assert_eq!(got.expect("a section"), fields(&first));
        assert_eq!(decoder.bytes, 57);
        let second = [&first[..], &[("cache-control", "no-cache")]].concat();
        let got = read(&mut decoder, &bytes("8286 84be 5886 a8eb 1064 9cbf"));
        assert_eq!(got.expect("a section"), fields(&second));
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        let got = read(&mut decoder, &bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"));
        assert_eq!(got.expect("a section"), fields(&third));
        assert_eq!((decoder.bytes, decoder.table.len()), (164, 3));
    }

    /// RFC 7541, appendix C.6.1 and C.6.2: answers whose fields do not all fit a table of 256 bytes.
    #[test]
    fn the_papers_answers_are_read_and_the_oldest_field_goes() {
        let mut decoder = Decoder::default();
        assert_eq!(read(&mut decoder, &bytes("3fe101")).expect("a size"), []);
        let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                     2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        let got = read(&mut decoder, &bytes(first)).expect("a section");
        let want = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        assert_eq!((got, decoder.bytes), (fields(&want), 222));
        let got = read(&mut decoder, &bytes("4883 640e ffc1 c0bf")).expect("a section");
        assert_eq!(got[0], (":status".to_owned(), "307".to_owned()));
        assert_eq!((got[1..].to_vec(), decoder.bytes), (fields(&want[1..]), 222));
        assert!(read(&mut decoder, &bytes("c2")).is_err(), "302 is gone");
    }

    #[test]
    fn what_is_no_section_is_refused() {
        for bad in
            ["80", "be", "ff80808080", "ff8080808001", "40", "400161", "4001610562", "8220", "3fe23f", "0085"]
        {
            assert!(read(&mut Decoder::default(), &bytes(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_holds_what_it_may_and_a_field_that_is_larger_empties_it() {
        let mut decoder = Decoder::default();
        let keep = |name: &str, length: usize| {
            let mut writer = Writer::default();
            writer.field(name, &vec![b'v'; length], false);
            let mut section = writer.into_bytes();
            section[0] |= 0x40;
            section
        };
        for n in 0..100 {
            read(&mut decoder, &keep(&format!("x{n}"), 100)).expect("a section");
            assert!(decoder.bytes <= TABLE_BYTES_MAX);
        }
        assert!(decoder.table.len() > 20);
        read(&mut decoder, &keep("x", 5_000)).expect("a section");
        assert_eq!((decoder.bytes, decoder.table.len()), (0, 0));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_secret_says_so() {
        let mut writer = Writer::default();
        writer.request("GET", "http", "orders", "/");
        writer.request("DELETE", "https", "", "/a?b");
        writer.field("content-type", b"application/grpc", false);
        writer.field("x-long", &[b'l'; 300], false);
        let mut secret = Writer::default();
        secret.field("authorization", b"Bearer 1", true);
        let secret = secret.into_bytes();
        assert_eq!(secret[0] & 0xf0, 0x10, "never kept");
        writer.append(&secret);
        let long = "l".repeat(300);
        let want = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "orders"),
            (":path", "/"),
            (":method", "DELETE"),
            (":scheme", "https"),
            (":path", "/a?b"),
            ("content-type", "application/grpc"),
            ("x-long", &long),
            ("authorization", "Bearer 1"),
        ];
        let mut decoder = Decoder::default();
        assert_eq!(read(&mut decoder, &writer.into_bytes()).expect("a section"), fields(&want));
        assert_eq!(decoder.bytes, 0, "nothing was kept");
    }
}
