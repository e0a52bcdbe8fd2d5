//! Pure. PEM (RFC 7468): certificates and keys as text.

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Octets of DER to a line of base64: 64 characters (RFC 7468 §2).
const LINE_BYTES: usize = 48;
/// The longest PEM text that is read, in bytes: a chain of six certificates has about 8 KiB.
pub const PEM_BYTES_MAX: usize = 64 * 1_024;

/// Why a text is not the PEM that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("has {0} bytes; at most {PEM_BYTES_MAX} are read")]
    Length(usize),
    /// No PEM.
    #[error("is no PEM text: {0}")]
    Syntax(String),
    /// Another number of certificates than one.
    #[error("holds {0} certificates, not one")]
    Count(usize),
}

/// All certificates of a text, in their order; at least one.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    check_length(text)?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match certificates.map_err(|error| PemError::Syntax(error.to_string()))? {
        none if none.is_empty() => Err(PemError::Count(0)),
        some => Ok(some),
    }
}

/// The one certificate of a text.
pub fn certificate(text: &str) -> Result<CertificateDer<'static>, PemError> {
    let mut all = certificates(text)?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(PemError::Count(others + 1)),
    }
}

/// The private key of a text.
pub fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    check_length(text)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| PemError::Syntax(error.to_string()))
}

/// A chain as PEM.
pub fn encode_chain(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| encode("CERTIFICATE", certificate)).collect()
}

/// `der` as PEM under `label`.
pub fn encode(label: &str, der: &[u8]) -> String {
    let lines: String = der.chunks(LINE_BYTES).flat_map(|line| [base64(line), "\n".to_owned()]).collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

fn check_length(text: &str) -> Result<(), PemError> {
    if text.len() > PEM_BYTES_MAX { Err(PemError::Length(text.len())) } else { Ok(()) }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, &byte| (bits << 8) | u32::from(byte)) << (8 * (3 - chunk.len()));
        let character = |n: usize| ALPHABET[(bits >> (18 - 6 * n)) as usize & 63] as char;
        [0, 1, 2, 3].map(|n| if n <= chunk.len() { character(n) } else { '=' })
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_rfc_4648_does() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in [1, 47, 48, 49, 1_000] {
            let der = CertificateDer::from((0..length).map(|n| (n * 7 % 256) as u8).collect::<Vec<u8>>());
            let text = encode("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(certificate(&text), Ok(der.clone()));
            assert_eq!(certificates(&(text.clone() + &text)), Ok(vec![der.clone(), der]));
            assert_eq!(certificate(&(text.clone() + &text)), Err(PemError::Count(2)));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(certificates("nothing"), Err(PemError::Count(0)));
        assert!(matches!(
            certificates("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
            Err(PemError::Syntax(_))
        ));
        assert!(matches!(private_key("nothing"), Err(PemError::Syntax(_))));
        assert_eq!(certificates(&"x".repeat(PEM_BYTES_MAX + 1)), Err(PemError::Length(PEM_BYTES_MAX + 1)));
    }
}
