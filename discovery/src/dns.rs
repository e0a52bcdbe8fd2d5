//! Type DNS: names that are looked up again and again, each as often as its records may be kept. That there is no such
//! name is an answer like others; that no resolver can say is none, and what was there stays.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::rr::Name;
use model::resource::{DnsService, DnsSource as Spec, resolver};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    Failure, News, Source, Telling,
    files::Files,
    found::{Found, FoundKey},
    gather::Gathered,
};

mod ask;
mod look_up;
pub mod message;

pub use ask::RESOLVERS_MAX;
use ask::Resolvers;
pub use look_up::TARGETS_MAX;
use look_up::{Place, look_up};

/// As many services are looked up at once.
pub const LOOK_UPS_MAX: usize = 32;
/// Answers that wait to be gathered; a task that has another one waits.
const TOLD_MAX: usize = 64;
/// No name is looked up more often, whatever its records say.
const HOLDS_MIN: Duration = Duration::from_secs(1);
/// After a failure a name is looked up again so much later, and twice as much after each further one.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// But never later than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Names.
pub(crate) struct DnsSource {
    services: Vec<Listed>,
    resolvers: Arc<Resolvers>,
    beat: Duration,
    watching: Option<Watching>,
}

/// A service, as a spec lists it.
#[derive(Debug, Clone)]
struct Listed {
    key: FoundKey,
    place: Place,
}

/// What one task has to tell: the service; `None` if it is as before.
type Told = (FoundKey, Result<Option<Found>, Failure>);

struct Watching {
    told: mpsc::Receiver<Told>,
    gathered: Gathered,
    /// They end with this.
    _tasks: JoinSet<()>,
}

impl DnsSource {
    /// The names that a spec lists; it says that it is there each `beat`.
    ///
    /// # Errors
    /// A name is none. Admission lets no such spec in.
    pub(crate) fn open(spec: &Spec, beat: Duration, files: Files) -> Result<Self, Failure> {
        let wrong = |name: &str| Failure::Source(format!("{name:?} is no name of DNS"));
        let listed = |service: &DnsService| {
            let key = FoundKey { namespace: None, name: service.name.as_str().to_owned() };
            let parsed = |text: &str| name(text).ok_or_else(|| wrong(text));
            let place = match (&service.srv, &service.host, service.port) {
                (Some(srv), ..) => Place::Ports(parsed(srv.as_str())?),
                (None, Some(host), Some(port)) => {
                    Place::Host(parsed(host.as_str())?, u16::try_from(port.value()).unwrap_or(u16::MAX))
                }
                _ => return Err(wrong("")),
            };
            Ok(Listed { key, place })
        };
        let services = spec.services.iter().map(listed).collect::<Result<_, Failure>>()?;
        let servers: Vec<SocketAddr> =
            spec.servers.iter().filter_map(|server| resolver(server.as_str())).collect();
        let resolvers = Arc::new(Resolvers::new(servers, files));
        Ok(Self { services, resolvers, beat, watching: None })
    }

    async fn look(&mut self) -> Result<News, Failure> {
        let watching = self
            .watching
            .get_or_insert_with(|| Watching::new(self.services.clone(), self.resolvers.clone(), self.beat));
        watching.next().await
    }
}

impl Source for DnsSource {
    fn next(&mut self) -> Telling<'_> {
        Box::pin(self.look())
    }
}

impl Watching {
    fn new(services: Vec<Listed>, resolvers: Arc<Resolvers>, beat: Duration) -> Self {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let (mut gathered, mut tasks) = (Gathered::default(), JoinSet::new());
        gathered.name(services.iter().map(|service| service.key.clone()).collect());
        let permits = Arc::new(Semaphore::new(LOOK_UPS_MAX));
        for service in services {
            tasks.spawn(watch(service, resolvers.clone(), permits.clone(), beat, tell.clone()));
        }
        Self { told, gathered, _tasks: tasks }
    }

    async fn next(&mut self) -> Result<News, Failure> {
        loop {
            if let Some(news) = self.gathered.pop() {
                return Ok(news);
            }
            let gone = || Failure::Source("the look-ups ended".to_owned());
            let (key, told) = self.told.recv().await.ok_or_else(gone)?;
            match told {
                Ok(found) => {
                    self.gathered.hear(key, found);
                    // What fails meanwhile was told when it did.
                    drop(self.gathered.alive(None));
                }
                Err(failure) => {
                    if let Some(failure) = self.gathered.fail(Some(key), failure) {
                        return Err(failure);
                    }
                }
            }
        }
    }
}

/// Looks a service up, without end.
async fn watch(
    service: Listed,
    resolvers: Arc<Resolvers>,
    permits: Arc<Semaphore>,
    beat: Duration,
    tell: mpsc::Sender<Told>,
) {
    let (mut before, mut retry) = (None, RETRY_AFTER);
    loop {
        let Ok(permit) = permits.acquire().await else { return };
        let looked_up = look_up(&resolvers, &service.place).await;
        drop(permit);
        let rest = match &looked_up {
            Ok((_, holds)) => rest(*holds, beat),
            Err(_) => retry,
        };
        retry = if looked_up.is_err() { (retry * 2).min(RETRY_AFTER_MAX) } else { RETRY_AFTER };
        let told = looked_up
            .map(|(found, _)| (before.as_ref() != Some(&found)).then(|| before.insert(found).clone()));
        if tell.send((service.key.clone(), told)).await.is_err() {
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

/// When a name is looked up again whose records hold for so long: often enough to say each beat that it is there.
fn rest(holds: Duration, beat: Duration) -> Duration {
    holds.min(beat / 2).max(HOLDS_MIN)
}

/// A name as DNS has it, from the root on.
fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests;
