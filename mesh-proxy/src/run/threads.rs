//! The runtime threads, and the sockets that each of them gets.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::{
    inbound,
    listener::{BindError, Bound, Sockets},
    outbound::Entry,
    settings::Settings,
    shared::Shared,
    telemetry::{Counts, Outlets},
    worker::Worker,
};

/// Sockets that wait to be listened on by a runtime thread; the control thread waits for room.
const SOCKETS_MAX: usize = 64;
/// A socket for a runtime thread.
pub(super) enum Socket {
    Inbound(TcpListener, CancellationToken),
    Plain(TcpListener, CancellationToken),
    Outbound(Entry, TcpListener, CancellationToken),
    Captured(TcpListener, CancellationToken),
    /// For look-ups, over either transport.
    Datagrams(UdpSocket, CancellationToken),
    Streams(TcpListener, CancellationToken),
    /// No socket: are you there?
    Ping(oneshot::Sender<()>),
}

/// The runtime threads.
pub(super) struct Threads {
    pub(super) senders: Vec<mpsc::Sender<Socket>>,
    pub(super) counts: Vec<Arc<Counts>>,
    pub(super) sockets: Sockets,
    open: CancellationToken,
    joins: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(
        shared: &Arc<Shared>,
        outlets: &Outlets,
        count: usize,
        sockets: Sockets,
    ) -> Result<Self, RunError> {
        let tls = inbound::tls(shared);
        let (senders, counts, joins) = (Vec::new(), Vec::new(), Vec::new());
        let open = CancellationToken::new();
        let mut threads = Self { senders, counts, sockets, open, joins };
        for n in 0..count {
            let failed = |source| RunError::Io { what: "a runtime thread".to_owned(), source };
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let worker = Worker::new(shared, tls.clone(), outlets.clone());
            let (sender, receiver) = mpsc::channel(SOCKETS_MAX);
            threads.senders.push(sender);
            threads.counts.push(worker.counts());
            let open = threads.open.clone();
            let named = std::thread::Builder::new().name(format!("mesh-{n}"));
            threads.joins.push(
                named
                    .spawn(move || runtime.block_on(serve(worker, n == 0, open, receiver)))
                    .map_err(failed)?,
            );
        }
        Ok(threads)
    }

    /// Binds the listeners of the settings; returns where other proxies dial us.
    pub(super) async fn listen(
        &self,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Result<Option<SocketAddr>, RunError> {
        let mut inbound = None;
        for &address in &settings.listen.inbound.0 {
            let bound = self.sockets.bind(address)?;
            inbound = inbound.or(Some(bound.address()));
            tracing::info!(address = %bound.address(), "taking calls of other proxies");
            self.spread(bound, |socket| Socket::Inbound(socket, stop.clone())).await?;
        }
        for &address in &settings.listen.inbound_plain.0 {
            let bound = self.sockets.bind(address)?;
            tracing::info!(address = %bound.address(), "taking captured calls from outside the mesh");
            self.spread(bound, |socket| Socket::Plain(socket, stop.clone())).await?;
        }
        for &address in &settings.listen.host_router.0 {
            let bound = self.sockets.bind(address)?;
            let entry = Entry::HostRouter { port: bound.address().port() };
            tracing::info!(address = %bound.address(), "routing by Host");
            self.spread(bound, |socket| Socket::Outbound(entry.clone(), socket, stop.clone())).await?;
        }
        for &address in &settings.listen.outbound.0 {
            let bound = self.sockets.bind(address)?;
            tracing::info!(address = %bound.address(), "taking captured calls of local applications");
            self.spread(bound, |socket| Socket::Captured(socket, stop.clone())).await?;
        }
        for &address in &settings.listen.dns.0 {
            self.listen_dns(address, stop).await?;
        }
        Ok(inbound)
    }

    /// Both transports of DNS have one port.
    async fn listen_dns(&self, address: SocketAddr, stop: &CancellationToken) -> Result<(), BindError> {
        let bound = self.sockets.bind(address)?;
        tracing::info!(address = %bound.address(), "answering look-ups");
        let datagrams = self.sockets.datagrams(address, bound.address(), self.senders.len())?;
        for (own, sender) in datagrams.into_iter().zip(self.senders.iter().cycle()) {
            hand(sender, Socket::Datagrams(own, stop.clone())).await;
        }
        self.spread(bound, |socket| Socket::Streams(socket, stop.clone())).await
    }

    /// Takes connections from here on: before, listeners are bound, and nobody is taken off them.
    pub(super) fn open(&self) {
        self.open.cancel();
    }

    /// Gives each thread a socket of its own.
    pub(super) async fn spread(
        &self,
        bound: Bound,
        socket: impl Fn(TcpListener) -> Socket,
    ) -> Result<(), BindError> {
        // Where there are more sockets than threads, some have two.
        for (own, sender) in bound.split(self.senders.len())?.into_iter().zip(self.senders.iter().cycle()) {
            hand(sender, socket(own)).await;
        }
        Ok(())
    }

    /// Whether each of them still does what it is asked.
    pub(super) async fn all_there(&self) -> bool {
        for sender in &self.senders {
            let (there, answer) = oneshot::channel();
            if sender.send(Socket::Ping(there)).await.is_err() || answer.await.is_err() {
                return false;
            }
        }
        true
    }
}

async fn hand(sender: &mpsc::Sender<Socket>, socket: Socket) {
    if sender.send(socket).await.is_err() {
        tracing::error!("a runtime thread has ended");
    }
}

async fn serve(worker: Worker, first: bool, open: CancellationToken, mut sockets: mpsc::Receiver<Socket>) {
    worker.keep_house(first);
    // Connections wait in the kernel meanwhile, or are a predecessor's.
    let mut held = Vec::new();
    loop {
        tokio::select! {
            socket = sockets.recv() => match socket {
                None => return,
                Some(socket) if open.is_cancelled() => listen(&worker, socket),
                Some(socket) => held.push(socket),
            },
            () = open.cancelled(), if !held.is_empty() => {
                held.drain(..).for_each(|socket| listen(&worker, socket));
            }
        }
    }
}

fn listen(worker: &Worker, socket: Socket) {
    let listening = match socket {
        Socket::Inbound(socket, stop) => worker.listen_inbound(socket, stop),
        Socket::Plain(socket, stop) => worker.listen_plain(socket, stop),
        Socket::Outbound(entry, socket, stop) => worker.listen_outbound(entry, socket, stop),
        Socket::Captured(socket, stop) => worker.listen_captured(socket, stop),
        Socket::Datagrams(socket, stop) => worker.listen_datagrams(socket, stop),
        Socket::Streams(socket, stop) => worker.listen_streams(socket, stop),
        Socket::Ping(there) => {
            // Who asked may have given up.
            let _ = there.send(());
            return;
        }
    };
    if let Err(error) = listening {
        tracing::error!(%error, "a socket cannot be used");
    }
}

/// Ends the threads: nothing is under way any more, or it had its time.
impl Drop for Threads {
    fn drop(&mut self) {
        self.senders.clear();
        for join in self.joins.drain(..) {
            drop(join.join());
        }
    }
}
