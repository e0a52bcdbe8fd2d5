//! Pure. What one certificate says of itself, read once. Believes nothing: signatures are `verify`'s work.

use aws_lc_rs::digest::{SHA256, digest};
use model::{identity::TrustDomain, name::Name};
use rustls_pki_types::UnixTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Error};

use crate::error::{AuthorityFault, SvidError};

/// The fields of a certificate that the SVID rules look at.
pub(crate) struct Facts {
    pub(crate) subject: String,
    pub(crate) subject_empty: bool,
    /// The node that the subject names (its organisational unit): for whom our authorities signed the leaf.
    pub(crate) node: Option<Name>,
    pub(crate) uris: Vec<String>,
    pub(crate) san_critical: bool,
    pub(crate) authority: bool,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended: Option<ExtendedUsage>,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// SHA-256 over the SubjectPublicKeyInfo, lower-case hex.
    pub(crate) key_fingerprint: String,
}

pub(crate) struct KeyUsage {
    pub(crate) critical: bool,
    pub(crate) digital_signature: bool,
    pub(crate) key_cert_sign: bool,
    pub(crate) crl_sign: bool,
}

pub(crate) struct ExtendedUsage {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
}

impl Facts {
    /// Reads one DER certificate; every extension that it carries must be readable.
    pub(crate) fn read(der: &[u8]) -> Result<Self, SvidError> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(SvidError::Malformed("bytes after the certificate".to_owned()));
        }
        if let Some(bad) = cert.extensions().iter().find(|ext| ext.parsed_extension().error().is_some()) {
            return Err(SvidError::Malformed(format!("extension {} cannot be read", bad.oid)));
        }
        Self::extract(&cert).map_err(|error| malformed(&error))
    }

    fn extract(cert: &X509Certificate<'_>) -> Result<Self, X509Error> {
        let san = cert.subject_alternative_name()?;
        let uris = san.as_ref().map_or(Vec::new(), |san| uris(&san.value.general_names));
        let unit = cert.subject().iter_organizational_unit().next().and_then(|unit| unit.as_str().ok());
        Ok(Self {
            subject: cert.subject().to_string(),
            subject_empty: cert.subject().iter().next().is_none(),
            node: unit.and_then(|unit| unit.parse().ok()),
            uris,
            san_critical: san.is_some_and(|san| san.critical),
            authority: cert.basic_constraints()?.is_some_and(|constraints| constraints.value.ca),
            key_usage: cert.key_usage()?.map(|usage| KeyUsage {
                critical: usage.critical,
                digital_signature: usage.value.digital_signature(),
                key_cert_sign: usage.value.key_cert_sign(),
                crl_sign: usage.value.crl_sign(),
            }),
            extended: cert.extended_key_usage()?.map(|usage| ExtendedUsage {
                server_auth: usage.value.server_auth,
                client_auth: usage.value.client_auth,
            }),
            not_before: time(cert.validity().not_before.timestamp()),
            not_after: time(cert.validity().not_after.timestamp()),
            key_fingerprint: fingerprint(cert.public_key().raw),
        })
    }

    /// What a signing certificate of `domain` must not be.
    pub(crate) fn authority_fault(&self, domain: &TrustDomain) -> Option<AuthorityFault> {
        let Some(usage) = &self.key_usage else { return Some(AuthorityFault::KeyUsageMissing) };
        let faults = [
            (!self.authority, AuthorityFault::NotAuthority),
            (!usage.critical, AuthorityFault::KeyUsageNotCritical),
            (!usage.key_cert_sign, AuthorityFault::NoKeyCertSign),
            (self.uris.len() > 1, AuthorityFault::UriSans(self.uris.len())),
        ];
        let fault = faults.into_iter().find_map(|(wrong, fault)| wrong.then_some(fault));
        fault.or_else(|| authority_id_fault(self.uris.first()?, domain))
    }
}

/// Lower-case hex of SHA-256.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authority_id_fault(uri: &str, domain: &TrustDomain) -> Option<AuthorityFault> {
    match uri.parse::<model::identity::SpiffeId>() {
        Err(source) => Some(AuthorityFault::Id { uri: uri.to_owned(), source }),
        Ok(id) if !id.path().is_empty() => Some(AuthorityFault::Path(id)),
        Ok(id) if id.domain() != domain => Some(AuthorityFault::ForeignDomain(id)),
        Ok(_) => None,
    }
}

fn uris(names: &[GeneralName<'_>]) -> Vec<String> {
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

/// Times before 1970 count as 1970: such a certificate has expired, or is old.
fn time(secs: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(secs).unwrap_or(0)))
}

fn malformed(error: &dyn std::fmt::Display) -> SvidError {
    SvidError::Malformed(error.to_string())
}
