//! Pure. Why a certificate is no identity here. Each refusal names whose certificate it was and what was wrong with
//! it: the text is what appears in logs.

use std::fmt;

use model::{
    identity::{SpiffeId, SpiffeIdError, TrustDomain},
    trust::Distrust,
};
use rustls_pki_types::UnixTime;

/// A refused certificate chain. Until the chain is verified an id is only what the certificate claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The peer sent no certificate where one is needed.
    #[error("no certificate was presented")]
    NoCertificate,
    /// More certificates than any of our chains has.
    #[error("a chain of {0} certificates; at most {max} are read", max = crate::verify::CHAIN_CERTS_MAX)]
    ChainLength(usize),
    /// No X.509 certificate, or one with an extension that cannot be read.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// Not exactly one URI SAN (X509-SVID §2).
    #[error("certificate has {0} URI SANs; an SVID has exactly one")]
    UriSans(usize),
    /// The URI SAN is no SPIFFE id.
    #[error("URI SAN '{uri}' is no SPIFFE id: {source}")]
    Id {
        /// The URI as presented.
        uri: String,
        /// What is wrong with it.
        source: SpiffeIdError,
    },
    /// An id of another trust domain.
    #[error("{id} is of another trust domain than {domain}")]
    ForeignDomain {
        /// The id of the leaf.
        id: SpiffeId,
        /// The trust domain of this mesh.
        domain: TrustDomain,
    },
    /// A leaf whose id is a trust domain's own (X509-SVID §3.1).
    #[error("{0} names a trust domain, not a workload: a leaf's id has a path")]
    NoPath(SpiffeId),
    /// A field of the leaf is not as X509-SVID §3.1 and §4 demand.
    #[error("{id}: {fault}")]
    Leaf {
        /// The id of the leaf.
        id: SpiffeId,
        /// What is wrong.
        fault: LeafFault,
    },
    /// A field of a signing certificate is not as X509-SVID §3.2 and §4 demand.
    #[error("{id}: signing certificate '{subject}' {fault}")]
    Authority {
        /// The id of the leaf.
        id: SpiffeId,
        /// The signing certificate's subject.
        subject: String,
        /// What is wrong.
        fault: AuthorityFault,
    },
    /// No path to a root of this trust domain.
    #[error("{id} is not signed by a root of {domain}")]
    Untrusted {
        /// The id that the leaf claims.
        id: SpiffeId,
        /// The trust domain of this mesh.
        domain: TrustDomain,
    },
    /// A certificate of the chain has expired.
    #[error("{id}: {part} expired at {}", Moment(*.not_after))]
    Expired {
        /// The id of the leaf.
        id: SpiffeId,
        /// Which certificate.
        part: Part,
        /// Its end.
        not_after: UnixTime,
    },
    /// A certificate of the chain is not valid yet.
    #[error("{id}: {part} is not valid before {}", Moment(*.not_before))]
    NotYetValid {
        /// The id of the leaf.
        id: SpiffeId,
        /// Which certificate.
        part: Part,
        /// Its beginning.
        not_before: UnixTime,
    },
    /// Path validation failed in another way (RFC 5280 §6).
    #[error("{id}: {problem}")]
    Path {
        /// The id that the leaf claims.
        id: SpiffeId,
        /// What the path lacks.
        problem: String,
    },
    /// A certificate of the chain is distrusted.
    #[error("{id} is distrusted, by {by}")]
    Distrusted {
        /// The id of the leaf.
        id: SpiffeId,
        /// The entry that it fell under.
        by: Distrust,
    },
    /// A valid identity of a class that this listener does not take.
    #[error("{id} is not accepted here: only {accepts}")]
    NotAccepted {
        /// The caller.
        id: SpiffeId,
        /// Whom the listener takes.
        accepts: &'static str,
    },
    /// A valid identity, but another than the one dialled.
    #[error("{id} answered where {expected} was expected")]
    Unexpected {
        /// Who answered.
        id: SpiffeId,
        /// Who should have.
        expected: String,
    },
    /// The right class of server, for another host name.
    #[error("certificate of {id} is not for '{name}'")]
    OtherName {
        /// Who answered.
        id: SpiffeId,
        /// The name or address that was dialled.
        name: String,
    },
}

/// What is wrong with a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafFault {
    /// X509-SVID §4.1, §5.2.
    #[error("the CA flag is set on a leaf certificate")]
    Authority,
    /// X509-SVID §4.3.
    #[error("the key usage extension is missing")]
    KeyUsageMissing,
    /// X509-SVID §4.3.
    #[error("the key usage extension is not marked critical")]
    KeyUsageNotCritical,
    /// X509-SVID §4.3.
    #[error("key usage digitalSignature is not set")]
    NoDigitalSignature,
    /// X509-SVID §4.3, §5.2.
    #[error("key usage keyCertSign is set on a leaf certificate")]
    KeyCertSign,
    /// X509-SVID §4.3, §5.2.
    #[error("key usage cRLSign is set on a leaf certificate")]
    CrlSign,
    /// X509-SVID §4.4: where the extension is, both must be.
    #[error("extended key usage lacks serverAuth")]
    NoServerAuth,
    /// X509-SVID §4.4: where the extension is, both must be.
    #[error("extended key usage lacks clientAuth")]
    NoClientAuth,
    /// X509-SVID §3.1, RFC 5280 §4.1.2.6.
    #[error("the subject is empty and the SAN extension is not marked critical")]
    SanNotCritical,
}

/// What is wrong with a signing certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityFault {
    /// X509-SVID §3.2, §4.1.
    #[error("has no CA flag")]
    NotAuthority,
    /// X509-SVID §4.3.
    #[error("has no key usage extension")]
    KeyUsageMissing,
    /// X509-SVID §4.3.
    #[error("has a key usage extension that is not marked critical")]
    KeyUsageNotCritical,
    /// X509-SVID §3.2, §4.3.
    #[error("lacks key usage keyCertSign")]
    NoKeyCertSign,
    /// X509-SVID §2.
    #[error("has {0} URI SANs; at most one is allowed")]
    UriSans(usize),
    /// SPIFFE-ID §2.
    #[error("has the URI SAN '{uri}', no SPIFFE id: {source}")]
    Id {
        /// The URI as presented.
        uri: String,
        /// What is wrong with it.
        source: SpiffeIdError,
    },
    /// X509-SVID §3.2.
    #[error("has the id {0} with a path, which only a leaf has")]
    Path(SpiffeId),
    /// X509-SVID §3.2; a SHOULD there, demanded here as this mesh has no foreign signers.
    #[error("has the id {0} of another trust domain")]
    ForeignDomain(SpiffeId),
}

/// A place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate that identifies.
    Leaf,
    /// One that signs.
    Authority,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "the certificate",
            Self::Authority => "a signing certificate of its chain",
        })
    }
}

/// A time for readers of logs: RFC 3339.
struct Moment(UnixTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        match i64::try_from(secs).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok()) {
            Some(at) => at.fmt(f),
            None => write!(f, "second {secs} since 1970"),
        }
    }
}
