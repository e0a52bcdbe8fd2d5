//! Streams of local applications: bytes that nobody reads but both ends. On a port for TLS they begin with a ClientHello,
//! which is looked at and stays in the stream: it shows that they are TLS, and at a listener for many services it names
//! the one that is called (SNI, RFC 6066 §3). The TLS is between the application and whom it calls, certificate and all.

use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use model::{name::ServiceName, resource::Protocol};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use traffic::{protocol::Detected, snapshot::Port};

use super::{Entry, Outbound, arrival::Arrival};
use crate::{
    call::Call,
    refused::Refused,
    shared::Config,
    splice,
    telemetry::{Direction, Spoken},
    transport::{Tunnel, tcp::Abort},
};

/// How long a ClientHello may take on a port for TLS: as long as another proxy's handshake may. Meanwhile the connection
/// takes one of the listener's places, and up to 16 KiB.
pub(super) const HELLO_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a stream begins with.
pub(super) enum Begins {
    /// Whatever it may: nobody looked.
    Anyhow,
    /// On a port for TLS: what was found there.
    Tls(Detected),
}

/// Why a stream that must begin with a ClientHello goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// It begins otherwise, or did not begin.
    #[error("no ClientHello of TLS came")]
    NotTls,
    /// A listener for many services cannot tell which is meant.
    #[error("its ClientHello names no server (SNI), by which the service would be found")]
    NoName,
    /// Nobody in the mesh has that name.
    #[error(
        "its ClientHello names {0}, which is no service of the mesh: they are named like orders.default.mesh"
    )]
    UnknownName(String),
    /// The service that is named takes no TLS there.
    #[error("its ClientHello names {0}, which has no such port for TLS")]
    NoPort(ServiceName),
}

impl Outbound {
    /// Opens one stream; what carries it from then on, which thousands may wait in.
    pub(super) async fn stream<S>(
        &self,
        arrival: &Arrival,
        begins: Begins,
        mut stream: S,
    ) -> Option<BoxFuture<'static, ()>>
    where
        S: AsyncRead + AsyncWrite + Abort + Send + Unpin + 'static,
    {
        match Box::pin(self.opened(arrival, begins)).await {
            Ok((call, tunnel)) => {
                let life = tunnel.life();
                return Some(splice::join(call, stream, tunnel, life).boxed());
            }
            Err(Some(alert)) => {
                // Who is gone needs no word.
                let _ = stream.write_all(&alert).await;
                let _ = stream.shutdown().await;
            }
            Err(None) => {}
        }
        None
    }

    /// The way to the service. Where there is none the call is over, and the caller gets this alert of TLS, if any.
    async fn opened(
        &self,
        arrival: &Arrival,
        begins: Begins,
    ) -> Result<(Box<Call>, Tunnel), Option<[u8; ALERT_BYTES]>> {
        let mut call =
            Call::new(Direction::Outbound, Spoken::Tcp, self.telemetry.clone(), self.shared.under_way());
        (call.outcome.mtls, call.outcome.note.peer) = (true, Some(arrival.peer));
        let entry = &*arrival.entry;
        call.between(None, entry.service().cloned());
        let reached = async {
            let service = begins.called(entry)?;
            call.between(None, Some(service.clone()));
            let config = self.subscribed(entry, &service).await.map_err(|refused| begins.judged(refused))?;
            let source = self.source(arrival, &config).await?;
            let port = begins.port(entry, &config, &service)?;
            self.reach(source, port, &mut call).await
        };
        match reached.await {
            Ok(tunnel) => Ok((call, tunnel)),
            Err(refused) => {
                call.refused(&refused);
                call.over(None);
                Err(match refused {
                    Refused::Hello(bad) => bad.alert(),
                    _ => None,
                })
            }
        }
    }
}

impl Begins {
    /// Who is called: whom the listener is for, or at one for many whom the ClientHello names. A connection to a virtual
    /// IP says by its address whose it is; the name says it again, and counts.
    fn called(&self, entry: &Entry) -> Result<ServiceName, Refused> {
        let listener_s = || entry.service().cloned().ok_or_else(|| Refused::NoService(String::new()));
        let Self::Tls(detected) = self else { return listener_s() };
        let Detected::Tls { server_name } = detected else { return Err(BadHello::NotTls.into()) };
        if entry.owner().is_some() {
            return listener_s();
        }
        let name = server_name.as_ref().ok_or(BadHello::NoName)?;
        Ok(ServiceName::from_hostname(name).ok_or_else(|| BadHello::UnknownName(name.clone()))?)
    }

    /// At which port. Whoever names the service by its ClientHello alone means its port for TLS.
    fn port<'a>(
        &self,
        entry: &Entry,
        config: &'a Config,
        service: &ServiceName,
    ) -> Result<&'a Port, Refused> {
        let Self::Tls(_) = self else { return entry.port(config, service, "") };
        let port = match entry {
            Entry::HostRouter { .. } => {
                config.snapshot.destination(service).and_then(|destination| destination.tls_port())
            }
            Entry::Upstream { .. } | Entry::Captured { .. } => entry.port(config, service, "").ok(),
        };
        let port = port.filter(|port| port.protocol() == Protocol::Tls);
        Ok(port.ok_or_else(|| BadHello::NoPort(service.clone()))?)
    }

    /// A name that nobody has, in a ClientHello, is told as such.
    fn judged(&self, refused: Refused) -> Refused {
        match (self, refused) {
            (Self::Tls(_), Refused::UnknownService(service)) => {
                BadHello::UnknownName(service.hostname()).into()
            }
            (_, refused) => refused,
        }
    }
}

/// A record with one alert (RFC 8446 §5.1, §6).
const ALERT_BYTES: usize = 7;

impl BadHello {
    /// As in labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NoName => "no_name",
            Self::UnknownName(_) => "unknown_name",
            Self::NoPort(_) => "no_port",
        }
    }

    /// What a caller that speaks TLS is told: `missing_extension` (RFC 8446 §9.2) or `unrecognized_name` (RFC 6066 §3).
    fn alert(&self) -> Option<[u8; ALERT_BYTES]> {
        let fatal = |what: u8| Some([21, 3, 3, 0, 2, 2, what]);
        match self {
            Self::NotTls => None,
            Self::NoName => fatal(109),
            Self::UnknownName(_) | Self::NoPort(_) => fatal(112),
        }
    }
}
