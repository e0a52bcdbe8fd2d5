//! Callers: HTTP/1.1 by hand, HTTP/2 by hyper.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// A connection for HTTP/1.1.
pub struct Http1(pub BufReader<TcpStream>);

impl Http1 {
    pub async fn connect(to: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(to).await.expect("connected")))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.expect("written");
    }

    /// The head of an answer: its status and fields.
    pub async fn head(&mut self) -> (u16, HeaderMap) {
        let (mut status, mut headers) = (0, HeaderMap::new());
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time");
            assert_ne!(read.expect("read"), 0, "the connection ended before an answer");
            let line = line.trim_end();
            if line.is_empty() {
                return (status, headers);
            }
            match line.split_once(": ") {
                Some((name, value)) if status != 0 => {
                    let name: http::HeaderName = name.parse().expect("a name");
                    headers.append(name, value.parse().expect("a value"));
                }
                _ => status = line.split(' ').nth(1).expect("a status").parse().expect("a number"),
            }
        }
    }

    /// A whole answer.
    pub async fn answer(&mut self) -> Answer {
        let (status, headers) = self.head().await;
        let length = headers
            .get("content-length")
            .map(|length| length.to_str().expect("text").parse().expect("a number"));
        let body = match length {
            Some(length) => self.exactly(length).await,
            None if headers.get("transfer-encoding").is_some() => self.chunked().await,
            None => Vec::new(),
        };
        Answer { status, headers, body: String::from_utf8(body).expect("text") }
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("in time").expect("read");
        body
    }

    async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time").expect("read");
            let length = usize::from_str_radix(line.trim(), 16).expect("a length");
            body.extend(self.exactly(length).await);
            if length == 0 {
                while timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time").expect("read")
                    > 2
                {}
                return body;
            }
            self.exactly(2).await;
        }
    }

    /// Whatever comes until the other side has said its last.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("in time").expect("read");
        rest
    }

    /// Whatever comes until the stream is broken off.
    pub async fn broken(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("in time");
        assert_eq!(ended.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
        rest
    }
}

/// One request on a connection of its own.
pub async fn call(to: SocketAddr, text: &str) -> Answer {
    let mut connection = Http1::connect(to).await;
    connection.send(text.replace('\n', "\r\n").as_bytes()).await;
    connection.answer().await
}

/// `GET path`.
pub async fn get(to: SocketAddr, path: &str) -> Answer {
    call(to, &format!("GET {path} HTTP/1.1\nHost: shop.example\n\n")).await
}

/// `POST path` with a body.
pub async fn post(to: SocketAddr, path: &str, body: &str) -> Answer {
    call(to, &format!("POST {path} HTTP/1.1\nHost: shop.example\nContent-Length: {}\n\n{body}", body.len()))
        .await
}

pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A connection for HTTP/2.
pub async fn h2(to: SocketAddr) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(to).await.expect("connected");
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("shaken hands");
    tokio::spawn(connection);
    sender
}

/// One request of HTTP/2, and its answer with its trailers.
pub async fn h2_call(
    sender: &mut http2::SendRequest<Body>,
    request: Request<Body>,
) -> (Response<()>, Bytes, Option<HeaderMap>) {
    let answer: Response<Incoming> =
        timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let (head, body) = answer.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("in time").expect("a body");
    let trailers = body.trailers().cloned();
    (Response::from_parts(head, ()), body.to_bytes(), trailers)
}

pub fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}
