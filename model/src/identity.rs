//! Pure. SPIFFE ids of the mesh: parse, print, classify. Certificates that carry them are the crate `svid`'s matter.
//!
//! Source: SPIFFE-ID standard §2 (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use crate::name::{Name, ServiceName, as_text};

/// The longest SPIFFE id that implementations must take (SPIFFE-ID §2.3), in bytes.
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;
/// The longest trust domain name (SPIFFE-ID §2.1), in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// A trust domain's name: lower-case letters, digits, `.`, `-`, `_`; 1 to 255 octets (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE id: `spiffe://<trust domain>/<path>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    domain: TrustDomain,
    path: Arc<Path>,
}

/// A path, with what it says: policy asks for that with each call.
struct Path {
    /// With its leading `/`; empty for the trust domain itself.
    text: Box<str>,
    identity: Identity,
}

/// Whom a SPIFFE id of this mesh stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// `/meshd/<id>`: a member of the control plane.
    Meshd(u64),
    /// `/node/<name>`: a host's proxy, towards the control plane.
    Node(Name),
    /// `/ns/<namespace>/svc/<name>`: a service, towards other services.
    Service(ServiceName),
    /// A valid SPIFFE id of another form.
    Other,
}

/// Why a text is not a SPIFFE id, or not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// The scheme is not `spiffe`.
    #[error("must start with spiffe://: '{0}' does not")]
    Scheme(String),
    /// No trust domain, or one longer than [`TRUST_DOMAIN_BYTES_MAX`].
    #[error("trust domain must have 1 to {TRUST_DOMAIN_BYTES_MAX} characters, has {0}")]
    DomainLength(usize),
    /// A character that a trust domain may not have (a port, user info and upper case among them).
    #[error("trust domain '{0}' may only have lower-case letters, digits, '.', '-' and '_'")]
    DomainCharacter(String),
    /// A path segment that is empty, `.`, `..`, or has another character than letters, digits, `.`, `-`, `_`.
    #[error(
        "path segment '{0}' must be letters, digits, '.', '-' and '_', and neither empty nor '.' nor '..'"
    )]
    Segment(String),
    /// Longer than [`SPIFFE_ID_BYTES_MAX`].
    #[error("must have at most {SPIFFE_ID_BYTES_MAX} bytes, has {0}")]
    Length(usize),
}

impl TrustDomain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(SpiffeIdError::DomainLength(text.len()));
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(SpiffeIdError::DomainCharacter(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl SpiffeId {
    /// The id of member `id` of the control plane.
    pub fn meshd(domain: &TrustDomain, id: u64) -> Self {
        Self { domain: domain.clone(), path: Path::new(&format!("/meshd/{id}")) }
    }

    /// The id of a host's proxy.
    pub fn node(domain: &TrustDomain, node: &Name) -> Self {
        Self { domain: domain.clone(), path: Path::new(&format!("/node/{node}")) }
    }

    /// The id of a service.
    pub fn service(domain: &TrustDomain, service: &ServiceName) -> Self {
        let path = format!("/ns/{}/svc/{}", service.namespace, service.name);
        Self { domain: domain.clone(), path: Path::new(&path) }
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The path, with its leading `/`; empty for a trust domain's own id.
    pub fn path(&self) -> &str {
        &self.path.text
    }

    /// Whom it stands for.
    pub fn identity(&self) -> &Identity {
        &self.path.identity
    }
}

impl Path {
    fn new(text: &str) -> Arc<Self> {
        let segments: Vec<&str> = text.split('/').skip(1).collect();
        let identity = Self::classify(&segments).unwrap_or(Identity::Other);
        Arc::new(Self { text: text.into(), identity })
    }

    fn classify(segments: &[&str]) -> Option<Identity> {
        match segments {
            ["meshd", id] => id.parse().ok().filter(|n: &u64| n.to_string() == *id).map(Identity::Meshd),
            ["node", node] => node.parse().ok().map(Identity::Node),
            ["ns", namespace, "svc", name] => {
                Some(Identity::Service(ServiceName::new(namespace.parse().ok()?, name.parse().ok()?)))
            }
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::Length(text.len()));
        }
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| SpiffeIdError::Scheme(text.to_owned()))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        for segment in path.split('/').skip(1) {
            if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(allowed) {
                return Err(SpiffeIdError::Segment(segment.to_owned()));
            }
        }
        Ok(Self { domain: domain.parse()?, path: Path::new(path) })
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Path {}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.domain, self.path.text)
    }
}

as_text!(TrustDomain, SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_they_parse_and_know_their_class() {
        let domain: TrustDomain = "mesh.internal".parse().expect("a domain");
        let service: ServiceName = "default/orders".parse().expect("a name");
        let node: Name = "shop-1".parse().expect("a name");
        let ids = [
            (SpiffeId::meshd(&domain, 3), "spiffe://mesh.internal/meshd/3", Identity::Meshd(3)),
            (
                SpiffeId::node(&domain, &node),
                "spiffe://mesh.internal/node/shop-1",
                Identity::Node(node.clone()),
            ),
            (
                SpiffeId::service(&domain, &service),
                "spiffe://mesh.internal/ns/default/svc/orders",
                Identity::Service(service),
            ),
        ];
        for (id, text, identity) in ids {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<SpiffeId>().expect("an id"), id);
            assert_eq!(*id.identity(), identity);
        }
    }

    #[test]
    fn other_paths_are_nobody_of_ours() {
        for text in [
            "spiffe://d",
            "spiffe://d/meshd/03",
            "spiffe://d/meshd/x",
            "spiffe://d/ns/A/svc/b",
            "spiffe://d/node/a/b",
        ] {
            assert_eq!(text.parse::<SpiffeId>().expect("a valid id").identity(), &Identity::Other, "{text}");
        }
    }

    #[test]
    fn the_standard_s_wrong_ids_are_refused() {
        let long = format!("spiffe://d/{}", "x".repeat(2_048));
        for text in [
            "",
            "http://d/a",
            "SPIFFE://d/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://D/a",
            "spiffe://d:80/a",
            "spiffe://u@d/a",
            "spiffe://d/",
            "spiffe://d/a/",
            "spiffe://d//a",
            "spiffe://d/./a",
            "spiffe://d/../a",
            "spiffe://d/%41",
            "spiffe://d/a?q",
            "spiffe://d/a#f",
            "spiffe://d/ä",
            &long,
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was taken");
        }
    }
}
