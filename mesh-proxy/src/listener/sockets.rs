//! Where listening sockets come from: a worker before this one left them, or they are made, and kept for the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

use super::BindError;
use crate::handover::{Post, SocketName, Transport};

/// Connections that wait to be taken, in the kernel.
const BACKLOG: i32 = 1_024;

/// All sockets of this process that others connect to.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Those of the worker before this one that nobody has asked for yet.
    left: Mutex<BTreeMap<SocketName, OwnedFd>>,
    /// Those that the next one will get.
    kept: Mutex<BTreeSet<SocketName>>,
    post: Option<Post>,
}

/// A bound address: each runtime thread has a socket of its own of it, among which the kernel spreads connections.
pub struct Bound {
    asked: SocketAddr,
    address: SocketAddr,
    /// At least one, which holds the port.
    sockets: Vec<TcpListener>,
    of: Sockets,
}

impl Sockets {
    /// Takes over what a worker before this one left, and tells the supervisor what the next one is to get.
    pub fn handed(left: BTreeMap<SocketName, OwnedFd>, post: Post) -> Self {
        let kept = Mutex::new(left.keys().copied().collect());
        Self(Arc::new(Inner { left: Mutex::new(left), kept, post: Some(post) }))
    }

    /// Listens on an address; port 0 is any free one.
    ///
    /// # Errors
    /// If it is taken, or not ours.
    pub fn bind(&self, asked: SocketAddr) -> Result<Bound, BindError> {
        let bind = || {
            let left = self.take(Transport::Tcp, asked).into_iter().map(TcpListener::from);
            let mut sockets: Vec<_> = left.filter(|socket| is_of(socket, asked)).collect();
            if sockets.is_empty() {
                sockets.push(self.make(asked, asked, 0)?);
            }
            let address = sockets[0].local_addr()?;
            Ok(Bound { asked, address, sockets, of: self.clone() })
        };
        bind().map_err(|source| BindError { address: asked, source })
    }

    /// Sockets for datagrams to `address`, which has its port; `asked` may leave that to the system. One for each of so many
    /// threads, or more, where the worker before this one had more.
    ///
    /// # Errors
    /// If the address is taken, or not ours.
    pub fn datagrams(
        &self,
        asked: SocketAddr,
        address: SocketAddr,
        threads: usize,
    ) -> Result<Vec<UdpSocket>, BindError> {
        let left = self.take(Transport::Udp, asked).into_iter().map(UdpSocket::from);
        let mut sockets: Vec<_> =
            left.filter(|socket| socket.local_addr().is_ok_and(|own| own == address)).collect();
        for number in sockets.len()..threads {
            let socket = datagrams(address).map_err(|source| BindError { address, source })?;
            self.keep(SocketName { transport: Transport::Udp, address: asked, number }, &socket);
            sockets.push(socket);
        }
        Ok(sockets)
    }

    /// Nobody listens on this address any more.
    pub fn forget(&self, address: SocketAddr) {
        let mut kept = self.0.kept.lock();
        let gone: Vec<_> = kept.iter().filter(|name| name.address == address).copied().collect();
        for name in gone {
            kept.remove(&name);
            self.tell(|post| post.forget(name));
        }
    }

    /// Closes what a worker before this one left and nobody asked for: the settings do not name it any more.
    pub fn close_rest(&self) {
        for (name, socket) in std::mem::take(&mut *self.0.left.lock()) {
            tracing::info!(%name, "nobody listens there any more");
            self.0.kept.lock().remove(&name);
            self.tell(|post| post.forget(name));
            drop(socket);
        }
    }

    /// The sockets for an address that were left.
    fn take(&self, transport: Transport, asked: SocketAddr) -> Vec<OwnedFd> {
        let mut left = self.0.left.lock();
        let fits = |name: &SocketName| name.transport == transport && name.address == asked;
        let names: Vec<_> = left.keys().filter(|name| fits(name)).copied().collect();
        names.into_iter().filter_map(|name| left.remove(&name)).collect()
    }

    fn make(&self, asked: SocketAddr, address: SocketAddr, number: usize) -> io::Result<TcpListener> {
        let socket = listening(address)?;
        let name = SocketName { transport: Transport::Tcp, address: asked, number };
        self.keep(name, &socket);
        Ok(socket)
    }

    fn keep(&self, name: SocketName, socket: &impl AsFd) {
        self.0.kept.lock().insert(name);
        self.tell(|post| post.keep(name, socket));
    }

    fn tell(&self, say: impl FnOnce(&Post)) {
        if let Some(post) = &self.0.post {
            say(post);
        }
    }
}

impl Bound {
    /// Listens on an address, for this process alone; port 0 is any free one.
    ///
    /// # Errors
    /// If it is taken, or not ours.
    pub fn new(address: SocketAddr) -> Result<Self, BindError> {
        Sockets::default().bind(address)
    }

    /// The address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A socket for each of so many threads, at least one. There may be more, where the worker before this one had more
    /// threads: connections wait on each.
    ///
    /// # Errors
    /// If the address cannot be bound again.
    pub fn split(self, threads: usize) -> Result<Vec<TcpListener>, BindError> {
        let Self { asked, address, mut sockets, of } = self;
        for number in sockets.len()..threads.max(1) {
            let socket = of.make(asked, address, number);
            sockets.push(socket.map_err(|source| BindError { address, source })?);
        }
        Ok(sockets)
    }
}

/// Whether a socket that was left is what its name says.
fn is_of(socket: &TcpListener, asked: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|own| own.ip() == asked.ip() && [0, own.port()].contains(&asked.port()))
}

fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    bound(address, Type::DGRAM, Protocol::UDP).map(Into::into)
}

fn bound(address: SocketAddr, form: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), form, Some(protocol))?;
    if form == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(sockets: &[(SocketAddr, usize, &TcpListener)]) -> Sockets {
        let named = sockets.iter().map(|(address, number, socket)| {
            let name = SocketName { transport: Transport::Tcp, address: *address, number: *number };
            (name, socket.as_fd().try_clone_to_owned().expect("a descriptor is left"))
        });
        Sockets(Arc::new(Inner { left: Mutex::new(named.collect()), ..Inner::default() }))
    }

    #[test]
    fn what_was_left_is_taken_over_and_threads_may_be_more_or_fewer() {
        let first = Bound::new("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let address = first.address();
        let before = first.split(2).expect("bound again");
        for (threads, sockets) in [(1, 2), (2, 2), (3, 3)] {
            let handed = left(&[(address, 0, &before[0]), (address, 1, &before[1])]);
            let bound = handed.bind(address).expect("there already");
            assert_eq!(bound.address(), address);
            assert_eq!(bound.split(threads).expect("bound again").len(), sockets, "{threads} threads");
            assert!(handed.0.left.lock().is_empty());
        }
    }

    #[test]
    fn a_socket_under_a_wrong_name_is_not_taken() {
        let other = TcpListener::bind("127.0.0.1:0").expect("bound");
        let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
        let handed = left(&[(free, 0, &other)]);
        assert_eq!(handed.bind(free).expect("it is free").address(), free);
    }

    #[test]
    fn what_nobody_asks_for_is_closed() {
        let old = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = old.local_addr().expect("an address");
        let handed = left(&[(address, 0, &old)]);
        drop(old);
        handed.close_rest();
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens there");
    }
}
