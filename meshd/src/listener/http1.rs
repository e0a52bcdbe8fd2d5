//! A connection of HTTP/1: hyper reads requests and writes answers, but for the bodies of those that [`chunks`] writes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use svid::SvidError;
use tokio::io::AsyncWriteExt;

use super::{
    Asked, Ended, HEADER_BYTES_MAX, HEADER_TIMEOUT, HEADERS_MAX,
    chunks::{Aside, Chunks},
    wire::{Tls, Wire},
};

/// With the limits of this listener.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    // Without a timer hyper keeps none of the limits of time.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
}

impl Asked {
    pub(super) async fn http1(self, tls: Box<Tls>) -> Result<(), Ended> {
        let mut wire = Wire::new(tls);
        while let Some(mut chunks) = self.until_streaming(wire).await? {
            poll_fn(|cx| chunks.poll(cx)).await?;
            wire = chunks.into_wire();
            if self.shared.closing.is_cancelled() {
                wire.shutdown().await?;
                break;
            }
        }
        Ok(())
    }

    /// Serves until the head of an answer has left whose body is to be written in chunks; `None` when the connection is
    /// over.
    async fn until_streaming(&self, wire: Wire) -> Result<Option<Chunks>, Ended> {
        let (asked, aside, flushed) = (self.clone(), Arc::new(Aside::default()), wire.flushed());
        let put = aside.clone();
        let service = service_fn(move |request| {
            let (answer, put) = (Aside::takes(&request), put.clone());
            let answer = (asked.clone().answer(request), answer);
            async move {
                let response = answer.0.await?;
                Ok::<_, SvidError>(if answer.1 { put.put(response) } else { response })
            }
        });
        // Boxed, as it goes when the stream begins.
        let mut connection = Box::new(self.shared.http1.serve_connection(TokioIo::new(wire), service));
        let streaming = poll_fn(|cx| poll(&mut connection, &aside, &flushed, cx));
        let body = match self.shared.closing.run_until_cancelled(streaming).await {
            Some(body) => body?,
            None => {
                Pin::new(&mut *connection).graceful_shutdown();
                poll_fn(|cx| poll(&mut connection, &aside, &flushed, cx)).await?
            }
        };
        Ok(body.map(|body| {
            let parts = connection.into_parts();
            let mut wire = parts.io.into_inner();
            wire.unread(parts.read_buf);
            Chunks::new(wire, body)
        }))
    }
}

/// Ready with a body whose head has left, or with none at the connection's end.
fn poll<S>(
    connection: &mut Connection<TokioIo<Wire>, S>,
    aside: &Aside,
    flushed: &AtomicBool,
    cx: &mut Context<'_>,
) -> Poll<hyper::Result<Option<Body>>>
where
    S: HttpService<Incoming, ResBody = Body, Error = SvidError>,
{
    match Pin::new(connection).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
        // What hyper still keeps it has tried to write.
        Poll::Pending if flushed.load(Ordering::Relaxed) => match aside.take() {
            Some(body) => Poll::Ready(Ok(Some(body))),
            None => Poll::Pending,
        },
        Poll::Pending => Poll::Pending,
    }
}
