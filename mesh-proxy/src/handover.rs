//! Restarts that lose no call: what a supervisor and its workers say to each other. A worker serves; the supervisor only
//! holds what must outlive it, in systemd's descriptor store. What is said stays understood from one release to the next:
//! a new supervisor talks to workers of the release before it.
//!
//! One message is one packet of text on a socket of their own, with at most one descriptor beside it. What is not
//! understood is passed over.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

mod channel;
mod worker;

pub use channel::Channel;
pub use worker::{Handed, Orders, Post, receive};

/// What a supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A listening socket comes with this; it was an earlier worker's.
    Socket(SocketName),
    /// Those were all sockets that there are: begin.
    Begin,
    /// The worker before it takes no new connections any more: speak for this host.
    Go,
    /// A successor serves: end what is under way within this time, and leave the registry to the successor.
    Drain(Duration),
    /// The proxy ends for good.
    Stop,
    /// Read `services.d` again.
    Reload,
    /// Are you there?
    Ping,
}

/// What a worker tells its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It serves.
    Ready,
    /// All its threads are there.
    Pong,
    /// A listening socket comes with this; the next worker is to get it.
    Keep(SocketName),
    /// Nobody listens there any more.
    Forget(SocketName),
}

/// What a listening socket is called in systemd's store: `l-tcp-127.0.0.1_15080-0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketName {
    /// What it takes.
    pub transport: Transport,
    /// Where, as it was asked for: port 0 stays 0.
    pub address: SocketAddr,
    /// Of those for one address, whose it is.
    pub number: usize,
}

/// What a socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A text that is no message, or no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not understood: {0:?}")]
pub struct Unknown(pub String);

// === impl Order, Report ===

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(name) => write!(f, "socket {name}"),
            Self::Begin => f.write_str("begin"),
            Self::Go => f.write_str("go"),
            Self::Drain(patience) => write!(f, "drain {}", patience.as_secs()),
            Self::Stop => f.write_str("stop"),
            Self::Reload => f.write_str("reload"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

impl FromStr for Order {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.to_owned());
        match text.split_once(' ').unwrap_or((text, "")) {
            ("socket", name) => name.parse().map(Self::Socket),
            ("begin", "") => Ok(Self::Begin),
            ("go", "") => Ok(Self::Go),
            ("drain", seconds) => {
                seconds.parse().map(Duration::from_secs).map(Self::Drain).map_err(|_| unknown())
            }
            ("stop", "") => Ok(Self::Stop),
            ("reload", "") => Ok(Self::Reload),
            ("ping", "") => Ok(Self::Ping),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Pong => f.write_str("pong"),
            Self::Keep(name) => write!(f, "keep {name}"),
            Self::Forget(name) => write!(f, "forget {name}"),
        }
    }
}

impl FromStr for Report {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("ready", "") => Ok(Self::Ready),
            ("pong", "") => Ok(Self::Pong),
            ("keep", name) => name.parse().map(Self::Keep),
            ("forget", name) => name.parse().map(Self::Forget),
            _ => Err(Unknown(text.to_owned())),
        }
    }
}

// === impl SocketName, Transport ===

/// systemd takes no colons (sd_pid_notify_with_fds(3), FDNAME).
impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "l-{transport}-{}-{}", self.address.to_string().replace(':', "_"), self.number)
    }
}

impl FromStr for SocketName {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let parse = || {
            let (transport, rest) = text.strip_prefix("l-")?.split_once('-')?;
            let (address, number) = rest.rsplit_once('-')?;
            let transport = match transport {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => return None,
            };
            let address = address.replace('_', ":").parse().ok()?;
            Some(Self { transport, address, number: number.parse().ok()? })
        };
        parse().ok_or_else(|| Unknown(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(transport: Transport, address: &str, number: usize) -> SocketName {
        SocketName { transport, address: address.parse().expect("an address"), number }
    }

    #[test]
    fn what_is_said_is_understood_and_the_rest_is_told_from_it() {
        let v6 = name(Transport::Udp, "[::1]:15053", 3);
        assert_eq!(v6.to_string(), "l-udp-[__1]_15053-3");
        let orders = [
            Order::Socket(v6),
            Order::Begin,
            Order::Go,
            Order::Drain(Duration::from_secs(600)),
            Order::Stop,
            Order::Reload,
            Order::Ping,
        ];
        for order in orders {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        let v4 = name(Transport::Tcp, "127.0.0.1:15080", 0);
        assert_eq!(v4.to_string(), "l-tcp-127.0.0.1_15080-0");
        for report in [Report::Ready, Report::Pong, Report::Keep(v4), Report::Forget(v6)] {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        for text in ["", "go on", "drain", "drain soon", "socket l-tcp-x-0", "socket l-sctp-1.2.3.4_5-0"] {
            assert!(text.parse::<Order>().is_err(), "{text:?}");
        }
        assert!("keep l-tcp-1.2.3.4_5".parse::<Report>().is_err());
    }
}
