//! Loopback addresses that nobody else uses: 127.A.B.n, so that several runs and tests stand beside each other with
//! every port at its usual number.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::Mutex,
};

/// The networks that there are: A from 50 to 249, B from 1 to 250.
const NETWORKS: u32 = 50_000;

/// The addresses of one mesh: n from 1 to 253.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    first: u8,
    a: u8,
    b: u8,
}

/// What marks the networks of this process as taken, until it ends.
static CLAIMS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

impl Network {
    /// A network that nobody else has: a listener on its last address marks it.
    ///
    /// # Panics
    /// If all are taken.
    pub fn claim() -> Self {
        let start = std::process::id() % NETWORKS;
        let candidates = (0..NETWORKS).map(|step| (start + step) % NETWORKS);
        let mut networks = candidates.map(|number| Self {
            first: 127,
            a: 50 + (number / 250) as u8,
            b: (number % 250) as u8 + 1,
        });
        let claim =
            |network: Self| TcpListener::bind((network.address(254), 1)).ok().map(|claim| (network, claim));
        let (network, claim) = networks.find_map(claim).expect("some network is free");
        CLAIMS.lock().expect("nothing panics while it is held").push(claim);
        network
    }

    /// The network of every field of namespaces: each has a world of its own.
    pub(crate) fn of_field() -> Self {
        Self { first: 10, a: 77, b: 0 }
    }

    /// Its `n`th address.
    pub fn address(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.first, self.a, self.b, n)
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_claimed_once() {
        let (one, other) = (Network::claim(), Network::claim());
        assert_ne!(one.address(1), other.address(1));
        assert!(one.address(1).is_loopback() && other.address(253).is_loopback());
    }
}
