//! Pure. What a proxy or a server must know to judge a certificate: the roots, and what is distrusted although a root
//! vouches for it. How certificates are read and verified is the crate `svid`'s matter.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    answer,
    identity::{Identity, SpiffeId, TrustDomain},
    name::Name,
};

/// How far before the moment of signing a certificate's `notBefore` lies: a peer's clock may be this much behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

answer! {
    /// The body of `GET /v1/ca/bundle`, and the trust object that every proxy watches. Unknown fields are ignored, so that
    /// one version of skew works both ways.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TrustBundle {
        /// The domain that the roots vouch for.
        "trustDomain" pub trust_domain: TrustDomain,
        /// The cluster's history: generations of different epochs cannot be compared.
        "epoch" pub epoch: String,
        /// Raised by each change of what follows.
        "generation" pub generation: u64,
        /// Root certificates, each a PEM text of one certificate; more than one while roots rotate.
        "roots" pub roots: Vec<String>,
        /// What is refused although a root vouches for it.
        "distrusted" #[serde(default)] pub distrusted: Distrusted,
    }
}

answer! {
    /// Certificates that are refused before they expire. Each entry carries the moment, in seconds since 1970, at which
    /// it was made: a leaf signed up to that moment is refused, one signed later (a host set up anew under an old name)
    /// is not. Hence entries need to be kept only while such a leaf can be alive, and [`Distrusted::prune`] drops them.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    #[serde(default)]
    pub struct Distrusted {
        /// Intermediates by key: lower-case hex of SHA-256 over the DER of the SubjectPublicKeyInfo, so that every
        /// certificate for a leaked key goes at once. Refused whatever the moment.
        "intermediates" pub intermediates: BTreeMap<String, u64>,
        /// Nodes: their own certificates, and those of the services that were signed for them.
        "nodes" pub nodes: BTreeMap<Name, u64>,
        /// Single SPIFFE ids.
        "ids" pub ids: BTreeMap<SpiffeId, u64>,
    }
}

/// Which entry of [`Distrusted`] a certificate fell under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// An intermediate's key, by its fingerprint.
    Intermediate(String),
    /// The node for which the certificate was signed.
    Node(Name),
    /// The SPIFFE id itself.
    Id(SpiffeId),
}

impl Distrusted {
    /// Whether anything is distrusted.
    pub fn is_empty(&self) -> bool {
        self.intermediates.is_empty() && self.nodes.is_empty() && self.ids.is_empty()
    }

    /// The entry that a leaf falls under: `node` is the one for which it was signed (a node's own id says so itself),
    /// `signed_at` in seconds since 1970 is its `notBefore` plus [`BACKDATE`].
    pub fn leaf(&self, id: &SpiffeId, node: Option<&Name>, signed_at: u64) -> Option<Distrust> {
        if self.ids.get(id).is_some_and(|&until| signed_at <= until) {
            return Some(Distrust::Id(id.clone()));
        }
        let own = match id.identity() {
            Identity::Node(name) => Some(name),
            _ => None,
        };
        own.into_iter()
            .chain(node)
            .find(|name| self.nodes.get(*name).is_some_and(|&until| signed_at <= until))
            .map(|name| Distrust::Node(name.clone()))
    }

    /// The entry that a signing certificate falls under, by the fingerprint of its key.
    pub fn intermediate(&self, fingerprint: &str) -> Option<Distrust> {
        self.intermediates.contains_key(fingerprint).then(|| Distrust::Intermediate(fingerprint.to_owned()))
    }

    /// Drops the entries that can no longer meet a valid certificate: those older than `leaf_ttl` or, for
    /// intermediates, `intermediate_ttl` at `now`, all in seconds. Returns whether any went.
    pub fn prune(&mut self, now: u64, leaf_ttl: u64, intermediate_ttl: u64) -> bool {
        let before = (self.intermediates.len(), self.nodes.len(), self.ids.len());
        self.intermediates.retain(|_, &mut at| now <= at.saturating_add(intermediate_ttl));
        self.nodes.retain(|_, &mut at| now <= at.saturating_add(leaf_ttl));
        self.ids.retain(|_, &mut at| now <= at.saturating_add(leaf_ttl));
        before != (self.intermediates.len(), self.nodes.len(), self.ids.len())
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intermediate(fingerprint) => write!(f, "intermediate {fingerprint}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Id(id) => write!(f, "id {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://mesh.internal{path}").parse().expect("an id")
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_node_takes_its_services_with_it_until_it_is_set_up_anew() {
        let distrusted = Distrusted { nodes: [(name("host-a"), 1_000)].into(), ..Default::default() };
        let host = name("host-a");
        let by_node = Some(Distrust::Node(host.clone()));
        assert_eq!(distrusted.leaf(&id("/node/host-a"), None, 1_000), by_node);
        assert_eq!(distrusted.leaf(&id("/ns/default/svc/web"), Some(&host), 999), by_node);
        assert_eq!(distrusted.leaf(&id("/ns/default/svc/web"), Some(&name("host-b")), 999), None);
        assert_eq!(
            distrusted.leaf(&id("/node/host-a"), Some(&host), 1_001),
            None,
            "signed after it was let in again"
        );
    }

    #[test]
    fn ids_and_intermediates_are_found() {
        let web = id("/ns/default/svc/web");
        let distrusted = Distrusted {
            ids: [(web.clone(), 1_000)].into(),
            intermediates: [("ab12".to_owned(), 1_000)].into(),
            ..Default::default()
        };
        assert_eq!(distrusted.leaf(&web, None, 5), Some(Distrust::Id(web.clone())));
        assert_eq!(distrusted.leaf(&id("/ns/default/svc/web2"), None, 5), None);
        assert_eq!(distrusted.intermediate("ab12"), Some(Distrust::Intermediate("ab12".to_owned())));
        assert_eq!(distrusted.intermediate("ab13"), None);
    }

    #[test]
    fn entries_go_when_nothing_they_refuse_can_be_alive() {
        let mut distrusted = Distrusted {
            ids: [(id("/meshd/1"), 100)].into(),
            nodes: [(name("host-a"), 150)].into(),
            intermediates: [("ab12".to_owned(), 100)].into(),
        };
        assert!(!distrusted.prune(200, 100, 1_000));
        assert!(distrusted.prune(201, 100, 1_000));
        assert!(
            distrusted.ids.is_empty() && distrusted.nodes.len() == 1 && distrusted.intermediates.len() == 1
        );
        assert!(distrusted.prune(9_999, 100, 1_000));
        assert!(distrusted.is_empty());
    }

    #[test]
    fn the_bundle_travels_as_camel_case_and_takes_unknown_fields() {
        let bundle = TrustBundle {
            trust_domain: "mesh.internal".parse().expect("a domain"),
            epoch: "e1".to_owned(),
            generation: 7,
            roots: vec!["PEM".to_owned()],
            distrusted: Distrusted { nodes: [(name("host-a"), 9)].into(), ..Default::default() },
        };
        let json = serde_json::to_value(&bundle).expect("it serialises");
        assert_eq!(json["trustDomain"], "mesh.internal");
        assert_eq!(json["distrusted"]["nodes"]["host-a"], 9);
        assert_eq!(serde_json::from_value::<TrustBundle>(json).expect("it parses"), bundle);
        let newer = r#"{"trustDomain":"d","epoch":"e","generation":1,"roots":[],"later":true,"distrusted":{"keys":[]}}"#;
        assert!(serde_json::from_str::<TrustBundle>(newer).expect("it parses").distrusted.is_empty());
    }
}
