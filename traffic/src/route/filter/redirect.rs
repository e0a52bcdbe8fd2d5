//! Pure. A redirect: the request's own address with parts of it replaced (Gateway API, HTTPRequestRedirectFilter). What
//! came to a listener of ours came over `http`, and the port that its authority names is the listener's.

use std::sync::Arc;

use model::{
    invalid::FieldError,
    resource::{RedirectScheme, RequestRedirect},
};

use super::{Reply, rewrite::Replace};
use crate::request::RequestHead;

#[derive(Debug)]
pub(super) struct Redirect {
    scheme: Option<RedirectScheme>,
    hostname: Option<String>,
    port: Option<u16>,
    path: Option<Replace>,
    status: u16,
}

impl Redirect {
    pub(super) fn new(
        spec: &RequestRedirect,
        prefix: Option<&str>,
        at: &str,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        Self {
            scheme: spec.scheme,
            hostname: spec.hostname.as_ref().map(|host| host.as_str().to_owned()),
            port: spec.port.map(|port| port.value() as u16),
            path: spec.path.as_ref().map(|path| Replace::new(path, prefix, at, errors)),
            status: spec.status_code.value() as u16,
        }
    }

    pub(super) fn reply(&self, head: &RequestHead<'_>) -> Reply {
        let location = ("location".to_owned(), self.location(head));
        Reply { status: self.status, fields: vec![location], body: Arc::default() }
    }

    fn location(&self, head: &RequestHead<'_>) -> String {
        let target = match &self.path {
            Some(replace) => replace.target(head.path),
            None => head.path.path_and_query().to_owned(),
        };
        let (asked, asked_port) = split(head.authority);
        let host = self.hostname.as_deref().unwrap_or(asked);
        if host.is_empty() {
            // The request names no host: the address stays relative (RFC 9110 §10.2.2).
            return target;
        }
        let scheme = self.scheme.unwrap_or(RedirectScheme::Http);
        let port = self.port.or(if self.scheme.is_none() { asked_port } else { None });
        match port.filter(|port| *port != well_known(scheme)) {
            Some(port) => format!("{scheme}://{host}:{port}{target}"),
            None => format!("{scheme}://{host}{target}"),
        }
    }
}

fn well_known(scheme: RedirectScheme) -> u16 {
    match scheme {
        RedirectScheme::Http => 80,
        RedirectScheme::Https => 443,
    }
}

/// Host and port of an authority; the host of an IPv6 address keeps its brackets.
fn split(authority: &str) -> (&str, Option<u16>) {
    let parts = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let parts = parts.filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    parts.map_or((authority, None), |(host, port)| (host, Some(port)))
}
