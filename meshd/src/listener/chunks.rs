//! Answers in HTTP/1.1 whose length nobody knows, above all watches: once hyper has sent such an answer's head, its body is
//! written here, in chunks (RFC 9112 §7.1), straight into TLS; then hyper goes on with the connection. A piece is asked for
//! when the one before has left, so that a slow reader costs one piece.
//!
//! Why not by hyper: see docs/adr/0025.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes, buf::Chain};
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_write_buf;

use super::wire::Wire;

/// The longest line before a chunk: the digits of its length, and the line's end.
const LENGTH_BYTES: usize = 18;

/// Where the body of one connection's answer is put aside, until it is known that its head has left.
#[derive(Default)]
pub(super) struct Aside {
    body: Mutex<Option<Body>>,
    /// hyper has written the head: it asked for what comes after it.
    headed: AtomicBool,
}

/// What hyper is given in a body's place. It has nothing, and never ends.
struct Held(Arc<Aside>);

impl Aside {
    /// Whether an answer to this request may be put aside: neither is anything of it left to be read, nor does the client
    /// say how the connection shall go on.
    pub(super) fn takes<B: http_body::Body>(request: &Request<B>) -> bool {
        request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
            && !request.headers().contains_key(header::CONNECTION)
    }

    /// Puts a body aside whose length nobody knows.
    pub(super) fn put(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        let headers = response.headers();
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
        let endless = response.body().size_hint().exact().is_none() && !response.body().is_end_stream();
        if response.status() != StatusCode::OK
            || !endless
            || framed.iter().any(|name| headers.contains_key(name))
        {
            return response;
        }
        response.map(|body| {
            *self.body.lock() = Some(body);
            Body::new(Held(self.clone()))
        })
    }

    /// The body whose head has been written.
    pub(super) fn take(&self) -> Option<Body> {
        self.headed.swap(false, Ordering::Relaxed).then(|| self.body.lock().take()).flatten()
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.headed.store(true, Ordering::Relaxed);
        Poll::Pending
    }
}

/// A body on its way.
pub(super) struct Chunks {
    wire: Wire,
    body: Body,
    writing: Chunk,
    /// What is being written is the end.
    last: bool,
}

/// Its length, its bytes, the end of its line.
type Chunk = Chain<Chain<Length, Bytes>, &'static [u8]>;

/// The line before a chunk, put together where it stands.
#[derive(Default)]
struct Length {
    bytes: [u8; LENGTH_BYTES],
    from: usize,
    to: usize,
}

impl Chunks {
    /// After its head.
    pub(super) fn new(wire: Wire, body: Body) -> Self {
        Self { wire, body, writing: chunk(Bytes::new(), b""), last: false }
    }

    /// Until all of it has left.
    ///
    /// # Errors
    /// The client is gone, or the body broke off: the connection is of no use any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.hear(cx)?;
        loop {
            ready!(self.send(cx))?;
            if self.last {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => match frame.map_err(io::Error::other)?.into_data() {
                    // One without bytes would be the end.
                    Ok(bytes) if !bytes.is_empty() => self.writing = chunk(bytes, b"\r\n"),
                    _ => {}
                },
                None => (self.writing, self.last) = (chunk(Bytes::new(), b"0\r\n\r\n"), true),
            }
        }
    }

    /// The connection again.
    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.writing.has_remaining() {
            if ready!(poll_write_buf(Pin::new(&mut self.wire), cx, &mut self.writing))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Pin::new(&mut self.wire).poll_flush(cx)
    }
}

fn chunk(bytes: Bytes, end: &'static [u8]) -> Chunk {
    Length::of(bytes.len()).chain(bytes).chain(end)
}

impl Length {
    /// Of a chunk of so many bytes; none for none.
    fn of(length: usize) -> Self {
        let mut bytes = [0; LENGTH_BYTES];
        let mut rest = &mut bytes[..];
        if length > 0 {
            write!(rest, "{length:x}\r\n").expect("a length has at most sixteen digits");
        }
        let to = LENGTH_BYTES - rest.len();
        Self { bytes, from: 0, to }
    }
}

impl Buf for Length {
    fn remaining(&self) -> usize {
        self.to - self.from
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "no further than its end");
        self.from += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(mut chunk: Chunk) -> Bytes {
        chunk.copy_to_bytes(chunk.remaining())
    }

    #[test]
    fn chunks_are_as_the_paper_has_them() {
        assert_eq!(bytes(chunk(Bytes::from_static(b"one\n"), b"\r\n")), "4\r\none\n\r\n");
        let large = vec![b'x'; 0x1_0000];
        assert!(bytes(chunk(large.into(), b"\r\n")).starts_with(b"10000\r\nxxx"));
        assert_eq!(bytes(chunk(Bytes::new(), b"0\r\n\r\n")), "0\r\n\r\n");
        assert_eq!(Length::of(usize::MAX).remaining(), LENGTH_BYTES, "no length is longer");
    }

    #[test]
    fn what_hyper_has_to_end_is_left_to_it() {
        let check = |request: http::request::Builder, body: &'static str, want| {
            let request = request.body(Body::from(body)).expect("a request");
            assert_eq!(Aside::takes(&request), want, "{request:?}");
        };
        check(Request::get("/v1/watch"), "", true);
        check(Request::get("/v1/watch").version(Version::HTTP_10), "", false);
        check(Request::get("/v1/watch").header("connection", "close"), "", false);
        check(Request::get("/v1/watch"), "a body", false);
        check(Request::head("/v1/watch"), "", false);
        check(Request::post("/v1/apply"), "", false);
    }

    #[test]
    fn a_body_is_put_aside_if_nobody_knows_its_length_and_taken_after_its_head() {
        let stream = || Body::from_stream(futures_util::stream::pending::<io::Result<Bytes>>());
        let check = |response: http::response::Builder, body, want| {
            let aside = Arc::new(Aside::default());
            let mut response = aside.put(response.body(body).expect("a response"));
            assert!(aside.take().is_none(), "its head has not been written");
            let polled =
                Pin::new(response.body_mut()).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            assert_eq!((aside.take().is_some(), polled.is_pending()), (want, want), "{response:?}");
        };
        check(Response::builder(), stream(), true);
        check(Response::builder(), Body::from("known"), false);
        check(Response::builder().status(StatusCode::CREATED), Body::from("known"), false);
        let known = Response::builder().header(header::CONTENT_LENGTH, 5);
        let aside = Arc::new(Aside::default());
        drop(aside.put(known.body(stream()).expect("a response")));
        assert!(aside.body.lock().is_none(), "a length stands in its head");
    }
}
