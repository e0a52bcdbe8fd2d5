//! Queries for names that are not of the mesh: to another resolver and back, as they are, but for their number. Several
//! resolvers are asked one after the other, the next when one is silent.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{interval, timeout},
};

use super::{
    answer::{Over, answers},
    exchange, resolvers,
};
use crate::clock;

/// For how long one resolver is waited for: clients ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked which resolvers the host has.
const LOOK: Duration = Duration::from_secs(5);
/// The longest datagram that is taken from another resolver, in bytes.
pub const FORWARDED_BYTES_MAX: usize = 4_096;

/// The resolvers that answer for names that are not of the mesh.
#[derive(Debug, Default)]
pub struct Upstream {
    resolvers: ArcSwap<Vec<SocketAddr>>,
    /// Where we ask from right now: what comes from there is our own question, which went round in a circle.
    asking: Mutex<HashSet<SocketAddr>>,
}

/// An address that we ask from, until it is dropped.
struct Asking<'a> {
    upstream: &'a Upstream,
    from: SocketAddr,
}

impl Upstream {
    /// These, from now on.
    pub fn set(&self, resolvers: Vec<SocketAddr>) {
        if **self.resolvers.load() != resolvers {
            tracing::info!(?resolvers, "names that are not of the mesh are asked of these");
            self.resolvers.store(Arc::new(resolvers));
        }
    }

    /// Whether there is one.
    pub fn is_any(&self) -> bool {
        !self.resolvers.load().is_empty()
    }

    /// Follows what a `resolv.conf` says, for as long as it is polled. Addresses of `own` are never asked.
    pub async fn follow(&self, file: &Path, own: &[SocketAddr]) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            match tokio::fs::read_to_string(file).await {
                Ok(text) => self.set(resolvers::parse(&text, own)),
                Err(error) => tracing::debug!(%error, "the resolvers stay as they were"),
            }
        }
    }

    /// What the first of them answers that does.
    pub async fn ask(&self, query: &[u8], over: Over) -> Option<Vec<u8>> {
        let resolvers = self.resolvers.load_full();
        for resolver in resolvers.iter() {
            let asked = timeout(PATIENCE, self.ask_one(*resolver, query, over)).await;
            match asked {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver did not answer"),
                Err(_) => tracing::debug!(%resolver, "a resolver is silent"),
            }
        }
        None
    }

    /// Whether what comes from there is our own question: the kernel turned aside what we asked of another resolver.
    pub fn asks_from(&self, client: SocketAddr) -> bool {
        self.asking.lock().contains(&client)
    }

    /// Asks by a number and from a port that nobody can guess, so that nobody else can answer (RFC 5452).
    async fn ask_one(&self, resolver: SocketAddr, query: &[u8], over: Over) -> std::io::Result<Vec<u8>> {
        let (mut asked, number) = (query.to_vec(), clock::dice().to_le_bytes());
        asked[..2].copy_from_slice(&number[..2]);
        let mut answer = match over {
            Over::Udp => self.by_datagram(resolver, &asked).await?,
            Over::Tcp => self.by_stream(resolver, &asked).await?,
        };
        if !answers(&answer, &asked) {
            return Err(std::io::Error::other("it answered another question"));
        }
        answer[..2].copy_from_slice(&query[..2]);
        Ok(answer)
    }

    async fn by_stream(&self, resolver: SocketAddr, asked: &[u8]) -> std::io::Result<Vec<u8>> {
        let stream = TcpStream::connect(resolver).await?;
        let _asking = self.note(stream.local_addr()?);
        Ok(exchange(stream, asked.to_vec()).await?.to_vec())
    }

    async fn by_datagram(&self, resolver: SocketAddr, asked: &[u8]) -> std::io::Result<Vec<u8>> {
        let any = if resolver.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(resolver).await?;
        let _asking = self.note(socket.local_addr()?);
        socket.send(asked).await?;
        answer_to(asked, &socket).await
    }

    fn note(&self, from: SocketAddr) -> Asking<'_> {
        self.asking.lock().insert(from);
        Asking { upstream: self, from }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.upstream.asking.lock().remove(&self.from);
    }
}

async fn answer_to(asked: &[u8], socket: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut answer = vec![0; FORWARDED_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Something else that came to this port is no reason to give up.
        if answers(&answer[..length], asked) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}
