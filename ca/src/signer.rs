//! The keys that sign. The only file that knows the library which encodes certificates. Signs [`Fields`] and nothing
//! else; when and for whom is decided before.

use aws_lc_rs::digest::{SHA256, digest};
use model::{identity::TrustDomain, token::hex};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use svid::{
    pem::{self, PemError},
    verify::{self, CertificateFacts},
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    csr::Csr,
    grant::Grant,
    profile::{Fields, Purpose, Serial, Ttl},
};

/// A root with its key. Signs only intermediates; lives in memory while it does, and rests sealed.
pub struct Root {
    domain: TrustDomain,
    authority: Authority,
}

/// A member's intermediate with its key, which never leaves the member.
pub struct Intermediate {
    domain: TrustDomain,
    authority: Authority,
}

/// A certificate that was signed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The certificate, then what signed it, without the root: PEM.
    pub chain_pem: String,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// Its serial number, lower-case hex, for the audit.
    pub serial: String,
}

/// Why keys and certificates cannot be used to sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The authority's certificate cannot be read.
    #[error("the signing certificate {0}")]
    Certificate(PemError),
    /// The certificate may not sign for this domain.
    #[error("the signing certificate {0}")]
    Authority(String),
    /// The authority's key cannot be read.
    #[error("the signing key cannot be read: {0}")]
    Key(String),
    /// The key is another certificate's.
    #[error("the signing key does not belong to the signing certificate")]
    Mismatch,
    /// The authority has expired, or is not valid yet: what it signed now would be refused.
    #[error(
        "the signing certificate is valid from {not_before} to {not_after} (seconds since 1970), not at {now}"
    )]
    NotValid {
        /// Its beginning.
        not_before: u64,
        /// Its end.
        not_after: u64,
        /// Now.
        now: u64,
    },
    /// The system gave no randomness, or a name cannot be encoded.
    #[error("signing failed: {0}")]
    Encoding(String),
}

impl Root {
    /// A new root of `domain`, with a fresh P-256 key.
    pub fn generate(domain: &TrustDomain, serial: Serial, now: UnixTime) -> Result<Self, SignerError> {
        let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(encoding)?);
        let fields = Fields::root(domain, serial, now);
        let certificate = params(&fields, serial)?.self_signed(&*key).map_err(encoding)?;
        let secret = Zeroizing::new(key.serialize_der());
        Self::open(domain, certificate.der().clone(), &secret)
    }

    /// A root that was generated here or brought: its certificate (PEM) and its key (PKCS #8, DER).
    pub fn from_parts(domain: &TrustDomain, certificate: &str, key: &[u8]) -> Result<Self, SignerError> {
        Self::open(domain, pem::certificate(certificate).map_err(SignerError::Certificate)?, key)
    }

    fn open(
        domain: &TrustDomain,
        certificate: CertificateDer<'static>,
        key: &[u8],
    ) -> Result<Self, SignerError> {
        let authority = Authority::open(domain, certificate, key)?;
        Ok(Self { domain: domain.clone(), authority })
    }

    /// The certificate: PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.authority.certificate)
    }

    /// SHA-256 over the certificate's DER, lower-case hex: what join tokens pin.
    pub fn pin(&self) -> String {
        hex(digest(&SHA256, &self.authority.certificate).as_ref())
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> UnixTime {
        self.authority.facts.not_after
    }

    /// The key (PKCS #8, DER), to be sealed.
    pub fn secret(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.authority.key.serialize_der())
    }

    /// Signs the intermediate of member `member`, for the key in `csr`: PEM of the one certificate.
    pub fn sign_intermediate(
        &self,
        csr: &Csr,
        member: u64,
        serial: Serial,
        now: UnixTime,
    ) -> Result<String, SignerError> {
        let fields = Fields::intermediate(&self.domain, member, serial, now);
        Ok(pem::encode("CERTIFICATE", &self.authority.sign(fields, csr, serial, now)?.0))
    }
}

impl Intermediate {
    /// An intermediate that the root signed, with its key: both PEM.
    pub fn from_pem(domain: &TrustDomain, certificate: &str, key: &str) -> Result<Self, SignerError> {
        let certificate = pem::certificate(certificate).map_err(SignerError::Certificate)?;
        let key = pem::private_key(key).map_err(|error| SignerError::Key(error.to_string()))?;
        let authority = Authority::open(domain, certificate, key.secret_der())?;
        Ok(Self { domain: domain.clone(), authority })
    }

    /// The certificate: PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.authority.certificate)
    }

    /// From when and until when it is valid.
    pub fn validity(&self) -> (UnixTime, UnixTime) {
        (self.authority.facts.not_before, self.authority.facts.not_after)
    }

    /// SHA-256 over its SubjectPublicKeyInfo, lower-case hex: by this it is distrusted.
    pub fn fingerprint(&self) -> &str {
        &self.authority.facts.key_fingerprint
    }

    /// Signs what was granted, for the key in `csr`; ends with this intermediate at the latest.
    pub fn sign(
        &self,
        grant: &Grant,
        csr: &Csr,
        ttl: Ttl,
        serial: Serial,
        now: UnixTime,
    ) -> Result<Signed, SignerError> {
        let fields = grant.fields(&self.domain, ttl, now);
        let (leaf, not_after) = self.authority.sign(fields, csr, serial, now)?;
        let chain_pem = pem::encode_chain(&[leaf, self.authority.certificate.clone()]);
        Ok(Signed { chain_pem, not_after, serial: hex(serial.as_bytes()) })
    }
}

/// A certificate that may sign, with its key.
struct Authority {
    certificate: CertificateDer<'static>,
    facts: CertificateFacts,
    key: Zeroizing<KeyPair>,
}

impl Authority {
    fn open(
        domain: &TrustDomain,
        certificate: CertificateDer<'static>,
        key: &[u8],
    ) -> Result<Self, SignerError> {
        let facts = verify::authority(&certificate, domain)
            .map_err(|error| SignerError::Authority(error.to_string()))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = KeyPair::try_from(&der).map_err(|error| SignerError::Key(error.to_string()))?;
        if hex(digest(&SHA256, &key.subject_public_key_info()).as_ref()) != facts.key_fingerprint {
            return Err(SignerError::Mismatch);
        }
        Ok(Self { certificate, facts, key: Zeroizing::new(key) })
    }

    fn sign(
        &self,
        fields: Fields,
        csr: &Csr,
        serial: Serial,
        now: UnixTime,
    ) -> Result<(CertificateDer<'static>, UnixTime), SignerError> {
        self.check_validity(now)?;
        let fields = fields.within(self.facts.not_after);
        let key = SubjectPublicKeyInfo::from_der(csr.spki_der()).map_err(encoding)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key).map_err(encoding)?;
        let certificate = params(&fields, serial)?.signed_by(&key, &issuer).map_err(encoding)?;
        Ok((certificate.into(), fields.not_after))
    }

    fn check_validity(&self, now: UnixTime) -> Result<(), SignerError> {
        let (not_before, not_after) = (self.facts.not_before, self.facts.not_after);
        if (not_before..=not_after).contains(&now) {
            return Ok(());
        }
        let (not_before, not_after, now) = (not_before.as_secs(), not_after.as_secs(), now.as_secs());
        Err(SignerError::NotValid { not_before, not_after, now })
    }
}

fn params(fields: &Fields, serial: Serial) -> Result<CertificateParams, SignerError> {
    let mut params = CertificateParams::default();
    params.not_before = moment(fields.not_before)?;
    params.not_after = moment(fields.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.distinguished_name = subject(fields);
    params.subject_alt_names = alternative_names(fields)?;
    params.use_authority_key_identifier_extension = true;
    match fields.purpose {
        Purpose::Authority { path_len } => {
            let constraints = path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained);
            params.is_ca = IsCa::Ca(constraints);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        Purpose::Leaf => {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    Ok(params)
}

fn subject(fields: &Fields) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(unit) = &fields.unit {
        name.push(DnType::OrganizationalUnitName, unit.as_str());
    }
    if let Some(common_name) = &fields.common_name {
        name.push(DnType::CommonName, common_name.as_str());
    }
    name
}

fn alternative_names(fields: &Fields) -> Result<Vec<SanType>, SignerError> {
    let mut names = vec![SanType::URI(fields.uri.as_str().try_into().map_err(encoding)?)];
    for dns in &fields.dns {
        names.push(SanType::DnsName(dns.as_str().try_into().map_err(encoding)?));
    }
    names.extend(fields.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn moment(time: UnixTime) -> Result<OffsetDateTime, SignerError> {
    let secs = i64::try_from(time.as_secs()).map_err(|error| SignerError::Encoding(error.to_string()))?;
    OffsetDateTime::from_unix_timestamp(secs).map_err(|error| SignerError::Encoding(error.to_string()))
}

fn encoding(error: rcgen::Error) -> SignerError {
    SignerError::Encoding(error.to_string())
}
