//! Pure. Heads between bytes, as `traffic::http1` reads and writes them, and the types that the spines look at.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, header::InvalidHeaderName, request,
    response, uri::PathAndQuery,
};
use traffic::{
    headers,
    http1::{self, FIELDS_MAX, Field, Length, Malformed},
};

use super::{line::Question, serve::Edge};
use crate::{heads, telemetry::trace};

/// Fields that are mostly added to a request of an application on its way: its id, its trace and its port. More make its map
/// grow. Another proxy's loses more than it gets.
const FIELDS_ADDED: usize = 3;

/// What is left to know of a request beside its head.
pub(super) struct Framing {
    pub(super) body: Length,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// A request's head.
pub(super) fn request(head: Bytes, edge: Edge) -> Result<(request::Parts, Framing), Malformed> {
    let mut spare = http1::spare();
    let read = http1::Request::read(&head, &mut spare)?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(read.method.as_bytes()).map_err(|_| Malformed::Target)?;
    let target = head.slice_ref(read.target.as_bytes());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_| Malformed::Target)?;
    if read.target.contains("://")
        && parts.uri.path_and_query().is_some_and(|path| path.as_str().starts_with('?'))
    {
        parts.uri = with_a_path(parts.uri)?;
    }
    if read.version == http1::Version::Http10 {
        parts.version = Version::HTTP_10;
    }
    let added = if edge == Edge::App { FIELDS_ADDED } else { 0 };
    parts.headers = map(read.fields, &head, added)?;
    let (body, keep_alive, expects_continue) = (read.body, read.keep_alive, read.expects_continue);
    Ok((parts, Framing { body, keep_alive, expects_continue }))
}

/// A URI that has a query and no path has the path `/` (RFC 9112 §3.2.1).
fn with_a_path(uri: Uri) -> Result<Uri, Malformed> {
    let mut parts = uri.into_parts();
    let path = format!("/{}", parts.path_and_query.as_ref().map_or("", PathAndQuery::as_str));
    parts.path_and_query = Some(path.parse().map_err(|_| Malformed::Target)?);
    Uri::from_parts(parts).map_err(|_| Malformed::Target)
}

/// An answer's head, how long its body is, and whether the connection may be used again.
pub(super) fn answer(head: &Bytes, method: &Method) -> Result<(response::Parts, Length, bool), Malformed> {
    let mut spare = http1::spare();
    let read = http1::Answer::read(head, method.as_str(), &mut spare)?;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = read.status.try_into().map_err(|_| Malformed::Status(read.status))?;
    parts.headers = map(read.fields, head, 0)?;
    Ok((parts, read.body, read.keep_alive))
}

/// The trailers that are kept; `None` if there are none.
pub(super) fn trailers(lines: Bytes) -> Result<Option<HeaderMap>, Malformed> {
    if lines.is_empty() {
        return Ok(None);
    }
    let mut room = [Field { name: "", value: b"" }; FIELDS_MAX];
    let mut trailers = map(http1::fields(&lines, &mut room)?, &lines, 0)?;
    let dropped = |name: &&HeaderName| !headers::is_trailer(name.as_str());
    let dropped: Vec<HeaderName> = trailers.keys().filter(dropped).cloned().collect();
    dropped.iter().for_each(|name| drop(trailers.remove(name)));
    Ok(Some(trailers).filter(|trailers| !trailers.is_empty()))
}

fn map(fields: http1::Fields<'_, '_>, head: &Bytes, added: usize) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::with_capacity(fields.len() + added);
    for field in fields {
        let name = name(field.name).map_err(|_| Malformed::Field)?;
        let value =
            HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Malformed::Field)?;
        map.append(name, value);
    }
    Ok(map)
}

/// A field's name. Those that most heads have, and HTTP does not know, are not made anew each time.
pub(crate) fn name(text: &str) -> Result<HeaderName, InvalidHeaderName> {
    Ok(match text {
        "traceparent" => trace::TRACEPARENT,
        "x-request-id" => trace::REQUEST_ID,
        headers::PORT => heads::PORT,
        "x-mesh-endpoint" => heads::ENDPOINT,
        headers::DEADLINE => heads::DEADLINE,
        "x-mesh-http2" => heads::SPOKE_HTTP2,
        "grpc-status" => heads::GRPC_STATUS,
        "grpc-message" => heads::GRPC_MESSAGE,
        _ => HeaderName::from_bytes(text.as_bytes())?,
    })
}

/// A question's head. Its target is a URI where its authority is known: another proxy tells by it whom it is for.
pub(super) fn write_question(out: &mut Vec<u8>, question: &Question<'_>) {
    let head = question.head;
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    http1::request_line(out, head.method.as_str(), authority, path);
    if let Some(authority) = authority {
        http1::field(out, header::HOST.as_str(), authority.as_bytes());
    }
    for (name, value) in &head.headers {
        if !(frames(name) || authority.is_some() && name == header::HOST) {
            http1::field(out, name.as_str(), value.as_bytes());
        }
    }
    if let Some(endpoint) = question.endpoint {
        http1::field(out, heads::ENDPOINT.as_str(), endpoint.as_bytes());
    }
}

/// An answer's head, but for what says how long its body is.
pub(super) fn write_answer(out: &mut Vec<u8>, head: &response::Parts) {
    http1::status_line(out, head.status.as_u16(), head.status.canonical_reason().unwrap_or_default());
    for (name, value) in &head.headers {
        if !frames(name) {
            http1::field(out, name.as_str(), value.as_bytes());
        }
    }
}

/// Trailers, and the end of the body.
pub(super) fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if headers::is_trailer(name.as_str()) {
            http1::field(out, name.as_str(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// How long what rides says that its body is.
pub(super) fn write_length(out: &mut Vec<u8>, fields: &HeaderMap) {
    if let Some(said) = fields.get(header::CONTENT_LENGTH) {
        http1::field(out, heads::LENGTH.as_str(), said.as_bytes());
    }
}

/// How long a head says that its body is.
pub(super) fn said_length(fields: &HeaderMap) -> Option<u64> {
    let mut values = fields.get_all(header::CONTENT_LENGTH).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// It is written by who knows the body.
fn frames(name: &HeaderName) -> bool {
    name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_whichever_way_it_is_made() {
        let known = [
            trace::TRACEPARENT,
            trace::REQUEST_ID,
            heads::PORT,
            heads::ENDPOINT,
            heads::DEADLINE,
            heads::SPOKE_HTTP2,
            heads::GRPC_STATUS,
            heads::GRPC_MESSAGE,
        ];
        for want in known {
            assert_eq!(name(want.as_str()).expect("a name"), want);
            assert_eq!(name(&want.as_str().to_ascii_uppercase()).expect("a name"), want);
        }
        assert!(name("x y").is_err());
    }
}
