//! Captured calls of local applications: connections to virtual IPs that the kernel turned aside to us (`redirect`, as
//! nftables calls it). Whom one calls is said by where it was on its way to; from there on it is a call like any other.
//! Whoever dials the listener itself calls nobody.

use std::{io, net::SocketAddr, sync::Arc};

use model::name::ServiceName;
use tokio::net::TcpStream;

use super::{Entry, Outbound, SUBSCRIBE_TIMEOUT, arrival::Arrival};
use crate::{
    caller::{Caller, Unknown},
    listener::original_destination,
    shared::Config,
    transport::tcp::Abort as _,
};

/// Why a connection to the listener for captured calls is closed.
#[derive(Debug, thiserror::Error)]
pub enum Stray {
    /// It came here by itself.
    #[error("its connection came here by itself, not on its way to a service: {0}")]
    Direct(io::Error),
    /// Nobody has that virtual IP.
    #[error("no service has the address {0}")]
    Address(SocketAddr),
    /// The service does not have that port.
    #[error("service {0} has no port {1}")]
    Port(ServiceName, u16),
}

impl Outbound {
    /// Takes one connection that was on its way to a virtual IP.
    pub async fn take_captured(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let meant = original_destination(&stream);
        // Before anything is waited for: the caller's own socket still says what it dialled.
        let caller = meant.as_ref().ok().map(|meant| self.callers.of(&stream, address, *meant));
        match self.meant(meant).await {
            Ok(entry) => {
                let caller = caller.unwrap_or(Caller::Unknown(Unknown::Left));
                let arrival = Arrival { entry: Arc::new(entry), caller, peer: address };
                if let Some(rest) = Box::pin(self.told_apart(Arc::new(arrival), stream)).await {
                    rest.await;
                }
            }
            Err(stray) => {
                stream.abort();
                self.telemetry.strayed(stray.as_str());
                self.refusals.tell(address, &stray.to_string());
            }
        }
    }

    /// Who calls whom.
    async fn meant(&self, meant: io::Result<SocketAddr>) -> Result<Entry, Stray> {
        let meant = meant.map_err(Stray::Direct)?;
        // Right after its start the proxy knows nobody yet, or those whom it knew before: a call to somebody else waits a
        // moment, as it does for endpoints.
        let config = self.shared.introduced(meant.ip(), SUBSCRIBE_TIMEOUT).await;
        let (destination, port) = called(&config, meant)?;
        // Where nothing on this host is bound, as for the host router.
        Ok(Entry::Captured { source: config.router_identity.clone(), destination, port })
    }
}

/// The service and its port that stand behind an address.
fn called(config: &Config, meant: SocketAddr) -> Result<(ServiceName, u16), Stray> {
    let destination = config.snapshot.by_virtual_ip(meant.ip()).ok_or(Stray::Address(meant))?;
    match destination.port(meant.port()) {
        Some(_) => Ok((destination.name().clone(), meant.port())),
        None => Err(Stray::Port(destination.name().clone(), meant.port())),
    }
}

impl Stray {
    /// As in labels.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Address(_) => "address",
            Self::Port(..) => "port",
        }
    }
}
