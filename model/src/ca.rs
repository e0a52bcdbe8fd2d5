//! Pure. The bodies of `/v1/ca/...`: joining, and certificates for keys that never leave their host.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    answer,
    answer::{Answer, Field},
    duration::Millis,
    identity::TrustDomain,
    name::{Name, ServiceName},
    trust::TrustBundle,
};

/// As many certificates as one request may ask for.
pub const CERTIFICATE_REQUESTS_MAX: usize = 256;

/// `POST /v1/ca/join`: a host asks to come in. Sent only over a connection verified against the pinned root.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// `mesh1.<id>.<secret>`, without the pin.
    pub token: String,
    /// The name it wants.
    pub node: Name,
    /// A certificate request (PEM); only its key is taken.
    pub csr: String,
    /// The proxy's version.
    #[serde(default)]
    pub version: String,
}

answer! {
    /// What a host gets when it joined.
    #[derive(Debug, Clone)]
    pub struct JoinAnswer {
        /// Its name.
        "node" pub node: Name,
        /// The mesh's trust domain.
        "trustDomain" pub trust_domain: TrustDomain,
        /// The cluster's history, by its UUID.
        "epoch" pub epoch: String,
        /// Its certificate and the intermediate (PEM).
        "certificate" pub certificate: String,
        /// Whom to trust.
        "bundle" pub bundle: TrustBundle,
    }
}

/// `POST /v1/ca/certificates`: a host asks for certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequests {
    /// Each judged by itself; at most [`CERTIFICATE_REQUESTS_MAX`].
    pub requests: Vec<CertificateRequest>,
}

/// Whose certificate: a service that the host may run, or the host itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// A service of the mesh.
    Service(ServiceName),
    /// The host.
    Node(Name),
}

/// One certificate that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// `"service": "default/orders"`, or `"node": "host-a"`.
    #[serde(flatten)]
    pub subject: Subject,
    /// A certificate request (PEM); only its key is taken.
    pub csr: String,
    /// The certificate that is renewed (PEM): with it no quorum is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

answer! {
    /// The answer to [`CertificateRequests`], in the same order.
    #[derive(Debug, Clone)]
    pub struct Certificates {
        /// One for each request.
        "certificates" pub certificates: Vec<CertificateAnswer>,
    }
}

/// One certificate, or why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAnswer {
    /// Whose.
    #[serde(flatten)]
    pub subject: Subject,
    /// The certificate and the intermediate (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Millis>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whose it is stands beside its fields, so that it is put together by hand: with `service` or with `node`.
impl Answer for CertificateAnswer {
    fn schema() -> Value {
        let of = |whose| {
            answer::record([
                whose,
                Field::of::<Option<String>>("certificate", "The certificate and the intermediate (PEM)."),
                Field::of::<Option<Millis>>("notAfter", "When it ends."),
                Field::of::<Option<String>>("error", "Why there is none."),
            ])
        };
        json!({"oneOf": [
            of(Field::of::<ServiceName>("service", "Whose: a service of the mesh.")),
            of(Field::of::<Name>("node", "Whose: the host.")),
        ]})
    }
}

/// Without the secret: requests end up in logs.
impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("node", &self.node)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
