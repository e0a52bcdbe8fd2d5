//! Pure. When a certificate chain is an identity of the mesh: RFC 5280 path validation by webpki, then what the
//! X509-SVID standard demands beyond it, then distrust. The clock is an argument.

use std::time::Duration;

use model::{
    identity::{SpiffeId, TrustDomain},
    name::Name,
    trust::{BACKDATE, Distrust},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error as PathError, KeyUsage};

use crate::{
    error::{AuthorityFault, LeafFault, Part, SvidError},
    facts::Facts,
    sound::Chain,
    trust::Trust,
};

/// Certificates read of a presented chain, so that a stranger cannot make us parse without end: our own chains have a
/// leaf and one intermediate, with a brought root perhaps one more, and some servers append the root.
pub const CHAIN_CERTS_MAX: usize = 6;

/// In which role the peer presented its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It dialled us.
    Client,
    /// We dialled it.
    Server,
}

/// A verified identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// The node for which the certificate was signed; none for a meshd.
    pub node: Option<Name>,
    /// The earliest end of a certificate in its chain: a connection must not outlive it.
    pub not_after: UnixTime,
}

/// Verifies a presented chain, leaf first. All that can be read without a signature is checked before any signature,
/// so that strangers are cheap to refuse; an `Ok` has passed everything. What this trust has found sound before is only
/// held against the clock.
pub fn verify(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    usage: Usage,
    now: UnixTime,
) -> Result<Peer, SvidError> {
    let (leaf_der, authority_ders) = chain.split_first().ok_or(SvidError::NoCertificate)?;
    if chain.len() > CHAIN_CERTS_MAX {
        return Err(SvidError::ChainLength(chain.len()));
    }
    let key = Chain::of(chain, usage);
    if let Some(peer) = trust.sound().find(&key, now) {
        return Ok(peer);
    }
    let leaf = Facts::read(leaf_der)?;
    let id = leaf_id(&leaf, trust)?;
    if let Some(fault) = leaf_fault(&leaf) {
        return Err(SvidError::Leaf { id, fault });
    }
    let authorities: Vec<Facts> =
        authority_ders.iter().map(|der| Facts::read(der)).collect::<Result<_, _>>()?;
    check_authorities(&authorities, &id, trust)?;
    check_path(leaf_der, authority_ders, trust, usage, now)
        .map_err(|error| path_error(error, &leaf, &id, trust))?;
    if let Some(by) = distrust(&leaf, &authorities, &id, trust) {
        return Err(SvidError::Distrusted { id, by });
    }
    let not_after = authorities.iter().map(|facts| facts.not_after).fold(leaf.not_after, UnixTime::min);
    let not_before = authorities.iter().map(|facts| facts.not_before).fold(leaf.not_before, UnixTime::max);
    let peer = Peer { id, node: leaf.node, not_after };
    trust.sound().keep(key, peer.clone(), not_before);
    Ok(peer)
}

/// The id in the leaf of a chain that has been verified before (as after a handshake); checks nothing but its form.
pub fn peer_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, SvidError> {
    let leaf = Facts::read(chain.first().ok_or(SvidError::NoCertificate)?)?;
    only_id(&leaf)
}

/// What an authority needs to know of its own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its subject, for readers.
    pub subject: String,
    /// From when it is valid.
    pub not_before: UnixTime,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// SHA-256 over its SubjectPublicKeyInfo, lower-case hex: by this it is distrusted.
    pub key_fingerprint: String,
}

/// Reads a signing certificate of `domain` and holds it to the rules for one; signatures are not checked.
pub fn authority(der: &CertificateDer<'_>, domain: &TrustDomain) -> Result<CertificateFacts, AuthorityError> {
    let facts = Facts::read(der)?;
    if let Some(fault) = facts.authority_fault(domain) {
        return Err(AuthorityError::Fault { subject: facts.subject, fault });
    }
    let Facts { subject, not_before, not_after, key_fingerprint, .. } = facts;
    Ok(CertificateFacts { subject, not_before, not_after, key_fingerprint })
}

/// Why a certificate may not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SvidError),
    /// It is no signing certificate of the domain.
    #[error("'{subject}' {fault}")]
    Fault {
        /// Its subject.
        subject: String,
        /// What is wrong.
        fault: AuthorityFault,
    },
}

/// X509-SVID §2: exactly one URI SAN, a SPIFFE id; whatever other SANs there are.
pub(crate) fn only_id(leaf: &Facts) -> Result<SpiffeId, SvidError> {
    let [uri] = leaf.uris.as_slice() else { return Err(SvidError::UriSans(leaf.uris.len())) };
    uri.parse().map_err(|source| SvidError::Id { uri: uri.clone(), source })
}

fn leaf_id(leaf: &Facts, trust: &Trust) -> Result<SpiffeId, SvidError> {
    let id = only_id(leaf)?;
    if id.domain() != trust.domain() {
        return Err(SvidError::ForeignDomain { id, domain: trust.domain().clone() });
    }
    if id.path().is_empty() {
        return Err(SvidError::NoPath(id));
    }
    Ok(id)
}

/// X509-SVID §3.1, §4.1, §4.3, §4.4, §5.2.
fn leaf_fault(leaf: &Facts) -> Option<LeafFault> {
    let Some(usage) = &leaf.key_usage else { return Some(LeafFault::KeyUsageMissing) };
    let extended = leaf.extended.as_ref();
    let faults = [
        (leaf.authority, LeafFault::Authority),
        (!usage.critical, LeafFault::KeyUsageNotCritical),
        (!usage.digital_signature, LeafFault::NoDigitalSignature),
        (usage.key_cert_sign, LeafFault::KeyCertSign),
        (usage.crl_sign, LeafFault::CrlSign),
        (extended.is_some_and(|extended| !extended.server_auth), LeafFault::NoServerAuth),
        (extended.is_some_and(|extended| !extended.client_auth), LeafFault::NoClientAuth),
        (leaf.subject_empty && !leaf.san_critical, LeafFault::SanNotCritical),
    ];
    faults.into_iter().find_map(|(wrong, fault)| wrong.then_some(fault))
}

/// Every presented signing certificate is held to the rules, whether or not the path needs it.
fn check_authorities(authorities: &[Facts], id: &SpiffeId, trust: &Trust) -> Result<(), SvidError> {
    let fault = authorities.iter().find_map(|facts| Some((facts, facts.authority_fault(trust.domain())?)));
    match fault {
        Some((facts, fault)) => {
            Err(SvidError::Authority { id: id.clone(), subject: facts.subject.clone(), fault })
        }
        None => Ok(()),
    }
}

/// RFC 5280 §6: signatures up to a root, validity, basic constraints, path length, unknown critical extensions.
fn check_path(
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    trust: &Trust,
    usage: Usage,
    now: UnixTime,
) -> Result<(), PathError> {
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    let cert = EndEntityCert::try_from(leaf)?;
    cert.verify_for_usage(trust.algorithms(), trust.anchors(), authorities, now, usage, None, None).map(drop)
}

fn path_error(error: PathError, leaf: &Facts, id: &SpiffeId, trust: &Trust) -> SvidError {
    let id = id.clone();
    match error {
        PathError::CertExpired { not_after, .. } => {
            let part = if not_after == leaf.not_after { Part::Leaf } else { Part::Authority };
            SvidError::Expired { id, part, not_after }
        }
        PathError::CertNotValidYet { not_before, .. } => {
            let part = if not_before == leaf.not_before { Part::Leaf } else { Part::Authority };
            SvidError::NotYetValid { id, part, not_before }
        }
        PathError::UnknownIssuer | PathError::InvalidSignatureForPublicKey => {
            SvidError::Untrusted { id, domain: trust.domain().clone() }
        }
        PathError::UnsupportedCriticalExtension => {
            SvidError::Path { id, problem: "a critical extension that is not understood".to_owned() }
        }
        PathError::PathLenConstraintViolated => SvidError::Path {
            id,
            problem: "the chain is longer than a signing certificate's pathLenConstraint allows".to_owned(),
        },
        other => SvidError::Path { id, problem: format!("no valid path to a root: {other}") },
    }
}

/// Refused at any place of the presented chain. A leaf's moment of signing is its `notBefore`, which our authorities
/// put [`BACKDATE`] back.
fn distrust(leaf: &Facts, authorities: &[Facts], id: &SpiffeId, trust: &Trust) -> Option<Distrust> {
    let signed_at = leaf.not_before.as_secs().saturating_add(BACKDATE.as_secs());
    let distrusted = trust.distrusted();
    let by_leaf = distrusted.leaf(id, leaf.node.as_ref(), signed_at);
    by_leaf.or_else(|| authorities.iter().find_map(|facts| distrusted.intermediate(&facts.key_fingerprint)))
}

/// The time `secs` after 1970.
pub(crate) fn unix(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use model::trust::Distrusted;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SanType,
    };

    use super::*;

    fn named(uri: &str, usage: KeyUsagePurpose) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
        params.key_usages = vec![usage];
        (params, KeyPair::generate().expect("a key"))
    }

    #[test]
    fn what_was_verified_is_remembered_and_what_is_remembered_is_not_verified() {
        let (mut params, key) = named("spiffe://mesh.internal", KeyUsagePurpose::KeyCertSign);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("it signs").der().clone();
        let issuer = Issuer::from_params(&params, &key);
        let (mut leaf, key) =
            named("spiffe://mesh.internal/ns/default/svc/web", KeyUsagePurpose::DigitalSignature);
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let sound = [leaf.signed_by(&key, &issuer).expect("it signs").der().clone()];
        let domain = "mesh.internal".parse().expect("a domain");
        let trust = Trust::new(domain, 1, vec![root], Distrusted::default()).expect("trust");
        let now = unix(1_800_000_000);
        let remembered =
            |chain: &[CertificateDer<'_>], usage| trust.sound().find(&Chain::of(chain, usage), now).is_some();

        assert!(!remembered(&sound, Usage::Client));
        let peer = verify(&sound, &trust, Usage::Client, now).expect("sound");
        assert!(remembered(&sound, Usage::Client) && !remembered(&sound, Usage::Server));

        // Nobody would find this sound who looked at it.
        let words = [CertificateDer::from(&b"words"[..])];
        assert!(verify(&words, &trust, Usage::Client, now).is_err());
        assert!(!remembered(&words, Usage::Client), "only what is sound is kept");
        trust.sound().keep(Chain::of(&words, Usage::Client), peer.clone(), now);
        assert_eq!(verify(&words, &trust, Usage::Client, now), Ok(peer));
    }
}
