//! A certificate authority of the test's own, with a server's certificate for 127.0.0.1 and a client's, as files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// The papers of a client, and a server that asks for them.
pub struct Pki {
    /// The authority's certificate (PEM).
    pub ca: PathBuf,
    /// The client's certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The server's side.
    pub acceptor: TlsAcceptor,
}

impl Pki {
    /// Makes all of it, with its files in `folder`.
    ///
    /// # Errors
    /// If it cannot.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let leaf = |name: &str, usage| {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            anyhow::Ok((params.signed_by(&key, &issuer)?, key))
        };
        let (server, server_key) = leaf("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth)?;
        let (client, client_key) = leaf("meshd.example", ExtendedKeyUsagePurpose::ClientAuth)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone())?;
        let provider = svid::provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let server_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], server_key)?;
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            anyhow::Ok(path)
        };
        Ok(Self {
            ca: file("ca.pem", ca.pem())?,
            certificate: file("client.pem", client.pem())?,
            key: file("client-key.pem", client_key.serialize_pem())?,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}
