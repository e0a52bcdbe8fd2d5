//! The socket between a supervisor and a worker: packets of text, each with at most one descriptor.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use tokio::{io::Interest, net::UnixStream};

/// The longest message, in bytes: a verb and the name of a socket have far less.
const MESSAGE_BYTES_MAX: usize = 512;

/// One end. tokio only waits for it: what is read and written are packets, not a stream's bytes.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// A new channel: this end, and what the other side adopts. To be called on a runtime.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::adopt(here)?, there))
    }

    /// An end that was handed to this process. To be called on a runtime.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn adopt(end: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        UnixStream::from_std(end.into()).map(Self)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If nobody is at the other end.
    pub async fn send(&self, message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
            if !descriptors.is_empty() {
                beside.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            sendmsg(&self.0, &[IoSlice::new(message.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// The next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// If the channel is broken.
    pub async fn receive(&self) -> io::Result<Option<(String, Option<OwnedFd>)>> {
        let receive = || {
            let mut text = [0; MESSAGE_BYTES_MAX];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let got =
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
            let descriptor = beside.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            let text = String::from_utf8_lossy(&text[..got.bytes]).into_owned();
            Ok((got.bytes > 0).then_some((text, descriptor)))
        };
        match self.0.async_io(Interest::READABLE, receive).await {
            // A worker that left with our last word unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            received => received,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn text_and_sockets_arrive_one_by_one_and_the_end_is_seen() {
        let (here, there) = Channel::pair().expect("a pair");
        let there = Channel::adopt(there).expect("adopted");
        let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        here.send("one", Some(socket.as_fd())).await.expect("sent");
        here.send("two", None).await.expect("sent");
        drop(socket);
        let (text, descriptor) = there.receive().await.expect("whole").expect("there");
        let socket = TcpListener::from(descriptor.expect("it came along"));
        assert_eq!((text.as_str(), socket.local_addr().expect("an address")), ("one", address));
        let (text, descriptor) = there.receive().await.expect("whole").expect("there");
        assert!(text == "two" && descriptor.is_none());
        drop(here);
        assert!(there.receive().await.expect("a clean end").is_none());
        assert!(there.send("three", None).await.is_err());
    }
}
