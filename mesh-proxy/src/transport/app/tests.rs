use std::path::Path;

use http_body_util::BodyExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, server};

use super::*;
use crate::{
    body,
    http1::{Line, Question},
};

/// An application that shows a certificate for `orders.example`, of a root in a file of its own.
struct Application {
    folder: tempfile::TempDir,
    socket: std::net::SocketAddr,
}

impl Application {
    /// One that says what was agreed on.
    async fn start() -> Self {
        Self::serve(|mut stream| async move {
            let (_, tls) = stream.get_ref();
            let spoken = String::from_utf8_lossy(tls.alpn_protocol().unwrap_or(b"nothing"));
            let said = format!("{} {spoken}", tls.server_name().unwrap_or("nobody"));
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.shutdown().await;
        })
        .await
    }

    /// One that answers so, and closes its connection: after TLS's own end, or, as many do, without.
    async fn answering(answer: &'static str, ends: bool) -> Self {
        Self::serve(move |mut stream| async move {
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = if ends { stream.shutdown().await } else { stream.get_mut().0.shutdown().await };
            // What comes now is the caller's end.
            let _ = stream.read(&mut [0; 1_024]).await;
        })
        .await
    }

    async fn serve<F>(each: impl Fn(server::TlsStream<TcpStream>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let folder = tempfile::tempdir().expect("a folder");
        let server = certificates(&folder.path().join("ca.pem"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, each) = (acceptor.clone(), each.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    each(stream).await;
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

/// The body of what an application answers to a request, or why there is none.
async fn answered(dialler: &Dialler, app: &AppAddress) -> Result<String, String> {
    let stream = dialler.dial(app, Spoken::Http1).await.expect("it is reached");
    let request = http::Request::get("/").header("host", "orders.example");
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let line = Line::new(Box::new(stream), None);
    let answer = line.ask(Question::to_app(&head), body::Request::Empty).await;
    let body = answer.map_err(|error| error.to_string())?.into_body().collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// RFC 9112 §9.8: what says its own length is whole once it has come; what lasts until the end needs TLS to say the end.
#[tokio::test]
async fn an_answer_that_says_where_it_ends_needs_no_end_of_tls_and_every_other_does() {
    let dialler = Dialler::default();
    for (answer, whole_with_end, whole_without) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", true, true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", false, false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true, true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false, false),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true, false),
        ("HTTP/1.0 200 OK\r\n\r\nhello", true, false),
    ] {
        for (ends, whole) in [(true, whole_with_end), (false, whole_without)] {
            let application = Application::answering(answer, ends).await;
            let body = answered(&dialler, &application.address("orders.example", "ca.pem")).await;
            let got = body.as_deref().map_err(String::as_str);
            assert_eq!(got.ok(), whole.then_some("hello"), "{answer:?}, ends: {ends}: {got:?}");
        }
    }
    // Nobody knows of a stream of bytes where it ends, but its two sides.
    for (ends, whole) in [(true, true), (false, false)] {
        let application = Application::answering("hello", ends).await;
        let mut stream =
            dialler.dial(&application.address("orders.example", "ca.pem"), Spoken::Bytes).await.expect("one");
        stream.write_all(b"well?").await.expect("taken");
        let mut said = Vec::new();
        let read = stream.read_to_end(&mut said).await;
        assert_eq!((said.as_slice(), read.is_ok()), (&b"hello"[..], whole), "ends: {ends}");
    }
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
