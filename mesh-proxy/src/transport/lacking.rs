//! Proxies that do not speak `mesh/1`, as they are of an earlier version: what they are told instead is known for a
//! while, so that a stream to them costs one handshake, as it always did.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Hop, life::Life};

/// How long a proxy is taken to lack it. It may be replaced by a later version at any time.
const KNOWN: Duration = Duration::from_secs(60);

/// A connection on which the other side has chosen `mesh-tcp/1`, and which nobody uses yet.
type Spare = (TlsStream<TcpStream>, Life);

/// By whom it is lacked, as far as is known.
#[derive(Default)]
pub(super) struct Lacking(Mutex<HashMap<Hop, (Instant, Option<Spare>)>>);

impl Lacking {
    /// A proxy chose `mesh-tcp/1`.
    pub(super) fn found(&self, hop: &Hop, spare: Spare, now: Instant) {
        self.0.lock().insert(hop.clone(), (now, Some(spare)));
    }

    pub(super) fn knows(&self, hop: &Hop, now: Instant) -> bool {
        self.0.lock().get(hop).is_some_and(|(since, _)| now.saturating_duration_since(*since) < KNOWN)
    }

    /// The connection by which that was found out: for one stream.
    pub(super) fn spare(&self, hop: &Hop) -> Option<Spare> {
        self.0.lock().get_mut(hop)?.1.take()
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, (since, _)| now.saturating_duration_since(*since) < KNOWN);
    }
}
