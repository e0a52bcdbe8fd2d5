//! Loopback addresses that nobody else uses: 127.A.B.n, where A.B comes from the process id, so that several runs and
//! tests stand beside each other with every port at its usual number.

use std::{net::Ipv4Addr, sync::atomic::{AtomicU16, Ordering}};

/// The addresses of one mesh: n from 1 to 254.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    a: u8,
    b: u8,
}

static NEXT: AtomicU16 = AtomicU16::new(0);

impl Network {
    /// A network that no other one of this process has, nor one of another process with a near id.
    pub fn claim() -> Self {
        // 200 × 250 networks: two processes share one only if their ids are 50,000 apart, or one claims very many.
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = (std::process::id() * 8 + u32::from(turn)) % 50_000;
        Self { a: 50 + (number / 250) as u8, b: (number % 250) as u8 + 1 }
    }

    /// Its `n`th address.
    pub fn address(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, self.b, n)
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}
