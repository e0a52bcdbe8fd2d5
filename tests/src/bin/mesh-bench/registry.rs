//! Three meshd beside three etcd: durable puts and watches, TLS for peers and clients on both sides, values of the same
//! size, persistent HTTP/2 connections spread over the members.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tests::{cluster::Cluster, histogram::Histogram, process::Process, wait};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use crate::{
    clock::{now, since},
    etcd::{self, Etcd},
    results::{Comparison, Rounds, alone, compare},
    usage,
};

/// The size of a value, in bytes.
const VALUE_BYTES: usize = 256;
/// As many different keys are written.
const KEYS: u64 = 1_000;
/// How many clients put at once.
const CLIENTS: [usize; 2] = [1, 64];
/// How many watchers are told of a change.
const WATCHERS: usize = 200;
/// How many changes they are told of, each timed.
const CHANGES: usize = 30;

type Body = StreamBody<body::Frames>;
type Sender = SendRequest<Body>;

/// A request's body: one piece, after which the stream ends, or stays open for a watch.
mod body {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use hyper::body::Frame;

    pub(super) struct Frames {
        pub(super) piece: Option<Bytes>,
        pub(super) open: bool,
    }

    impl futures_util::Stream for Frames {
        type Item = Result<Frame<Bytes>, Infallible>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            match self.piece.take() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.open => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }
}

/// One of the two systems.
enum System {
    Mesh { cluster: Cluster, tls: Arc<rustls::ClientConfig> },
    Etcd { etcd: Etcd, tls: Arc<rustls::ClientConfig> },
}

/// What one measurement gave.
struct Puts {
    per_second: f64,
    p99_ms: f64,
    cpu_micros: f64,
}

/// Runs all measurements, interleaved, and compares.
pub(crate) async fn run(rounds: u32, seconds: u64) -> anyhow::Result<Vec<Comparison>> {
    let folder = tempfile::Builder::new().prefix("mesh-bench-").tempdir()?;
    let etcd = etcd::start(folder.path())?;
    let cluster = Cluster::start(folder.path(), 3, |_| ()).await?;
    println!("meshd:\n{}", std::fs::read_to_string(&cluster.members[0].config)?);
    let systems = [System::mesh(cluster)?, System::etcd(etcd)?];
    for system in &systems {
        wait::until("puts are taken", Duration::from_secs(20), || async {
            tokio::time::timeout(Duration::from_secs(2), async {
                system.client(0).await?.put(system, 0, 0).await
            })
            .await?
        })
        .await?;
    }
    let mut results = Vec::new();
    for clients in CLIENTS {
        let mut figures = [const { (Rounds(Vec::new()), Rounds(Vec::new()), Rounds(Vec::new())) }; 2];
        for round in 1..=rounds {
            for (system, figures) in systems.iter().zip(&mut figures) {
                eprintln!("round {round}: {clients} clients · {}", system.name());
                let puts = measure_puts(system, clients, Duration::from_secs(seconds)).await?;
                figures.0.0.push(puts.per_second);
                figures.1.0.push(puts.p99_ms);
                figures.2.0.push(puts.cpu_micros);
            }
        }
        let [ours, theirs] = figures;
        results.push(compare(
            &format!("durable puts, {clients} clients"),
            "puts/s",
            &ours.0,
            "etcd",
            &theirs.0,
        ));
        results.push(compare(&format!("p99 of a put, {clients} clients"), "ms", &ours.1, "etcd", &theirs.1));
        results.push(compare(
            &format!("CPU of all members, {clients} clients"),
            "µs/put",
            &ours.2,
            "etcd",
            &theirs.2,
        ));
    }
    let mut memory = systems.iter().map(|system| {
        Rounds(vec![system.pids().iter().map(|pid| usage::memory_mb(&[*pid])).fold(0.0, f64::max)])
    });
    if let (Some(ours), Some(theirs)) = (memory.next(), memory.next()) {
        results.push(compare("memory of the largest member", "MB", &ours, "etcd", &theirs));
    }
    let (ours, theirs) = (measure_watch(&systems[0]).await?, measure_watch(&systems[1]).await?);
    results.push(compare(
        &format!("change → last of {WATCHERS} watchers, p50"),
        "ms",
        &ours,
        "etcd",
        &theirs,
    ));
    let memory = systems[0].pids().iter().map(|pid| usage::memory_mb(&[*pid])).sum();
    results.push(alone("memory of all members at the end", "MB", &Rounds(vec![memory])));
    Ok(results)
}

async fn measure_puts(system: &System, clients: usize, length: Duration) -> anyhow::Result<Puts> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for index in 0..clients {
        connections.push(system.client(index).await?);
    }
    let before = usage::cpu(&system.pids());
    let (started, salt) = (now(), rand_salt());
    let work = connections.into_iter().map(|mut client| {
        let counter = counter.clone();
        async move {
            let mut latencies = Histogram::default();
            while since(started) < length {
                let sent = now();
                client.put(system, counter.fetch_add(1, Ordering::Relaxed), salt).await?;
                latencies.record(since(sent));
            }
            anyhow::Ok(latencies)
        }
    });
    let mut all = Histogram::default();
    for latencies in futures_util::future::try_join_all(work).await? {
        all.merge(&latencies);
    }
    let (taken, used) = (since(started).as_secs_f64(), usage::cpu(&system.pids()).saturating_sub(before));
    let count = all.count() as f64;
    Ok(Puts {
        per_second: count / taken,
        p99_ms: all.quantile_ms(0.99),
        cpu_micros: used.as_secs_f64() * 1e6 / count,
    })
}

/// The time from sending a change until the last watcher has it; one figure for each change.
async fn measure_watch(system: &System) -> anyhow::Result<Rounds> {
    eprintln!("{WATCHERS} watchers · {}", system.name());
    let (told, mut hears) = mpsc::channel(WATCHERS * 2);
    let mut watchers = JoinSet::new();
    for index in 0..WATCHERS {
        let body = system.client(index).await?.watch(system).await?;
        watchers.spawn(follow(body, told.clone()));
    }
    let mut client = system.client(0).await?;
    // Every watcher has said its first word (its own creation, or the current state) before a change is timed.
    heard_by_all(&mut hears).await?;
    let mut rounds = Rounds::default();
    for change in 0..CHANGES {
        while hears.try_recv().is_ok() {}
        let sent = now();
        client.put(system, 0, u64::MAX - change as u64).await?;
        heard_by_all(&mut hears).await?;
        rounds.0.push(since(sent).as_secs_f64() * 1e3);
    }
    Ok(rounds)
}

async fn heard_by_all(hears: &mut mpsc::Receiver<()>) -> anyhow::Result<()> {
    for heard in 0..WATCHERS {
        let one = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await;
        one.with_context(|| format!("only {heard} of {WATCHERS} watchers heard of it"))?;
    }
    Ok(())
}

async fn follow(mut body: Incoming, told: mpsc::Sender<()>) {
    while let Some(Ok(frame)) = body.frame().await {
        if frame.is_data() && told.send(()).await.is_err() {
            return;
        }
    }
}

impl System {
    fn mesh(cluster: Cluster) -> anyhow::Result<Self> {
        let tls = tls(&std::fs::read(&cluster.cacert)?, None)?;
        Ok(Self::Mesh { cluster, tls })
    }

    fn etcd(etcd: Etcd) -> anyhow::Result<Self> {
        let certificates = &etcd.certificates;
        let own = (
            std::fs::read(certificates.file("client.crt"))?,
            std::fs::read(certificates.file("client.key"))?,
        );
        let tls = tls(&std::fs::read(certificates.file("ca.crt"))?, Some(own))?;
        Ok(Self::Etcd { etcd, tls })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Mesh { .. } => "mesh",
            Self::Etcd { .. } => "etcd",
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Mesh { cluster, .. } => {
                cluster.members.iter().filter_map(|member| member.process.as_ref()).map(Process::id).collect()
            }
            Self::Etcd { etcd, .. } => etcd.processes.iter().map(Process::id).collect(),
        }
    }

    /// A connection of its own to one of the members, by turns.
    async fn client(&self, index: usize) -> anyhow::Result<Client> {
        let (address, port, tls) = match self {
            Self::Mesh { cluster, tls } => (cluster.members[index % 3].address, 8_443, tls),
            Self::Etcd { etcd, tls } => (etcd.addresses[index % 3], 2_379, tls),
        };
        let stream = TcpStream::connect((address, port)).await?;
        stream.set_nodelay(true)?;
        let stream = tokio_rustls::TlsConnector::from(tls.clone())
            .connect(ServerName::from(std::net::IpAddr::from(address)), stream)
            .await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, authority: format!("{address}:{port}") })
    }
}

struct Client {
    sender: Sender,
    authority: String,
}

impl Client {
    /// One durable put of a value that nobody wrote before.
    async fn put(&mut self, system: &System, number: u64, salt: u64) -> anyhow::Result<()> {
        let key = format!("bench-{}", number % KEYS);
        let unique = format!("{number}-{salt}-");
        let value = unique.clone() + &"v".repeat(VALUE_BYTES - unique.len());
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
        let response = self.send(request, false).await?;
        if !response.status().is_success() {
            bail!("a put was refused: {}", response.status());
        }
        let collected = response.into_body().collect().await?;
        match collected.trailers().and_then(|trailers| trailers.get("grpc-status")) {
            Some(status) if status != "0" => bail!("a put was refused: grpc-status {status:?}"),
            _ => Ok(()),
        }
    }

    /// Follows the first key.
    async fn watch(mut self, system: &System) -> anyhow::Result<Incoming> {
        let request = match system {
            System::Mesh { cluster, .. } => {
                let path = format!("https://{}/v1/watch?kinds=Service", self.authority);
                Request::get(path)
                    .header("authorization", format!("Bearer {}", cluster.token))
                    .body(Bytes::new())?
            }
            System::Etcd { .. } => etcd::watch(&self.authority, "bench-0")?,
        };
        let open = matches!(system, System::Etcd { .. });
        Ok(self.send(request, open).await?.into_body())
    }

    async fn send(
        &mut self,
        request: Request<Bytes>,
        open: bool,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let (parts, body) = request.into_parts();
        let piece = (!body.is_empty()).then_some(body);
        let body = StreamBody::new(body::Frames { piece, open });
        self.sender.ready().await?;
        Ok(self.sender.send_request(Request::from_parts(parts, body)).await?)
    }
}

/// Differs from run to run, so that no put writes what stands there already.
fn rand_salt() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 1
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
