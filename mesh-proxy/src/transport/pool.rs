//! Connections that are kept. [`Shared`] carries many calls at once on each (HTTP/2, `mesh/1`), [`Exclusive`] one after
//! the other (HTTP/1.1). A pool belongs to one runtime thread, and its keys hold the source identity, so that no connection
//! serves two of them.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use traffic::admission::Full;

use super::{SendError, mux::Opener};
use crate::{
    clock,
    http1::{Io, Line},
};

/// Connections of one source identity to one endpoint, on one runtime thread.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// A connection is joined by another (up to [`CONNECTIONS_PER_PEER_MAX`]) when it carries so many calls: up to here one
/// batches best.
const STREAMS_WANTED: usize = 128;
/// A connection that carries nothing is closed after this.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// Connections or streams to one place that are kept while they carry nothing; each is one of the application's, too.
const LINES_IDLE_MAX: usize = 256;
/// A connection to an application that carries nothing is closed after this: sooner than most servers do, so that a
/// request seldom meets a connection that is being closed.
pub(super) const LINE_IDLE: Duration = Duration::from_secs(4);

/// A connection that carries many calls at once, as long as it is driven.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Calls that are under way on it.
    fn load(&self) -> usize;
    /// Whether it takes more.
    fn usable(&self) -> bool;
    /// When it last carried one.
    fn used(&self) -> Instant;
}

/// A connection with what drives it.
pub(crate) struct Driven<C> {
    connection: Arc<C>,
    driver: BoxFuture<'static, ()>,
}

/// Connections that carry many calls each, by where they go.
pub(super) struct Shared<K, C>(Arc<Mutex<Tables<K, C>>>);

struct Tables<K, C> {
    open: HashMap<K, Vec<Arc<C>>>,
    dialling: HashMap<K, Dial<C>>,
}

type Dial<C> = futures_util::future::Shared<BoxFuture<'static, Result<Arc<C>, SendError>>>;

// === impl Shared ===

impl<K, C> Default for Shared<K, C> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Tables { open: HashMap::new(), dialling: HashMap::new() })))
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, C: Carrier> Shared<K, C> {
    /// A connection to `key`: the first that has room, or else the least loaded one while another is dialled. Who has to
    /// wait for one asks by `wait` whether it may, and keeps what that gives until there is one.
    pub(super) async fn connection<F, W>(
        &self,
        key: &K,
        dial: impl FnOnce(K) -> F,
        wait: impl FnOnce() -> Result<W, Full>,
    ) -> Result<Arc<C>, SendError>
    where
        F: Future<Output = Result<Driven<C>, SendError>> + Send + 'static,
    {
        let (dialled, _waiting) = {
            let mut tables = self.0.lock();
            let open = tables.open.get_mut(key);
            let open = open.map(|open| {
                open.retain(|connection| connection.usable());
                (open.iter().min_by_key(|connection| connection.load()).cloned(), open.len())
            });
            let (least, count) = open.unwrap_or((None, 0));
            match least {
                Some(least) if least.load() < STREAMS_WANTED || count >= CONNECTIONS_PER_PEER_MAX => {
                    return Ok(least);
                }
                Some(least) => {
                    // It is dialled in the background: who comes now need not wait.
                    drop(tokio::spawn(self.dial(&mut tables, key, dial)));
                    return Ok(least);
                }
                None => {
                    let waiting = wait()?;
                    (self.dial(&mut tables, key, dial), waiting)
                }
            }
        };
        dialled.await
    }

    /// The dial that is under way, or a new one. Many may wait for it; all get its outcome.
    fn dial<F>(&self, tables: &mut Tables<K, C>, key: &K, dial: impl FnOnce(K) -> F) -> Dial<C>
    where
        F: Future<Output = Result<Driven<C>, SendError>> + Send + 'static,
    {
        if let Some(under_way) = tables.dialling.get(key) {
            return under_way.clone();
        }
        let (tables_of_pool, own, dialled) = (self.0.clone(), key.clone(), dial(key.clone()));
        let task = tokio::spawn(async move {
            let dialled = dialled.await.map(Driven::drive);
            let mut tables = tables_of_pool.lock();
            tables.dialling.remove(&own);
            if let Ok(connection) = &dialled {
                tables.open.entry(own).or_default().push(connection.clone());
            }
            dialled
        });
        let joined =
            task.map(|ended| ended.unwrap_or_else(|_| Err(SendError::Connect("cut off".to_owned()))));
        let shared = joined.boxed().shared();
        tables.dialling.insert(key.clone(), shared.clone());
        shared
    }

    /// Closes connections that carry nothing, and forgets those that end.
    pub(super) fn sweep(&self, now: Instant) {
        let idle =
            |connection: &C| connection.load() == 0 && now.duration_since(connection.used()) > IDLE_MAX;
        self.0.lock().open.retain(|_, open| {
            open.retain(|connection| connection.usable() && !idle(connection));
            !open.is_empty()
        });
    }
}

// === impl Driven ===

impl<C> Driven<C> {
    /// A connection and the future that moves its bytes.
    pub(crate) fn new(connection: C, driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { connection: Arc::new(connection), driver: driver.boxed() }
    }

    fn drive(self) -> Arc<C> {
        tokio::spawn(self.driver);
        self.connection
    }
}

// === impl Exclusive, Home ===

/// Connections that carry one request at a time, by where they go.
pub(super) struct Exclusive<K>(Mutex<HashMap<K, Arc<Lines>>>);

type Lines = Mutex<Vec<Idle>>;

/// A line between two requests.
struct Idle {
    line: Box<Line>,
    since: Instant,
}

/// Where a line goes between two requests.
pub struct Home {
    lines: Weak<Lines>,
    /// The connection that it is a stream of.
    stream_of: Option<Arc<Opener>>,
}

impl<K> Default for Exclusive<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Exclusive<K> {
    /// A line that is idle, or a new one.
    pub(super) async fn line<F>(&self, to: &K, dial: impl FnOnce() -> F) -> Result<Box<Line>, SendError>
    where
        F: Future<Output = Result<Dialled, SendError>>,
    {
        let lines = self.lines(to);
        while let Some(mut idle) = { lines.lock().pop() } {
            if idle.line.is_quiet() {
                return Ok(idle.line);
            }
            idle.line.close();
        }
        // Boxed: most find a line, and need not hold what dialling takes.
        let Dialled { io, stream_of } = Box::pin(dial()).await?;
        let home = Home { lines: Arc::downgrade(&lines), stream_of };
        Ok(Line::new(io, Some(Arc::new(home))))
    }

    fn lines(&self, to: &K) -> Arc<Lines> {
        let mut all = self.0.lock();
        match all.get(to) {
            Some(lines) => lines.clone(),
            None => all.entry(to.clone()).or_default().clone(),
        }
    }

    /// Closes what was idle for longer than `longest`, or is closed by its other side.
    pub(super) fn sweep(&self, now: Instant, longest: Duration) {
        self.0.lock().retain(|_, lines| {
            let mut idle = lines.lock();
            let stays =
                |idle: &mut Idle| now.saturating_duration_since(idle.since) < longest && idle.line.is_quiet();
            let over: Vec<Idle> = idle.extract_if(.., |idle| !stays(idle)).collect();
            over.into_iter().for_each(|idle| idle.line.close());
            // A line that is out comes back to where it was taken.
            Arc::weak_count(lines) > 0 || Arc::strong_count(lines) > 1
        });
    }
}

/// What a line is made of.
pub(super) struct Dialled {
    pub(super) io: Box<dyn Io>,
    pub(super) stream_of: Option<Arc<Opener>>,
}

impl Home {
    /// Whether a line from here takes requests that came in HTTP/2.
    pub fn takes_http2(&self) -> bool {
        self.stream_of.as_ref().is_some_and(|opener| opener.takes_http2())
    }

    /// Whether a line from here may still be asked.
    pub fn is_open(&self) -> bool {
        self.stream_of.as_ref().is_none_or(|opener| opener.usable())
    }

    /// A line whose answer is over.
    pub fn take_back(&self, line: Box<Line>) {
        let lines = self.lines.upgrade().filter(|_| self.is_open());
        let mut lines = lines.as_ref().map(|lines| lines.lock());
        match lines.as_mut().filter(|lines| lines.len() < LINES_IDLE_MAX) {
            Some(lines) => lines.push(Idle { line, since: clock::now() }),
            None => line.close(),
        }
    }
}
