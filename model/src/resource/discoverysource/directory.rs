//! Pure. What holds of all directories that are asked over HTTP.

use std::net::IpAddr;

use crate::shape::{Decoder, Path, Text};

/// What a server reads must not depend on where it was started.
pub(super) fn absolute(path: &Text<4096>, at: &Path<'_>, decoder: &mut Decoder) {
    if !path.as_str().starts_with('/') {
        decoder.report(at, format_args!("must be an absolute path, is {:?}", path.as_str()));
    }
}

/// A certificate goes with its key.
pub(super) fn pair(
    (cert_file, key_file): (&Option<Text<4096>>, &Option<Text<4096>>),
    at: &Path<'_>,
    decoder: &mut Decoder,
) {
    for (field, path) in [("certFile", cert_file), ("keyFile", key_file)] {
        path.iter().for_each(|path| absolute(path, &Path::Field(at, field), decoder));
    }
    match (cert_file, key_file) {
        (Some(_), None) => decoder.report(&Path::Field(at, "keyFile"), "is required with certFile"),
        (None, Some(_)) => decoder.report(&Path::Field(at, "certFile"), "is required with keyFile"),
        _ => {}
    }
}

/// The address of an HTTP API, `path` if one may stand in it. A secret goes over TLS, or stays on the server's own host.
pub(super) fn address(text: &str, (path, secret): (bool, bool), at: &Path<'_>, decoder: &mut Decoder) {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.trim_end_matches('/'));
    let host = rest.map(|rest| if path { rest.split('/').next().unwrap_or_default() } else { rest });
    let odd = |text: &str| text.contains(['@', '?', '#', ' ']);
    if host.is_none_or(|host| host.is_empty() || host.contains('/')) || rest.is_some_and(odd) {
        decoder.report(at, format_args!("must be https://HOST:PORT, or http://HOST:PORT, is {text:?}"));
        return;
    }
    if secret && text.starts_with("http://") && !host.is_some_and(is_own_host) {
        decoder.report(at, "must be https:// where a token is sent to another host");
    }
}

/// Whether `HOST:PORT`, which a path may follow, is the server's own host.
pub fn is_own_host(host: &str) -> bool {
    let host = host.split('/').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_loopback_address_is_the_server_s_own() {
        for host in ["127.0.0.1", "127.8.0.1:80", "localhost:8500", "[::1]:8500", "127.0.0.1:80/a"] {
            assert!(is_own_host(host), "{host}");
        }
        for host in ["127.example:80", "localhost.example", "10.0.0.1", "[fd00::1]:80", ""] {
            assert!(!is_own_host(host), "{host}");
        }
    }
}
