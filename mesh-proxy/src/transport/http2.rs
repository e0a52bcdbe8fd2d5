//! HTTP/2 connections that are dialled in plain: how hyper is set up for them.

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    app::Stream,
    pool::{Connection, Driven},
};
use crate::{body::Senders, limits};

/// What one stream may send before it is read, in bytes: one large body on its own fills a link of 1 Gbit/s and 8 ms.
pub const WINDOW_STREAM_BYTES: u32 = 1_024 * 1_024;
/// What all streams of a connection may send before they are read, in bytes: held at most for each connection.
pub const WINDOW_CONNECTION_BYTES: u32 = 4 * 1_024 * 1_024;
/// The largest frame, in bytes: larger ones mean fewer of them for large bodies, and others wait longer behind one.
pub const FRAME_BYTES: u32 = 64 * 1_024;

/// A connection for many requests to an application.
pub(super) async fn over(stream: Stream) -> hyper::Result<Driven<Connection>> {
    let mut builder = http2::Builder::new(Senders);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_STREAM_BYTES)
        .initial_connection_window_size(WINDOW_CONNECTION_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    Ok(Driven::h2(sender, connection, None))
}
