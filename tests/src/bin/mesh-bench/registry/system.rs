//! The two systems under load, each with its way of putting and of being asked for a watch. TLS everywhere, one persistent
//! HTTP/2 connection to a client, spread over the members. Who watches meshd speaks HTTP/1.1, as proxies do; etcd has gRPC
//! alone.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tests::{cluster::Cluster, process::Process};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::watching::{Ask, Spoken};
use crate::etcd::{self, Etcd};

/// The size of a value, in bytes.
pub(super) const VALUE_BYTES: usize = 256;
/// As many different keys are written.
const KEYS: u64 = 1_000;

/// One of the two systems.
pub(super) enum System {
    Mesh { cluster: Cluster, tls: Arc<rustls::ClientConfig>, watching: Arc<rustls::ClientConfig> },
    Etcd { etcd: Etcd, tls: Arc<rustls::ClientConfig> },
}

/// One connection to one member.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl System {
    pub(super) fn mesh(cluster: Cluster) -> anyhow::Result<Self> {
        let tls = tls(&std::fs::read(&cluster.cacert)?, None)?;
        let mut watching = (*tls).clone();
        watching.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self::Mesh { cluster, tls, watching: Arc::new(watching) })
    }

    pub(super) fn etcd(etcd: Etcd) -> anyhow::Result<Self> {
        let certificates = &etcd.certificates;
        let own = (
            std::fs::read(certificates.file("client.crt"))?,
            std::fs::read(certificates.file("client.key"))?,
        );
        let tls = tls(&std::fs::read(certificates.file("ca.crt"))?, Some(own))?;
        Ok(Self::Etcd { etcd, tls })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Mesh { .. } => "mesh",
            Self::Etcd { .. } => "etcd",
        }
    }

    /// All its processes that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Mesh { cluster, .. } => {
                cluster.members.iter().filter_map(|member| member.process.as_ref().map(Process::id)).collect()
            }
            Self::Etcd { etcd, .. } => etcd.processes.iter().map(Process::id).collect(),
        }
    }

    /// The process that leads.
    pub(super) async fn leader(&self) -> anyhow::Result<u32> {
        match self {
            Self::Mesh { cluster, .. } => {
                let leader = &cluster.members[cluster.leader().await?];
                Ok(leader.process.as_ref().context("the leader runs")?.id())
            }
            Self::Etcd { etcd, .. } => {
                for (index, process) in etcd.processes.iter().enumerate() {
                    if self.client(index).await?.leads().await? {
                        return Ok(process.id());
                    }
                }
                bail!("no etcd leads")
            }
        }
    }

    /// A connection to the `index`th member, counted round and round.
    pub(super) async fn client(&self, index: usize) -> anyhow::Result<Client> {
        let (address, port, tls) = match self {
            Self::Mesh { cluster, tls, .. } => (cluster.members[index % 3].address, 8_443, tls),
            Self::Etcd { etcd, tls } => (etcd.addresses[index % 3], 2_379, tls),
        };
        let stream = connect(address, port, tls).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, authority: format!("{address}:{port}") })
    }

    /// How the first key is followed, at the `index`th member.
    pub(super) fn watch(&self, index: usize) -> anyhow::Result<Ask> {
        Ok(match self {
            Self::Mesh { cluster, watching, .. } => {
                let (address, token) = (cluster.members[index % 3].address, &cluster.token);
                let head = format!(
                    "GET /v1/watch?kinds=Service HTTP/1.1\r\nhost: {address}:8443\r\nauthorization: Bearer {token}\r\n\r\n"
                );
                Ask { address, port: 8_443, tls: watching.clone(), request: Spoken::Http1(head) }
            }
            Self::Etcd { etcd, tls } => {
                let address = etcd.addresses[index % 3];
                let request = Spoken::Http2(Box::new(etcd::watch(&format!("{address}:2379"), "bench-0")?));
                Ask { address, port: 2_379, tls: tls.clone(), request }
            }
        })
    }
}

pub(super) async fn connect(
    address: Ipv4Addr,
    port: u16,
    tls: &Arc<rustls::ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((address, port)).await?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(tls.clone()).connect(ServerName::from(IpAddr::from(address)), stream).await?)
}

impl Client {
    /// One durable put of a value that nobody wrote before.
    pub(super) async fn put(&mut self, system: &System, number: u64, salt: u64) -> anyhow::Result<()> {
        self.put_value(system, number, &format!("{number}-{salt}-")).await
    }

    /// One durable put of a value that begins so.
    pub(super) async fn put_value(
        &mut self,
        system: &System,
        number: u64,
        begins: &str,
    ) -> anyhow::Result<()> {
        let key = format!("bench-{}", number % KEYS);
        let value = begins.to_owned() + &"v".repeat(VALUE_BYTES - begins.len());
        let request = match system {
            System::Mesh { cluster, .. } => {
                let body = format!(
                    "{{\"kind\":\"Service\",\"metadata\":{{\"namespace\":\"default\",\"name\":\"{key}\",\"annotations\":{{\"value\":\"{value}\"}}}},\"spec\":{{\"ports\":[{{\"port\":80}}]}}}}"
                );
                let path = format!("https://{}/v1/namespaces/default/services/{key}", self.authority);
                let request = Request::put(path).header("authorization", format!("Bearer {}", cluster.token));
                request.header("content-type", "application/json").body(Bytes::from(body))?
            }
            System::Etcd { .. } => etcd::put(&self.authority, &key, &value)?,
        };
        self.whole(request).await.map(drop)
    }

    /// The body of a linearizable GET of our API.
    pub(super) async fn read(&mut self, cluster: &Cluster, path: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(format!("https://{}{path}", self.authority))
            .header("authorization", format!("Bearer {}", cluster.token));
        self.whole(request.body(Bytes::new())?).await
    }

    /// Whether this etcd leads.
    async fn leads(&mut self) -> anyhow::Result<bool> {
        let answer = self.whole(etcd::status(&self.authority)?).await?;
        etcd::leads(&answer)
    }

    /// The whole body of an answer that is a success.
    async fn whole(&mut self, request: Request<Bytes>) -> anyhow::Result<Bytes> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            bail!("refused: {}", response.status());
        }
        let collected = response.into_body().collect().await?;
        match collected.trailers().and_then(|trailers| trailers.get("grpc-status")) {
            Some(status) if status != "0" => bail!("refused: grpc-status {status:?}"),
            _ => Ok(collected.to_bytes()),
        }
    }

    async fn send(&mut self, request: Request<Bytes>) -> anyhow::Result<http::Response<Incoming>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.map(Full::new)).await?)
    }
}

fn tls(roots: &[u8], own: Option<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
