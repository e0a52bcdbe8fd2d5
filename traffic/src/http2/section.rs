//! Pure. What a section of fields is of a message (RFC 9113 §8.2, §8.3).

use bytes::Bytes;
use memchr::memchr3;

use super::{FIELDS_BYTES_MAX, Field, UNPACKED_BYTES_MAX};

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 999; an interim one is passed over.
    pub status: u16,
    /// Its fields, in order; names in lower case.
    pub fields: Vec<Field>,
    /// How long it says that its body is, in bytes.
    pub length: Option<u64>,
}

/// A request's head. What stands in place of its first line is not looked at further, but that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Not empty.
    pub method: Bytes,
    /// Empty where the method is CONNECT.
    pub scheme: Bytes,
    /// Empty where the request says none.
    pub authority: Bytes,
    /// Empty where the method is CONNECT.
    pub path: Bytes,
    /// Its fields, in order; names in lower case.
    pub fields: Vec<Field>,
    /// How long it says that its body is, in bytes.
    pub length: Option<u64>,
}

/// A section while it is read.
#[derive(Debug, Default)]
pub(super) struct Section {
    status: Option<Bytes>,
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    fields: Vec<Field>,
    bytes: usize,
    wrong: Option<&'static str>,
}

/// Fields that most messages have at most.
const FIELDS_EXPECTED: usize = 8;

impl Section {
    /// One after the other; none is kept once something is wrong.
    pub(super) fn take(&mut self, field: Field) {
        self.bytes += field.size();
        if self.wrong.is_some() {
            return;
        }
        if self.bytes > FIELDS_BYTES_MAX {
            self.wrong(TOO_LARGE);
        } else if let Some(place) = self.place(&field.name) {
            *place = Some(field.value);
        } else if let Some(wrong) = wrong(&field) {
            self.wrong(wrong);
        } else {
            if self.fields.capacity() == 0 {
                self.fields.reserve(FIELDS_EXPECTED);
            }
            self.fields.push(field);
        }
    }

    /// Where something belongs that stands in place of a first line, if it may stand there.
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<Bytes>> {
        let place = match name {
            _ if !self.fields.is_empty() => return None,
            b":status" => &mut self.status,
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            _ => return None,
        };
        Some(place).filter(|place| place.is_none())
    }

    /// Whether it was packed so that it is unpacked without end.
    pub(super) fn is_bomb(&self) -> bool {
        self.bytes > UNPACKED_BYTES_MAX
    }

    /// Whether it is larger than what is read.
    pub(super) fn is_too_large(&self) -> bool {
        self.wrong == Some(TOO_LARGE)
    }

    fn wrong(&mut self, what: &'static str) {
        self.wrong = Some(what);
        self.fields = Vec::new();
    }

    /// As an answer's head.
    pub(super) fn answer(self) -> Result<Answer, &'static str> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if self.asks() {
            return Err("it asks");
        }
        let status = self.status.as_deref().and_then(status).ok_or("it has no status of three digits")?;
        let length = length(&self.fields)?;
        Ok(Answer { status, fields: self.fields, length })
    }

    /// As a request's head (§8.3.1, §8.5).
    pub(super) fn request(self) -> Result<Request, &'static str> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let length = length(&self.fields)?;
        let te = |field: &Field| field.name == "te" && !field.value.eq_ignore_ascii_case(b"trailers");
        let hosts = || self.fields.iter().filter(|field| field.name == "host");
        let host = hosts().next().map(|field| field.value.clone());
        let said = |text: &Option<Bytes>| text.as_ref().is_some_and(|text| !text.is_empty());
        let connects = self.method.as_deref() == Some(b"CONNECT");
        let targets = (said(&self.scheme), said(&self.path));
        let wrong = match (connects, targets) {
            _ if self.status.is_some() => Some("it has a status"),
            _ if !said(&self.method) => Some("it has no method"),
            _ if self.fields.iter().any(te) => Some("te says more than HTTP/2 has"),
            _ if hosts().nth(1).is_some() => Some("it has two hosts"),
            // Who is asked must not hang on which of them is read.
            _ if said(&self.authority) && host.is_some() && host != self.authority => {
                Some("it has two hosts")
            }
            (true, _) if !said(&self.authority) => Some("it connects to nothing"),
            (true, (false, false)) | (false, (true, true)) => None,
            (true, _) => Some("it connects to a path"),
            (false, _) => Some("it has no scheme, or no path"),
        };
        wrong.map_or(Ok(()), Err)?;
        let [method, scheme, authority, path] =
            [self.method, self.scheme, self.authority, self.path].map(Option::unwrap_or_default);
        Ok(Request { method, scheme, authority, path, fields: self.fields, length })
    }

    /// As trailers.
    pub(super) fn trailers(self) -> Result<Vec<Field>, &'static str> {
        match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.status.is_some() || self.asks() => Err("its trailers begin another message"),
            None => Ok(self.fields),
        }
    }

    fn asks(&self) -> bool {
        [&self.method, &self.scheme, &self.authority, &self.path].iter().any(|said| said.is_some())
    }
}

const TOO_LARGE: &str = "its fields are larger than what is read";

fn status(text: &[u8]) -> Option<u16> {
    let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *text else { return None };
    let digit = |byte: u8| u16::from(byte - b'0');
    Some(100 * digit(hundreds) + 10 * digit(tens) + digit(ones))
}

fn length(fields: &[Field]) -> Result<Option<u64>, &'static str> {
    const WRONG: &str = "its content-length is no number, or said twice";
    let mut said = fields.iter().filter(|field| field.name == "content-length");
    let Some(first) = said.next() else { return Ok(None) };
    if said.next().is_some() || !first.value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    std::str::from_utf8(&first.value).ok().and_then(|text| text.parse().ok()).map(Some).ok_or(WRONG)
}

/// What makes a message malformed (§8.2.1, §8.2.2).
fn wrong(field: &Field) -> Option<&'static str> {
    let (name, value) = (&field.name[..], &field.value[..]);
    if name.is_empty() || !name.iter().all(|byte| NAME[usize::from(*byte)]) {
        return Some("a name has what none may have");
    }
    if memchr3(0, b'\r', b'\n', value).is_some() {
        return Some("a value has what none may have");
    }
    // By their lengths most names are told from all of these at once.
    let connections = matches!(name.len(), 7 | 10 | 16 | 17)
        && matches!(
            name,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade"
        );
    connections.then_some("a field is about a connection of HTTP/1.1")
}

/// What a name is made of: a token (RFC 9110 §5.6.2) in lower case.
static NAME: [bool; 256] = {
    let (mut name, mut byte) = ([false; 256], 0);
    while byte < 128 {
        let one = byte as u8;
        name[byte] = one.is_ascii_lowercase()
            || one.is_ascii_digit()
            || matches!(
                one,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    name
};

#[cfg(test)]
mod tests {
    use super::*;

    fn section(fields: &[(&'static str, &'static str)]) -> Section {
        let mut section = Section::default();
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        fields
            .iter()
            .for_each(|(name, value)| section.take(Field { name: bytes(name), value: bytes(value) }));
        section
    }

    #[test]
    fn an_answer_is_read() {
        let answer = section(&[(":status", "200"), ("content-length", "17"), ("x", "")]).answer();
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.length, answer.fields.len()), (200, Some(17), 2));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let bad: [&[(&str, &str)]; 15] = [
            &[],
            &[("x", "1")],
            &[(":status", "20")],
            &[(":status", "0200")],
            &[(":status", "2x0")],
            &[(":status", "200"), (":status", "200")],
            &[("x", "1"), (":status", "200")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "200"), ("X", "1")],
            &[(":status", "200"), ("", "1")],
            &[(":status", "200"), ("a b", "1")],
            &[(":status", "200"), ("x", "1\r\ny: 2")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
            &[(":status", "200"), ("content-length", "+1")],
        ];
        for fields in bad {
            assert!(section(fields).answer().is_err(), "{fields:?}");
        }
        assert!(section(&[(":status", "200")]).trailers().is_err());
        assert_eq!(section(&[("grpc-status", "0")]).trailers().expect("trailers").len(), 1);
    }

    #[test]
    fn a_request_is_read() {
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "orders")];
        let request = section(&[&get[..], &[("te", "Trailers"), ("host", "orders")]].concat()).request();
        let request = request.expect("a request");
        assert_eq!((&request.path[..], &request.authority[..]), (&b"/a"[..], &b"orders"[..]));
        section(&[(":method", "CONNECT"), (":authority", "orders:5432")]).request().expect("a request");
        section(&get[..3]).request().expect("its host may be said by nobody");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
        let bad = [
            vec![],
            get[1..].to_vec(),
            get[..2].to_vec(),
            vec![get[0], get[2]],
            vec![get[0], get[1], (":path", "")],
            with(&[(":method", "GET")]),
            with(&[(":status", "200")]),
            with(&[(":protocol", "websocket")]),
            with(&[("x", "1"), (":authority", "a")]),
            with(&[("te", "gzip")]),
            with(&[("host", "a"), ("host", "a")]),
            with(&[(":authority", "a"), ("host", "b")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("Content-Length", "1")]),
            vec![(":method", "CONNECT")],
            vec![(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
        ];
        for fields in bad {
            assert!(section(&fields).request().is_err(), "{fields:?}");
        }
        assert!(section(&get).trailers().is_err() && section(&get).answer().is_err());
    }

    #[test]
    fn fields_without_end_are_not_kept() {
        let mut section = section(&[(":status", "200")]);
        for _ in 0..10_000 {
            section.take(Field { name: Bytes::from_static(b"x"), value: Bytes::from_static(&[b'v'; 100]) });
            assert!(section.fields.len() <= FIELDS_BYTES_MAX / 133);
        }
        assert!(section.is_too_large());
        assert_eq!(section.answer(), Err(TOO_LARGE));
    }
}
