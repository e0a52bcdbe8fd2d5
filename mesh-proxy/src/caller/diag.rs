//! The kernel is asked about one socket, by its two addresses (SOCK_DIAG). Needs no rights.

use std::net::SocketAddr;

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};

use super::message::{ANSWER_BYTES_MAX, Facts, NoFacts, answer, question};

/// Answers to earlier questions that are passed over before the kernel is taken to be confused.
const STALE_MAX: usize = 16;

/// Where the kernel is asked; opened when it is first needed, and again after it failed.
#[derive(Debug, Default)]
pub(super) struct Diag {
    socket: Option<OwnedFd>,
    sequence: u32,
}

impl Diag {
    /// What the kernel knows of the socket whose own address is `own` and whose other end is at `other`; `ENOENT` where
    /// it knows none.
    pub(super) fn look_up(&mut self, own: SocketAddr, other: SocketAddr) -> Result<Facts, Errno> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open()?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let found = ask(&socket, self.sequence, own, other);
        if matches!(found, Ok(_) | Err(Errno::NOENT)) {
            self.socket = Some(socket);
        }
        found
    }
}

fn open() -> Result<OwnedFd, Errno> {
    // The kernel answers while it is asked: nothing here ever waits.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))
}

fn ask(socket: &OwnedFd, sequence: u32, own: SocketAddr, other: SocketAddr) -> Result<Facts, Errno> {
    send(socket, &question(sequence, own, other), SendFlags::empty())?;
    let mut bytes = [0; ANSWER_BYTES_MAX];
    for _ in 0..STALE_MAX {
        let (length, _) = recv(socket, &mut bytes[..], RecvFlags::empty())?;
        match answer(&bytes[..length], sequence) {
            Ok(facts) => return Ok(facts),
            Err(NoFacts::Stale) => {}
            Err(NoFacts::Error(number)) => return Err(Errno::from_raw_os_error(number)),
            Err(NoFacts::Odd) => return Err(Errno::PROTO),
        }
    }
    Err(Errno::PROTO)
}
