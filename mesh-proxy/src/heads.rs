//! Pure. Heads of requests and answers between one hop and the next: what is taken off, what is set, how the target is
//! written. Which fields those are is decided in `traffic::headers`.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request, response,
    uri::{Authority, PathAndQuery, Scheme},
};
use model::resource::Protocol;
use traffic::{
    deadline,
    headers::{self, Leg},
    policy::Permit,
    rate::Told,
    request::Fields,
    retry,
    route::{Edits, FieldsMut, Reply},
};

use crate::{short, telemetry::Spoken};

/// Between proxies: the Endpoint that was picked, as a host may run several of one service.
pub const ENDPOINT: HeaderName = HeaderName::from_static("x-mesh-endpoint");
/// Between proxies: the caller spoke HTTP/2, and a port of protocol `auto` is to be spoken to likewise.
pub const SPOKE_HTTP2: HeaderName = HeaderName::from_static("x-mesh-http2");

/// Between proxies, of what is HTTP/2 and rides in HTTP/1.1: the Content-Length that it has. There it would leave no room for
/// trailers.
pub const LENGTH: HeaderName = HeaderName::from_static("x-mesh-content-length");

/// gRPC's status, in trailers or in a head alone.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What it says beside.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Between proxies: how long the caller waits.
pub const DEADLINE: HeaderName = HeaderName::from_static(headers::DEADLINE);
/// Between proxies: the service's port.
pub const PORT: HeaderName = HeaderName::from_static(headers::PORT);
/// Says that a request did not reach the application, and why.
pub const UNSENT: HeaderName = HeaderName::from_static(headers::UNSENT);
const CLIENT_CERT: HeaderName = HeaderName::from_static(headers::FORWARDED_CLIENT_CERT);

/// A head's fields, as the decisions look at them.
pub struct Seen<'a>(pub &'a HeaderMap);

impl Fields for Seen<'_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.get_all(name).iter().for_each(|value| each(value.as_bytes()));
    }
}

/// A head's fields, as the decisions change them. What they name was checked when the route was written; what all the
/// same is no field is passed over.
pub struct Changed<'a>(pub &'a mut HeaderMap);

impl FieldsMut for Changed<'_> {
    fn set(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = field(name, value) {
            self.0.insert(name, value);
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = field(name, value) {
            self.0.append(name, value);
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}

/// The head of an answer that a route's rule has by itself.
pub fn own_answer(reply: &Reply) -> response::Parts {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::OK);
    let mut fields = Changed(&mut head.headers);
    reply.fields.iter().for_each(|(name, value)| fields.add(name, value));
    head
}

/// The host that a request is for: of its target, or of its Host field; empty if it says none.
pub fn authority(head: &request::Parts) -> &str {
    let host = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(Authority::as_str).or_else(host).unwrap_or_default()
}

/// The path and query of a request, as sent.
pub fn target(head: &request::Parts) -> &str {
    path_of(&head.uri)
}

/// The same, of its target by itself.
pub fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// Whether a request wants to leave HTTP (RFC 9110 §7.8).
pub fn is_upgrade(head: &request::Parts) -> bool {
    let values = head.headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let asked = headers::named_by_connection(values).any(|name| name.eq_ignore_ascii_case("upgrade"));
    head.version == Version::HTTP_11 && asked && leaves_http(&head.headers) && !has_body(&head.headers)
}

/// Whether a request of HTTP/1.1 has a body. One that leaves HTTP has none: where the body ends and the other protocol
/// begins is nothing that two readers should have to agree on.
fn has_body(fields: &HeaderMap) -> bool {
    let length = fields.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || fields.contains_key(header::TRANSFER_ENCODING)
}

/// Whether what is upgraded to is no HTTP. Requests that an application took off a connection itself would be requests
/// that we never saw, with whatever headers they please: who offers `h2c` is served in HTTP/1.1 (RFC 9110 §7.8).
fn leaves_http(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(header::UPGRADE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let mut names = values
        .map(|value| value.split(|&byte| byte == b'/').next().unwrap_or_default().trim_ascii())
        .peekable();
    let http =
        |name: &[u8]| [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|own| name.eq_ignore_ascii_case(own));
    names.peek().is_some() && !names.any(http)
}

/// Why a head cannot be sent on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host '{0}' is none that a request can be for")]
pub struct BadHost(pub String);

/// Where a request goes, as its head for the next proxy says it.
pub struct ToPeer<'a> {
    /// Path and query in their one form, as the route has them forwarded.
    pub path: &'a str,
    /// The host, where the route says another than the request's.
    pub host: Option<&'a str>,
    /// The destination's host name, where the request names no host.
    pub hostname: &'a str,
    /// The service's port.
    pub port: u16,
    /// What the route does to the fields.
    pub edits: &'a Edits,
}

/// A request's head for the next proxy; the endpoint is set for each try.
///
/// # Errors
/// If its host cannot be written.
pub fn to_peer(head: request::Parts, to: &ToPeer<'_>) -> Result<request::Parts, BadHost> {
    let upgrade = is_upgrade(&head).then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    let host = match to.host {
        Some(host) => parsed(host)?,
        None if authority(&head).is_empty() => parsed(to.hostname)?,
        None => asked(&head)?,
    };
    let mut next = head;
    next.extensions = http::Extensions::new();
    strip(&mut next.headers, Leg::RequestOut);
    to.edits.apply(&mut Changed(&mut next.headers));
    if next.version == Version::HTTP_2 {
        next.headers.insert(SPOKE_HTTP2, HeaderValue::from_static("1"));
    }
    next.headers.remove(header::EXPECT);
    set_port(&mut next, to.port);
    set_target(&mut next, host, to.path, upgrade.is_none())?;
    if let Some(upgrade) = upgrade {
        set_upgrade(&mut next.headers, upgrade);
    }
    Ok(next)
}

/// Makes a head for another proxy one for another port.
pub fn set_port(head: &mut request::Parts, port: u16) {
    let digits = short::copied(itoa::Buffer::new().format(port).as_bytes());
    head.headers.insert(PORT, HeaderValue::from_maybe_shared(digits.freeze()).expect("digits"));
}

/// Says in a head for another proxy how long its answer is waited for.
pub fn set_deadline(head: &mut request::Parts, left: Duration) {
    head.headers.insert(DEADLINE, HeaderValue::from(deadline::between_proxies(left)));
}

/// Whether a request for another proxy came in HTTP/2.
pub fn came_in_http2(head: &request::Parts) -> bool {
    head.headers.contains_key(SPOKE_HTTP2)
}

/// Makes a request that rode in HTTP/1.1 the one of HTTP/2 that it was.
pub fn restore_request(head: &mut request::Parts) {
    if came_in_http2(head) && head.uri.authority().is_some() {
        head.version = Version::HTTP_2;
        head.headers.remove(header::HOST);
        restore_framing(&mut head.headers);
    }
}

/// The same for its answer.
pub fn restore_answer(head: &mut response::Parts) {
    restore_framing(&mut head.headers);
}

fn restore_framing(fields: &mut HeaderMap) {
    fields.remove(header::TRANSFER_ENCODING);
    fields.remove(header::CONTENT_LENGTH);
    let said = fields.remove(LENGTH).filter(|said| said.as_bytes().iter().all(u8::is_ascii_digit));
    if let Some(said) = said {
        fields.insert(header::CONTENT_LENGTH, said);
    }
}

/// What a request from another proxy says of itself, beside what an application sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The service's port.
    pub port: Option<u16>,
    /// The Endpoint's name, if it is one.
    pub endpoint: Option<HeaderValue>,
    /// The caller spoke HTTP/2.
    pub spoke_http2: bool,
    /// How long the answer's head is waited for.
    pub deadline: Option<Duration>,
}

/// Reads what another proxy said.
pub fn labels(fields: &HeaderMap) -> Labels {
    Labels {
        port: fields.get(PORT).and_then(|value| headers::port(value.as_bytes())),
        endpoint: fields.get(ENDPOINT).cloned(),
        spoke_http2: fields.contains_key(SPOKE_HTTP2),
        deadline: fields.get(DEADLINE).and_then(|value| deadline::of_proxy(value.as_bytes())),
    }
}

/// A request's head for the application, in HTTP/2 or HTTP/1.1. It says who called, by the proof that it may.
///
/// # Errors
/// If its host cannot be written.
pub fn to_app(
    head: request::Parts,
    path: &str,
    permit: &Permit,
    http2: bool,
) -> Result<request::Parts, BadHost> {
    let upgrade = is_upgrade(&head).then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    let host = asked(&head)?;
    let mut next = head;
    next.extensions = http::Extensions::new();
    strip(&mut next.headers, Leg::RequestIn);
    if let Some(id) = permit.id() {
        let caller = HeaderValue::try_from(headers::client_cert(id)).expect("a SPIFFE id is ASCII");
        next.headers.insert(CLIENT_CERT, caller);
    }
    set_target(&mut next, host, path, http2)?;
    if let Some(upgrade) = upgrade {
        set_upgrade(&mut next.headers, upgrade);
    }
    Ok(next)
}

/// Turns a request's head for another proxy into one for the application itself, which learns nothing of the caller.
///
/// # Errors
/// If its host cannot be written.
pub fn to_plain(head: request::Parts, protocol: Protocol) -> Result<request::Parts, BadHost> {
    let http2 = wants_http2(protocol, &head, head.headers.contains_key(SPOKE_HTTP2));
    let upgrade = is_upgrade(&head).then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    let (host, uri) = (asked(&head)?, head.uri.clone());
    let mut next = head;
    strip(&mut next.headers, Leg::RequestIn);
    set_target(&mut next, host, path_of(&uri), http2)?;
    if let Some(upgrade) = upgrade {
        set_upgrade(&mut next.headers, upgrade);
    }
    Ok(next)
}

/// Whether an application is spoken to in HTTP/2: where its port says so, or where the request cannot do without.
pub fn wants_http2(protocol: Protocol, head: &request::Parts, spoke_http2: bool) -> bool {
    match protocol {
        _ if is_upgrade(head) => false,
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Auto => spoke_http2,
        Protocol::Http | Protocol::Tcp | Protocol::Tls => {
            Spoken::of(head.version, &head.headers) == Spoken::Grpc
        }
    }
}

/// Takes off an answer's head what is not for the next hop.
pub fn answer(head: &mut response::Parts, leg: Leg) {
    let upgrade = (head.status == http::StatusCode::SWITCHING_PROTOCOLS)
        .then(|| head.headers.get(header::UPGRADE).cloned())
        .flatten();
    strip(&mut head.headers, leg);
    if let Some(upgrade) = upgrade {
        set_upgrade(&mut head.headers, upgrade);
    }
}

/// Why another proxy says that the request did not reach the application.
pub fn unsent(fields: &HeaderMap) -> Option<String> {
    fields.get(UNSENT).map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned())
}

/// Marks an answer: the request did not reach the application.
pub fn mark_unsent(fields: &mut HeaderMap, reason: &str) {
    let plain: String = reason.chars().filter(|c| (' '..='~').contains(c)).take(200).collect();
    fields.insert(UNSENT, HeaderValue::try_from(plain).expect("printable ASCII"));
}

/// What of an answer, to a call of gRPC or another one, bears on a retry.
pub fn for_retry<B>(answer: &http::Response<B>, grpc: bool) -> retry::Answer<'_> {
    // Most answers are fine, and are not looked into.
    let looked = grpc || answer.status().as_u16() >= 400;
    let value = |name| if looked { answer.headers().get(name) } else { None };
    let text = |name: HeaderName| value(name).and_then(|value| value.to_str().ok());
    retry::Answer {
        status: answer.status().as_u16(),
        grpc_status: text(GRPC_STATUS).and_then(|status| status.parse().ok()),
        retry_after: text(header::RETRY_AFTER),
    }
}

/// Says how often one may call (draft-ietf-httpapi-ratelimit-headers), beside what the application says of that.
pub fn tell_rate(fields: &mut HeaderMap, told: &Told) {
    let mut fields = Changed(fields);
    fields.add("ratelimit-policy", &told.policy);
    fields.add("ratelimit", &told.stand);
}

fn strip(fields: &mut HeaderMap, leg: Leg) {
    let values = fields.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    // These two are asked about below: gRPC's `te` goes on although Connection has to name it, and the other is mostly no field.
    let below = |name: &&str| ["te", "keep-alive"].iter().any(|own| name.eq_ignore_ascii_case(own));
    let named = headers::named_by_connection(values).filter(|name| !below(name));
    let named = named.filter(|name| fields.contains_key(*name)).filter_map(|name| name.parse().ok());
    let dropped = |(name, value): (&HeaderName, &HeaderValue)| {
        headers::is_dropped(leg, name.as_str(), value.as_bytes()).then(|| name.clone())
    };
    let dropped: Vec<HeaderName> = named.chain(fields.iter().filter_map(dropped)).collect();
    for name in dropped {
        fields.remove(name);
    }
}

fn set_upgrade(fields: &mut HeaderMap, upgrade: HeaderValue) {
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, upgrade);
}

/// Whom a request is for, by its target or its Host field.
fn asked(head: &request::Parts) -> Result<Authority, BadHost> {
    match head.uri.authority() {
        Some(host) if !host.as_str().contains('@') => Ok(host.clone()),
        Some(host) => Err(bad_host(host.as_str())),
        None => parsed(authority(head)),
    }
}

fn parsed(host: &str) -> Result<Authority, BadHost> {
    let authority = Authority::from_maybe_shared(short::copied(host.as_bytes()).freeze()).ok();
    let authority = authority.filter(|host| !host.as_str().contains('@'));
    authority.ok_or_else(|| bad_host(host))
}

fn bad_host(host: &str) -> BadHost {
    BadHost(host.chars().take(100).collect())
}

/// HTTP/2 wants an absolute target and no Host; HTTP/1.1 a path, and Host.
fn set_target(head: &mut request::Parts, host: Authority, path: &str, http2: bool) -> Result<(), BadHost> {
    let bad = || bad_host(host.as_str());
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = match head.uri.path_and_query() {
        Some(own) if own.as_str() == path => Some(own.clone()),
        _ => Some(path.parse().map_err(|_| bad())?),
    };
    if http2 {
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(host));
        head.headers.remove(header::HOST);
        head.version = Version::HTTP_2;
    } else {
        let mut said = head.headers.get_all(header::HOST).iter();
        // Between proxies it says both ways whom a request is for.
        if said.next().is_none_or(|said| said.as_bytes() != host.as_str().as_bytes()) || said.next().is_some()
        {
            head.headers.insert(header::HOST, HeaderValue::try_from(host.as_str()).map_err(|_| bad())?);
        }
        head.version = Version::HTTP_11;
    }
    head.uri = Uri::from_parts(parts).expect("a path, and a host with its scheme");
    // Cookies that HTTP/2 spread over fields are one again (RFC 9113 §8.2.3).
    if !http2 && head.headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> =
            head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            head.headers.insert(header::COOKIE, cookie);
        }
    }
    Ok(())
}

/// Whether a request is a tunnel (RFC 9110 §9.3.6).
pub fn is_connect(head: &request::Parts) -> bool {
    head.method == Method::CONNECT
}

#[cfg(test)]
mod tests;
