//! HTTP connections that are dialled in plain or inside a finished TLS: how hyper is set up for them.

use std::net::SocketAddr;

use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    SendError,
    life::{End, Life},
    mux,
    pool::{Connection, Driven},
    tcp,
};
use crate::{body, heads, limits};

/// What one stream may send before it is read, in bytes: one large body on its own fills a link of 1 Gbit/s and 8 ms.
pub const WINDOW_STREAM_BYTES: u32 = 1_024 * 1_024;
/// What all streams of a connection may send before they are read, in bytes: held at most for each connection.
pub const WINDOW_CONNECTION_BYTES: u32 = 4 * 1_024 * 1_024;
/// The largest frame, in bytes: larger ones mean fewer of them for large bodies, and others wait longer behind one.
pub const FRAME_BYTES: u32 = 64 * 1_024;

/// A connection for one request at a time, which may leave HTTP.
pub(super) async fn connect<S>(
    stream: S,
    life: Option<Life>,
) -> Result<http1::SendRequest<body::Request>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    handshake(http1::Builder::new(), stream, life).await
}

/// The same on a stream to another proxy, which adds fields to the answers that it got.
pub(super) async fn connect_stream(
    stream: mux::Stream,
) -> Result<http1::SendRequest<body::Request>, SendError> {
    let mut builder = http1::Builder::new();
    builder.max_headers(STREAM_ANSWER_FIELDS_MAX);
    handshake(builder, stream, None).await
}

async fn handshake<S>(
    mut builder: http1::Builder,
    stream: S,
    life: Option<Life>,
) -> Result<http1::SendRequest<body::Request>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    builder.max_buf_size(limits::HEAD_BYTES_MAX.max(HYPER_BUFFER_BYTES_MIN));
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| SendError::Connect(error.to_string()))?;
    tokio::spawn(async move {
        let connection = connection.with_upgrades();
        let ended = match life {
            None => connection.await,
            Some(mut life) => {
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    ended = &mut connection => ended,
                    end = life.ended() => match end {
                        End::Drain => connection.await,
                        End::Close(refused) => return tracing::warn!(%refused, "a connection to another proxy is cut off"),
                    },
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(sender)
}

/// Fields of an answer that comes over a stream: of an application hyper reads a hundred, and few are added.
const STREAM_ANSWER_FIELDS_MAX: usize = 128;
/// Fields of a request that goes over a stream: hyper reads a hundred, and some are added on the way. Those that have
/// more go over HTTP/2.
const STREAM_FIELDS_MAX: usize = 80;

/// Whether a request to another proxy goes over a stream, in HTTP/1.1: it came so. A server as a whole (`OPTIONS *`) has no
/// absolute form, by which streams tell for whom a request is.
pub(super) fn rides(request: &Request<body::Request>) -> bool {
    request.uri().path() != "*"
        && !request.headers().contains_key(heads::SPOKE_HTTP2)
        && request.headers().len() <= STREAM_FIELDS_MAX
}

/// The request as HTTP/1.1 says it. The target stays absolute: whoever reads it looks there first.
pub(super) fn in_http1(mut request: Request<body::Request>) -> Request<body::Request> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = request.uri().authority().and_then(|host| HeaderValue::try_from(host.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// One request on a connection of its own, which may leave HTTP.
pub(super) async fn exchange<S>(
    stream: S,
    life: Option<Life>,
    request: Request<body::Request>,
) -> Result<Response<Incoming>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut sender = connect(stream, life).await?;
    sender.try_send_request(request).await.map_err(|error| super::pool::classify(error.error()))
}

/// The smallest buffer that hyper takes, in bytes.
const HYPER_BUFFER_BYTES_MIN: usize = 8_192;

/// A connection for many requests to a local application.
pub(super) async fn app_h2(app: SocketAddr) -> Result<Driven<Connection>, SendError> {
    let stream = tcp::dial_app(app).await?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_STREAM_BYTES)
        .initial_connection_window_size(WINDOW_CONNECTION_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX);
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| SendError::Connect(format!("{app}: {error}")))?;
    Ok(Driven::h2(sender, connection, None))
}
