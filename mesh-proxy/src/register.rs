//! Tells the control plane what this host runs and how it is, and that the host is there. It says it all in one write,
//! again whenever something of it changes, and whenever its session was lost. A server that holds it back is obeyed: the
//! session that it has lives on meanwhile.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use http::Method;
use model::{
    name::Name,
    proxy::{
        KEEPALIVE_INTERVAL, KeepAlive, KeptAlive, LEFT_ALONE_MAX, LEFT_ALONE_REASON_MAX, LeftAlone,
        Registered, Registration,
    },
    resource::{Health, NodeSpec},
};
use serde::de::IgnoredAny;
use tokio::{
    sync::watch,
    time::{interval, sleep},
};
use traffic::endpoint::EndpointKey;

use crate::{
    clock,
    config::watch::Ack,
    control::{Control, ControlError},
    experience::{Left, Lore},
    services::Services,
};

mod body;
pub mod checks;

pub use body::{Place, registration};

/// How long a server may take to write a registration.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may take to keep the session alive: with three servers all are asked within the session's life.
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(2);
/// The pause before the first try to register again; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: how long a control plane that is back may wait for us.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// How often it is looked whether the host has another address: others learn of it within twice this.
const ADDRESS_LOOK: Duration = Duration::from_secs(2);

/// How registration stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the registry knows what this host runs.
    pub registered: bool,
    /// Why not, as of the last try.
    pub problem: Option<String>,
    /// Tries so far.
    pub tries: u64,
    /// Whether the registry was told that this host is going away.
    pub draining: bool,
}

/// Registers this host.
pub struct Registrar {
    /// The control plane.
    pub control: Arc<Control>,
    /// This host's name.
    pub node: Name,
    /// Where its proxy is reached.
    pub place: watch::Receiver<Place>,
    /// What it runs.
    pub services: watch::Receiver<Arc<Services>>,
    /// How that is.
    pub health: watch::Receiver<BTreeMap<Name, Health>>,
    /// What it may run, as far as that is known.
    pub granted: watch::Receiver<Option<NodeSpec>>,
    /// What is in force.
    pub acks: watch::Receiver<Ack>,
    /// Whether it is going away.
    pub leaving: watch::Receiver<bool>,
    /// Which endpoints its callers leave alone.
    pub lore: Arc<Lore>,
    /// Told how registration stands.
    pub standing: watch::Sender<Standing>,
}

impl Registrar {
    /// Registers, and keeps the session alive, for as long as it is polled.
    pub async fn run(mut self) {
        let (mut pause, mut session) = (PAUSE, None);
        loop {
            match self.register().await {
                Ok((registered, body)) => {
                    pause = PAUSE;
                    session = self.keep(registered.generation, &body).await.then_some(registered.generation);
                }
                Err(error) => {
                    tracing::warn!(%error, "not registered");
                    self.standing.send_modify(|standing| {
                        standing.registered = false;
                        standing.problem = Some(error.to_string());
                        standing.tries += 1;
                    });
                    let held = error.held();
                    // Jittered upwards only: who comes too early waits again.
                    let wait =
                        held.map_or_else(|| clock::jittered(pause), |held| held + clock::jittered(PAUSE));
                    if !self.wait(wait, session, held.is_some()).await {
                        session = None;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Waits to register again, and keeps the session alive that there is; `false` when it was lost. News ends the wait,
    /// but not for who is held back, unless he is going away.
    async fn wait(&mut self, pause: Duration, session: Option<u64>, held: bool) -> bool {
        let mut waited = std::pin::pin!(sleep(pause));
        let mut beat = self.beat();
        let mut alive = true;
        loop {
            tokio::select! {
                () = &mut waited => return alive,
                () = self.news(held) => return alive,
                _ = beat.tick() => if let Some(generation) = session.filter(|_| alive) {
                    alive = self.keep_alive(generation).await;
                },
            }
        }
    }

    async fn register(&mut self) -> Result<(Registered, Registration), ControlError> {
        let body = self.body();
        let call = self.control.call(Method::PUT, "/v1/proxy/registration", Some(&body), WRITE_PATIENCE);
        let registered: Registered = call.await?;
        let (endpoints, draining) = (body.endpoints.len(), *self.leaving.borrow());
        tracing::info!(
            generation = registered.generation,
            revision = registered.revision,
            endpoints,
            draining,
            "registered"
        );
        self.standing.send_modify(|standing| {
            *standing = Standing { registered: true, problem: None, tries: standing.tries + 1, draining };
        });
        Ok((registered, body))
    }

    fn body(&mut self) -> Registration {
        let leaving = *self.leaving.borrow_and_update();
        let place = self.place.borrow_and_update().clone();
        let services = self.services.borrow_and_update().clone();
        let granted = self.granted.borrow_and_update().clone();
        let health = self.health.borrow_and_update().clone();
        let state = |instance: &crate::services::Instance| match (leaving, &instance.check) {
            (true, _) => Health::Draining,
            (false, None) => Health::Healthy,
            // Not before its first check has passed.
            (false, Some(_)) => health.get(&instance.name).copied().unwrap_or(Health::Unhealthy),
        };
        let mut instances = services.instances(&self.node);
        instances.retain(|instance| {
            let granted = granted.as_ref().is_none_or(|node| node.grants(&instance.service));
            if !granted {
                tracing::warn!(service = %instance.service, "not registered: the Node does not grant it (spec.services)");
            }
            granted
        });
        let zone = granted.as_ref().and_then(|node| node.zone.as_ref());
        registration(&self.node, &place, zone, &instances, state)
    }

    fn beat(&self) -> tokio::time::Interval {
        let mut beat = interval(KEEPALIVE_INTERVAL.duration());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        beat
    }

    /// Keeps the session alive until there is something new to register; `false` when it was lost.
    async fn keep(&mut self, generation: u64, registered: &Registration) -> bool {
        let mut beat = self.beat();
        let mut acks = self.acks.clone();
        acks.mark_changed();
        loop {
            tokio::select! {
                () = self.changed() => match self.body() == *registered {
                    true => continue,
                    false => return true,
                },
                _ = beat.tick() => {}
                changed = acks.changed() => if changed.is_err() { return true },
            }
            acks.mark_unchanged();
            if !self.keep_alive(generation).await {
                return false;
            }
        }
    }

    /// One sign of life; `false` if there is no such session any more.
    async fn keep_alive(&self, generation: u64) -> bool {
        let Ack { revision, nack } = self.acks.borrow().clone();
        let body = KeepAlive { generation, revision, nack, left_alone: self.left_alone() };
        let call = self.control.call(Method::POST, "/v1/proxy/keepalive", Some(&body), KEEPALIVE_PATIENCE);
        match call.await {
            Ok(KeptAlive { .. }) => {}
            Err(error) if error.status() == Some(410) => {
                tracing::warn!("the session was lost; registering anew");
                return false;
            }
            Err(error) => tracing::warn!(%error, "the session was not kept alive"),
        }
        true
    }

    /// Which endpoints its callers leave alone; before traffic policies, that nobody older knows, there are none.
    fn left_alone(&self) -> Vec<LeftAlone> {
        let left = self.lore.all_left_alone().into_iter().take(LEFT_ALONE_MAX);
        let said = |(key, left): (EndpointKey, Left)| LeftAlone {
            service: key.service().clone(),
            endpoint: key.name().clone(),
            reason: left.reason.chars().take(LEFT_ALONE_REASON_MAX).collect(),
        };
        left.map(said).collect()
    }

    /// Waits until there is something to say that may be said.
    async fn news(&mut self, held: bool) {
        match held {
            false => self.changed().await,
            true if self.leaving.changed().await.is_ok() => {}
            true => std::future::pending().await,
        }
    }

    /// Waits until there is something new to register.
    async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.services.changed() => {}
            Ok(()) = self.health.changed() => {}
            Ok(()) = self.granted.changed() => {}
            Ok(()) = self.place.changed() => {}
            Ok(()) = self.leaving.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Tells `place` when this host has another address on the way to a server, for as long as it is polled.
pub async fn follow_address(server: crate::settings::Server, place: watch::Sender<Place>) {
    loop {
        sleep(ADDRESS_LOOK).await;
        let server = server.clone();
        // The server's name may have to be looked up.
        let found = tokio::task::spawn_blocking(move || route_to(&server)).await;
        let Ok(Some(address)) = found else { continue };
        place.send_if_modified(|place| {
            let moved = place.address != address;
            if moved {
                tracing::warn!(before = %place.address, now = %address, "this host has another address");
                place.address = address;
            }
            moved
        });
    }
}

/// Takes this host out of the registry, as the last thing that it does.
///
/// # Errors
/// If no server did so; the session's end will.
pub async fn leave(control: &Control) -> Result<(), ControlError> {
    let (path, nothing) = ("/v1/proxy/registration", None::<&()>);
    control.call::<IgnoredAny>(Method::DELETE, path, nothing, KEEPALIVE_PATIENCE).await.map(drop)
}

/// The address of this host on the way to a server: what others dial, where nothing is said.
pub fn route_to(server: &crate::settings::Server) -> Option<IpAddr> {
    let socket = |local: &str| {
        let socket = std::net::UdpSocket::bind(local).ok()?;
        // Nothing is sent: the kernel only looks the route up.
        socket.connect((server.host.as_str(), server.port)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    socket("0.0.0.0:0").or_else(|| socket("[::]:0"))
}
