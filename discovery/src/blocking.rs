//! Directories that are asked by blocking queries, as Consul's and Nomad's are: which services there are, and how each is.
//! Each query is a task; what they answer is gathered here. The answer to the question which services there are is the sign
//! of life. What differs between such directories is their `Dialect`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use model::resource::DiscoverySourceSpec;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    Failure, News, Source, Telling,
    client::Directory,
    found::{Found, FoundKey},
    gather::Gathered,
};

mod index;
mod query;
mod watch;

use query::Queries;
use watch::Watch;

/// As many services are watched. Further ones, by name, are left out, and the status says so.
pub const SERVICES_MAX: usize = 4_096;
/// Answers that wait to be gathered; a task that has another one waits.
const TOLD_MAX: usize = 64;

/// The services that there are, with all their tags.
pub(crate) type Catalog = BTreeMap<FoundKey, Vec<String>>;

/// What is asked for.
pub(crate) struct Question {
    pub(crate) path: Vec<String>,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

/// How one sort of directory is asked, and what its answers mean.
pub(crate) trait Dialect: Clone + Send + Sync + 'static {
    /// The header that says an answer's index.
    const INDEX: &'static str;
    /// The header that a token goes in.
    const TOKEN: &'static str;
    /// As many queries are open at once.
    const AT_ONCE: usize;

    /// Which services there are.
    fn catalog(&self) -> Question;
    /// How one of them is.
    fn service(&self, key: &FoundKey) -> Question;
    /// `None` if it is no such answer.
    fn read_catalog(&self, body: &[u8]) -> Option<Catalog>;
    /// `None` if it is no such answer.
    fn read_service(&self, body: &[u8]) -> Option<Found>;
    /// Whether it is the directory's own service, which nobody calls unless they say so.
    fn is_own(&self, _key: &FoundKey) -> bool {
        false
    }
}

/// Such a directory.
pub(crate) struct BlockingSource<D> {
    queries: Arc<Queries<D>>,
    /// What is taken over: what is not is not asked for.
    filter: DiscoverySourceSpec,
    beat: Duration,
    watching: Option<Watching<D>>,
}

/// What one task has to tell.
enum Told {
    /// The services with their tags; `None` if they are as before.
    Services(Result<Option<Catalog>, Failure>),
    /// One service; `None` if it is as before.
    Service(FoundKey, Result<Option<Found>, Failure>),
}

/// The tasks, and what they have told so far.
struct Watching<D> {
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    tasks: JoinSet<()>,
    queries: Arc<Queries<D>>,
    permits: Arc<Semaphore>,
    beat: Duration,
    running: BTreeMap<FoundKey, AbortHandle>,
    gathered: Gathered,
    /// More than there may be.
    left_out: usize,
}

impl<D: Dialect> BlockingSource<D> {
    /// A directory; `filter` is the whole spec. It says that it is there each `beat`.
    pub(crate) fn new(
        dialect: D,
        (directory, token_file): (Directory, Option<String>),
        filter: DiscoverySourceSpec,
        beat: Duration,
    ) -> Self {
        let queries = Arc::new(Queries::new(dialect, directory, token_file));
        Self { queries, filter, beat, watching: None }
    }
}

impl<D: Dialect> Source for BlockingSource<D> {
    fn next(&mut self) -> Telling<'_> {
        let watching = self.watching.get_or_insert_with(|| Watching::new(self.queries.clone(), self.beat));
        Box::pin(watching.next(&self.filter))
    }
}

impl<D: Dialect> Watching<D> {
    fn new(queries: Arc<Queries<D>>, beat: Duration) -> Self {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch::services(queries.clone(), beat / 2, tell.clone()));
        Self {
            told,
            tell,
            tasks,
            queries,
            permits: Arc::new(Semaphore::new(D::AT_ONCE)),
            beat,
            running: BTreeMap::new(),
            gathered: Gathered::default(),
            left_out: 0,
        }
    }

    async fn next(&mut self, filter: &DiscoverySourceSpec) -> Result<News, Failure> {
        loop {
            if let Some(news) = self.gathered.pop() {
                return Ok(news);
            }
            let gone = || Failure::Source("the queries ended".to_owned());
            let told = self.told.recv().await.ok_or_else(gone)?;
            while self.tasks.try_join_next().is_some() {}
            if let Some(failure) = self.hear(told, filter) {
                return Err(failure);
            }
        }
    }

    /// What one task tells; a failure where it is the first one of its kind, or where it is what there is to say.
    fn hear(&mut self, told: Told, filter: &DiscoverySourceSpec) -> Option<Failure> {
        match told {
            Told::Services(Err(failure)) => self.gathered.fail(None, failure),
            Told::Service(key, Err(failure)) => self.gathered.fail(Some(key), failure),
            Told::Services(Ok(services)) => {
                self.gathered.answered();
                services.into_iter().for_each(|services| self.watch(&services, filter));
                // Whether it is there is one matter, and whether all of it is well another.
                let crowded = self.crowded();
                self.gathered.alive(crowded)
            }
            Told::Service(key, Ok(found)) => {
                self.gathered.hear(key, found);
                None
            }
        }
    }

    fn crowded(&self) -> Option<Failure> {
        let message = || {
            let left = self.left_out;
            format!(
                "there are {left} services more than the {SERVICES_MAX} that are watched; filter by spec.filter"
            )
        };
        (self.left_out > 0).then(|| Failure::Source(message()))
    }

    /// Watches those that are new, and no longer those that are gone.
    fn watch(&mut self, services: &Catalog, filter: &DiscoverySourceSpec) {
        let wanted = services.iter().filter(|(key, tags)| takes(filter, &self.queries.dialect, key, tags));
        let wanted: BTreeSet<_> = wanted.map(|(key, _)| key).collect();
        self.left_out = wanted.len().saturating_sub(SERVICES_MAX);
        let wanted: BTreeSet<_> = wanted.into_iter().take(SERVICES_MAX).cloned().collect();
        self.queries.say_wait(watch::wait(self.beat, wanted.len(), D::AT_ONCE));
        let turnover = self.gathered.name(wanted);
        for key in &turnover.gone {
            self.running.remove(key).iter().for_each(|task| task.abort());
        }
        for key in turnover.new {
            let (queries, permits) = (self.queries.clone(), self.permits.clone());
            let watch = Watch { queries, permits, key: key.clone() };
            self.running.insert(key, self.tasks.spawn(watch.run(self.tell.clone())));
        }
    }
}

/// Whether a service may be wanted: the tags are those of all of its instances together.
fn takes(filter: &DiscoverySourceSpec, dialect: &impl Dialect, key: &FoundKey, tags: &[String]) -> bool {
    let Some(filter) = &filter.filter else { return !dialect.is_own(key) };
    let by_name = match &filter.services[..] {
        [] => !dialect.is_own(key),
        globs => globs.iter().any(|glob| glob.matches(&key.name)),
    };
    by_name && filter.tags.iter().all(|tag| tags.iter().any(|own| own == tag.as_str()))
}
