//! Pure. The kinds of objects, and how each is named in manifests and in paths.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether an object of a kind lives in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `/v1/namespaces/{ns}/{kinds}/{name}`.
    Namespaced,
    /// `/v1/{kinds}/{name}`.
    MeshWide,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $plural:literal $scope:ident,)+) => {
        /// A kind of object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind { $($(#[doc = $doc])+ $kind,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Self::$kind),+];

            /// As in a manifest's `kind`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }

            /// As in a path: the lower-case plural.
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)+ }
            }

            /// Whether its objects live in a namespace.
            pub fn scope(self) -> Scope {
                match self { $(Self::$kind => Scope::$scope,)+ }
            }

            /// One sentence about it.
            pub fn about(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

kinds! {
    /// A space of names for services and their routes, and a boundary for rights.
    Namespace "namespaces" MeshWide,
    /// A host with its proxy: what it may run, and whether it is there.
    Node "nodes" MeshWide,
    /// A service: the ports that it answers, and its subsets.
    Service "services" Namespaced,
    /// One running instance of a service; written by proxies and discovery.
    Endpoint "endpoints" Namespaced,
    /// Where HTTP requests to a service go.
    HTTPRoute "httproutes" Namespaced,
    /// Who may call which services.
    AuthorizationPolicy "authorizationpolicies" Namespaced,
    /// A right to bring in hosts or servers.
    JoinToken "jointokens" MeshWide,
    /// A bearer token for the API.
    AccessToken "accesstokens" MeshWide,
    /// A set of rights.
    Role "roles" MeshWide,
    /// Where gRPC calls to a service go.
    GRPCRoute "grpcroutes" Namespaced,
    /// Where streams to a service go.
    TCPRoute "tcproutes" Namespaced,
    /// Whether callers of services must show who they are.
    PeerAuthentication "peerauthentications" Namespaced,
    /// How callers treat a service.
    TrafficPolicy "trafficpolicies" Namespaced,
    /// Where services come from that stand outside the mesh.
    DiscoverySource "discoverysources" MeshWide,
}

impl Kind {
    /// Those that say where requests or streams to a service go.
    pub const ROUTES: [Self; 3] = [Self::HTTPRoute, Self::GRPCRoute, Self::TCPRoute];

    /// Whether it is one of [`Kind::ROUTES`].
    pub fn is_route(self) -> bool {
        Self::ROUTES.contains(&self)
    }

    /// Whether the mesh makes a secret with an object of this kind, and tells it once.
    pub fn has_secret(self) -> bool {
        matches!(self, Self::JoinToken | Self::AccessToken)
    }

    /// The kind that a manifest names (`Service`).
    pub fn named(kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == kind)
    }

    /// The kind that a path names (`services`).
    pub fn of_plural(plural: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.plural() == plural)
    }

    /// Whether its objects live in a namespace.
    pub fn namespaced(self) -> bool {
        self.scope() == Scope::Namespaced
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_both_of_their_names() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
            assert_eq!(Kind::of_plural(kind.plural()), Some(kind));
            assert_eq!(kind.plural(), kind.plural().to_ascii_lowercase());
            assert!(kind.about().ends_with('.'), "{kind} has no sentence");
        }
        assert_eq!((Kind::named("Gateway"), Kind::of_plural("Services")), (None, None));
    }
}
