//! HTTP connections that are dialled in plain or inside a finished TLS: how hyper is set up for them.

use std::net::SocketAddr;

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    SendError,
    life::{End, Life},
    pool::{Connection, Driven},
    tcp,
};
use crate::{body, limits};

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
    let mut builder = http1::Builder::new();
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
