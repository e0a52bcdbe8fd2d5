//! Simulated proxies, thousands in one process: each has a certificate of its own, real TLS connections from an address
//! of its own, a session with its keep-alives, and a stream that it resumes by revision. They speak as `mesh-proxy` does
//! and carry no traffic.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::client::{Client, Settings as ClientSettings};
use serde_json::{Value, json};
use svid::{Trust, TrustStore};
use tokio::{sync::watch, task::JoinSet};

use crate::wait::until;

mod host;
mod link;
mod papers;
pub mod scenario;
mod seen;
pub mod usage;

use host::Host;
pub use host::registration as register_body;
pub use seen::{Counts, Seen};

/// Joins under way at once.
const JOINS_AT_ONCE: usize = 32;
/// Hosts of one service: as many endpoints as a change of it touches.
const HOSTS_PER_SERVICE: usize = 10;
/// The first and the number of last octets that the hosts' own addresses have, beside their loopback servers'.
const SOURCES: (u8, usize) = (100, 140);

/// Against which control plane, and how many.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers' API addresses.
    pub servers: Vec<SocketAddr>,
    /// The root certificates, PEM.
    pub roots: String,
    /// An administrator's token.
    pub token: String,
    /// How many proxies.
    pub proxies: usize,
    /// Their names begin so.
    pub prefix: String,
}

/// What the hosts do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Register and keep the session alive.
    pub(crate) register: bool,
    /// Follow the control plane.
    pub(crate) watch: bool,
}

/// The proxies. They end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    seen: Arc<Seen>,
    orders: watch::Sender<Orders>,
    _hosts: JoinSet<()>,
}

impl Fleet {
    /// Gets every proxy its certificate. They do nothing yet.
    ///
    /// # Errors
    /// If one is not let in.
    pub async fn join(settings: &Settings) -> anyhow::Result<Self> {
        let first = format!("https://{}", settings.servers[0]);
        let (token, roots) = (Some(settings.token.clone()), Some(settings.roots.clone()));
        let admin = Client::new(ClientSettings { address: first, token, roots })?;
        let token = join_token(&admin, settings).await?;
        let bundle = admin.json(reqwest::Method::GET, "/v1/ca/bundle", None).await?;
        let trust = TrustStore::new(Trust::from_bundle(&bundle)?);
        let seen = Arc::new(Seen::new(settings.proxies));
        let (orders, ordered) = watch::channel(Orders::default());
        let http = papers::client(&settings.roots)?;
        let joins = (0..settings.proxies).map(|index| {
            let (http, token) = (http.clone(), token.clone());
            let node = format!("{}-{index}", settings.prefix);
            let server = settings.servers[index % settings.servers.len()];
            async move {
                let joined = tokio::spawn(papers::join(http, server, token, node)).await??;
                anyhow::Ok((index, joined))
            }
        });
        let joined: Vec<_> = stream::iter(joins).buffer_unordered(JOINS_AT_ONCE).try_collect().await?;
        let mut hosts = JoinSet::new();
        for (index, papers) in joined {
            let service = format!("fleet-{}", index / HOSTS_PER_SERVICE);
            let follows = format!("fleet-{}", (index / HOSTS_PER_SERVICE + 1) % settings.services());
            let link = link::Links::new(
                settings.servers.clone(),
                source(settings, index),
                &papers,
                &trust,
                seen.clone(),
            );
            let host = Host { index, node: papers.node, service, follows, link, seen: seen.clone() };
            hosts.spawn(host.run(ordered.clone()));
        }
        Ok(Self { seen, orders, _hosts: hosts })
    }

    /// They register, and keep their sessions alive from now on.
    pub fn register(&self) {
        self.orders.send_modify(|orders| orders.register = true);
    }

    /// They follow the control plane from now on.
    pub fn watch(&self) {
        self.orders.send_modify(|orders| orders.watch = true);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.seen.counts()
    }

    /// From here on only what begins later makes a proxy count as in sync; answers the round.
    pub fn begin_round(&self) -> u64 {
        self.seen.round.fetch_add(1, Relaxed) + 1
    }

    /// How many proxies have, in this round, kept their session alive, and a stream that is complete at this revision or
    /// a later one.
    pub fn in_sync(&self, revision: u64) -> usize {
        self.seen.in_sync(revision)
    }

    /// Waits until all have kept their sessions alive in this round.
    ///
    /// # Errors
    /// If they have not in time.
    pub async fn all_kept(&self, limit: Duration) -> anyhow::Result<()> {
        let all = self.seen.len();
        until("all sessions are alive", limit, || async {
            let kept = self.seen.kept();
            if kept == all { Ok(()) } else { Err(format!("{kept} of {all}; {:?}", self.counts())) }
        })
        .await
    }

    /// Waits until all are in sync at this revision.
    ///
    /// # Errors
    /// If they are not in time.
    pub async fn all_in_sync(&self, revision: u64, limit: Duration) -> anyhow::Result<()> {
        let all = self.seen.len();
        until("all proxies are in sync", limit, || async {
            let synced = self.in_sync(revision);
            if synced == all { Ok(()) } else { Err(format!("{synced} of {all}; {:?}", self.counts())) }
        })
        .await
    }
}

impl Settings {
    fn services(&self) -> usize {
        self.proxies.div_ceil(HOSTS_PER_SERVICE).max(1)
    }
}

/// One token lets all of them in.
async fn join_token(admin: &Client, settings: &Settings) -> anyhow::Result<String> {
    let name = format!("fleet-{}", uuid::Uuid::new_v4().simple());
    let spec = json!({
        "role": "host",
        "uses": settings.proxies,
        "ttl": "1h",
        "nodes": [format!("{}-*", settings.prefix)],
        "services": ["default/*"],
    });
    let body = json!({"kind": "JoinToken", "metadata": {"name": name}, "spec": spec});
    let path = format!("/v1/jointokens/{name}");
    let made: Value = admin.json(reqwest::Method::PUT, &path, Some(&body)).await?;
    let token = made["status"]["token"].as_str().unwrap_or_default();
    Ok(token.parse::<model::token::JoinToken>()?.without_pin())
}

/// Hosts have addresses of their own where the servers are on loopback: a limit by address is not one for all of them.
fn source(settings: &Settings, index: usize) -> Option<IpAddr> {
    match settings.servers[0].ip() {
        IpAddr::V4(server) if server.is_loopback() => {
            let [a, b, c, _] = server.octets();
            let (first, count) = SOURCES;
            let last = first + u8::try_from(index % count).expect("140 octets follow the 100th");
            Some(Ipv4Addr::new(a, b, c, last).into())
        }
        _ => None,
    }
}
