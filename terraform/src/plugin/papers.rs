//! The certificates of one run: Terraform's, which it shows in the environment, and one of our own for it to pin. Neither
//! outlives its process, so that neither is vouched for by anybody: who shows another one is somebody else.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};

/// What a run shows and believes.
pub(crate) struct Papers {
    /// For whoever dials.
    pub(crate) tls: ServerConfig,
    /// Our certificate, as the handshake line has it: base64 without padding.
    pub(crate) shown: String,
}

/// New ones, for a Terraform that shows `client`, a PEM text.
pub(crate) fn draw(client: &str) -> anyhow::Result<Papers> {
    let client = CertificateDer::from_pem_slice(client.as_bytes())
        .context("Terraform's certificate (PLUGIN_CLIENT_CERT) cannot be read")?;
    // go-plugin looks for this name.
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let own = params.self_signed(&key)?.der().clone();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let terraform = Arc::new(Terraform { certificate: client, provider: provider.clone() });
    let shown = base64(&own);
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let tls = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut tls = tls.with_client_cert_verifier(terraform).with_single_cert(vec![own], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Papers { tls, shown })
}

/// Lets in the one Terraform that started us.
#[derive(Debug)]
struct Terraform {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Terraform {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if *shown == self.certificate {
            return Ok(ClientCertVerified::assertion());
        }
        Err(Error::General("not the Terraform that started this provider".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Base64 (RFC 4648 §4) without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letters = (0..=chunk.len()).map(|n| LETTERS[(bits >> (18 - 6 * n)) as usize & 63]);
        text.extend(letters.map(char::from));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (CertificateDer<'static>, String) {
        let key = KeyPair::generate().expect("chance");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.der().clone(), certificate.pem())
    }

    #[test]
    fn base64_is_as_the_standard_s_test_vectors() {
        for (text, want) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), want);
        }
    }

    #[test]
    fn only_the_terraform_that_started_it_is_let_in() {
        let ((own, _), (other, _)) = (certificate(), certificate());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let terraform = Terraform { certificate: own.clone(), provider };
        let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        assert!(terraform.verify_client_cert(&own, &[], now).is_ok());
        assert!(terraform.verify_client_cert(&other, &[], now).is_err());
        assert!(terraform.client_auth_mandatory());
        // go-plugin's certificates have keys of P-521.
        assert!(terraform.supported_verify_schemes().contains(&SignatureScheme::ECDSA_NISTP521_SHA512));
    }

    #[test]
    fn what_terraform_shows_must_be_a_certificate() {
        assert!(draw("").is_err());
        assert!(draw(&certificate().1).is_ok_and(|papers| !papers.shown.contains('=')));
    }
}
