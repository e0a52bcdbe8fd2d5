//! A worker's side: what it is handed, and what it is told from then on.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Channel, Order, Report, SocketName};

/// Reports that wait to be sent; a host has fewer listeners than this times its threads, and who reports more at once
/// has them made anew after the next restart.
pub(super) const REPORTS_MAX: usize = 4_096;
/// Sockets that are taken over, as many as systemd keeps for the unit.
pub(super) const SOCKETS_HANDED_MAX: usize = 4_096;

/// What a worker begins with: the sockets of the worker before it, and the way to its supervisor.
#[derive(Debug)]
pub struct Handed {
    /// By name.
    pub sockets: BTreeMap<SocketName, OwnedFd>,
    channel: Channel,
}

/// The way to the supervisor.
#[derive(Debug, Clone)]
pub struct Post(mpsc::Sender<(Report, Option<OwnedFd>)>);

/// What the supervisor tells of, each as something to wait for.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Raised to read `services.d` again.
    pub reload: watch::Sender<u64>,
    /// Set to end for good.
    pub leave: CancellationToken,
    /// Set when this process is the one that speaks for its host.
    pub go: CancellationToken,
    /// How long what is under way gets, once a successor serves.
    pub hand_over: watch::Sender<Option<Duration>>,
    /// Raised to ask whether all threads are there.
    pub pings: watch::Sender<u64>,
}

/// Takes what there is until the supervisor says that this was all. Until [`Post::ready`] the worker dies with its
/// supervisor: one that never came to serve is nobody's successor. To be called on the main thread.
///
/// # Errors
/// If the supervisor is gone.
pub async fn receive(channel: Channel) -> io::Result<Handed> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut sockets = BTreeMap::new();
    while let Some((text, descriptor)) = channel.receive().await? {
        match (text.parse(), descriptor) {
            (Ok(Order::Begin), _) => return Ok(Handed { sockets, channel }),
            (Ok(Order::Socket(name)), Some(socket)) if sockets.len() < SOCKETS_HANDED_MAX => {
                sockets.insert(name, socket);
            }
            _ => tracing::warn!(text, "a word of the supervisor is passed over"),
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor is gone"))
}

impl Handed {
    /// Listens to the supervisor from here on, in a task of its own.
    pub fn listen(self, orders: Orders) -> (BTreeMap<SocketName, OwnedFd>, Post) {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        tokio::spawn(talk(self.channel, reports, orders));
        (self.sockets, Post(sender))
    }
}

impl Post {
    /// The next worker is to get this socket, too.
    pub fn keep(&self, name: SocketName, socket: &impl AsFd) {
        match socket.as_fd().try_clone_to_owned() {
            Ok(socket) => self.say(Report::Keep(name), Some(socket)),
            Err(error) => tracing::error!(%error, %name, "a socket is not kept for after a restart"),
        }
    }

    /// Nobody listens there any more.
    pub fn forget(&self, name: SocketName) {
        self.say(Report::Forget(name), None);
    }

    /// This worker serves, and goes on when its supervisor ends. To be called on the main thread.
    pub fn ready(&self) {
        if let Err(error) = set_parent_process_death_signal(None) {
            tracing::error!(%error, "this worker will die with its supervisor");
        }
        self.say(Report::Ready, None);
    }

    /// All threads are there.
    pub fn pong(&self) {
        self.say(Report::Pong, None);
    }

    fn say(&self, report: Report, socket: Option<OwnedFd>) {
        if self.0.try_send((report.clone(), socket)).is_err() {
            tracing::error!(%report, "the supervisor is not told");
        }
    }
}

async fn talk(channel: Channel, mut reports: mpsc::Receiver<(Report, Option<OwnedFd>)>, orders: Orders) {
    loop {
        tokio::select! {
            Some((report, socket)) = reports.recv() => {
                if let Err(error) = channel.send(&report.to_string(), socket.as_ref().map(AsFd::as_fd)).await {
                    tracing::debug!(%error, %report, "the supervisor does not listen");
                }
            }
            received = channel.receive() => match received {
                Ok(Some((text, _))) => orders.obey(&text),
                // Not even systemd holds the other end: nobody will ever say anything.
                Ok(None) | Err(_) => {
                    tracing::warn!("nobody supervises this worker any more: it ends");
                    return orders.leave.cancel();
                }
            },
        }
    }
}

impl Orders {
    /// Of a process that nobody supervises: it speaks for its host from the start.
    pub fn alone() -> Self {
        let orders = Self::default();
        orders.go.cancel();
        orders
    }

    /// Whether this process is the one that speaks for its host: it alone registers, renews and writes to the disk.
    pub fn speaks(&self) -> bool {
        self.go.is_cancelled() && self.hand_over.borrow().is_none()
    }

    fn obey(&self, text: &str) {
        match text.parse() {
            Ok(Order::Go) => self.go.cancel(),
            Ok(Order::Drain(patience)) => drop(self.hand_over.send_replace(Some(patience))),
            Ok(Order::Stop) => self.leave.cancel(),
            Ok(Order::Reload) => self.reload.send_modify(|times| *times += 1),
            Ok(Order::Ping) => self.pings.send_modify(|times| *times += 1),
            Ok(Order::Socket(_) | Order::Begin) | Err(_) => {
                tracing::warn!(text, "a word of the supervisor is passed over");
            }
        }
    }
}
