//! New connections of mTLS at the called proxy, one request each, as fast as they come: with full handshakes, and with
//! sessions that are resumed. What each handshake was says TLS itself; one that is not what was asked for fails.

use std::{io, sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh_tests::stranger::{Papers, mesh_id};
use model::trust::TrustBundle;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::ServerName,
    time_provider::DefaultTimeProvider,
};
use svid::{Expect, Trust, TrustStore, pem};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    certificates::Certificates,
    clock::{now, since},
};

/// As many are opened side by side.
const WORKERS: usize = 16;
/// Sessions that each keeps: a connection takes one, and gets at least one.
const SESSIONS: usize = 32;

/// Where a called proxy takes mTLS, and how it is spoken to.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    request: String,
    /// The process behind it.
    pub(super) pid: u32,
}

/// What became of connections.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Shaken {
    pub(super) full: f64,
    pub(super) resumed: f64,
}

impl Door {
    /// Of a peer that does not know the mesh, with the certificates of the bench.
    pub(super) fn of_peer(port: u16, certificates: &Certificates, pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| std::fs::read_to_string(certificates.file(name));
        let papers = Papers::from_pem(&read("a.crt")?, &read("a.key")?)?;
        let mut roots = RootCertStore::empty();
        pem::certificates(&read("ca.crt")?)?.into_iter().try_for_each(|root| roots.add(root))?;
        let provider = svid::provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = builder.with_webpki_verifier(verifier).with_client_cert_resolver(papers.certified());
        let name = "b.mesh.test";
        Ok(Self {
            address: format!("127.0.0.1:{port}"),
            name: ServerName::try_from(name)?,
            // It names no protocol: Envoy takes `h2` alone by name, and others for what their first bytes are.
            config: Arc::new(config),
            request: format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"),
            pid,
        })
    }

    /// Of a proxy of the mesh: `default/app`, port 80, called as `papers` by a proxy that wants HTTP/1.1.
    pub(super) fn of_mesh(
        address: String,
        trust: &TrustBundle,
        papers: &Papers,
        pid: u32,
    ) -> anyhow::Result<Self> {
        let store = TrustStore::new(Trust::from_bundle(trust)?);
        let expect = Expect::Id(mesh_id("/ns/default/svc/app"));
        let clock = Arc::new(DefaultTimeProvider);
        let mut config = svid::client_config(None, store, expect, &[b"http/1.1"], clock);
        config.client_auth_cert_resolver = papers.certified();
        let host = "app.default.mesh";
        Ok(Self {
            address,
            name: ServerName::try_from(host)?,
            config: Arc::new(config),
            request: format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nx-mesh-port: 80\r\nConnection: close\r\n\r\n"
            ),
            pid,
        })
    }

    /// Connections for so long, each with a handshake of that kind but for the first of each worker.
    pub(super) async fn run(&self, resume: bool, length: Duration) -> anyhow::Result<Shaken> {
        let started = now();
        let workers = (0..WORKERS).map(|_| async {
            // Sessions of its own: of one server's, a store keeps but a few.
            let mut config = ClientConfig::clone(&self.config);
            config.resumption =
                if resume { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
            let (connector, mut shaken) = (TlsConnector::from(Arc::new(config)), Shaken::default());
            while since(started) < length {
                match self.connect(&connector).await? {
                    HandshakeKind::Resumed => shaken.resumed += 1.0,
                    HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => shaken.full += 1.0,
                }
            }
            anyhow::Ok(shaken)
        });
        let all = futures_util::future::try_join_all(workers).await?;
        Ok(all.into_iter().fold(Shaken::default(), |sum, one| Shaken {
            full: sum.full + one.full,
            resumed: sum.resumed + one.resumed,
        }))
    }

    async fn connect(&self, connector: &TlsConnector) -> anyhow::Result<HandshakeKind> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let mut stream = connector.connect(self.name.clone(), tcp).await?;
        let kind = stream.get_ref().1.handshake_kind().context("the handshake is not done")?;
        stream.write_all(self.request.as_bytes()).await?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            // Some close without saying so in TLS.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => {}
        }
        let head = String::from_utf8_lossy(&answer);
        anyhow::ensure!(
            head.starts_with("HTTP/1.1 200"),
            "not answered: {}",
            head.lines().next().unwrap_or("nothing")
        );
        Ok(kind)
    }
}
