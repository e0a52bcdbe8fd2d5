//! Pure. A request's path is brought into one form, once; routes and policies decide on that form, and it is what is
//! forwarded, so that the application cannot understand another path than the one that was judged.
//!
//! | in the path | plain | strict |
//! |---|---|---|
//! | escaped unreserved characters (`%7E`) | decoded (RFC 3986 §6.2.2.2) | the same |
//! | other escapes (`%3f`) | kept, in upper case (§6.2.2.1) | the same |
//! | bytes that are no ASCII | escaped | the same |
//! | `.` and `..`, also escaped | removed (§5.2.4); `..` stops at the root | the same |
//! | empty segments (`//`) | kept | merged |
//! | `%2F`, `%5C` | kept; refused if what they part is `.` or `..` | refused |
//! | `;` | kept; refused after `.` or `..` (`/..;/`) | refused |
//! | `%3B` | kept; refused after `.` or `..` | the same |
//! | escaped control characters (`%0A`) | kept | refused |
//! | `\`, control characters, space, `#` | refused | refused |
//! | `%00` | refused | refused |
//! | `%` without two digits | refused | refused |
//! | escapes that are overlong UTF-8 (`%C0%AF`) | refused | refused |
//! | other escapes of bytes that UTF-8 never has (`%C0x`) | kept | refused |
//! | no path; `*` of OPTIONS | `/`; kept | the same |
//!
//! Applications differ on the rows where the columns do: they are left alone (`%2F` names a queue of RabbitMQ) until a
//! policy decides by path, which asks for the strict form. The query is left as it is, but for what is refused in it:
//! control characters, space and `#`. Query parameters are decoded where they are compared.

use std::borrow::Cow;

use crate::request::escaped_byte;

/// How much ambiguity a path may keep: see the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing but routes decides by path.
    Plain,
    /// A policy does.
    Strict,
}

/// A path and query in the one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a> {
    text: Cow<'a, str>,
    /// Where the query's `?` stands, or the end.
    path_bytes: usize,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither empty nor `*`, and without `/` at its start.
    #[error("the path does not start with '/'")]
    Relative,
    /// A character that no URI may have; with its byte.
    #[error("the path has the byte 0x{0:02x}, which must be escaped")]
    Character(u8),
    /// A `%` without two hexadecimal digits.
    #[error("the path has a '%' without two hexadecimal digits")]
    Escape,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    Nul,
    /// Escapes that are a longer form of another character.
    #[error("the path has escapes that are overlong UTF-8")]
    Overlong,
    /// A dot segment that some applications see and others do not.
    #[error("the path hides a dot segment behind ';', '%3B', '%2F' or '%5C'")]
    HiddenDots,
    /// An escape that applications take for nothing, for a space, or for something else.
    #[error(
        "the path has the escaped byte 0x{0:02x}, on which applications differ, and a policy decides by path"
    )]
    Odd(u8),
    /// `%2F`, `%5C` or `;` where a policy decides by path.
    #[error("the path has '%2F', '%5C' or ';', on which applications differ, and a policy decides by path")]
    Ambiguous,
}

/// The one form of `target`, a request's path and query.
///
/// # Errors
/// If there is none: see the table above.
pub fn normalize(target: &str, strictness: Strictness) -> Result<NormalPath<'_>, Refused> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if let Some(byte) = query.bytes().find(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(Refused::Character(byte));
    }
    if path == "*" || is_normal(path) {
        return Ok(NormalPath { text: Cow::Borrowed(target), path_bytes: path.len() });
    }
    let escapes = unescaped(if path.is_empty() { "/" } else { path }, strictness)?;
    let mut text = without_dots(&escapes, strictness)?;
    let path_bytes = text.len();
    text.push_str(query);
    Ok(NormalPath { text: Cow::Owned(text), path_bytes })
}

impl NormalPath<'_> {
    /// The path alone.
    pub fn path(&self) -> &str {
        &self.text[..self.path_bytes]
    }

    /// What stands after the `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.text[self.path_bytes..].strip_prefix('?')
    }

    /// What is to be forwarded.
    pub fn path_and_query(&self) -> &str {
        &self.text
    }

    /// Whether the request's own text was in this form.
    pub fn is_as_sent(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_))
    }
}

/// Whether a path surely is in the one form: the usual one, which is then not copied.
fn is_normal(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte);
    path.starts_with('/') && path.bytes().all(plain) && !path.contains("//") && !path.contains("/.")
}

/// Step one: each character in its one form.
fn unescaped(path: &str, strictness: Strictness) -> Result<String, Refused> {
    let bytes = path.as_bytes();
    if bytes[0] != b'/' {
        return Err(Refused::Relative);
    }
    let (mut text, mut at) = (String::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'%' => {
                let escaped = escaped_byte(&bytes[at..]).ok_or(Refused::Escape)?;
                refuse_escapes(&bytes[at..], escaped)?;
                if strictness == Strictness::Strict
                    && matches!(escaped, 0..=0x1f | 0x7f | 0xc0 | 0xc1 | 0xf5..)
                {
                    return Err(Refused::Odd(escaped));
                }
                push_escaped(&mut text, escaped);
                at += 3;
                continue;
            }
            0..=b' ' | 0x7f | b'\\' | b'#' => return Err(Refused::Character(byte)),
            0x80.. => push_escape(&mut text, byte),
            _ => text.push(char::from(byte)),
        }
        at += 1;
    }
    Ok(text)
}

fn refuse_escapes(bytes: &[u8], first: u8) -> Result<(), Refused> {
    let second = bytes.get(3..).and_then(escaped_byte);
    match (first, second) {
        (0, _) => Err(Refused::Nul),
        // The last two are forms that UTF-8 no longer has: of five bytes and of six (RFC 2279).
        (0xc0 | 0xc1, Some(0x80..=0xbf))
        | (0xe0, Some(0x80..=0x9f))
        | (0xf0, Some(0x80..=0x8f))
        | (0xf8, Some(0x80..=0x87))
        | (0xfc, Some(0x80..=0x83)) => Err(Refused::Overlong),
        _ => Ok(()),
    }
}

fn push_escaped(text: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        text.push(char::from(byte));
    } else {
        push_escape(text, byte);
    }
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}

/// Step two: each segment. The result starts with `/`.
fn without_dots(path: &str, strictness: Strictness) -> Result<String, Refused> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        refuse_segment(segment, strictness)?;
        let last = segments.peek().is_none();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            "" if strictness == Strictness::Strict && !last => {}
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // What ends in a dot segment names a folder: it keeps its final slash.
        if last {
            kept.push("");
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

fn refuse_segment(segment: &str, strictness: Strictness) -> Result<(), Refused> {
    if strictness == Strictness::Strict && [";", "%2F", "%5C"].iter().any(|part| segment.contains(part)) {
        return Err(Refused::Ambiguous);
    }
    let mut parts = segment
        .split(';')
        .flat_map(|part| part.split("%2F"))
        .flat_map(|part| part.split("%5C"))
        .flat_map(|part| part.split("%3B"))
        .peekable();
    let whole = parts.peek() == Some(&segment);
    let hidden = !whole && parts.any(|part| matches!(part, "." | ".."));
    if hidden { Err(Refused::HiddenDots) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
