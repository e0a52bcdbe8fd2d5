//! Pure. A request's head as the decisions see it: borrowed from whatever parsed it. Bodies are never looked at.

use std::borrow::Cow;

use model::{name::ServiceName, object::Labels};

use crate::{hash::hash, path::NormalPath};

/// The fields of a request. What holds them (a parser's map, a slice in a test) says how they are found.
pub trait Fields {
    /// Hands each value of the field `name` (lower case) to `each`, in the order of the request.
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

/// What routes and policies decide on.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// As sent: methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    /// Path and query in their one form.
    pub path: &'a NormalPath<'a>,
    /// `:authority`, or the Host field.
    pub authority: &'a str,
    /// The fields.
    pub fields: &'a dyn Fields,
}

/// Who makes a request.
#[derive(Clone, Copy, Default)]
pub struct Caller<'a> {
    /// The service; `None` has no identity.
    pub service: Option<&'a ServiceName>,
    /// The labels of its own file, where it has one: its own proxy alone knows them.
    pub labels: Option<&'a Labels>,
}

impl<'a> Caller<'a> {
    /// One without labels.
    pub fn of(service: &'a ServiceName) -> Self {
        Self { service: Some(service), labels: None }
    }

    /// Whether its file has all of these labels.
    pub(crate) fn has(&self, wanted: &Labels) -> bool {
        wanted.iter().all(|(key, value)| self.labels.is_some_and(|own| own.get(key) == Some(value)))
    }
}

/// Fields as pairs, names in any case.
impl Fields for [(&str, &str)] {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        let named = self.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.for_each(|(_, value)| each(value.as_bytes()));
    }
}

impl<const N: usize> Fields for [(&str, &str); N] {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.as_slice().each(name, each);
    }
}

impl RequestHead<'_> {
    /// Whether a field is there and its value is right; several lines of it are joined by `, ` (RFC 9110 §5.3).
    pub(crate) fn field_is(&self, name: &str, right: impl Fn(&[u8]) -> bool) -> bool {
        let (mut lines, mut is) = (0, false);
        self.fields.each(name, &mut |line| {
            lines += 1;
            is = right(line);
        });
        if lines > 1 { right(&self.joined(name)) } else { is }
    }

    /// A number that stands for a field's value; `None` where it is not there.
    pub(crate) fn field_hash(&self, name: &str) -> Option<u64> {
        let mut there = false;
        self.fields.each(name, &mut |_| there = true);
        there.then(|| hash(&self.joined(name)))
    }

    /// A field's value if it is printable ASCII; several lines of it are joined by `, `.
    pub(crate) fn field_text(&self, name: &str) -> Option<String> {
        let mut there = false;
        self.fields.each(name, &mut |_| there = true);
        let value = there.then(|| self.joined(name))?;
        let plain = value.iter().all(|byte| (b' '..=b'~').contains(byte));
        String::from_utf8(value).ok().filter(|_| plain)
    }

    fn joined(&self, name: &str) -> Vec<u8> {
        let mut joined: Vec<u8> = Vec::new();
        self.fields.each(name, &mut |line| {
            joined.extend_from_slice(line);
            joined.extend_from_slice(b", ");
        });
        joined.truncate(joined.len().saturating_sub(2));
        joined
    }

    /// Whether a query parameter is there and its value is right, decoded as forms are. Of several the first counts.
    pub(crate) fn param_is(&self, name: &str, right: impl Fn(&[u8]) -> bool) -> bool {
        let Some(query) = self.path.query() else { return false };
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let named = pairs.find(|(own, _)| *form_decoded(own) == *name.as_bytes());
        named.is_some_and(|(_, value)| right(&form_decoded(value)))
    }

    /// Whether a cookie is there and its value is right (RFC 6265 §4.2; HTTP/2 may spread them over several fields). Of
    /// several the first counts.
    pub(crate) fn cookie_is(&self, name: &str, right: impl Fn(&[u8]) -> bool) -> bool {
        self.cookie(name, right).unwrap_or(false)
    }

    /// What is read of a cookie's value; `None` where it is not there.
    pub(crate) fn cookie<T>(&self, name: &str, read: impl Fn(&[u8]) -> T) -> Option<T> {
        let mut found = None;
        self.fields.each("cookie", &mut |line| {
            let mut pairs = line.split(|&byte| byte == b';').filter_map(|pair| {
                let (own, value) = pair.split_at(pair.iter().position(|&byte| byte == b'=')?);
                (own.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
            });
            if found.is_none() {
                found = pairs.next().map(&read);
            }
        });
        found
    }
}

/// As HTML forms are: `+` is a space. What is no escape stands for itself.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = escaped_byte(&bytes[at..]);
        decoded.push(escaped.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(decoded)
}

/// The byte that an escape (`%2F`) at the start of `bytes` stands for.
pub(crate) fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{self, Strictness};

    type Ask = fn(&RequestHead<'_>, &dyn Fn(&[u8]) -> bool) -> bool;

    /// What `ask` finds of a request for `target` with these fields (`name: value | …`); `want` is the value, or `-`.
    #[track_caller]
    fn check(target: &str, fields: &str, ask: Ask, want: &str) {
        struct Pairs<'a>(Vec<(&'a str, &'a str)>);
        impl Fields for Pairs<'_> {
            fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
                self.0.as_slice().each(name, each);
            }
        }
        let fields = Pairs(fields.split(" | ").filter_map(|field| field.split_once(": ")).collect());
        let path = path::normalize(target, Strictness::Plain).expect("a path");
        let head = RequestHead { method: "GET", path: &path, authority: "", fields: &fields };
        let found = std::cell::RefCell::new("-".to_owned());
        ask(&head, &|value| {
            found.replace(value.escape_ascii().to_string());
            true
        });
        assert_eq!(found.into_inner(), want);
    }

    #[test]
    fn lines_of_one_field_are_joined() {
        check("/", "X-A: 1 | x-b: 2 | x-a: 3", |head, right| head.field_is("x-a", right), "1, 3");
        check("/", "x-a: 1", |head, right| head.field_is("x-a", right), "1");
        check("/", "x-a:  | x-a: 1", |head, right| head.field_is("x-a", right), ", 1");
        check("/", "x-b: ", |head, right| head.field_is("x-b", right), "");
        check("/", "x-b: 1", |head, right| head.field_is("x-a", right), "-");
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts_and_is_decoded() {
        check("/?a=1&b=2&a=3", "", |head, right| head.param_is("a", right), "1");
        check("/?a%20b=x%2By+z", "", |head, right| head.param_is("a b", right), "x+y z");
        check("/?flag&b", "", |head, right| head.param_is("b", right), "");
        check("/?a=100%", "", |head, right| head.param_is("a", right), "100%");
        check("/?a=%ff", "", |head, right| head.param_is("a", right), r"\xff");
        check("/", "", |head, right| head.param_is("a", right), "-");
    }

    #[test]
    fn the_first_cookie_of_a_name_counts_over_all_fields() {
        let fields = "Cookie: a=1; session=x=y | cookie: b=2; a=9";
        check("/", fields, |head, right| head.cookie_is("a", right), "1");
        check("/", fields, |head, right| head.cookie_is("session", right), "x=y");
        check("/", fields, |head, right| head.cookie_is("b", right), "2");
        check("/", fields, |head, right| head.cookie_is("c", right), "-");
    }
}
