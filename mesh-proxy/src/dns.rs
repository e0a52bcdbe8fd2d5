//! Names of the mesh, for programs of this host that look them up: one thread's sockets for queries, over UDP and TCP. What
//! is answered: [`mod@answer`], from the configuration of the moment, also while the control plane is away. Names that are not
//! of the mesh go to another resolver, where there is one: [`mod@forward`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LengthDelimitedCodec},
    sync::CancellationToken,
};

use crate::{listener, shared::Shared, telemetry::DnsCounts};

pub mod answer;
pub mod forward;
pub mod resolvers;

use answer::{Counted, End, Over, Verdict, Zone, answer, failed};

/// Queries of datagrams on one runtime thread that wait for another resolver; who asks then is told that nobody answers, and
/// asks again.
pub const FORWARDS_MAX: usize = 512;
/// Queries of one connection that wait for another resolver; its next ones wait in its socket.
pub const PIPELINED_MAX: usize = 32;
/// The largest query, in bytes: far more than a name, its type and some options have.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// A connection on which nothing comes for so long is closed (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// The pause after a socket failed: an answer to a client that is gone, or something that will pass.
const PAUSE: Duration = Duration::from_millis(10);

/// One thread's look-ups.
pub struct Dns {
    shared: Arc<Shared>,
    counts: Arc<DnsCounts>,
    forwards: Arc<Semaphore>,
}

impl Dns {
    /// Answers from what `shared` knows.
    pub fn new(shared: Arc<Shared>, counts: Arc<DnsCounts>) -> Arc<Self> {
        Arc::new(Self { shared, counts, forwards: Arc::new(Semaphore::new(FORWARDS_MAX)) })
    }

    /// Answers datagrams until `stop`.
    pub async fn serve_datagrams(self: Arc<Self>, socket: UdpSocket, stop: CancellationToken) {
        let (socket, mut packet) = (Arc::new(socket), vec![0; QUERY_BYTES_MAX]);
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = socket.recv_from(&mut packet) => received,
            };
            match received {
                Ok((length, client)) => self.datagram(&socket, &packet[..length], client),
                // An earlier answer came back as undeliverable, say.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Answers what comes on connections until `stop`.
    pub async fn serve_streams(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        listener::accept(listener, stop, move |stream, client| self.clone().stream(stream, client)).await;
    }

    fn datagram(self: &Arc<Self>, socket: &Arc<UdpSocket>, packet: &[u8], client: SocketAddr) {
        let circular = || self.shared.upstream.asks_from(client);
        let (answer, counted) = match self.verdict(packet, Over::Udp) {
            Verdict::Ignored => return,
            Verdict::Answered(answer, counted) => (answer, counted),
            Verdict::Elsewhere(sort) => match self.forwards.clone().try_acquire_owned() {
                Ok(place) if !circular() => {
                    let (dns, socket, packet) =
                        (self.clone(), socket.clone(), Bytes::copy_from_slice(packet));
                    tokio::spawn(async move {
                        let answer = dns.elsewhere(&packet, Over::Udp, sort).await;
                        let _ = socket.send_to(&answer, client).await;
                        drop(place);
                    });
                    return;
                }
                _ => (self.failed(packet, Over::Udp), Counted { sort, end: End::Failed }),
            },
        };
        self.counts.answered(counted);
        // A full socket drops it: who asked asks again.
        let _ = socket.try_send_to(&answer, client);
    }

    /// Serves one connection: answers go back as they come, not as they were asked for (RFC 7766 §6.2.1.1).
    async fn stream(self: Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let (read, write) = stream.into_split();
        let (mut queries, mut out) = (messages(read, QUERY_BYTES_MAX), outlet(write));
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                frame = timeout(IDLE, queries.next()), if waiting.len() < PIPELINED_MAX => {
                    let packet = match frame {
                        Ok(Some(Ok(packet))) => packet.freeze(),
                        // While an answer is on its way, the client is waiting, not idle.
                        Err(_) if !waiting.is_empty() => continue,
                        _ => break,
                    };
                    match self.verdict(&packet, Over::Tcp) {
                        Verdict::Ignored => return,
                        Verdict::Answered(answer, counted) => {
                            self.counts.answered(counted);
                            if !send(&mut out, answer).await {
                                return;
                            }
                        }
                        Verdict::Elsewhere(_) if self.shared.upstream.asks_from(client) => return,
                        Verdict::Elsewhere(sort) => {
                            let dns = self.clone();
                            waiting.push(async move { dns.elsewhere(&packet, Over::Tcp, sort).await });
                        }
                    }
                }
                Some(answer) = waiting.next() => {
                    if !send(&mut out, answer).await {
                        return;
                    }
                }
            }
        }
        // A client that closed its side still reads.
        while let Some(answer) = waiting.next().await {
            if !send(&mut out, answer).await {
                return;
            }
        }
    }

    fn verdict(&self, packet: &[u8], over: Over) -> Verdict {
        answer(
            packet,
            over,
            Zone { snapshot: &self.shared.config().snapshot, forwards: self.shared.upstream.is_any() },
        )
    }

    /// What another resolver says; that nobody answers, if it says nothing.
    async fn elsewhere(&self, packet: &[u8], over: Over, sort: answer::Sort) -> Vec<u8> {
        let answered = self.shared.upstream.ask(packet, over).await;
        let end = if answered.is_some() { End::Forwarded } else { End::Failed };
        self.counts.answered(Counted { sort, end });
        answered.unwrap_or_else(|| self.failed(packet, over))
    }

    fn failed(&self, packet: &[u8], over: Over) -> Vec<u8> {
        failed(packet, over, Zone { snapshot: &self.shared.config().snapshot, forwards: true })
    }
}

/// Messages of DNS on a stream: each with its length before it (RFC 1035 §4.2.2).
fn codec(bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().max_frame_length(bytes_max).new_codec()
}

fn messages<R: AsyncRead>(stream: R, bytes_max: usize) -> FramedRead<R, LengthDelimitedCodec> {
    FramedRead::new(stream, codec(bytes_max))
}

fn outlet<W: AsyncWrite>(stream: W) -> FramedWrite<W, LengthDelimitedCodec> {
    FramedWrite::new(stream, codec(usize::from(u16::MAX)))
}

async fn send<W: AsyncWrite + Unpin>(
    out: &mut FramedWrite<W, LengthDelimitedCodec>,
    answer: Vec<u8>,
) -> bool {
    matches!(timeout(IDLE, out.send(Bytes::from(answer))).await, Ok(Ok(())))
}

/// A message on a stream, and the next one that comes back.
async fn exchange(stream: TcpStream, query: Vec<u8>) -> io::Result<BytesMut> {
    let (read, write) = stream.into_split();
    let mut out = outlet(write);
    out.send(Bytes::from(query)).await?;
    let answer = messages(read, usize::from(u16::MAX)).next().await;
    answer.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
}
