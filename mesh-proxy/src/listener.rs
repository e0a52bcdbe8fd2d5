//! Where connections come in: sockets that all runtime threads share the load of, and the loop that takes connections
//! off them. What a connection is for is its taker's matter.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{limits::CONNECTIONS_PER_LISTENER_MAX, transport::tcp::tune};

mod first;

pub use first::{DETECT_TIMEOUT, FIRST_WORD_TIMEOUT, Rewound, detect};

/// Connections that wait to be taken, in the kernel.
const BACKLOG: i32 = 1_024;
/// The pause after a failed accept: the process is out of descriptors, which some connection's end will mend.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound address: each runtime thread makes a socket of its own from it, among which the kernel spreads connections.
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    /// Holds the port, and is the first thread's socket.
    first: std::net::TcpListener,
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

impl Bound {
    /// Binds an address; port 0 is any free one.
    ///
    /// # Errors
    /// If it is taken, or not ours.
    pub fn new(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let first = socket(address)?;
            Ok(Self { address: first.local_addr()?, first })
        };
        bind().map_err(|source| BindError { address, source })
    }

    /// The address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A socket for each of so many threads, at least one.
    ///
    /// # Errors
    /// If the address cannot be bound again.
    pub fn split(self, threads: usize) -> Result<Vec<std::net::TcpListener>, BindError> {
        let address = self.address;
        let more = (1..threads.max(1)).map(|_| socket(address));
        let sockets = std::iter::once(Ok(self.first)).chain(more).collect::<io::Result<_>>();
        sockets.map_err(|source| BindError { address, source })
    }
}

fn socket(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
                let task = taken(stream, peer);
                tokio::spawn(async move {
                    task.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
