//! A connection of a local application that was taken: where it came in, and whose it is. The one place where it is
//! decided for which service it speaks.

use std::{net::SocketAddr, sync::Arc};

use model::name::ServiceName;
use tokio::net::TcpStream;

use super::{Entry, Outbound};
use crate::{
    caller::{Caller, NotBound},
    clock,
    refused::Refused,
    shared::Config,
    telemetry::trace,
};

/// A connection that was taken, or a tunnel in one.
pub(super) struct Arrival {
    /// Where it came in.
    pub(super) entry: Arc<Entry>,
    /// Whose it is.
    pub(super) caller: Caller,
    /// Its other end.
    pub(super) peer: SocketAddr,
}

impl Arrival {
    /// The same caller's, by a tunnel that leads elsewhere.
    pub(super) fn through(&self, entry: Entry) -> Self {
        Self { entry: Arc::new(entry), caller: self.caller, peer: self.peer }
    }
}

impl Outbound {
    /// A connection that has just been taken: nothing of it has been read.
    pub(super) fn arrival(&self, entry: Arc<Entry>, stream: &TcpStream, peer: SocketAddr) -> Arrival {
        // What the caller dialled; a listener for captured connections has to say where they were on their way to.
        let caller = match stream.local_addr() {
            Ok(dialled) => self.callers.of(stream, peer, dialled),
            Err(_) => Caller::Unknown(crate::caller::Unknown::Left),
        };
        Arrival { entry, caller, peer }
    }

    /// For which service it speaks: where something on this host is bound, for the one to which its process is; else for
    /// the one that its listener says.
    pub(super) async fn source(&self, arrival: &Arrival, config: &Config) -> Result<ServiceName, Refused> {
        if !self.shared.binds() {
            return arrival.entry.source(config);
        }
        let bindings = self.shared.bindings();
        let said = bindings.speaks_for(arrival.caller, arrival.entry.owner()).await;
        said.map_err(|why: NotBound| Refused::NotBound { why, id: trace::id(clock::dice) })
    }
}
