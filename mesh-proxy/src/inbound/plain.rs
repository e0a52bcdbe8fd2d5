//! Callers outside the mesh: plaintext connections on their way to an application of this host that the kernel turned
//! aside to us (`redirect`, as nftables calls it). For whom one is says where it was on its way to, never what it sends.
//! Whether it is let in, with no identity, is a matter of policy like any other call's.

use std::{net::SocketAddr, sync::Arc};

use model::resource::Protocol;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use traffic::protocol::Detected;

use super::{Connection, Inbound};
use crate::{
    call::Call,
    http1::{self, Edge},
    http2,
    listener::{DETECT_TIMEOUT, FIRST_WORD_TIMEOUT, detect, original_destination},
    server::Ends,
    splice,
    standing::Standing,
    telemetry::{Direction, Spoken},
    transport::tcp::Abort,
};

/// Where a plaintext connection was on its way to.
pub(super) struct Plain {
    /// The service's port.
    pub(super) port: u16,
    /// Where its application listens.
    pub(super) target: SocketAddr,
}

impl Inbound {
    /// Takes one connection that was on its way to an application of this host.
    pub async fn take_plain(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let (connection, protocol) = match self.meant(&stream, address) {
            Ok(meant) => meant,
            Err(reason) => return self.refusals.tell(address, &reason),
        };
        let patience = match protocol {
            Protocol::Tcp | Protocol::Tls => return Box::pin(self.plain_stream(&connection, stream)).await,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => FIRST_WORD_TIMEOUT,
            Protocol::Auto => DETECT_TIMEOUT,
        };
        let Ok((detected, stream)) = detect(stream, patience).await else { return };
        if !matches!(detected, Detected::Http1 | Detected::Http2) && !protocol.is_http() {
            return Box::pin(self.plain_stream(&connection, stream)).await;
        }
        let (draining, idle_until) = (self.shared.draining.clone(), Some(self.shared.closing.clone()));
        let ends = Ends { draining, idle_until, life: None };
        let connection = Arc::new(connection);
        let serve = move |request| self.clone().serve(connection.clone(), request);
        match detected {
            Detected::Http2 => Box::pin(http2::serve(stream, ends, serve)).await,
            _ => Box::pin(http1::serve(stream, Edge::App, ends, serve)).await,
        }
    }

    /// The own application that a connection was on its way to, with what it speaks.
    fn meant(&self, stream: &TcpStream, address: SocketAddr) -> Result<(Connection, Protocol), String> {
        let meant = original_destination(stream).map_err(|error| {
            format!("its connection came here by itself, not on its way to an application: {error}")
        })?;
        let config = self.shared.config();
        let found = config.snapshot.inbound().by_address(meant);
        let (own, app, target) =
            found.ok_or_else(|| format!("no service of this host answers at {meant}"))?;
        let server_name = own.name.hostname();
        let standing = Standing::new(&self.shared, &server_name, None);
        let plain = Some(Plain { port: app.port, target });
        let connection =
            Connection { server_name, id: None, caller: None, address, life: None, standing, plain };
        Ok((connection, app.protocol))
    }

    async fn plain_stream<S>(&self, connection: &Connection, stream: S)
    where
        S: AsyncRead + AsyncWrite + Abort + Unpin,
    {
        let mut call =
            Call::new(Direction::Inbound, Spoken::Tcp, self.telemetry.clone(), self.shared.under_way());
        call.outcome.note.peer = Some(connection.address);
        let port = connection.plain.as_ref().map_or(0, |plain| plain.port);
        match self.reach(connection, &mut call, port).await {
            Err(refused) => {
                stream.abort();
                call.over(Some(refused.to_string()));
            }
            Ok(app) => splice::join(call, stream, app, None).await,
        }
    }
}
