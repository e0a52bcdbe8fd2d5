//! Questions to resolvers: over UDP, over TCP where an answer has no room, and of the next one where one cannot say.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::{Name, RData, RecordType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::message::{self, Said, UDP_BYTES_MAX};
use crate::{Failure, clock, files::Files};

/// For how long one resolver is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each is asked before none can say: a datagram may be lost.
const ROUNDS: usize = 2;
/// Where a host says which resolvers it has.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest such file, in bytes.
const RESOLV_CONF_BYTES_MAX: usize = 64 << 10;
/// As many resolvers are taken from it: what the C library takes, too.
pub const RESOLVERS_MAX: usize = 3;
/// The port of DNS.
const PORT: u16 = 53;

/// Those who are asked, one after the other.
pub(super) struct Resolvers {
    /// Those of the host, if there are none.
    servers: Vec<SocketAddr>,
    files: Files,
}

/// What there is of a sort at a name, and for how long.
pub(super) type Found = (Vec<RData>, Duration);

impl Resolvers {
    pub(super) fn new(servers: Vec<SocketAddr>, files: Files) -> Self {
        Self { servers, files }
    }

    /// What the first of them says that can say it.
    pub(super) async fn ask(&self, name: &Name, sort: RecordType) -> Result<Found, Failure> {
        let mut failure = Failure::Source(format!("{RESOLV_CONF} names no resolver"));
        let servers = self.servers().await?;
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            let fault = match timeout(PATIENCE, ask_one(*server, name, sort)).await {
                Ok(Ok(Said::Records(found, holds))) => return Ok((found, holds)),
                Ok(Ok(Said::Fault(fault))) => fault,
                Ok(Ok(Said::Truncated | Said::Stray)) => "answers what is none".to_owned(),
                Ok(Err(error)) => format!("cannot be asked: {error}"),
                Err(_) => "does not answer".to_owned(),
            };
            failure = Failure::Source(format!("resolver {server} {fault}, asked for {sort} of {name}"));
        }
        Err(failure)
    }

    async fn servers(&self) -> Result<Vec<SocketAddr>, Failure> {
        if !self.servers.is_empty() {
            return Ok(self.servers.clone());
        }
        let text = self.files.text(RESOLV_CONF, RESOLV_CONF_BYTES_MAX).await?;
        Ok(named(&text))
    }
}

/// The resolvers that a `resolv.conf` names. What is not understood is passed over, as the C library does.
fn named(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip: IpAddr = words.next().filter(|key| *key == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    });
    named.take(RESOLVERS_MAX).collect()
}

async fn ask_one(server: SocketAddr, name: &Name, sort: RecordType) -> io::Result<Said> {
    let id = clock::unguessable();
    let question = message::question(id, name, sort).ok_or(io::ErrorKind::InvalidInput)?;
    match over_udp(server, &question, |packet| message::read(packet, id, name, sort)).await? {
        Said::Truncated => {
            let packet = over_tcp(server, &question).await?;
            Ok(message::read(&packet, id, name, sort))
        }
        said => Ok(said),
    }
}

/// From a port of its own each time: who does not see the question has to guess both, and the number.
async fn over_udp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Said) -> io::Result<Said> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut packet = [0; UDP_BYTES_MAX as usize];
    loop {
        let length = socket.recv(&mut packet).await?;
        match read(&packet[..length]) {
            Said::Stray => {}
            said => return Ok(said),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut packet = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_of_a_host_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\n nameserver\t192.0.2.1  # one\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3";
        let texts: Vec<_> = named(text).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1:53", "[::1]:53", "192.0.2.2:53"]);
    }
}
