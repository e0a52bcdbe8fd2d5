//! Identities and rules as rustls configurations: TLS 1.3 only, post-quantum key exchange preferred, one provider.
//! A handshake that a rule refuses fails with the [`SvidError`] inside; [`refusal`] digs it out for the log.

use std::{
    error::Error as StdError,
    io,
    sync::{Arc, LazyLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::{
        ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    error::SvidError,
    identity::IdentitySlot,
    rule::{Accept, Expect},
    session::{Sessions, Tickets},
    trust::TrustStore,
};

/// Where handshakes read the time; `rustls::time_provider::DefaultTimeProvider` at the edge.
pub type Clock = Arc<dyn TimeProvider>;

/// The one crypto provider: AES-128-GCM first (every host of ours has the instructions, and its margin is the same as
/// that of P-256), X25519MLKEM768 before the classical groups.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite as suite, kx_group as kx};
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                suite::TLS13_AES_128_GCM_SHA256,
                suite::TLS13_AES_256_GCM_SHA384,
                suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx::X25519MLKEM768, kx::X25519, kx::SECP256R1],
            ..aws_lc_rs::default_provider()
        })
    });
    &PROVIDER
}

/// A listener that answers as `resolver` says and takes the callers that `accept` says. After each handshake its
/// owner calls [`Accept::recheck`] on the peer's certificates: resumption skips the verifier.
pub fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    trust: Arc<TrustStore>,
    accept: Accept,
    alpn: &[&[u8]],
    clock: Clock,
) -> ServerConfig {
    let verifier = Arc::new(Callers { trust: trust.clone(), accept });
    let builder = ServerConfig::builder_with_details(provider().clone(), clock.clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider has suites of TLS 1.3");
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = Tickets::new(trust, clock);
    // A session is used once, and its connection brings the next. A ticket holds the caller's chain: a second one of each
    // handshake would be made for nobody.
    config.send_tls13_tickets = 1;
    config
}

/// A dialler that is `identity` (or nobody, where a token speaks for it) and takes the server that `expect` says. It
/// keeps its own sessions: make one for each identity and destination, and keep it.
pub fn client_config(
    identity: Option<Arc<IdentitySlot>>,
    trust: Arc<TrustStore>,
    expect: Expect,
    alpn: &[&[u8]],
    clock: Clock,
) -> ClientConfig {
    let verifier = Arc::new(Servers { trust: trust.clone(), expect });
    let builder = ClientConfig::builder_with_details(provider().clone(), clock.clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider has suites of TLS 1.3");
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &identity {
        Some(slot) => builder.with_client_cert_resolver(slot.clone()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::store(Sessions::new(trust, identity, clock));
    config
}

/// Why a handshake of ours was refused by us, if that is what the error is about: searched through `io`, rustls and
/// all that wraps them. A refusal by the peer reaches us as a bare alert and is not found here.
pub fn refusal<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a SvidError> {
    static NO_CERTIFICATE: SvidError = SvidError::NoCertificate;
    if let Some(refused) = error.downcast_ref::<SvidError>() {
        return Some(refused);
    }
    match error.downcast_ref::<Error>() {
        Some(Error::NoCertificatesPresented) => return Some(&NO_CERTIFICATE),
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => {
            return inner.downcast_ref();
        }
        _ => {}
    }
    let inner: Option<&'a (dyn StdError + 'static)> = match error.downcast_ref::<io::Error>() {
        Some(wrapper) => wrapper.get_ref().map(|inner| inner as _),
        None => error.source(),
    };
    refusal(inner?)
}

fn refused(error: SvidError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn chain(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    std::iter::once(leaf).chain(rest).map(|certificate| certificate.clone().into_owned()).collect()
}

fn verify_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
}

/// TLS 1.2 is not offered; should a signature of it ever arrive, it is refused.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
}

fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

/// Judges clients.
#[derive(Debug)]
struct Callers {
    trust: Arc<TrustStore>,
    accept: Accept,
}

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        !self.accept.anonymous()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.accept.recheck(Some(&chain(leaf, rest)), &self.trust.load(), now);
        judged.map(|_| ClientCertVerified::assertion()).map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Judges servers.
#[derive(Debug)]
struct Servers {
    trust: Arc<TrustStore>,
    expect: Expect,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.expect.recheck(Some(&chain(leaf, rest)), name, &self.trust.load(), now);
        judged.map(|_| ServerCertVerified::assertion()).map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
