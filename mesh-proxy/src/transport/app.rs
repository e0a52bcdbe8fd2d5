//! Connections to applications: those of this host, and those of others that are called past any proxy, in plaintext or
//! over TLS as their source says. TLS here only says who the application is: it does not know its callers.

use std::{
    collections::HashMap,
    fs, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use traffic::endpoint::{AppAddress, AppTls};

use super::{
    Ahead, SendError,
    tcp::{self, APP_TIMEOUT, Abort},
};
use crate::clock;

/// So long files of certificates are not read anew: another one is taken for the next connection after that.
const TRUST_KEPT: Duration = Duration::from_secs(60);

/// What an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Spoken {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
    /// Whatever a caller's stream of bytes is.
    Bytes,
}

/// Whom to believe, by a file if there is one, and what is spoken.
type Asked = (Option<String>, Spoken);

/// Dials applications.
#[derive(Default)]
pub(super) struct Dialler {
    trusted: Mutex<HashMap<Asked, (Instant, TlsConnector)>>,
}

/// A connection to an application.
pub enum Stream {
    /// In plaintext.
    Plain(TcpStream),
    /// It showed who it is.
    Tls(Box<TlsStream<Ahead<TcpStream>>>),
}

impl Dialler {
    /// A connection that is ready for what is spoken.
    pub(super) async fn dial(&self, app: &AppAddress, spoken: Spoken) -> Result<Stream, SendError> {
        let stream = tcp::dial_app(app.socket).await?;
        let Some(tls) = &app.tls else { return Ok(Stream::Plain(stream)) };
        let failed = |cause: &dyn std::fmt::Display| SendError::Connect(format!("{app}: {cause}"));
        let name = ServerName::try_from(tls.hostname.clone()).map_err(|error| failed(&error))?;
        let connector = self.connector(tls, spoken).await.map_err(|cause| failed(&cause))?;
        let shaken = timeout(APP_TIMEOUT, connector.connect(name, Ahead::new(stream))).await;
        let shaken = shaken.map_err(|_| failed(&"no TLS handshake in time"))?;
        shaken.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| failed(&error))
    }

    async fn connector(&self, tls: &AppTls, spoken: Spoken) -> Result<TlsConnector, String> {
        let key = (tls.ca_file.clone(), spoken);
        let kept = self.trusted.lock().get(&key).cloned();
        if let Some((_, connector)) = kept.filter(|(since, _)| counts(*since, clock::now())) {
            return Ok(connector);
        }
        let path = tls.ca_file.clone();
        let roots =
            spawn_blocking(move || roots(path.as_deref())).await.map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config(roots?, spoken)));
        self.trusted.lock().insert(key, (clock::now(), connector.clone()));
        Ok(connector)
    }

    /// Lets go of what was not asked for of late.
    pub(super) fn sweep(&self, now: Instant) {
        self.trusted.lock().retain(|_, (since, _)| counts(*since, now));
    }
}

fn counts(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < TRUST_KEPT
}

impl Spoken {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Bytes => Vec::new(),
        }
    }
}

fn config(roots: RootCertStore, spoken: Spoken) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(svid::provider().clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider has suites of TLS 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = spoken.alpn();
    config
}

/// The certificates in a file, or those that the host trusts.
fn roots(path: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = match path {
        Some(path) => {
            let text = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            read.map_err(|error| format!("{path}: {error}"))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    // Of the host's, some may be older than what can be read.
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(format!("{} has no certificate (PEM)", path.unwrap_or("what this host trusts")));
    }
    Ok(roots)
}

impl Abort for Stream {
    fn abort(&self) {
        match self {
            Self::Plain(stream) => stream.abort(),
            Self::Tls(stream) => stream.get_ref().0.abort(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
