//! Pure. The kinds' specs: one file a kind, with its type, its rules and its tests.

use serde_json::{Map, Value};

use crate::{
    invalid::Invalid,
    kind::Kind,
    object::Metadata,
    shape::{Decoder, Mode, Path, Shape},
};

mod authorizationpolicy;
mod discoverysource;
mod endpoint;
mod filter;
mod grpcroute;
mod httproute;
mod namespace;
mod node;
mod peerauthentication;
mod role;
mod route;
mod service;
mod tcproute;
mod token;
mod trafficpolicy;

pub use authorizationpolicy::{
    AuthorizationPolicySpec, Callers, PolicyAction, PolicyCondition, PolicyFrom, PolicyRule, PolicyTo,
    TargetRef,
};
pub use discoverysource::{
    ConsulSource, DiscoveryFilter, DiscoverySourceSpec, DiscoverySourceStatus, DiscoveryState, DiscoveryTls,
    DiscoveryType, DnsService, DnsSource, EurekaSource, FileSource, KubernetesSource, NamespaceMapping,
    NomadSource, OwnNamespace, Renamed, StalePolicy, is_own_host, resolver, status_error,
};
pub use endpoint::{EndpointPort, EndpointSpec, EndpointStatus, EndpointTls, Health, Source};
pub use filter::{
    Cors, DIRECT_BODY_BYTES_MAX, DirectResponse, FAULT_DELAY_MAX, FaultAbort, FaultDelay, FaultInjection,
    FilterType, Fraction, HeaderModifier, HeaderPair, MirrorRef, PathModifier, PathModifierType,
    RedirectScheme, RequestMirror, RequestRedirect, RouteFilter, UrlRewrite,
};
pub use grpcroute::{GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use httproute::{
    BackendRef, BackendRequestTimeouts, CookieMatch, HeaderMatch, HttpRouteSpec, ParentRef, PathMatch,
    PathMatchType, QueryParamMatch, RefKind, Retry, RouteMatch, RouteRule, ValueMatchType, Weight,
};
pub use namespace::{BUILT_IN as NAMESPACES_BUILT_IN, NamespaceSpec, OF_THE_MESH as NAMESPACE_OF_THE_MESH};
pub use node::NodeSpec;
pub use peerauthentication::{PeerAuthenticationMode, PeerAuthenticationSpec, PortMode};
pub use role::{RoleRule, RoleSpec, Verb};
pub use route::RouteRefs;
pub use service::{Port, Protocol, ServicePort, ServiceSpec, Subset};
pub use tcproute::{TcpRouteRule, TcpRouteSpec};
pub use token::{AccessTokenSpec, JoinRole, JoinTokenSpec, SERVER_TOKEN_TTL_MAX};
pub use trafficpolicy::{
    AtOnce, BalancerType, CookieAffinity, GrpcCode, HashKey, HashKeyType, HealthCheck, HttpCheck,
    LoadBalancer, OutlierDetection, PolicyLimits, PolicyRetry, PolicyTimeouts, RateKey, RateKeyType,
    RateLimit, RetryBudget, RetryCondition, TcpCheck, TrafficPolicySpec, ZonePreference,
};

/// A decoded spec.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is decoded, looked at and dropped; a box would be one more allocation for each"
)]
pub enum Resource {
    /// Of a [`Kind::Namespace`].
    Namespace(NamespaceSpec),
    /// Of a [`Kind::Node`].
    Node(NodeSpec),
    /// Of a [`Kind::Service`].
    Service(ServiceSpec),
    /// Of a [`Kind::Endpoint`].
    Endpoint(EndpointSpec),
    /// Of a [`Kind::HTTPRoute`].
    HttpRoute(HttpRouteSpec),
    /// Of a [`Kind::AuthorizationPolicy`].
    AuthorizationPolicy(AuthorizationPolicySpec),
    /// Of a [`Kind::JoinToken`].
    JoinToken(JoinTokenSpec),
    /// Of a [`Kind::AccessToken`].
    AccessToken(AccessTokenSpec),
    /// Of a [`Kind::Role`].
    Role(RoleSpec),
    /// Of a [`Kind::GRPCRoute`].
    GrpcRoute(GrpcRouteSpec),
    /// Of a [`Kind::TCPRoute`].
    TcpRoute(TcpRouteSpec),
    /// Of a [`Kind::PeerAuthentication`].
    PeerAuthentication(PeerAuthenticationSpec),
    /// Of a [`Kind::TrafficPolicy`].
    TrafficPolicy(TrafficPolicySpec),
    /// Of a [`Kind::DiscoverySource`].
    DiscoverySource(DiscoverySourceSpec),
}

/// Rules of a spec beyond the shapes of its fields.
pub(crate) trait Rules: Shape {
    /// Reports what does not fit together; `at` is where the spec stands.
    fn check(&self, _metadata: Option<&Metadata>, _at: &Path<'_>, _decoder: &mut Decoder) {}
}

impl Resource {
    /// Decodes the spec of an object of `kind`.
    ///
    /// # Errors
    /// Every wrong field.
    pub fn decode(
        kind: Kind,
        metadata: &Metadata,
        spec: &Map<String, Value>,
        mode: Mode,
    ) -> Result<Self, Invalid> {
        let mut decoder = Decoder::new(mode);
        let resource = Self::decode_into(kind, Some(metadata), spec, &mut decoder);
        decoder.finish()?;
        resource.ok_or_else(|| Invalid::one("spec", "is not valid"))
    }

    pub(crate) fn decode_into(
        kind: Kind,
        metadata: Option<&Metadata>,
        spec: &Map<String, Value>,
        decoder: &mut Decoder,
    ) -> Option<Self> {
        let decode = Decode { metadata, spec };
        match kind {
            Kind::Namespace => decode.with(decoder).map(Self::Namespace),
            Kind::Node => decode.with(decoder).map(Self::Node),
            Kind::Service => decode.with(decoder).map(Self::Service),
            Kind::Endpoint => decode.with(decoder).map(Self::Endpoint),
            Kind::HTTPRoute => decode.with(decoder).map(Self::HttpRoute),
            Kind::AuthorizationPolicy => decode.with(decoder).map(Self::AuthorizationPolicy),
            Kind::JoinToken => decode.with(decoder).map(Self::JoinToken),
            Kind::AccessToken => decode.with(decoder).map(Self::AccessToken),
            Kind::Role => decode.with(decoder).map(Self::Role),
            Kind::GRPCRoute => decode.with(decoder).map(Self::GrpcRoute),
            Kind::TCPRoute => decode.with(decoder).map(Self::TcpRoute),
            Kind::PeerAuthentication => decode.with(decoder).map(Self::PeerAuthentication),
            Kind::TrafficPolicy => decode.with(decoder).map(Self::TrafficPolicy),
            Kind::DiscoverySource => decode.with(decoder).map(Self::DiscoverySource),
        }
    }

    /// The spec with every default filled in, as `status.effective` shows it.
    pub fn effective(&self) -> Value {
        let value = match self {
            Self::Namespace(spec) => serde_json::to_value(spec),
            Self::Node(spec) => serde_json::to_value(spec),
            Self::Service(spec) => serde_json::to_value(spec.effective()),
            Self::Endpoint(spec) => serde_json::to_value(spec),
            Self::HttpRoute(spec) => serde_json::to_value(spec.effective()),
            Self::AuthorizationPolicy(spec) => serde_json::to_value(spec),
            Self::JoinToken(spec) => serde_json::to_value(spec),
            Self::AccessToken(spec) => serde_json::to_value(spec),
            Self::Role(spec) => serde_json::to_value(spec),
            Self::GrpcRoute(spec) => serde_json::to_value(spec),
            Self::TcpRoute(spec) => serde_json::to_value(spec),
            Self::PeerAuthentication(spec) => serde_json::to_value(spec),
            Self::TrafficPolicy(spec) => serde_json::to_value(spec),
            Self::DiscoverySource(spec) => serde_json::to_value(spec.effective()),
        };
        value.expect("a spec is made of texts, numbers, lists and objects with text keys")
    }

    /// The JSON schema of the spec of `kind`.
    pub fn schema(kind: Kind) -> Value {
        match kind {
            Kind::Namespace => NamespaceSpec::schema(),
            Kind::Node => NodeSpec::schema(),
            Kind::Service => ServiceSpec::schema(),
            Kind::Endpoint => EndpointSpec::schema(),
            Kind::HTTPRoute => HttpRouteSpec::schema(),
            Kind::AuthorizationPolicy => AuthorizationPolicySpec::schema(),
            Kind::JoinToken => JoinTokenSpec::schema(),
            Kind::AccessToken => AccessTokenSpec::schema(),
            Kind::Role => RoleSpec::schema(),
            Kind::GRPCRoute => GrpcRouteSpec::schema(),
            Kind::TCPRoute => TcpRouteSpec::schema(),
            Kind::PeerAuthentication => PeerAuthenticationSpec::schema(),
            Kind::TrafficPolicy => TrafficPolicySpec::schema(),
            Kind::DiscoverySource => DiscoverySourceSpec::schema(),
        }
    }
}

struct Decode<'a> {
    metadata: Option<&'a Metadata>,
    spec: &'a Map<String, Value>,
}

impl Decode<'_> {
    fn with<T: Rules>(&self, decoder: &mut Decoder) -> Option<T> {
        let at = Path::Field(&Path::Root, "spec");
        let spec = T::decode(&Value::Object(self.spec.clone()), &at, decoder)?;
        spec.check(self.metadata, &at, decoder);
        Some(spec)
    }
}
