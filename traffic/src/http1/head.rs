//! Pure. Heads: found, read, and judged.

use std::mem::MaybeUninit;

use super::{FIELDS_MAX, Length, Malformed, Version};

/// A field, its name as sent, its value without the space around it.
pub type Field<'a> = httparse::Header<'a>;
/// All fields of a head, in its order.
pub type Fields<'f, 'a> = &'f [Field<'a>];
/// Room for the fields of a head.
pub type Spare<'a> = [MaybeUninit<Field<'a>>; FIELDS_MAX];

/// A request that was read.
#[derive(Debug, Clone, Copy)]
pub struct Request<'f, 'a> {
    /// As sent.
    pub method: &'a str,
    /// As sent.
    pub target: &'a str,
    /// As sent.
    pub version: Version,
    /// As sent.
    pub fields: Fields<'f, 'a>,
    /// How long its body is.
    pub body: Length,
    /// Whether its sender would send another one behind it.
    pub keep_alive: bool,
    /// Whether the body comes only when it is asked for.
    pub expects_continue: bool,
}

/// An answer that was read.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'f, 'a> {
    /// From 100 to 999.
    pub status: u16,
    /// As sent.
    pub fields: Fields<'f, 'a>,
    /// How long its body is.
    pub body: Length,
    /// Whether its sender would take another request.
    pub keep_alive: bool,
}

/// Room that nothing was written to.
pub fn spare<'a>() -> Spare<'a> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

// === impl HeadEnd ===

/// Looks for the end of a head in bytes that come piece by piece; each is looked at once.
#[derive(Debug, Default)]
pub struct HeadEnd {
    looked_at: usize,
}

impl HeadEnd {
    /// How long the head is at the start of `bytes`, once it is whole. To be asked again with more bytes at the end.
    ///
    /// # Errors
    /// As soon as it cannot become a head any more.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let start = match bytes {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        if let Some(&byte) = bytes.get(start).filter(|byte| !is_token(**byte)) {
            return Err(Malformed::Start(byte));
        }
        let mut at = self.looked_at.max(start);
        while let Some(next) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let lf = at + next;
            if bytes[lf - 1] != b'\r' {
                return Err(Malformed::BareLf);
            }
            if bytes[start..lf].ends_with(b"\r\n\r") {
                self.looked_at = 0;
                return Ok(Some(lf + 1));
            }
            at = lf + 1;
        }
        self.looked_at = bytes.len();
        Ok(None)
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

// === impl Request ===

impl<'f, 'a> Request<'f, 'a> {
    /// Reads a head that [`HeadEnd`] found.
    ///
    /// # Errors
    /// If it is none, or could be read in two ways.
    pub fn read(head: &'a [u8], spare: &'f mut Spare<'a>) -> Result<Self, Malformed> {
        let mut read = httparse::Request::new(&mut []);
        whole(read.parse_with_uninit_headers(head, spare), head)?;
        let (method, target) = (read.method.unwrap_or_default(), read.path.unwrap_or_default());
        let version = if read.version == Some(1) { Version::Http11 } else { Version::Http10 };
        let fields: Fields<'f, 'a> = read.headers;
        let said = Said::of(fields)?;
        judge_target(method, target)?;
        match (version, said.hosts) {
            _ if said.bad_host => return Err(Malformed::Host),
            (_, 1) | (Version::Http10, 0) => {}
            _ => return Err(Malformed::Host),
        }
        if said.expects == Some(false) {
            return Err(Malformed::Expectation);
        }
        let body = said.length(version)?.unwrap_or(Length::Exactly(0));
        if body != Length::Exactly(0) && matches!(method, "CONNECT" | "TRACE") {
            return Err(Malformed::Body);
        }
        let keep_alive = said.keeps_alive(version);
        let waits = body != Length::Exactly(0) && version == Version::Http11;
        let expects_continue = waits && said.expects == Some(true);
        Ok(Self { method, target, version, fields, body, keep_alive, expects_continue })
    }
}

/// Which target a method may have (§3.2).
fn judge_target(method: &str, target: &str) -> Result<(), Malformed> {
    let authority = |text: &str| !text.is_empty() && text.bytes().all(is_host);
    let fits = match method {
        "CONNECT" => target.rsplit_once(':').is_some_and(|(host, port)| authority(host) && is_port(port)),
        _ if target.starts_with('/') => true,
        "OPTIONS" if target == "*" => true,
        _ => after_scheme(target)
            .is_some_and(|rest| authority(&rest[..rest.find(['/', '?']).unwrap_or(rest.len())])),
    };
    // A fragment is for the client alone: who sees one here would have to guess what is meant.
    if fits && !target.contains('#') { Ok(()) } else { Err(Malformed::Target) }
}

fn after_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|port: u16| port != 0)
}

/// What a host and port may have (RFC 3986 §3.2.2), but for names beyond ASCII.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte)
}

// === impl Answer ===

impl<'f, 'a> Answer<'f, 'a> {
    /// Reads a head that [`HeadEnd`] found; it answers a request of this method.
    ///
    /// # Errors
    /// If it is none, or could be read in two ways.
    pub fn read(head: &'a [u8], method: &str, spare: &'f mut Spare<'a>) -> Result<Self, Malformed> {
        let mut read = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut read, head, spare);
        whole(parsed, head)?;
        let status = read.code.unwrap_or_default();
        if !(100..=999).contains(&status) {
            return Err(Malformed::Status(status));
        }
        let version = if read.version == Some(1) { Version::Http11 } else { Version::Http10 };
        let fields: Fields<'f, 'a> = read.headers;
        let said = Said::of(fields)?;
        let length = said.length(version)?;
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let body = if bodiless { Length::Exactly(0) } else { length.unwrap_or(Length::UntilClose) };
        let keep_alive = said.keeps_alive(version) && body != Length::UntilClose;
        Ok(Self { status, fields, body, keep_alive })
    }
}

fn whole(parsed: httparse::Result<usize>, head: &[u8]) -> Result<(), Malformed> {
    match parsed? {
        httparse::Status::Complete(length) if length == head.len() => Ok(()),
        // Its lines are all there: whatever is missing, or left over, is in none of them.
        _ => Err(Malformed::Syntax(httparse::Error::NewLine)),
    }
}

/// The trailers that are kept, of those that stand in `bytes`, their last empty line among them.
///
/// # Errors
/// If they are no fields.
pub fn fields<'f, 'a>(bytes: &'a [u8], room: &'f mut [Field<'a>]) -> Result<Fields<'f, 'a>, Malformed> {
    match httparse::parse_headers(bytes, room) {
        Ok(httparse::Status::Complete((length, fields))) if length == bytes.len() => Ok(fields),
        _ => Err(Malformed::Trailers),
    }
}

/// What the fields of a head say about its message, whichever kind it is.
#[derive(Default)]
struct Said {
    hosts: usize,
    bad_host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// Whether it is the one expectation that there is.
    expects: Option<bool>,
}

impl Said {
    fn of(fields: Fields<'_, '_>) -> Result<Self, Malformed> {
        let mut said = Self::default();
        for field in fields {
            said.hear(field.name, field.value)?;
        }
        Ok(said)
    }

    fn hear(&mut self, name: &str, value: &[u8]) -> Result<(), Malformed> {
        // By their lengths most fields are told from all of these at once.
        match name.len() {
            4 if is(name, "host") => {
                self.hosts += 1;
                self.bad_host |= !value.iter().copied().all(is_host);
            }
            6 if is(name, "expect") => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expects = Some(known && self.expects != Some(false));
            }
            10 if is(name, "connection") => {
                if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
                    return Err(Malformed::Connection);
                }
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is(name, "content-length") => self.hear_length(value)?,
            14 if is(name, "content_length") => return Err(Malformed::Lookalike),
            17 if is(name, "transfer-encoding") => self.hear_coding(value)?,
            17 if is(name, "transfer_encoding") => return Err(Malformed::Lookalike),
            _ => {}
        }
        Ok(())
    }

    fn hear_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        match self.length.replace(number(value)?) {
            Some(_) => Err(Malformed::Length),
            None => Ok(()),
        }
    }

    fn hear_coding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::Coding);
        }
        self.chunked = true;
        Ok(())
    }

    /// How long the body is, if it is said (§6.3).
    fn length(&self, version: Version) -> Result<Option<Length>, Malformed> {
        match (self.chunked, self.length, version) {
            (true, Some(_), _) => Err(Malformed::LengthAndCoding),
            (true, None, Version::Http10) => Err(Malformed::CodingInHttp10),
            (true, None, Version::Http11) => Ok(Some(Length::Chunked)),
            (false, length, _) => Ok(length.map(Length::Exactly)),
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

fn is(name: &str, own: &str) -> bool {
    name.eq_ignore_ascii_case(own)
}

/// Digits alone, and no more than every reader can count.
fn number(value: &[u8]) -> Result<u64, Malformed> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits).ok_or(Malformed::Length)?;
    let number: u64 = text.parse().map_err(|_| Malformed::Length)?;
    if i64::try_from(number).is_ok() { Ok(number) } else { Err(Malformed::Length) }
}
