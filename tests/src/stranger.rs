//! A host that the test plays itself, by the documented REST calls: it joins, gets certificates, and knocks at doors
//! with whatever it has. And a forger, who has stolen a server's intermediate.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use model::{ca::JoinAnswer, identity::SpiffeId, token::JoinToken, trust::TrustBundle};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::DefaultTimeProvider,
};
use serde_json::{Value, json};
use svid::{Expect, KeyRequest, Trust, TrustStore, pem};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::cluster::Cluster;

/// How long a door may stay silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How an HTTP/2 connection begins (RFC 9113 §3.4): the preface and empty settings.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A call that needs no rights.
const H1_PREFACE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n";

/// A chain with its leaf's key, whatever is in it.
#[derive(Debug)]
pub struct Papers {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Papers {
    /// From PEM texts.
    ///
    /// # Errors
    /// If they are none.
    pub fn from_pem(chain: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self { chain: pem::certificates(chain)?, key: pem::private_key(key)? })
    }

    /// As rustls presents them, on either side.
    ///
    /// # Panics
    /// If the key is none.
    pub fn certified(&self) -> Arc<SingleCertAndKey> {
        let key = svid::provider().key_provider.load_private_key(self.key.clone_key()).expect("a key");
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key)))
    }
}

/// What became of a knock.
#[derive(Debug)]
pub enum Answer {
    /// The door opened: bytes came. The connection is still open.
    Opened(Box<TlsStream<TcpStream>>),
    /// It did not.
    Refused(String),
}

impl Answer {
    /// The open connection.
    ///
    /// # Panics
    /// If it was refused.
    #[track_caller]
    pub fn opened(self) -> TlsStream<TcpStream> {
        match self {
            Self::Opened(stream) => *stream,
            Self::Refused(reason) => panic!("refused: {reason}"),
        }
    }

    /// How it was refused, as the caller sees it.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn refused(self) -> String {
        match self {
            Self::Opened(_) => panic!("the door opened"),
            Self::Refused(reason) => reason,
        }
    }
}

/// What the control plane tells everybody to trust.
///
/// # Errors
/// If it does not answer.
pub async fn bundle(cluster: &Cluster) -> anyhow::Result<TrustBundle> {
    Ok(cluster.client(0)?.json(reqwest::Method::GET, "/v1/ca/bundle", None).await?)
}

/// Knocks at a listener that should be `expect`, presenting `papers`.
pub async fn knock(
    door: SocketAddr,
    trust: &TrustBundle,
    expect: Expect,
    alpn: &[u8],
    papers: Option<&Papers>,
) -> Answer {
    let knocked = async { opened(shake(door, trust, expect, alpn, papers).await?, alpn).await };
    match tokio::time::timeout(PATIENCE, knocked).await {
        Ok(Ok(stream)) => Answer::Opened(Box::new(stream)),
        Ok(Err(error)) => Answer::Refused(format!("{error:#}")),
        Err(_) => Answer::Refused("silence".to_owned()),
    }
}

/// Shakes hands with a listener that should be `expect`, presenting `papers`, and says nothing yet.
///
/// # Errors
/// If it is refused, or is somebody else.
pub async fn shake(
    door: SocketAddr,
    trust: &TrustBundle,
    expect: Expect,
    alpn: &[u8],
    papers: Option<&Papers>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    shake_over(TcpStream::connect(door).await?, trust, expect, alpn, papers).await
}

/// Shakes hands over a connection that stands.
///
/// # Errors
/// If it is refused, or is somebody else.
pub async fn shake_over(
    tcp: TcpStream,
    trust: &TrustBundle,
    expect: Expect,
    alpn: &[u8],
    papers: Option<&Papers>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let store = TrustStore::new(Trust::from_bundle(trust)?);
    let name = match &expect {
        Expect::Id(_) => ServerName::try_from("orders.default.mesh")?,
        Expect::Meshd => ServerName::from(tcp.peer_addr()?.ip()),
    };
    let mut config: ClientConfig =
        svid::client_config(None, store, expect, &[alpn], Arc::new(DefaultTimeProvider));
    if let Some(papers) = papers {
        config.client_auth_cert_resolver = papers.certified();
    }
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
}

/// In TLS 1.3 a client is done before the server has judged it: only an answer says that the door is open.
async fn opened(mut stream: TlsStream<TcpStream>, alpn: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
    stream.write_all(if alpn == b"h2" { H2_PREFACE } else { H1_PREFACE }).await?;
    let mut first = [0; 1];
    stream.read_exact(&mut first).await?;
    Ok(stream)
}

/// A host that the test plays.
#[derive(Debug)]
pub struct Stranger {
    /// Its name in the mesh.
    pub node: String,
    /// Its own certificate.
    pub papers: Papers,
    /// What it was told when it joined.
    pub joined: JoinAnswer,
    http: reqwest::Client,
    url: String,
}

impl Stranger {
    /// Joins with a token that grants `services`.
    ///
    /// # Errors
    /// If it is not let in.
    pub async fn join(cluster: &Cluster, node: &str, services: &[&str]) -> anyhow::Result<Self> {
        let mut arguments = vec!["token", "join", node, "--node", node];
        services.iter().for_each(|service| arguments.extend(["--service", service]));
        let token = cluster.meshctl(&arguments).await?;
        let key = KeyRequest::generate()?;
        let (status, body) = redeem(cluster, token.trim(), node, &key.csr_pem).await?;
        anyhow::ensure!(status == 201, "{status}: {body}");
        let joined: JoinAnswer = serde_json::from_value(body)?;
        let identity = format!("{}{}", key.key_pem, joined.certificate);
        let http = trusting(cluster)?.identity(reqwest::Identity::from_pem(identity.as_bytes())?).build()?;
        let papers = Papers::from_pem(&joined.certificate, &key.key_pem)?;
        Ok(Self { node: node.to_owned(), papers, joined, http, url: cluster.members[0].url() })
    }

    /// A call as this node; status and body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await?).await
    }

    /// A call as this node to any server, not sent yet.
    pub fn get(&self, server: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{server}{path}"))
    }

    /// A call as this node to another server; status and body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call_at(
        &self,
        url: &str,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Value)> {
        read(self.http.request(method, format!("{url}{path}")).json(body).send().await?).await
    }

    /// Calls as this node, by hand.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Asks for a service's certificate.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn certificate(&self, service: &str) -> anyhow::Result<Papers> {
        let key = KeyRequest::generate()?;
        let body = json!({"requests": [{"service": service, "csr": key.csr_pem}]});
        let (status, answer) = self.call(reqwest::Method::POST, "/v1/ca/certificates", Some(&body)).await?;
        anyhow::ensure!(status == 200, "{status}: {answer}");
        let answer = &answer["certificates"][0];
        let chain = answer["certificate"].as_str().with_context(|| answer["error"].to_string())?;
        Papers::from_pem(chain, &key.key_pem)
    }
}

/// `POST /v1/ca/join` with a token as it was printed; status and body.
///
/// # Errors
/// If there is no answer.
pub async fn redeem(cluster: &Cluster, token: &str, node: &str, csr: &str) -> anyhow::Result<(u16, Value)> {
    let token = token.parse::<JoinToken>()?.without_pin();
    let body = json!({"token": token, "node": node, "csr": csr, "version": "0.0.0"});
    let url = format!("{}/v1/ca/join", cluster.members[0].url());
    read(trusting(cluster)?.build()?.post(url).json(&body).send().await?).await
}

/// A client that trusts the cluster's root, without a name of its own.
///
/// # Errors
/// If the root certificate cannot be read.
pub fn trusting(cluster: &Cluster) -> anyhow::Result<reqwest::ClientBuilder> {
    let roots = reqwest::Certificate::from_pem_bundle(&std::fs::read(&cluster.cacert)?)?;
    Ok(reqwest::Client::builder().tls_certs_only(roots).timeout(PATIENCE))
}

/// A client of the API that presents `papers`, whosever they are.
///
/// # Errors
/// If the bundle or the client cannot be made.
pub fn caller(trust: &TrustBundle, papers: &Papers) -> anyhow::Result<reqwest::Client> {
    let store = TrustStore::new(Trust::from_bundle(trust)?);
    let mut config =
        svid::client_config(None, store, Expect::Meshd, &[b"http/1.1"], Arc::new(DefaultTimeProvider));
    config.client_auth_cert_resolver = papers.certified();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
    Ok(builder.no_proxy().http1_only().timeout(PATIENCE).build()?)
}

async fn read(response: reqwest::Response) -> anyhow::Result<(u16, Value)> {
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// Signs whatever a test makes of a leaf.
#[derive(Debug)]
pub struct Forger {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Forger {
    /// With the key that a server keeps in its data folder: its leaves lead to the mesh's true root.
    ///
    /// # Errors
    /// If it is not there.
    pub fn thief(data: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(data.join("ca/intermediate.pem"))?;
        let (key, certificates) =
            (KeyPair::from_pem(&text)?, text.find("-----BEGIN CERT").context("no certificate")?);
        let certificate = pem::certificates(&text[certificates..])?.remove(0);
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate })
    }

    /// With a root of its own, for this trust domain.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn founder(domain: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The certificate that signs, as PEM.
    pub fn root_pem(&self) -> String {
        pem::encode_chain(std::slice::from_ref(&self.certificate))
    }

    /// A leaf for `id`, flawless but for what `change` does to it.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn leaf(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> anyhow::Result<Papers> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (from_now(-300), from_now(3_600));
        params.subject_alt_names = vec![uri(id)?];
        change(&mut params);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Papers { chain: vec![leaf, self.certificate.clone()], key })
    }
}

/// A URI among a certificate's names.
///
/// # Errors
/// If it is not ASCII.
pub fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(text.try_into()?))
}

/// So many seconds from now, for a certificate's times.
pub fn from_now(seconds: i64) -> OffsetDateTime {
    #[expect(clippy::disallowed_methods, reason = "the harness runs in real time")]
    let now = OffsetDateTime::now_utc();
    now + time::Duration::seconds(seconds)
}

/// A SPIFFE id of the mesh.
///
/// # Panics
/// If the path makes none.
pub fn mesh_id(path: &str) -> SpiffeId {
    format!("spiffe://mesh.internal{path}").parse().expect("a SPIFFE id")
}
