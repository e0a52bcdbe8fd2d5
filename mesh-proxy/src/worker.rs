//! One runtime thread's share of the data path: everything that it uses and no other thread does.

use std::{
    net::{TcpListener, UdpSocket},
    sync::{Arc, Weak},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::net;
use tokio_util::sync::CancellationToken;

use crate::{
    dns::Dns,
    experience::Experience,
    inbound::Inbound,
    listener,
    outbound::{Entry, Outbound},
    shared::{Connected, Shared},
    telemetry::{Counts, Outlets, Telemetry},
    transport::{Transport, tls::Dialler},
};

/// How often what is idle or gone is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// One thread's spines.
pub struct Worker {
    inbound: Arc<Inbound>,
    outbound: Arc<Outbound>,
    dns: Arc<Dns>,
    transport: Arc<Transport>,
    experience: Arc<Experience>,
    counts: Arc<Counts>,
    shared: Arc<Shared>,
}

impl Worker {
    /// The spines of one thread.
    pub fn new(shared: &Arc<Shared>, tls: Arc<ServerConfig>, outlets: Outlets) -> Self {
        let counts = Arc::<Counts>::default();
        let outlets = Outlets { log: outlets.log.for_thread(), ..outlets };
        let telemetry = Telemetry::new(counts.clone(), outlets);
        let dialler =
            Dialler::new(shared.identities.clone(), shared.trust.clone(), shared.trust_changes.clone());
        let (transport, experience) =
            (Arc::new(Transport::new(dialler, counts.mux())), Arc::new(Experience::new(shared.lore.clone())));
        let inbound = Inbound::new(shared.clone(), transport.clone(), telemetry.clone(), tls);
        let outbound = Outbound::new(shared.clone(), transport.clone(), experience.clone(), telemetry);
        let dns = Dns::new(shared.clone(), counts.dns());
        Self { inbound, outbound, dns, transport, experience, counts, shared: shared.clone() }
    }

    /// What this thread counted.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Takes calls of other proxies until `stop`. To be called on the thread's runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_inbound(&self, socket: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let (listener, inbound) = (net::TcpListener::from_std(socket)?, self.inbound.clone());
        let shared = self.shared.clone();
        tokio::spawn(listener::accept(listener, stop, move |stream, peer| {
            counted(shared.connected(), inbound.clone().take(stream, peer))
        }));
        Ok(())
    }

    /// Takes connections that the kernel turned aside to us on their way to applications here, until `stop`. To be
    /// called on the thread's runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_plain(&self, socket: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let (listener, inbound) = (net::TcpListener::from_std(socket)?, self.inbound.clone());
        let shared = self.shared.clone();
        tokio::spawn(listener::accept(listener, stop, move |stream, peer| {
            counted(shared.connected(), inbound.clone().take_plain(stream, peer))
        }));
        Ok(())
    }

    /// Takes calls of local applications until `stop`. To be called on the thread's runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_outbound(
        &self,
        entry: Entry,
        socket: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let (listener, outbound) = (net::TcpListener::from_std(socket)?, self.outbound.clone());
        let entry = Arc::new(entry);
        let shared = self.shared.clone();
        let taken = move |stream, peer| {
            counted(shared.connected(), outbound.clone().take(entry.clone(), stream, peer))
        };
        tokio::spawn(listener::accept(listener, stop, taken));
        Ok(())
    }

    /// Takes calls of local applications that the kernel turned aside to us, until `stop`. To be called on the thread's
    /// runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_captured(&self, socket: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let (listener, outbound) = (net::TcpListener::from_std(socket)?, self.outbound.clone());
        let shared = self.shared.clone();
        let taken =
            move |stream, peer| counted(shared.connected(), outbound.clone().take_captured(stream, peer));
        tokio::spawn(listener::accept(listener, stop, taken));
        Ok(())
    }

    /// Answers look-ups over UDP until `stop`. To be called on the thread's runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_datagrams(&self, socket: UdpSocket, stop: CancellationToken) -> std::io::Result<()> {
        let socket = net::UdpSocket::from_std(socket)?;
        tokio::spawn(self.dns.clone().serve_datagrams(socket, stop));
        Ok(())
    }

    /// Answers look-ups over TCP until `stop`. To be called on the thread's runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn listen_streams(&self, socket: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let socket = net::TcpListener::from_std(socket)?;
        tokio::spawn(self.dns.clone().serve_streams(socket, stop));
        Ok(())
    }

    /// Looks after what is idle or gone, until the worker is dropped; the `first` of a proxy's threads checks endpoints for
    /// all of them. To be called on the thread's runtime.
    pub fn keep_house(&self, first: bool) {
        if first {
            self.outbound.check_endpoints();
        }
        let (transport, experience) = (Arc::downgrade(&self.transport), Arc::downgrade(&self.experience));
        tokio::spawn(keep_house(transport, experience, self.shared.clone()));
    }
}

/// Boxed: a future that is handed on through several others would stand in each of them at its full size.
fn counted(
    connected: Connected,
    taken: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let taken = Box::pin(taken);
    async move {
        taken.await;
        drop(connected);
    }
}

async fn keep_house(transport: Weak<Transport>, experience: Weak<Experience>, shared: Arc<Shared>) {
    let (mut beat, mut changes) = (tokio::time::interval(HOUSEKEEPING), shared.changes());
    loop {
        beat.tick().await;
        let (Some(transport), Some(experience)) = (transport.upgrade(), experience.upgrade()) else { return };
        transport.sweep();
        shared.rates.sweep(&shared.config().snapshot);
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            experience.prune(&shared.config().snapshot);
        }
    }
}
