//! The explicit listeners, as the files of `services.d` say now.

use std::{collections::HashMap, net::SocketAddr};

use tokio_util::sync::CancellationToken;

use super::{Socket, Threads};
use crate::{outbound::Entry, services::Services};

/// The listeners that are open.
#[derive(Default)]
pub(super) struct Upstreams {
    open: HashMap<SocketAddr, (Entry, CancellationToken)>,
}

impl Upstreams {
    /// Opens what is new and closes what is gone. Connections that were taken go on.
    pub(super) async fn reconcile(&mut self, threads: &Threads, services: &Services) {
        let entries = services.entries();
        self.open.retain(|address, (entry, stop)| {
            let stays = entries.iter().any(|(wanted, listen)| listen == address && wanted == entry);
            if !stays {
                stop.cancel();
                threads.sockets.forget(*address);
            }
            stays
        });
        for (entry, address) in entries {
            match self.open.get(&address) {
                Some((known, _)) if *known == entry => continue,
                Some((known, _)) => {
                    tracing::error!(%address, ?known, ?entry, "two [[upstream]] listen at one address; the first one does");
                    continue;
                }
                None => {}
            }
            match self.open_one(threads, &entry, address).await {
                Ok(stop) => drop(self.open.insert(address, (entry, stop))),
                Err(error) => tracing::error!(%error, ?entry, "an [[upstream]] is not listened for"),
            }
        }
    }

    async fn open_one(
        &self,
        threads: &Threads,
        entry: &Entry,
        address: SocketAddr,
    ) -> Result<CancellationToken, crate::listener::BindError> {
        let (bound, stop) = (threads.sockets.bind(address)?, CancellationToken::new());
        tracing::info!(%address, ?entry, "taking calls of local applications");
        threads.spread(bound, |socket| Socket::Outbound(entry.clone(), socket, stop.clone())).await?;
        Ok(stop)
    }

    /// Takes no more connections here; what waits to be taken may be a successor's.
    pub(super) fn leave(&mut self) {
        self.open.drain().for_each(|(_, (_, stop))| stop.cancel());
    }
}
