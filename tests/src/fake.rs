//! HTTP servers in the test's own process that stand for directories which cannot be had. What such an API answers is its
//! [`Api`]; how the server misbehaves, when told, is the same for all.

use std::{
    collections::BTreeMap,
    future::Future,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As its documentation says.
    Well,
    /// As one that lost whom it would have to ask.
    Failing,
    /// Ends connections in the middle of an answer.
    Halving,
    /// Takes requests and never answers.
    Hanging,
    /// Has too many requests already.
    Limiting,
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// As it stands in the target, with `%2A` and the like undone.
    pub query: BTreeMap<String, String>,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came with it.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Told {
    /// `200 OK`.
    pub status: &'static str,
    /// Whole lines, without their ends.
    pub headers: Vec<String>,
    /// What comes with it.
    pub body: String,
    /// What comes after that, for as long as somebody has it to tell.
    pub stream: Option<mpsc::Receiver<String>>,
}

/// What a server answers.
pub trait Api: Send + Sync + 'static {
    /// Waits for as long as the API says.
    fn answer(&self, asked: Asked) -> impl Future<Output = Told> + Send;
}

/// A server; it ends when dropped.
#[derive(Debug)]
pub struct Fake<A> {
    /// Where it is.
    pub url: String,
    /// What it answers.
    pub api: Arc<A>,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl<A> Drop for Fake<A> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<A: Api> Fake<A> {
    /// Starts one on 127.0.0.1.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start(api: A) -> Self {
        Self::open(api, None).await
    }

    /// The same over TLS.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start_tls(api: A, acceptor: TlsAcceptor) -> Self {
        Self::open(api, Some(acceptor)).await
    }

    async fn open(api: A, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("bound"));
        let (api, manner) = (Arc::new(api), Arc::new(Mutex::new(Manner::Well)));
        let (shared, behaves) = (api.clone(), manner.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (api, manner, acceptor) = (shared.clone(), behaves.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        Some(acceptor) => serve(acceptor.accept(stream).await?, api, manner).await,
                        None => serve(stream, api, manner).await,
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, api, manner, task }
    }

    /// From the next answer on.
    pub fn behave(&self, manner: Manner) {
        *held(&self.manner) = manner;
    }
}

impl Told {
    /// 200 with JSON.
    pub fn json(body: &serde_json::Value) -> Self {
        Self {
            status: "200 OK",
            headers: vec!["Content-Type: application/json".to_owned()],
            body: body.to_string(),
            stream: None,
        }
    }

    /// 200 with JSON, piece by piece.
    pub fn stream(pieces: mpsc::Receiver<String>) -> Self {
        Self { stream: Some(pieces), body: String::new(), ..Self::json(&serde_json::Value::Null) }
    }

    /// What a server says that does not understand a request: tests see it.
    pub fn refused(status: &'static str, why: &str) -> Self {
        Self {
            status,
            headers: vec!["Content-Type: text/plain".to_owned()],
            body: why.to_owned(),
            stream: None,
        }
    }
}

/// What no test's panic takes away.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn serve<A: Api>(
    mut stream: impl Stream,
    api: Arc<A>,
    manner: Arc<Mutex<Manner>>,
) -> std::io::Result<()> {
    loop {
        let asked = read(&mut stream).await?;
        let mut told = api.answer(asked).await;
        let manner = *held(&manner);
        match manner {
            Manner::Hanging => return std::future::pending().await,
            Manner::Failing => told = Told::refused("500 Internal Server Error", "No cluster leader"),
            Manner::Limiting => told = Told::refused("429 Too Many Requests", "too many requests"),
            Manner::Well | Manner::Halving => {}
        }
        if let Some(pieces) = told.stream.take() {
            pour(&mut stream, &told, pieces).await?;
            continue;
        }
        let lines: String = told.headers.iter().map(|line| format!("{line}\r\n")).collect();
        let (status, length) = (told.status, told.body.len());
        let head = format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        if manner == Manner::Halving {
            return stream.write_all(&told.body.as_bytes()[..length / 2]).await;
        }
        stream.write_all(told.body.as_bytes()).await?;
    }
}

/// An answer in chunks. Whoever goes away ends it.
async fn pour(
    stream: &mut impl Stream,
    told: &Told,
    mut pieces: mpsc::Receiver<String>,
) -> std::io::Result<()> {
    let lines: String = told.headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("HTTP/1.1 {}\r\n{lines}Transfer-Encoding: chunked\r\n\r\n", told.status);
    stream.write_all(head.as_bytes()).await?;
    while let Some(piece) = pieces.recv().await {
        stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

async fn read(stream: &mut impl Stream) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (first, rest) = head.split_once("\r\n").unwrap_or_default();
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, _] = words[..] else { return Err(std::io::ErrorKind::InvalidData.into()) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (plain(key), plain(value)));
    let headers = rest.lines().filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<_, _> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Asked { method: method.to_owned(), path: plain(path), query: query.collect(), headers, body })
}

/// With `%2A` and `+` undone.
fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
