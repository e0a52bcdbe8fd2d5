//! The proxies that talk to this member: their signs of life go to the leader in batches, each answered only after the
//! leader did, and what they run is remembered for those who ask.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{
    duration::Millis,
    name::Name,
    proxy::{KeepAlive, LEFT_ALONE_MAX, LeftAlone, Nack, SESSION_TTL},
};
use parking_lot::Mutex;
use registry::{ReadError, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{clock, proxy_scope::Subscription};

/// Signs of life that wait for the leader at once; each proxy has one. More proxies than this have to ask again.
const WAITING_MAX: usize = 4_096;
/// As many go to the leader in one message, so that a slow leader's answer is for all of them.
const BATCH_MAX: usize = 4_096;

/// What a proxy said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The session that it spoke of.
    pub generation: u64,
    /// The revision that it runs.
    pub revision: u64,
    /// What it could not compile.
    pub nack: Option<Nack>,
    /// Endpoints that its callers leave alone.
    pub left_alone: Vec<LeftAlone>,
    /// Its session does not end before this without a further sign of life, as far as is known here.
    pub until: Option<Millis>,
}

/// What the leader said to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The session goes on, by a leader of this term.
    Alive(u64),
    /// The session is over.
    Gone,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Too many wait.
    #[error("too many keep-alives wait for the leader; try again")]
    Busy,
    /// The leader did not answer.
    #[error(transparent)]
    Leader(ReadError),
    /// This member is stopping.
    #[error("this member is stopping")]
    Stopping,
}

type Answer = oneshot::Sender<Result<Kept, ReadError>>;

/// The way of all signs of life of this member.
pub struct Proxies {
    queue: mpsc::Sender<(registry::KeepAlive, Answer)>,
    /// Of proxies with a session here; as many as there are nodes at most.
    heard: Mutex<HashMap<Name, Heard>>,
    /// What those subscribed to that watch here, by the number of their stream.
    subscribed: Mutex<HashMap<Name, (u64, Subscription)>>,
    streams: AtomicU64,
}

/// A proxy's stream at this member, for as long as it is open.
pub struct Subscribed {
    proxies: Arc<Proxies>,
    node: Name,
    stream: u64,
}

/// The other end of the queue: run it.
pub struct Batches(mpsc::Receiver<(registry::KeepAlive, Answer)>);

impl Proxies {
    /// Nobody yet, and the loop that [`Batches::run`] is.
    pub fn new() -> (Arc<Self>, Batches) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        (
            Arc::new(Self {
                queue,
                heard: Mutex::default(),
                subscribed: Mutex::default(),
                streams: AtomicU64::default(),
            }),
            Batches(waiting),
        )
    }

    /// A proxy's sign of life; answered when the leader has.
    ///
    /// # Errors
    /// If the leader did not answer.
    pub async fn keep_alive(&self, node: Name, said: KeepAlive) -> Result<Kept, KeepError> {
        let (answer, answered) = oneshot::channel();
        let alive =
            registry::KeepAlive { node: node.clone(), generation: said.generation, acked: said.revision };
        self.queue.try_send((alive, answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => KeepError::Busy,
            mpsc::error::TrySendError::Closed(_) => KeepError::Stopping,
        })?;
        // The leader counts from when it hears of it, which is later.
        let ttl = u64::try_from(SESSION_TTL.duration().as_millis()).unwrap_or(u64::MAX);
        let until = Some(Millis(clock::wall().0.saturating_add(ttl)));
        let kept = answered.await.map_err(|_| KeepError::Stopping)?.map_err(KeepError::Leader)?;
        let mut heard = self.heard.lock();
        match kept {
            Kept::Alive(_) => {
                let KeepAlive { generation, revision, nack, mut left_alone } = said;
                left_alone.truncate(LEFT_ALONE_MAX);
                heard.insert(node, Heard { generation, revision, nack, left_alone, until });
            }
            Kept::Gone => {
                heard.remove(&node);
            }
        }
        Ok(kept)
    }

    /// What a proxy of this member said last. One that talks to another member by now may live longer than is known here.
    pub fn heard_of(&self, node: &Name) -> Option<Heard> {
        let mut heard = self.heard.lock().get(node).cloned()?;
        heard.until = heard.until.filter(|until| *until > clock::wall());
        Some(heard)
    }

    /// A proxy watches here from now on.
    pub fn subscribe(self: &Arc<Self>, node: Name, subscription: Subscription) -> Subscribed {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        self.subscribed.lock().insert(node.clone(), (stream, subscription));
        Subscribed { proxies: self.clone(), node, stream }
    }

    /// Who watches here, and what.
    pub fn subscriptions(&self) -> Vec<(Name, Subscription)> {
        let subscribed = self.subscribed.lock();
        subscribed.iter().map(|(node, (_, subscription))| (node.clone(), subscription.clone())).collect()
    }

    /// How many proxies were heard of.
    pub fn len(&self) -> usize {
        self.heard.lock().len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.heard.lock().is_empty()
    }

    /// Forgets those whose session of then is over.
    pub fn forget(&self, over: impl Fn(&Name, u64) -> bool) {
        self.heard.lock().retain(|node, heard| !over(node, heard.generation));
    }
}

/// A stream that was replaced leaves what came after it.
impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut subscribed = self.proxies.subscribed.lock();
        if subscribed.get(&self.node).is_some_and(|(stream, _)| *stream == self.stream) {
            subscribed.remove(&self.node);
        }
    }
}

impl Batches {
    /// Carries signs of life to the leader until `stop`: while one batch is on its way, the next gathers.
    pub async fn run(mut self, registry: Registry, stop: CancellationToken) {
        let mut batch = Vec::new();
        while stop
            .run_until_cancelled(self.0.recv_many(&mut batch, BATCH_MAX))
            .await
            .is_some_and(|count| count > 0)
        {
            // A member that stood still must not speak for those who have given it up since.
            batch.retain(|(_, answer)| !answer.is_closed());
            let (alive, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let nodes: Vec<Name> = alive.iter().map(|alive| alive.node.clone()).collect();
            if alive.is_empty() {
                continue;
            }
            let said = registry.keep_alive(alive).await;
            for (node, answer) in nodes.iter().zip(answers) {
                let kept = said.clone().map(|said| match said.gone.contains(node) {
                    true => Kept::Gone,
                    false => Kept::Alive(said.term),
                });
                // Whoever asked may have gone.
                let _ = answer.send(kept);
            }
        }
    }
}
