use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An application that shows a certificate for `orders.example`, of a root in a file of its own, and says what was agreed on.
struct Application {
    folder: tempfile::TempDir,
    socket: std::net::SocketAddr,
}

impl Application {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = certificates(&folder.path().join("ca.pem"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let (_, tls) = stream.get_ref();
                    let spoken = String::from_utf8_lossy(tls.alpn_protocol().unwrap_or(b"nothing"));
                    let said = format!("{} {spoken}", tls.server_name().unwrap_or("nobody"));
                    let _ = stream.write_all(said.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { folder, socket }
    }

    /// As a source says that it is called.
    fn address(&self, hostname: &str, ca: &str) -> AppAddress {
        let ca_file = self.folder.path().join(ca).display().to_string();
        let tls = AppTls { hostname: hostname.to_owned(), ca_file: Some(ca_file) };
        AppAddress { socket: self.socket, tls: Some(Arc::new(tls)) }
    }
}

/// A root, into a file, and what a server with a certificate of it is set up with.
fn certificates(ca: &Path) -> ServerConfig {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(ca, root.self_signed(&root_key).expect("a root").pem()).expect("written");
    let (key, issuer) = (KeyPair::generate().expect("a key"), Issuer::new(root, root_key));
    let leaf = CertificateParams::new(vec!["orders.example".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder = ServerConfig::builder_with_provider(svid::provider().clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("suites").with_no_client_auth();
    let mut server = builder.with_single_cert(vec![leaf], key).expect("they belong together");
    server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    server
}

async fn said(dialler: &Dialler, app: &AppAddress, spoken: Spoken) -> Result<String, String> {
    let mut stream = dialler.dial(app, spoken).await.map_err(|error| error.to_string())?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.map_err(|error| error.to_string())?;
    Ok(said)
}

#[tokio::test]
async fn what_is_spoken_is_asked_for_by_name() {
    let (application, dialler) = (Application::start().await, Dialler::default());
    let app = application.address("orders.example", "ca.pem");
    for (spoken, want) in [(Spoken::H2, "h2"), (Spoken::Http1, "http/1.1"), (Spoken::Bytes, "nothing")] {
        assert_eq!(said(&dialler, &app, spoken).await, Ok(format!("orders.example {want}")));
    }
}

#[tokio::test]
async fn nobody_is_called_who_is_another_or_of_another_root() {
    let (application, dialler) = (Application::start().await, Dialler::default());
    certificates(&application.folder.path().join("other.pem"));
    fs::write(application.folder.path().join("empty.pem"), "words").expect("written");
    let at = application.socket;
    for (hostname, ca, want) in [
        ("payments.example", "ca.pem", "not valid for name"),
        ("orders.example", "other.pem", "invalid peer certificate: "),
        ("orders.example", "empty.pem", "empty.pem has no certificate (PEM)"),
        ("orders.example", "missing.pem", "missing.pem: No such file"),
    ] {
        let refused = said(&dialler, &application.address(hostname, ca), Spoken::Http1).await;
        let refused = refused.expect_err("nobody is called");
        let begins = format!("no connection: {at} as {hostname}: ");
        assert!(refused.starts_with(&begins) && refused.contains(want), "{refused}");
    }
    // By what this host trusts it is nobody, either.
    let tls = Some(Arc::new(AppTls { hostname: "orders.example".to_owned(), ca_file: None }));
    said(&dialler, &AppAddress { socket: at, tls }, Spoken::Http1).await.expect_err("nobody is called");
}

#[tokio::test]
async fn another_file_counts_a_minute_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    certificates(&path);
    let (dialler, ca_file) = (Dialler::default(), Some(path.display().to_string()));
    let tls = AppTls { hostname: "orders.example".to_owned(), ca_file };
    let connector = async || dialler.connector(&tls, Spoken::Http1).await;
    connector().await.expect("a root");
    fs::remove_file(&path).expect("removed");
    connector().await.expect("what was read");
    dialler.sweep(clock::now() + TRUST_KEPT);
    assert!(connector().await.err().expect("it is gone").contains("No such file"));
}
