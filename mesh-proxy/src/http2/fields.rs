//! Pure. Heads and trailers between `traffic::http2` and the types that the spines look at.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request, response,
    uri::{Authority, PathAndQuery, Scheme},
};
use traffic::{
    headers,
    http2::{Answer, Broken, Field, Request, Writer},
};

use crate::http1::field_name;

/// Fields that are mostly added to an answer on its way, and to a request.
const FIELDS_ADDED: (usize, usize) = (2, 5);

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

/// An answer's head.
pub(super) fn write_answer(writer: &mut Writer, head: &response::Parts) {
    writer.status(head.status.as_u16());
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_connections(name)) {
        writer.field(name.as_str(), value.as_bytes(), value.is_sensitive());
    }
}

/// A request's head as it came, and how long it says that its body is.
pub(super) fn request(request: Request) -> Result<(request::Parts, Option<u64>), Broken> {
    const TARGET: Broken = Broken::Malformed("its target is none");
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.version = Version::HTTP_2;
    head.method = Method::from_bytes(&request.method).map_err(|_| Broken::Malformed("its method is none"))?;
    let mut uri = http::uri::Parts::default();
    let said = |text: &Bytes| Some(text.clone()).filter(|text| !text.is_empty());
    if let Some(scheme) = said(&request.scheme) {
        uri.scheme = Some(Scheme::try_from(&scheme[..]).map_err(|_| TARGET)?);
    }
    if let Some(authority) = said(&request.authority) {
        uri.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| TARGET)?);
    }
    if let Some(path) = said(&request.path) {
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| TARGET)?);
    }
    if uri.authority.is_none() {
        // Whom it is for says Host, if anything; a URI has no scheme without an authority.
        uri.scheme = None;
    }
    head.uri = Uri::from_parts(uri).map_err(|_| TARGET)?;
    head.headers = read(request.fields, FIELDS_ADDED.1)?;
    Ok((head, request.length))
}

/// A message's trailers.
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
    head.headers = read(answer.fields, FIELDS_ADDED.0).map_err(|broken| broken.to_string())?;
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
