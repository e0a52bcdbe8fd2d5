//! Applications: they do what the path of a request says.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An application that runs.
pub struct App {
    pub address: SocketAddr,
    /// Requests that it saw.
    pub seen: Arc<AtomicUsize>,
    /// Requests to `/held` wait for this.
    pub release: Arc<Notify>,
    /// While it is, all answers are 500.
    sick: Arc<AtomicBool>,
    end: Arc<Notify>,
    task: JoinHandle<()>,
}

impl App {
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// From now on it answers well.
    pub fn heal(&self) {
        self.sick.store(false, Ordering::SeqCst);
    }

    /// It stops listening, and all its connections have ended.
    pub async fn kill(self) -> SocketAddr {
        self.end.notify_one();
        self.task.await.expect("it ends well");
        self.address
    }
}

/// An HTTP/1.1 application that says `name`.
pub async fn http(name: &'static str) -> App {
    start(name, false).await
}

/// The same, which answers 500 until it is healed.
pub async fn sick(name: &'static str) -> App {
    let app = start(name, false).await;
    app.sick.store(true, Ordering::SeqCst);
    app
}

/// An HTTP/2 application that says `name`.
pub async fn h2(name: &'static str) -> App {
    start(name, true).await
}

async fn start(name: &'static str, h2: bool) -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (seen, release) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let (count, held, sick) = (seen.clone(), release.clone(), Arc::<AtomicBool>::default());
    let (unwell, end) = (sick.clone(), Arc::<Notify>::default());
    let ended = end.clone();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ended.notified() => break,
            };
            let (stream, peer) = accepted.expect("accepted");
            let (count, held, unwell) = (count.clone(), held.clone(), unwell.clone());
            let service = service_fn(move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                let (held, unwell) = (held.clone(), unwell.load(Ordering::SeqCst));
                async move {
                    let mut answer = answer(name, peer, request, held).await;
                    if unwell {
                        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let stream = TokioIo::new(stream);
            connections.spawn(async move {
                if h2 {
                    drop(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await);
                } else {
                    drop(http1::Builder::new().serve_connection(stream, service).with_upgrades().await);
                }
            });
        }
        drop(listener);
        connections.shutdown().await;
    });
    App { address, seen, release, sick, end, task }
}

fn full(text: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(text.into()).boxed_unsync()
}

async fn answer(
    name: &str,
    peer: SocketAddr,
    request: Request<Incoming>,
    held: Arc<Notify>,
) -> Response<Body> {
    if request.headers().contains_key("x-echo") {
        return echo(name, &request);
    }
    match request.uri().path() {
        "/echo" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Response::new(full(body))
        }
        "/head" => Response::new(full(head(name, peer, &request))),
        "/held" => {
            held.notified().await;
            Response::new(full(name.to_owned()))
        }
        "/stream" => stream(request.into_body()),
        "/grpc" => grpc(name, request).await,
        "/upgrade" => upgrade(request),
        "/drip" => drip(),
        path if path.starts_with("/status/") => {
            let mut response = Response::new(full(name.to_owned()));
            *response.status_mut() = path["/status/".len()..].parse().unwrap_or(StatusCode::BAD_REQUEST);
            if let Some(wait) = request.headers().get("x-come-again") {
                response.headers_mut().insert("retry-after", wait.clone());
            }
            response
        }
        _ => Response::new(full(name.to_owned())),
    }
}

/// What a request looks like, whatever its path: `<name> <METHOD> <target>`, and its fields, a line each. The fields of
/// the answer are those that `x-echo-answer` asks for (`a=1, b=2`).
fn echo(name: &str, request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
    let mut text = format!("{name} {} {target}\n", request.method());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut response = Response::new(full(text));
    let asked = request.headers().get("x-echo-answer").and_then(|asked| asked.to_str().ok());
    for (name, value) in
        asked.into_iter().flat_map(|asked| asked.split(", ")).filter_map(|pair| pair.split_once('='))
    {
        let name: http::HeaderName = name.parse().expect("a name");
        response.headers_mut().append(name, value.parse().expect("a value"));
    }
    response
}

/// The request as it came: version, target, fields, the caller's address.
fn head(name: &str, peer: SocketAddr, request: &Request<Incoming>) -> String {
    let mut lines: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    let first =
        format!("{name} {:?} {} {} from {}", request.version(), request.method(), request.uri(), peer.ip());
    format!("{first}\n{}\n", lines.join("\n"))
}

/// Sends each piece back as it comes, then trailers.
fn stream(mut body: Incoming) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && sender.send(Ok(Frame::data(data))).await.is_err()
            {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-ended", "yes".parse().expect("a value"));
        drop(sender.send(Ok(Frame::trailers(trailers))).await);
    });
    Response::new(from(receiver))
}

fn from(receiver: mpsc::Receiver<Result<Frame<Bytes>, Infallible>>) -> Body {
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A unary gRPC answer: one message, and the status in the trailers: what the request says for this application (`x-one: 14`
/// for one that is called so), else 5.
async fn grpc(name: &str, request: Request<Incoming>) -> Response<Body> {
    let said = request.headers().get(format!("x-{name}")).cloned();
    assert_eq!((request.version(), request.headers()["te"].as_bytes()), (Version::HTTP_2, &b"trailers"[..]));
    let message = request.into_body().collect().await.expect("a message").to_bytes();
    let (sender, receiver) = mpsc::channel(2);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", said.unwrap_or_else(|| "5".parse().expect("a value")));
    sender.try_send(Ok(Frame::data(message))).expect("room");
    sender.try_send(Ok(Frame::trailers(trailers))).expect("room");
    let mut response = Response::new(from(receiver));
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    response
}

/// Leaves HTTP, and sends everything back.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
        let (mut read, mut write) = tokio::io::split(&mut stream);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().expect("a value"));
    response.headers_mut().insert("upgrade", "echo".parse().expect("a value"));
    response
}

/// An answer that never ends.
fn drip() -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(Ok(Frame::data(Bytes::from_static(b".")))).await.is_ok() {
            // Pace: an answer that comes slowly.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    Response::new(from(receiver))
}

/// A TCP application that sends `greeting` first, then everything back until the caller has said its last; then `bye`.
pub async fn tcp(greeting: &'static str) -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (seen, release) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let (count, end) = (seen.clone(), Arc::<Notify>::default());
    let ended = end.clone();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ended.notified() => break,
            };
            let (mut stream, _) = accepted.expect("accepted");
            count.fetch_add(1, Ordering::SeqCst);
            connections.spawn(async move {
                stream.write_all(greeting.as_bytes()).await.expect("written");
                let mut buffer = [0; 1_024];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..length]).await.expect("written");
                }
                drop(stream.write_all(b"bye").await);
                drop(stream.shutdown().await);
            });
        }
        drop(listener);
        connections.shutdown().await;
    });
    App { address, seen, release, sick: Arc::default(), end, task }
}
