//! One service of the shop, as a team would write it: plain HTTP or TCP, its upstreams on local ports, nothing of the mesh.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use mesh_tests::plain::Plain;

use crate::stats::{Failure, Stats};

/// How often the counts are printed.
const PRINT_EVERY: Duration = Duration::from_millis(200);
/// How long a payment may take.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Name of the service
    #[arg(long)]
    name: String,
    /// Its version
    #[arg(long, default_value = "v1")]
    version: String,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Serve lines over TCP, not HTTP
    #[arg(long)]
    tcp: bool,
    /// HTTP upstreams that each call asks: NAME=ADDRESS
    #[arg(long, value_parser = parse_upstream)]
    http: Vec<(String, SocketAddr)>,
    /// TCP upstreams that each call asks: NAME=ADDRESS
    #[arg(long = "lines", value_parser = parse_upstream)]
    lines: Vec<(String, SocketAddr)>,
}

/// A running service.
struct App {
    arguments: Arguments,
    clients: Vec<(String, Plain)>,
    stats: Mutex<Stats>,
}

fn parse_upstream(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=ADDRESS")?;
    Ok((name.to_owned(), address.parse().map_err(|error| format!("{error}"))?))
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let client = |(name, address): &(String, SocketAddr)| {
        (name.clone(), Plain::new(*address, &format!("{name}.default.mesh")))
    };
    let clients = arguments.http.iter().map(client).collect();
    let app = Arc::new(App { arguments, clients, stats: Mutex::default() });
    tokio::spawn(print(app.clone()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let app = app.clone();
        tokio::spawn(async move {
            if app.arguments.tcp { app.lines(stream).await } else { app.http(stream).await }
        });
    }
}

async fn print(app: Arc<App>) {
    let mut tick = tokio::time::interval(PRINT_EVERY);
    loop {
        tick.tick().await;
        let line = serde_json::to_string(&*app.stats.lock().expect("nothing panics while it is held"));
        println!("{}", line.expect("counts are numbers and texts"));
    }
}

impl App {
    /// Answers each line with one.
    async fn lines(&self, stream: TcpStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = format!("paid {line} by {}\n", self.arguments.version);
            if write.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn http(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let app = self.clone();
            async move { Ok::<_, std::convert::Infallible>(app.answer(&request).await) }
        });
        // A connection that breaks is the client's matter; calls are counted where they are made.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/healthz" {
            return Response::new(Full::from("ok"));
        }
        let caller = request
            .headers()
            .get("x-forwarded-client-cert")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        *self.stats().callers.entry(caller.to_owned()).or_default() += 1;
        match self.ask_upstreams().await {
            Ok(versions) => {
                let own = format!("{}:{}", self.arguments.name, self.arguments.version);
                Response::new(Full::from([vec![own], versions].concat().join(" ")))
            }
            Err(failure) => {
                let body = serde_json::to_string(&failure).expect("a failure is numbers and texts");
                let mut response = Response::new(Full::from(body));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    /// The versions that answered below this service.
    async fn ask_upstreams(&self) -> Result<Vec<String>, Failure> {
        let mut versions = Vec::new();
        for (name, address) in &self.arguments.lines {
            versions.push(self.counted(name, pay(*address)).await?);
        }
        for (name, client) in &self.clients {
            versions.push(self.counted(name, ask(client)).await?);
        }
        Ok(versions)
    }

    async fn counted(
        &self,
        name: &str,
        call: impl Future<Output = anyhow::Result<Answer>>,
    ) -> Result<String, Failure> {
        let (started, sent) = (now_millis(), clock());
        let result = call.await;
        let mut stats = self.stats();
        stats.ended(name, clock().duration_since(sent));
        let reason = match result {
            Ok(Answer::Good(versions)) => return Ok(versions),
            // It was told where it happened; only passed on here.
            Ok(Answer::FailedBelow(failure)) => return Err(failure),
            Err(error) => format!("{error:#}"),
        };
        let source = self.arguments.name.clone();
        let failure = Failure { source, destination: name.to_owned(), started, ended: now_millis(), reason };
        stats.failed(failure.clone());
        Err(failure)
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.stats.lock().expect("nothing panics while it is held")
    }
}

/// What came back.
pub(crate) enum Answer {
    /// The versions that answered.
    Good(String),
    /// A call further down failed, and was counted there.
    FailedBelow(Failure),
}

/// One call to an HTTP service.
pub(crate) async fn ask(client: &Plain) -> anyhow::Result<Answer> {
    let response = client.get("/").await?;
    if response.status() == StatusCode::OK {
        return Ok(Answer::Good(String::from_utf8_lossy(response.body()).into_owned()));
    }
    match serde_json::from_slice(response.body()) {
        Ok(failure) => Ok(Answer::FailedBelow(failure)),
        Err(_) => bail!("{}: {}", response.status(), String::from_utf8_lossy(response.body()).trim_end()),
    }
}

/// One call to a service that speaks lines: a connection of its own, as many old clients do.
async fn pay(address: SocketAddr) -> anyhow::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("cannot dial")?;
        stream.write_all(b"7\n").await.context("cannot send")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.context("no answer")?;
        if !line.starts_with("paid 7") {
            bail!("the connection ended without an answer: {line:?}");
        }
        Ok(Answer::Good(format!("payments:{}", line.trim_end().rsplit(' ').next().unwrap_or_default())))
    };
    tokio::time::timeout(PAYMENT_TIMEOUT, exchange).await.context("no answer in time")?
}

/// The wall clock, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the edge of a program without a core")]
pub(crate) fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The running clock.
#[expect(clippy::disallowed_methods, reason = "the edge of a program without a core")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
