//! Pure. Certificate requests (PKCS #10). Proves that whoever asks holds the key, and takes nothing else from the
//! request: names, flags and usages that it asks for do not exist for us.

use aws_lc_rs::digest::{SHA256, digest};
use model::token::hex;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

/// The longest request that is read, in bytes: one for a P-256 key has about 300, as PEM 450.
pub const CSR_BYTES_MAX: usize = 8 * 1_024;

/// The SubjectPublicKeyInfo of a P-256 key up to its point, and the tag of an uncompressed point (RFC 5480 §2).
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P256_SPKI_BYTES: usize = 91;

/// A key for which somebody asked, and whose private half that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    spki_der: Vec<u8>,
    fingerprint: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`CSR_BYTES_MAX`].
    #[error("the request has {0} bytes; at most {CSR_BYTES_MAX} are read")]
    Length(usize),
    /// No PEM, or none of a request.
    #[error("the request is no PEM text of a CERTIFICATE REQUEST: {0}")]
    Pem(String),
    /// No PKCS #10.
    #[error("the request is no PKCS #10 structure: {0}")]
    Malformed(String),
    /// Another kind of key.
    #[error(
        "the request is for a key of another kind ({0}); only ECDSA P-256, as an uncompressed point, is certified"
    )]
    Key(String),
    /// Whoever asks does not hold the key.
    #[error("the request is not signed by the key that it is for")]
    Signature,
}

impl Csr {
    /// Reads a PEM request and checks its signature.
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        check_length(text.len())?;
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes());
        Self::from_der(&der.map_err(|error| CsrError::Pem(error.to_string()))?)
    }

    /// Reads a DER request and checks its signature.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        check_length(der.len())?;
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| CsrError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed("bytes after the request".to_owned()));
        }
        let key = &request.certification_request_info.subject_pki;
        if key.raw.len() != P256_SPKI_BYTES || !key.raw.starts_with(&P256_SPKI_PREFIX) {
            return Err(CsrError::Key(key.algorithm.algorithm.to_id_string()));
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Self { spki_der: key.raw.to_vec(), fingerprint: hex(digest(&SHA256, key.raw).as_ref()) })
    }

    /// The public key: a SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 over the SubjectPublicKeyInfo, lower-case hex: by this a key is known again.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn check_length(length: usize) -> Result<(), CsrError> {
    if length > CSR_BYTES_MAX { Err(CsrError::Length(length)) } else { Ok(()) }
}
