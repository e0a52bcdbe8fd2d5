//! Pure. Whether an identity may be certified, by what the cluster knows of the node that asks. A [`Grant`] is the
//! proof that this was decided: the signer takes nothing else.

use model::{
    identity::{Identity, TrustDomain},
    name::{Name, ServiceGlob, ServiceName},
};
use rustls_pki_types::UnixTime;

use crate::profile::{Fields, Ttl};

/// What the cluster knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGrant {
    /// Its name.
    pub name: Name,
    /// What it may run.
    pub services: Vec<ServiceGlob>,
    /// Shut out for now.
    pub disabled: bool,
}

/// An identity that may be certified. Made only by deciding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant(To);

#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    Meshd { member: u64, names: Vec<String> },
    Node(Name),
    Service { service: ServiceName, node: Name },
}

/// Why an identity is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefused {
    /// Only a node may ask, with its own certificate.
    #[error("only a node may ask for certificates, with its own: {caller:?} is none")]
    NoNode {
        /// Who asked.
        caller: Identity,
    },
    /// A node that asks in the name of another.
    #[error("node '{caller}' asked for '{node}': a node asks only for itself")]
    OtherNode {
        /// Who asked.
        caller: Name,
        /// For whom.
        node: Name,
    },
    /// The operator shut the node out.
    #[error("node '{node}' is disabled")]
    Disabled {
        /// Which.
        node: Name,
    },
    /// A service that the node may not run.
    #[error("node '{node}' may not run '{service}': its spec.services are {allowed:?}")]
    NotGranted {
        /// Which node.
        node: Name,
        /// Which service.
        service: ServiceName,
        /// What it may run.
        allowed: Vec<ServiceGlob>,
    },
    /// Identities that are not handed out to nodes.
    #[error("node '{node}' asked to be {asked:?}: nodes are granted themselves and services, nothing else")]
    NotForNodes {
        /// Which node.
        node: Name,
        /// What it asked for.
        asked: Identity,
    },
}

/// Decides whether `caller`, by its verified certificate, may be certified as `asked`; `node` is what the cluster
/// knows of the node that asks.
pub fn decide(node: &NodeGrant, asked: &Identity, caller: &Identity) -> Result<Grant, GrantRefused> {
    let Identity::Node(caller) = caller else { return Err(GrantRefused::NoNode { caller: caller.clone() }) };
    if *caller != node.name {
        return Err(GrantRefused::OtherNode { caller: caller.clone(), node: node.name.clone() });
    }
    if node.disabled {
        return Err(GrantRefused::Disabled { node: node.name.clone() });
    }
    match asked {
        Identity::Node(name) if *name == node.name => Ok(Grant(To::Node(name.clone()))),
        Identity::Node(name) => Err(GrantRefused::OtherNode { caller: caller.clone(), node: name.clone() }),
        Identity::Service(service) => service_of(node, service),
        Identity::Meshd(_) | Identity::Other => {
            Err(GrantRefused::NotForNodes { node: node.name.clone(), asked: asked.clone() })
        }
    }
}

fn service_of(node: &NodeGrant, service: &ServiceName) -> Result<Grant, GrantRefused> {
    if node.services.iter().any(|glob| glob.matches(service)) {
        return Ok(Grant(To::Service { service: service.clone(), node: node.name.clone() }));
    }
    let allowed = node.services.clone();
    Err(GrantRefused::NotGranted { node: node.name.clone(), service: service.clone(), allowed })
}

impl Grant {
    /// For a node that a join token has just let in: the registry decided, by `model::join`.
    pub fn joined(node: &Name) -> Self {
        Self(To::Node(node.clone()))
    }

    /// For a member of the control plane, under the names and addresses by which it is dialled: the registry admitted
    /// it.
    pub fn member(member: u64, names: &[String]) -> Self {
        Self(To::Meshd { member, names: names.to_vec() })
    }

    /// The fields of the certificate.
    pub fn fields(&self, domain: &TrustDomain, ttl: Ttl, now: UnixTime) -> Fields {
        match &self.0 {
            To::Meshd { member, names } => Fields::meshd(domain, *member, names, ttl, now),
            To::Node(node) => Fields::node(domain, node, ttl, now),
            To::Service { service, node } => Fields::service(domain, service, node, ttl, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::identity::SpiffeId;

    use super::*;

    /// `asked` and `caller` are paths of SPIFFE ids; the node is host-a and may run shop/* and default/web.
    #[track_caller]
    fn check(disabled: bool, caller: &str, asked: &str, want: &str) {
        let identity =
            |path: &str| format!("spiffe://d{path}").parse::<SpiffeId>().expect("an id").identity().clone();
        let services = ["shop/*", "default/web"].map(|glob| glob.parse().expect("a glob")).to_vec();
        let node = NodeGrant { name: "host-a".parse().expect("a name"), services, disabled };
        let domain = "d".parse().expect("a domain");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_000_000));
        let got = match decide(&node, &identity(asked), &identity(caller)) {
            Ok(grant) => {
                let fields = grant.fields(&domain, Ttl::default(), now);
                format!("{} on {}", fields.uri, fields.unit.expect("a node"))
            }
            Err(refused) => refused.to_string(),
        };
        assert!(got.contains(want), "{caller} asked for {asked}: got {got:?}, want {want:?}");
    }

    #[test]
    fn a_node_is_granted_itself_and_what_it_may_run() {
        check(false, "/node/host-a", "/node/host-a", "spiffe://d/node/host-a on host-a");
        check(false, "/node/host-a", "/ns/default/svc/web", "spiffe://d/ns/default/svc/web on host-a");
        check(false, "/node/host-a", "/ns/shop/svc/anything", "spiffe://d/ns/shop/svc/anything on host-a");
    }

    #[test]
    fn all_else_is_refused_by_name() {
        check(
            false,
            "/node/host-a",
            "/ns/default/svc/web2",
            "may not run 'default/web2': its spec.services are [shop/*, default/web]",
        );
        check(false, "/node/host-a", "/ns/shop2/svc/web", "may not run 'shop2/web'");
        check(false, "/node/host-a", "/node/host-b", "node 'host-a' asked for 'host-b'");
        check(false, "/node/host-b", "/node/host-a", "node 'host-b' asked for 'host-a'");
        check(false, "/node/host-b", "/ns/default/svc/web", "node 'host-b' asked for 'host-a'");
        check(false, "/node/host-a", "/meshd/1", "asked to be Meshd(1)");
        check(false, "/node/host-a", "/else", "asked to be Other");
        check(false, "/meshd/1", "/node/host-a", "only a node may ask");
        check(false, "/ns/default/svc/web", "/ns/default/svc/web", "only a node may ask");
        check(true, "/node/host-a", "/node/host-a", "node 'host-a' is disabled");
        check(true, "/node/host-a", "/ns/default/svc/web", "node 'host-a' is disabled");
    }
}
