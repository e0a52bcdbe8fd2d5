//! HTTP connections that come in, and how they end. HTTP/1.1 is ours ([`crate::http1::serve`]); here hyper is set up for HTTP/2.

use std::{convert::Infallible, pin::Pin, time::Duration};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use traffic::http2::{FRAME_BYTES, WINDOW_CONNECTION_BYTES, WINDOW_STREAM_BYTES};

use crate::{
    body::{Answer, Incoming},
    limits::{HEADER_LIST_BYTES_MAX, STREAMS_PER_CONNECTION_MAX},
    transport::life::{Cut, End, Life},
};

/// How often an idle connection of HTTP/2 asks whether its other side is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the other side may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves HTTP/2 until the connection ends; `ends` says when it has to.
pub async fn http2<S, F>(
    stream: S,
    ends: Ends,
    serve: impl Fn(Request<Incoming>) -> F + Send + Sync + Clone + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Answer>> + Send + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        // Boxed: the task that hyper makes of it is moved about before it runs.
        let answer = Box::pin(serve(request.map(Incoming::Http2)));
        answer.map(Ok::<_, Infallible>)
    });
    let mut builder = conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(WINDOW_STREAM_BYTES)
        .initial_connection_window_size(WINDOW_CONNECTION_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, ends, |connection| connection.graceful_shutdown()).await;
}

/// When a connection has to end, beside its own sides' wishes.
pub struct Ends {
    /// When the proxy goes away.
    pub draining: CancellationToken,
    /// How long a connection of HTTP/1.1 on which nothing is under way stays open while the proxy drains: its caller may be
    /// about to ask, and cannot know that nobody listens. `None` is not at all.
    pub idle_until: Option<CancellationToken>,
    /// When a certificate of it ends, or its peer is refused.
    pub life: Option<Life>,
}

impl Ends {
    /// Waits until it has to.
    pub async fn come(&mut self) -> End {
        let life = async {
            match &mut self.life {
                Some(life) => life.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.draining.cancelled() => End::Drain,
            end = life => end,
        }
    }

    /// Waits until it has to at once.
    pub async fn cut(&mut self) -> Cut {
        match &mut self.life {
            Some(life) => life.cut().await,
            None => std::future::pending().await,
        }
    }
}

async fn drive<C>(connection: C, mut ends: Ends, drain: fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let end = tokio::select! {
        ended = connection.as_mut() => return note(ended),
        end = ends.come() => end,
    };
    let refused = match end {
        End::Close(refused) => refused,
        End::Drain => {
            drain(connection.as_mut());
            tokio::select! {
                ended = connection.as_mut() => return note(ended),
                refused = ends.cut() => refused,
            }
        }
    };
    tracing::warn!(%refused, "a caller's connection is cut off");
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a caller's connection ended");
    }
}
