//! Two readers of HTTP/1.1, ours and hyper's, on what an attacker sends: every request that we let on is one that hyper
//! reads, too, with the same target and body, in the same place; in whatever pieces it comes, it reads the same.
#![no_main]

#[path = "../../traffic/tests/http1/reader.rs"]
mod reader;

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let fits = |target: &str| target.parse::<hyper::Uri>().is_ok();
    let ours = reader::read([data], fits);
    for step in [1, 3, 17] {
        assert_eq!(reader::read(data.chunks(step), fits), ours);
    }
    if ours.requests.is_empty() || data.starts_with(b"PRI * HTTP/2.0") {
        return;
    }
    let theirs = hypers(data);
    assert!(ours.requests.len() <= theirs.len(), "hyper reads {}, we {}", theirs.len(), ours.requests.len());
    for (own, other) in ours.requests.iter().zip(&theirs) {
        assert!(own == other, "{} is {} to hyper", own.escape_ascii(), other.escape_ascii());
    }
});

/// The requests that hyper reads, written as ours are.
fn hypers(data: &[u8]) -> Vec<Vec<u8>> {
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let service = service_fn(|request| take(seen.clone(), request));
    let mut builder = http1::Builder::new();
    builder.half_close(true).max_headers(256).max_buf_size(256 * 1_024);
    let mut connection = pin!(builder.serve_connection(Wire(data.to_vec(), 0), service));
    let mut cx = Context::from_waker(Waker::noop());
    // Nothing that it waits for comes later.
    for _ in 0..4 * (data.len() + 1) {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    let seen = std::mem::take(&mut *seen.lock().expect("whole"));
    seen
}

async fn take(
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = head.headers.get("host").map_or(&b""[..], |host| host.as_bytes());
    let connect = head.method == "CONNECT";
    let (host, target) = match head.uri.path_and_query() {
        _ if connect => (host, head.uri.to_string()),
        target => (authority.unwrap_or(host), target.map_or("/", |target| target.as_str()).to_owned()),
    };
    let slash = if target.starts_with('?') { "/" } else { "" };
    let mut whole =
        [head.method.as_str().as_bytes(), b" ", slash.as_bytes(), target.as_bytes(), b" ", host, b" "]
            .concat();
    if let Ok(body) = body.collect().await {
        whole.extend_from_slice(&body.to_bytes());
        seen.lock().expect("whole").push(whole);
    }
    Ok(Response::new(Empty::new()))
}

/// All that comes, at once; what is sent goes nowhere.
struct Wire(Vec<u8>, usize);

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let length = into.remaining().min(self.0.len() - self.1);
        into.put_slice(&self.0[self.1..self.1 + length]);
        self.1 += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
