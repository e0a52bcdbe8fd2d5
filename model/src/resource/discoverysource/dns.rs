//! Pure. What a DiscoverySource of type DNS looks up.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    resource::Port,
    shape::{Decoder, Path, Text, record},
};

/// As many services are looked up for one source.
const DNS_SERVICES_MAX: usize = 256;
/// The longest name, in bytes (RFC 1035 §2.3.4), as it is written.
const NAME_BYTES_MAX: usize = 253;
/// The longest part of one, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The port of DNS.
const PORT: u16 = 53;

record! {
    /// Names of DNS, looked up by the servers.
    pub struct DnsSource {
        /// Resolvers, as `ADDRESS` or `ADDRESS:PORT`: the next one is asked where one cannot say. Those of the server's host if left out.
        "servers" servers: Vec<Text<64>>,
        /// What is looked up; at least one, and at most 256.
        "services" services: Vec<DnsService>,
    }
}

record! {
    /// A service, by its name in DNS. Either `srv`, or `host` and `port`.
    pub struct DnsService {
        /// What it is called.
        "name" name: Text<255>,
        /// The name whose addresses (A, AAAA) its instances have.
        "host" host: Option<Text<255>>,
        /// Where they listen.
        "port" port: Option<Port>,
        /// The name whose SRV records say where instances are and listen, `_orders._tcp.example` say.
        "srv" srv: Option<Text<255>>,
    }
}

/// A resolver, as `servers` names it.
pub fn resolver(text: &str) -> Option<SocketAddr> {
    let plain = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    text.parse().ok().or_else(plain)
}

impl DnsSource {
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let servers_at = Path::Field(at, "servers");
        for (index, server) in self.servers.iter().enumerate() {
            if resolver(server.as_str()).is_none() {
                let message = format_args!("must be ADDRESS or ADDRESS:PORT, is {:?}", server.as_str());
                decoder.report(&Path::Index(&servers_at, index), message);
            }
        }
        let (services_at, count) = (Path::Field(at, "services"), self.services.len());
        if count == 0 {
            decoder.report(&services_at, "must have at least one");
        }
        if count > DNS_SERVICES_MAX {
            decoder.report(&services_at, format_args!("must have at most {DNS_SERVICES_MAX}, has {count}"));
        }
        let mut known = BTreeSet::new();
        for (index, service) in self.services.iter().enumerate() {
            let at = Path::Index(&services_at, index);
            service.check(&at, decoder);
            if !known.insert(service.name.as_str()) {
                decoder.report(&Path::Field(&at, "name"), "stands twice");
            }
        }
    }
}

impl DnsService {
    fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        if !matches!((&self.srv, &self.host, self.port), (Some(_), None, None) | (None, Some(_), Some(_))) {
            decoder.report(at, "must have either srv, or host and port");
        }
        for (field, name) in [("host", &self.host), ("srv", &self.srv)] {
            let odd = name.as_ref().filter(|name| !is_name(name.as_str()));
            if let Some(name) = odd {
                let message = format_args!("must be a name of DNS, is {:?}", name.as_str());
                decoder.report(&Path::Field(at, field), message);
            }
        }
    }
}

/// Whether it is a name of DNS, as it is written.
pub(super) fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(plain);
    text.len() <= NAME_BYTES_MAX && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_an_address_with_or_without_a_port() {
        for (text, want) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("10.0.0.53:5353", Some("10.0.0.53:5353")),
            ("fd00::53", Some("[fd00::53]:53")),
            ("[fd00::53]:5353", Some("[fd00::53]:5353")),
            ("ns.example", None),
            ("", None),
        ] {
            assert_eq!(resolver(text).map(|at| at.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn names_are_what_dns_has() {
        for name in ["a", "orders.example", "orders.example.", "_orders._tcp.EXAMPLE"] {
            assert!(is_name(name), "{name}");
        }
        let (long, longer) = ("a".repeat(64), "a.".repeat(128));
        for name in ["", ".", "a..b", "a b", "ä.example", "a*", long.as_str(), longer.as_str()] {
            assert!(!is_name(name), "{name}");
        }
    }
}
