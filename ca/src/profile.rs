//! Pure. The fields of every certificate that this mesh signs: nothing in them comes from whoever asks but the key.

use std::{net::IpAddr, time::Duration};

use model::{
    identity::{SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    trust::BACKDATE,
};
use rustls_pki_types::UnixTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a root is valid.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// How long an intermediate is valid; a new one follows at half of it.
pub const INTERMEDIATE_LIFE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long a leaf is valid unless configured otherwise: renewed within a third, so that 48 h are left when the
/// control plane dies.
pub const TTL_DEFAULT: Duration = Duration::from_secs(72 * 60 * 60);
/// The shortest life of a leaf: a third of it is still long against an outage of minutes.
pub const TTL_MIN: Duration = Duration::from_secs(60 * 60);
/// The longest life of a leaf: how long distrust must be remembered.
pub const TTL_MAX: Duration = Duration::from_secs(7 * DAY.as_secs());

/// How long a leaf is valid, within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(Duration);

/// A life outside the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificates may live from 1h to 7d, not {0:?}")]
pub struct TtlError(Duration);

impl Ttl {
    /// A life of `ttl`, if that is from [`TTL_MIN`] to [`TTL_MAX`].
    pub fn new(ttl: Duration) -> Result<Self, TtlError> {
        if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(Self(ttl)) } else { Err(TtlError(ttl)) }
    }

    /// As a duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self(TTL_DEFAULT)
    }
}

/// A certificate's serial number: 127 random bits, positive and 16 octets long (RFC 5280 §4.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// From 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Self(bytes)
    }

    /// The octets, the highest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Eight hex digits that tell authorities apart for readers.
    fn short(self) -> String {
        model::token::hex(&self.0[..4])
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To sign certificates, with at most so many signing certificates below it.
    Authority {
        /// The pathLenConstraint; `None` is unlimited.
        path_len: Option<u8>,
    },
    /// To identify: digitalSignature, serverAuth and clientAuth.
    Leaf,
}

/// All that a certificate says, but for key, serial number and issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Subject: common name.
    pub common_name: Option<String>,
    /// Subject: organisational unit. The node for which a leaf is signed; distrusting that node finds it here.
    pub unit: Option<Name>,
    /// The one URI SAN.
    pub uri: String,
    /// DNS SANs.
    pub dns: Vec<String>,
    /// IP SANs.
    pub addresses: Vec<IpAddr>,
    /// Basic constraints, key usage, extended key usage.
    pub purpose: Purpose,
    /// From when it is valid: [`BACKDATE`] before it is signed.
    pub not_before: UnixTime,
    /// Until when it is valid.
    pub not_after: UnixTime,
}

impl Fields {
    /// A root of `domain`: signs only intermediates, though its path length leaves that to them.
    pub fn root(domain: &TrustDomain, serial: Serial, now: UnixTime) -> Self {
        let fields = authority(domain, format!("mesh root {}", serial.short()), now, ROOT_LIFE);
        Self { purpose: Purpose::Authority { path_len: Some(1) }, ..fields }
    }

    /// The intermediate of member `member`. It has no name constraints: rustls-webpki refuses those of type URI.
    pub fn intermediate(domain: &TrustDomain, member: u64, serial: Serial, now: UnixTime) -> Self {
        authority(domain, format!("meshd-{member} {}", serial.short()), now, INTERMEDIATE_LIFE)
    }

    /// A leaf for member `member` of the control plane, under the names and addresses by which it is dialled.
    pub fn meshd(domain: &TrustDomain, member: u64, names: &[String], ttl: Ttl, now: UnixTime) -> Self {
        let addresses: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let dns = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let fields = leaf(&SpiffeId::meshd(domain, member), None, ttl, now);
        Self { common_name: Some(format!("meshd-{member}")), dns, addresses, ..fields }
    }

    /// A leaf for a node's proxy.
    pub fn node(domain: &TrustDomain, node: &Name, ttl: Ttl, now: UnixTime) -> Self {
        leaf(&SpiffeId::node(domain, node), Some(node), ttl, now)
    }

    /// A leaf for a service that runs on `node`.
    pub fn service(
        domain: &TrustDomain,
        service: &ServiceName,
        node: &Name,
        ttl: Ttl,
        now: UnixTime,
    ) -> Self {
        leaf(&SpiffeId::service(domain, service), Some(node), ttl, now)
    }

    /// The same, ending with its issuer at the latest.
    pub fn within(self, issuer_not_after: UnixTime) -> Self {
        Self { not_after: self.not_after.min(issuer_not_after), ..self }
    }
}

fn leaf(id: &SpiffeId, node: Option<&Name>, ttl: Ttl, now: UnixTime) -> Fields {
    Fields {
        common_name: None,
        unit: node.cloned(),
        uri: id.to_string(),
        dns: Vec::new(),
        addresses: Vec::new(),
        purpose: Purpose::Leaf,
        not_before: before(now),
        not_after: after(now, ttl.get()),
    }
}

fn authority(domain: &TrustDomain, common_name: String, now: UnixTime, life: Duration) -> Fields {
    Fields {
        common_name: Some(common_name),
        unit: None,
        uri: format!("spiffe://{domain}"),
        dns: Vec::new(),
        addresses: Vec::new(),
        purpose: Purpose::Authority { path_len: Some(0) },
        not_before: before(now),
        not_after: after(now, life),
    }
}

fn before(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()).saturating_sub(BACKDATE))
}

fn after(now: UnixTime, life: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()).saturating_add(life))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn lives_are_bounded() {
        let hours = |hours: u64| Ttl::new(Duration::from_secs(hours * 3_600));
        assert!(hours(1).is_ok() && hours(72).is_ok() && hours(168).is_ok());
        assert!(hours(0).is_err() && hours(169).is_err());
        assert_eq!(Ttl::default().get(), Duration::from_secs(72 * 3_600));
    }

    #[test]
    fn times_are_five_minutes_back_and_never_beyond_the_issuer() {
        let node = "host-a".parse().expect("a name");
        let domain = "mesh.internal".parse().expect("a domain");
        let fields = Fields::node(&domain, &node, Ttl::default(), at(1_000_000));
        assert_eq!((fields.not_before, fields.not_after), (at(999_700), at(1_000_000 + 72 * 3_600)));
        assert_eq!(fields.clone().within(at(1_000_500)).not_after, at(1_000_500));
        assert_eq!(fields.clone().within(at(9_000_000)), fields);
    }

    #[test]
    fn a_meshd_s_names_and_addresses_are_told_apart() {
        let domain = "mesh.internal".parse().expect("a domain");
        let names = ["cp1".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
        let fields = Fields::meshd(&domain, 7, &names, Ttl::default(), at(1_000_000));
        assert_eq!(fields.uri, "spiffe://mesh.internal/meshd/7");
        assert_eq!(fields.dns, ["cp1", "localhost"]);
        assert_eq!(fields.addresses.len(), 2);
        assert_eq!(fields.unit, None, "no node can be mistaken for it");
    }

    #[test]
    fn serials_are_positive_and_sixteen_octets_long() {
        for bytes in [[0; 16], [0xff; 16]] {
            let first = Serial::from_random(bytes).as_bytes()[0];
            assert!((0x40..0x80).contains(&first), "{first:x}");
        }
    }
}
