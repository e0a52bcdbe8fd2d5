//! Follows the control plane: a stream from any member, resumed where it broke off; each complete set is compiled, put
//! in force and acknowledged. What cannot be compiled is refused with its reason, and the old set stays in force.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use model::{
    identity::TrustDomain,
    kind::Kind,
    name::{Name, ServiceName},
    object::Key,
    proxy::{Nack, parse_line},
    resource::{NodeSpec, Protocol, Resource},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{interval, sleep},
};
use traffic::compile::{Inputs, LocalApp, compile};

use super::{
    cache::Cache,
    held::{Coming, Held, SUBSCRIPTIONS_MAX, Step},
};
use crate::{
    clock,
    control::{Control, ControlError},
    handover::Orders,
    identity::Identity,
    services::{Instance, Services, targets},
    shared::{Config, Shared},
};

/// How long a server may take to begin a stream.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);
/// The pause before the first try to come back; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: how long a control plane that is back may wait for us.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often what changed is written to disk.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// What is in force, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The revision that is in force.
    pub revision: u64,
    /// What could not be compiled, if anything.
    pub nack: Option<Nack>,
}

/// Follows the control plane.
pub struct Follower {
    /// The control plane.
    pub control: Arc<Control>,
    /// Takes up what comes about trust.
    pub identity: Arc<Identity>,
    /// Where configurations are put in force.
    pub shared: Arc<Shared>,
    /// Where they are kept.
    pub cache: Cache,
    /// What this host runs.
    pub services: watch::Receiver<Arc<Services>>,
    /// Destinations that calls ask for.
    pub wanted: mpsc::Receiver<ServiceName>,
    /// Told what is in force.
    pub acks: watch::Sender<Ack>,
    /// Told what the registry says of this host.
    pub node: watch::Sender<Option<NodeSpec>>,
    /// In whose name the host router calls, where the settings say so.
    pub router_identity: Option<ServiceName>,
    /// Says whether this process may write to the disk.
    pub orders: Orders,
}

/// What is held, and what of it is on its way elsewhere.
pub struct Position {
    held: Held,
    /// The subscribed destinations as they were last put in force, and the same to be looked up.
    subscribed: (Arc<BTreeSet<ServiceName>>, Arc<HashSet<ServiceName>>),
    /// Destinations that were asked for since the stream began.
    asked: BTreeSet<ServiceName>,
    /// The history of which the present stream tells.
    epoch: Arc<String>,
    resume: bool,
    unwritten: bool,
    writing: Option<JoinHandle<()>>,
}

impl Position {
    /// Whether what is held and what the stream will tell are of one history: revisions of two cannot be compared.
    fn resumes(&self) -> bool {
        self.resume && self.held.epoch == *self.epoch
    }
}

impl Follower {
    /// Puts in force what the disk holds.
    pub fn begin(&mut self) -> Position {
        let held = self.cache.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "no configuration from the disk");
            None
        });
        let held = held.unwrap_or_default();
        let resume = held.epoch == *self.control.epoch() && held.is_whole();
        let (asked, epoch) = (BTreeSet::new(), self.control.epoch());
        let subscribed = Default::default();
        let mut position =
            Position { held, subscribed, asked, epoch, resume, unwritten: false, writing: None };
        self.put_in_force(&mut position);
        position
    }

    /// Follows the control plane for as long as it is polled.
    pub async fn run(mut self, mut position: Position) {
        let mut pause = PAUSE;
        loop {
            let revision = position.held.revision;
            match self.follow(&mut position).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    if error.status() == Some(410) {
                        position.resume = false;
                    }
                    let moved = position.held.revision != revision;
                    pause = if moved { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
                    tracing::warn!(%error, "the stream of the configuration ended");
                    self.wait(&mut position, clock::jittered(pause)).await;
                }
            }
        }
    }

    /// While no stream comes, what the host itself says is still taken up.
    async fn wait(&mut self, position: &mut Position, pause: Duration) {
        let (mut waited, mut write) = (std::pin::pin!(sleep(pause)), interval(WRITE_INTERVAL));
        loop {
            tokio::select! {
                () = &mut waited => return,
                _ = write.tick() => self.write(position),
                changed = self.services.changed() => match changed {
                    Ok(()) => self.put_in_force(position),
                    Err(_) => return waited.await,
                },
            }
        }
    }

    /// One stream, until it ends or more has to be asked for.
    async fn follow(&mut self, position: &mut Position) -> Result<(), ControlError> {
        let mut wanted = self.services.borrow_and_update().upstreams();
        wanted.append(&mut position.asked.clone());
        // Which history this stream tells of: the server refuses to tell of another than it is asked for. A call beside
        // this one may learn of another at any time.
        position.epoch = self.control.epoch();
        let (path, mut coming) = position.held.ask(&wanted, position.resumes());
        let mut lines = self.control.stream(&path, STREAM_PATIENCE).await?;
        tracing::info!(server = %lines.server(), from = position.held.revision, "following the configuration");
        let mut write = interval(WRITE_INTERVAL);
        loop {
            tokio::select! {
                line = lines.next() => match line? {
                    Some(line) => self.take(position, &mut coming, &line)?,
                    None => return Err(ControlError::Answer("the stream ended".to_owned())),
                },
                Some(service) = self.wanted.recv() => {
                    if self.ask_for(position, service) {
                        return Ok(());
                    }
                }
                Ok(()) = self.services.changed() => {
                    self.put_in_force(position);
                    if !self.services.borrow().upstreams().is_subset(&position.held.subscribed) {
                        return Ok(());
                    }
                }
                _ = write.tick() => self.write(position),
            }
        }
    }

    fn take(&self, position: &mut Position, coming: &mut Coming, line: &[u8]) -> Result<(), ControlError> {
        let parsed = match parse_line(line) {
            Ok(parsed) => parsed,
            // A newer control plane may say what we do not understand.
            Err(error) => {
                tracing::warn!(%error, "a line of the configuration is passed over");
                return Ok(());
            }
        };
        match position.held.step(coming, parsed) {
            Step::Nothing => {}
            Step::Trust(bundle) => self.identity.believe(&bundle),
            Step::Restart => {
                position.resume = false;
                return Err(ControlError::Answer("the stream has to begin anew".to_owned()));
            }
            Step::Complete { changed } => {
                position.held.epoch.clone_from(&position.epoch);
                position.resume = true;
                if changed {
                    self.put_in_force(position);
                } else {
                    self.acks.send_if_modified(|ack| {
                        let moved = ack.nack.is_none() && ack.revision != position.held.revision;
                        ack.revision = if moved { position.held.revision } else { ack.revision };
                        moved
                    });
                }
                // What was said is in force: who waits for that looks there.
                self.shared.in_sync.cancel();
            }
        }
        Ok(())
    }

    /// Whether the stream has to be asked for anew, with everything that waits.
    fn ask_for(&mut self, position: &mut Position, service: ServiceName) -> bool {
        let mut asked = vec![service];
        while let Ok(more) = self.wanted.try_recv() {
            asked.push(more);
        }
        let room = SUBSCRIPTIONS_MAX.saturating_sub(position.held.subscribed.len() + position.asked.len());
        asked.retain(|service| {
            !position.held.subscribed.contains(service) && !position.asked.contains(service)
        });
        asked.truncate(room);
        let more = !asked.is_empty();
        position.asked.extend(asked);
        more
    }

    fn put_in_force(&self, position: &mut Position) {
        let (held, before) = (&position.held, self.shared.config());
        let services = self.services.borrow().clone();
        let own = self.identity.node();
        let instances = services.instances(&own.node);
        let generation = self.identity.trust().load().generation();
        let inputs = inputs(held, &services, &own.node, own.trust_domain.clone(), generation);
        self.tell_node(node(held, &own.node));
        match compile(Some(&before.snapshot), &inputs) {
            Ok(snapshot) => {
                position.unwritten = true;
                // Seldom another: no change among many is to walk them.
                if !Arc::ptr_eq(&held.subscribed, &position.subscribed.0) {
                    let looked_up = Arc::new(held.subscribed.iter().cloned().collect());
                    position.subscribed = (Arc::clone(&held.subscribed), looked_up);
                }
                self.shared.swap(Config {
                    snapshot: Arc::new(snapshot),
                    subscribed: Some(Arc::clone(&position.subscribed.1)),
                    targets: targets(&instances),
                    router_identity: services.router_identity(self.router_identity.as_ref()),
                });
                self.acks.send_replace(Ack { revision: held.revision, nack: None });
            }
            Err(nack) => {
                tracing::error!(revision = held.revision, %nack, "a configuration is refused; the old one stays in force");
                let nack = Some(Nack { revision: held.revision, reason: nack.to_string() });
                self.acks.send_modify(|ack| ack.nack = nack);
            }
        }
    }

    fn tell_node(&self, node: Option<NodeSpec>) {
        self.node.send_if_modified(|known| {
            let changed = *known != node;
            *known = node;
            changed
        });
    }

    /// Writes what changed, beside everything else: a slow disk holds up no configuration.
    fn write(&self, position: &mut Position) {
        let writing = position.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        // What could not be compiled is not what a restart should find.
        if writing || !position.unwritten || self.acks.borrow().nack.is_some() || !self.orders.speaks() {
            return;
        }
        position.unwritten = false;
        let (cache, held) = (self.cache.clone(), position.held.clone());
        position.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = cache.store(&held) {
                tracing::error!(%error, "the configuration could not be written down: a restart needs the control plane");
            }
        }));
    }
}

/// What a configuration is compiled from: what the registry says, and what this host does.
pub fn inputs(
    held: &Held,
    services: &Services,
    name: &Name,
    domain: TrustDomain,
    trust_generation: u64,
) -> Inputs {
    let node = node(held, name);
    Inputs {
        revision: held.revision,
        domain,
        trust_generation,
        objects: held.objects.clone(),
        local: local(&services.instances(name), held, node.as_ref()),
        callers: services.callers(),
    }
}

/// What the registry says of this host.
fn node(held: &Held, name: &Name) -> Option<NodeSpec> {
    let object = held.objects.get(&Key::mesh_wide(Kind::Node, name.clone()))?;
    match object.resource().ok()? {
        Resource::Node(spec) => Some(spec),
        _ => None,
    }
}

/// What runs here, as the data path sees it: what the host may run, as policies come for that and for nothing else.
fn local(instances: &[Instance], held: &Held, node: Option<&NodeSpec>) -> Vec<LocalApp> {
    let protocol = |instance: &Instance| -> Option<Protocol> {
        let ServiceName { namespace, name } = &instance.service;
        let key = Key::namespaced(Kind::Service, namespace.clone(), name.clone());
        match held.objects.get(&key)?.resource().ok()? {
            Resource::Service(spec) => spec.port(instance.number()).map(|port| port.protocol),
            _ => None,
        }
    };
    let granted = |instance: &&Instance| {
        node.is_some_and(|node| node.services.iter().any(|glob| glob.matches(&instance.service)))
    };
    instances.iter().filter(granted).map(|instance| instance.app(protocol(instance))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_served_that_the_host_may_not_run() {
        let instance = Instance {
            name: "orders-host-a-1".parse().expect("a name"),
            service: "default/orders".parse().expect("a name"),
            port: model::resource::Port::clamped(80),
            target: model::resource::Port::clamped(8_080),
            protocol: Protocol::Http,
            labels: Default::default(),
            check: None,
        };
        let node = |glob: &str| NodeSpec {
            zone: None,
            services: vec![glob.parse().expect("a glob")],
            disabled: false,
        };
        let served = |node: Option<NodeSpec>| {
            local(std::slice::from_ref(&instance), &Held::default(), node.as_ref()).len()
        };
        assert_eq!(served(None), 0, "no policy can be known for it");
        assert_eq!((served(Some(node("shop/*"))), served(Some(node("default/o*")))), (0, 1));
    }

    #[test]
    fn what_is_held_of_another_history_is_not_resumed_from() {
        let held = Held { epoch: "old".to_owned(), revision: 7, ..Held::default() };
        let position = |epoch: &str| Position {
            held: held.clone(),
            subscribed: Default::default(),
            asked: BTreeSet::new(),
            epoch: Arc::new(epoch.to_owned()),
            resume: true,
            unwritten: false,
            writing: None,
        };
        assert!(position("old").resumes());
        assert!(!position("new").resumes(), "a keep-alive learned of the restore first");
        assert!(!Position { resume: false, ..position("old") }.resumes());
    }
}
