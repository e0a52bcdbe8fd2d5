//! Pure. Heads and trailers between `traffic::http2` and the types that the spines look at.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request, response};
use traffic::{
    headers,
    http2::{Answer, Broken, Field, Writer},
};

use crate::http1::field_name;

/// Fields that are mostly added to an answer on its way.
const FIELDS_ADDED: usize = 2;

/// A request's head. `length` is that of its body, where it is known.
pub(super) fn write(writer: &mut Writer, head: &request::Parts, length: Option<u64>) {
    let scheme = head.uri.scheme_str().unwrap_or("http");
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    writer.request(head.method.as_str(), scheme, authority, path);
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_connections(name)) {
        writer.field(name.as_str(), value.as_bytes(), value.is_sensitive());
    }
    let said = head.headers.contains_key(header::CONTENT_LENGTH);
    if let Some(length) = length.filter(|length| !said && (*length > 0 || brings(&head.method))) {
        let mut digits = itoa::Buffer::new();
        writer.field(header::CONTENT_LENGTH.as_str(), digits.format(length).as_bytes(), false);
    }
}

/// Methods that mean to bring something say that it is nothing (RFC 9110 §8.6).
fn brings(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::OPTIONS | Method::TRACE
    )
}

/// HTTP/2 has none of these (RFC 9113 §8.2.2).
fn is_connections(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

/// A request's trailers.
pub(super) fn trailers(trailers: &HeaderMap) -> Writer {
    let mut writer = Writer::default();
    for (name, value) in trailers.iter().filter(|(name, _)| headers::is_trailer(name.as_str())) {
        writer.field(name.as_str(), value.as_bytes(), value.is_sensitive());
    }
    writer
}

/// An answer's head, and how long it says that its body is.
pub(super) fn answer(answer: Answer) -> Result<(response::Parts, Option<u64>), String> {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.version = http::Version::HTTP_2;
    head.status = answer.status.try_into().map_err(|_| "the answer's status is none".to_owned())?;
    head.headers = read(answer.fields, FIELDS_ADDED).map_err(|broken| broken.to_string())?;
    Ok((head, answer.length))
}

/// Fields as they came; a map of them has room for some more.
pub(super) fn read(fields: Vec<Field>, added: usize) -> Result<HeaderMap, Broken> {
    let mut map = HeaderMap::with_capacity(fields.len() + added);
    for field in fields {
        let name = std::str::from_utf8(&field.name).ok().and_then(|name| field_name(name).ok());
        let name = name.ok_or(Broken::Malformed("a name has what none may have"))?;
        let value = HeaderValue::from_maybe_shared(field.value);
        let value = value.map_err(|_| Broken::Malformed("a value has what none may have"))?;
        map.try_append(name, value).map_err(|_| Broken::Malformed("it has too many fields"))?;
    }
    Ok(map)
}
