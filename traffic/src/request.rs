//! Pure. A request's head as the decisions see it: borrowed from whatever parsed it. Bodies are never looked at.

use std::borrow::Cow;

use crate::path::NormalPath;

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
    /// The value of a field, several lines of it joined by `, ` (RFC 9110 §5.3), if it is there and is text.
    pub(crate) fn with_field<T>(&self, name: &str, judge: impl FnOnce(Option<&str>) -> T) -> T {
        let (mut lines, mut joined) = (0, Vec::new());
        self.fields.each(name, &mut |value| {
            if lines > 0 {
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(value);
            lines += 1;
        });
        judge(if lines == 0 { None } else { std::str::from_utf8(&joined).ok() })
    }

    /// The value of the first query parameter of that name, decoded as forms are (`+` is a space).
    pub(crate) fn query_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.path.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut named = pairs.filter(|(own, _)| form_decoded(own).as_deref() == Some(name));
        named.next().and_then(|(_, value)| form_decoded(value))
    }

    /// The value of the first cookie of that name (RFC 6265 §4.2; HTTP/2 may spread them over several fields).
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let mut found = None;
        self.fields.each("cookie", &mut |line| {
            let Ok(line) = std::str::from_utf8(line) else { return };
            let pairs = line.split(';').filter_map(|pair| pair.split_once('='));
            let mut named = pairs.filter(|(own, _)| own.trim() == name).map(|(_, value)| value.trim());
            if found.is_none() {
                found = named.next().map(str::to_owned);
            }
        });
        found
    }
}

/// `None` where what is escaped is no text.
fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = if bytes[at] == b'%' { escaped_byte(&bytes[at..]) } else { None };
        decoded.push(escaped.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
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

    #[track_caller]
    fn check<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
        target: &str,
        fields: &[(&str, &str)],
        ask: impl FnOnce(&RequestHead<'_>) -> T,
        want: U,
    ) {
        struct Pairs<'a>(&'a [(&'a str, &'a str)]);
        impl Fields for Pairs<'_> {
            fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
                self.0.each(name, each);
            }
        }
        let path = path::normalize(target, Strictness::Plain).expect("a path");
        assert_eq!(
            ask(&RequestHead { method: "GET", path: &path, authority: "", fields: &Pairs(fields) }),
            want
        );
    }

    fn joined(name: &'static str) -> impl FnOnce(&RequestHead<'_>) -> Option<String> {
        move |head| head.with_field(name, |value| value.map(str::to_owned))
    }

    #[test]
    fn lines_of_one_field_are_joined() {
        check("/", &[("X-A", "1"), ("x-b", "2"), ("x-a", "3")], joined("x-a"), Some("1, 3".to_owned()));
        check("/", &[("x-b", "")], joined("x-b"), Some(String::new()));
        check("/", &[("x-b", "")], joined("x-a"), None::<String>);
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts_and_is_decoded() {
        let value = |name: &'static str| {
            move |head: &RequestHead<'_>| head.query_parameter(name).map(Cow::into_owned)
        };
        check("/?a=1&b=2&a=3", &[], value("a"), Some("1".to_owned()));
        check("/?a%20b=x%2By+z", &[], value("a b"), Some("x+y z".to_owned()));
        check("/?flag&b", &[], value("b"), Some(String::new()));
        check("/?a=100%", &[], value("a"), Some("100%".to_owned()));
        check("/?a=%ff", &[], value("a"), None::<String>);
        check("/", &[], value("a"), None::<String>);
    }

    #[test]
    fn the_first_cookie_of_a_name_counts_over_all_fields() {
        let fields = [("Cookie", "a=1; session=x=y"), ("cookie", "b=2; a=9")];
        let value = |name: &'static str| move |head: &RequestHead<'_>| head.cookie(name);
        check("/", &fields, value("a"), Some("1".to_owned()));
        check("/", &fields, value("session"), Some("x=y".to_owned()));
        check("/", &fields, value("b"), Some("2".to_owned()));
        check("/", &fields, value("c"), None::<String>);
    }
}
