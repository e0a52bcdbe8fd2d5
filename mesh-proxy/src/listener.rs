//! Where connections come in: sockets that all runtime threads share the load of, and the loop that takes connections
//! off them. What a connection is for is its taker's matter.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{limits::CONNECTIONS_PER_LISTENER_MAX, transport::tcp::tune};

mod first;
mod refusals;
mod sockets;

pub use first::{DETECT_TIMEOUT, FIRST_WORD_TIMEOUT, Rewound, detect};
pub use refusals::Refusals;
pub use sockets::{Bound, Sockets};

/// The pause after a failed accept: the process is out of descriptors, which some connection's end will mend.
const PAUSE: Duration = Duration::from_millis(50);

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Where a connection was on its way to before the kernel turned it aside to us (`redirect`, as nftables calls it).
///
/// # Errors
/// Nothing turned it aside, or the kernel does not know.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let (socket, own) = (SockRef::from(stream), stream.local_addr()?);
    let meant = if own.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
    let meant = meant.as_socket().ok_or_else(|| io::Error::other("the kernel names no IP address"))?;
    if meant == own { Err(io::Error::other("nothing turned it aside")) } else { Ok(meant) }
}

/// Takes connections until `stop`, each in a task of its own; the longest queue is the kernel's.
pub async fn accept<F>(
    listener: TcpListener,
    stop: CancellationToken,
    mut taken: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_PER_LISTENER_MAX));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = room.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tune(&stream);
                // Not awaited in another future: it would stand in that one twice.
                tokio::spawn(taken(stream, peer).map(|()| drop(place)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
