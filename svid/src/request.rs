//! A fresh key and the request to have it certified. The key never leaves its host: only the request travels.
//! Asks for nothing by name, since an authority takes nothing but the key from a request (PKCS #10, RFC 2986).

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

use crate::{facts::fingerprint, pem};

/// A P-256 key, with a signed request for it.
pub struct KeyRequest {
    /// The private key: PKCS #8, PEM. Keep it.
    pub key_pem: String,
    /// The request: PKCS #10, PEM. Send it.
    pub csr_pem: String,
    /// SHA-256 over the SubjectPublicKeyInfo, lower-case hex: by this an authority knows the key again.
    pub fingerprint: String,
}

/// The system gave no randomness, or the key could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key could be made: the system's randomness failed")]
pub struct KeyRequestError;

/// The fingerprint of a key that was kept, as its request has it; `None` where the text is no P-256 key.
pub fn fingerprint_of(key_pem: &str) -> Option<String> {
    let key = pem::private_key(key_pem).ok()?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der()).ok()?;
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
    Some(fingerprint(spki.as_ref()))
}

impl KeyRequest {
    /// Draws a key from the system's randomness and signs a request with it.
    pub fn generate() -> Result<Self, KeyRequestError> {
        Self::build().map_err(|_| KeyRequestError)
    }

    fn build() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der()?;
        let info = request_info(spki.as_ref());
        let signature = key.sign(&SystemRandom::new(), &info)?;
        let csr = sequence(&[&info, ECDSA_WITH_SHA256, &tlv(BIT_STRING, &[&[0], signature.as_ref()])]);
        let pkcs8 = key.to_pkcs8v1()?;
        Ok(Self {
            key_pem: pem::encode("PRIVATE KEY", pkcs8.as_ref()),
            csr_pem: pem::encode("CERTIFICATE REQUEST", &csr),
            fingerprint: fingerprint(spki.as_ref()),
        })
    }
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// AlgorithmIdentifier of ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// CertificationRequestInfo: version 0, an empty subject, the key, no attributes (RFC 2986 §4.1).
fn request_info(spki: &[u8]) -> Vec<u8> {
    sequence(&[&[0x02, 0x01, 0x00], &[SEQUENCE, 0x00], spki, &[0xa0, 0x00]])
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, parts)
}

/// Tag, length, value. Lengths of two octets do for anything around a P-256 key.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).expect("a request for a P-256 key has some hundred bytes");
    let mut out = vec![tag];
    match length.to_be_bytes() {
        [0, short @ 0..=0x7f] => out.push(short),
        [0, one] => out.extend([0x81, one]),
        two => out.extend([&[0x82], two.as_slice()].concat()),
    }
    out.extend(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_kept_has_the_fingerprint_of_its_request() {
        let made = KeyRequest::generate().expect("a key");
        assert_eq!(fingerprint_of(&made.key_pem), Some(made.fingerprint));
        assert_eq!(fingerprint_of(&made.csr_pem), None);
    }
}
