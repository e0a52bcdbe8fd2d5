//! Type Consul: which services there are, and the health of each, by blocking queries. Each query is a task; what they
//! answer is gathered here. The answer to the question which services there are is the sign of life.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use model::resource::{ConsulSource as Spec, DiscoverySourceSpec};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    Failure, News, Source, Telling,
    files::Files,
    found::{Found, FoundKey, Set},
};

mod index;
mod query;
mod read;
mod watch;

use query::Queries;
use watch::Watch;

/// As many queries are open at once; the agent itself takes 200 connections from one address.
pub const QUERIES_MAX: usize = 128;
/// As many services are watched. Further ones, by name, are left out, and the status says so.
pub const SERVICES_MAX: usize = 4_096;
/// Answers that wait to be gathered; a task that has another one waits.
const TOLD_MAX: usize = 64;
/// Consul's own service: it is no one's to call.
const ITSELF: &str = "consul";

/// A Consul agent.
pub struct ConsulSource {
    spec: Spec,
    /// What is taken over: what is not is not asked for.
    filter: DiscoverySourceSpec,
    beat: Duration,
    files: Files,
    watching: Option<Watching>,
}

/// What one task has to tell.
enum Told {
    /// The services with their tags; `None` if they are as before.
    Services(Result<Option<BTreeMap<String, Vec<String>>>, Failure>),
    /// One service; `None` if it is as before.
    Service(String, Result<Option<Found>, Failure>),
}

/// The tasks, and what they have told so far.
struct Watching {
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    tasks: JoinSet<()>,
    queries: Arc<Queries>,
    permits: Arc<Semaphore>,
    beat: Duration,
    running: BTreeMap<String, AbortHandle>,
    /// Those that have not answered yet.
    unanswered: BTreeSet<String>,
    /// All that there is, until all have answered once; then it was told.
    set: Option<Set>,
    named: bool,
    failing: BTreeMap<Option<String>, Failure>,
    /// More than there may be.
    left_out: usize,
    ready: VecDeque<News>,
}

impl ConsulSource {
    /// The agent that a spec names; `filter` is the whole spec. It says that it is there each `beat`.
    pub fn new(spec: Spec, filter: DiscoverySourceSpec, beat: Duration, files: Files) -> Self {
        Self { spec, filter, beat, files, watching: None }
    }

    async fn look(&mut self) -> Result<News, Failure> {
        let watching = match &mut self.watching {
            Some(watching) => watching,
            none => {
                let queries = Queries::new(&self.spec, self.files.clone()).await?;
                none.insert(Watching::new(queries, self.beat))
            }
        };
        watching.next(&self.filter).await
    }
}

impl Source for ConsulSource {
    fn next(&mut self) -> Telling<'_> {
        Box::pin(self.look())
    }
}

impl Watching {
    fn new(queries: Queries, beat: Duration) -> Self {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let mut tasks = JoinSet::new();
        let queries = Arc::new(queries);
        tasks.spawn(watch::services(queries.clone(), beat / 2, tell.clone()));
        Self {
            told,
            tell,
            tasks,
            queries,
            permits: Arc::new(Semaphore::new(QUERIES_MAX)),
            beat,
            running: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            set: Some(Set::new()),
            named: false,
            failing: BTreeMap::new(),
            left_out: 0,
            ready: VecDeque::new(),
        }
    }

    async fn next(&mut self, filter: &DiscoverySourceSpec) -> Result<News, Failure> {
        loop {
            if let Some(news) = self.ready.pop_front() {
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
            Told::Services(Err(failure)) => return self.fail(None, failure),
            Told::Service(name, Err(failure)) if self.running.contains_key(&name) => {
                return self.fail(Some(name), failure);
            }
            Told::Services(Ok(services)) => {
                self.failing.remove(&None);
                services.into_iter().for_each(|services| self.names(services, filter));
                self.finish();
                if self.set.is_none() {
                    // It is there. Whether all of it is well, is another matter.
                    match self.failing.values().next().cloned().or_else(|| self.crowded()) {
                        Some(failure) => return Some(failure),
                        None => self.ready.push_back(News::Same),
                    }
                }
            }
            Told::Service(name, Ok(found)) if self.running.contains_key(&name) => {
                self.failing.remove(&Some(name.clone()));
                self.unanswered.remove(&name);
                let news = found.map(|found| (key(name), found));
                match (news, &mut self.set) {
                    (Some((key, found)), Some(set)) => drop(set.insert(key, found)),
                    (Some((key, found)), None) => self.ready.push_back(News::Changed(key, Some(found))),
                    (None, _) => {}
                }
                self.finish();
            }
            Told::Service(..) => {}
        }
        None
    }

    fn fail(&mut self, who: Option<String>, failure: Failure) -> Option<Failure> {
        let known = self.failing.insert(who, failure.clone());
        (known.as_ref() != Some(&failure)).then_some(failure)
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
    fn names(&mut self, services: BTreeMap<String, Vec<String>>, filter: &DiscoverySourceSpec) {
        self.named = true;
        let wanted: BTreeSet<_> =
            services.iter().filter(|(name, tags)| takes(filter, name, tags)).map(|(name, _)| name).collect();
        self.left_out = wanted.len().saturating_sub(SERVICES_MAX);
        let wanted: BTreeSet<_> = wanted.into_iter().take(SERVICES_MAX).cloned().collect();
        let gone: Vec<_> = self.running.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in gone {
            self.running.remove(&name).iter().for_each(|task| task.abort());
            self.unanswered.remove(&name);
            self.failing.remove(&Some(name.clone()));
            match &mut self.set {
                Some(set) => drop(set.remove(&key(name))),
                None => self.ready.push_back(News::Changed(key(name), None)),
            }
        }
        let wait = watch::wait(self.beat, wanted.len());
        self.queries.say_wait(wait);
        for name in wanted {
            if self.running.contains_key(&name) {
                continue;
            }
            let watch =
                Watch { queries: self.queries.clone(), permits: self.permits.clone(), name: name.clone() };
            let task = self.tasks.spawn(watch.run(self.tell.clone()));
            self.running.insert(name.clone(), task);
            self.unanswered.insert(name);
        }
    }

    /// Once all have answered the whole set is told.
    fn finish(&mut self) {
        if self.named && self.unanswered.is_empty() {
            self.ready.extend(self.set.take().map(News::Full));
        }
    }
}

/// Whether a service may be wanted: the tags are those of all of its instances together.
fn takes(filter: &DiscoverySourceSpec, name: &str, tags: &[String]) -> bool {
    let Some(filter) = &filter.filter else { return name != ITSELF };
    let by_name = match &filter.services[..] {
        [] => name != ITSELF,
        globs => globs.iter().any(|glob| glob.matches(name)),
    };
    by_name && filter.tags.iter().all(|tag| tags.iter().any(|own| own == tag.as_str()))
}

fn key(name: String) -> FoundKey {
    FoundKey { namespace: None, name }
}

#[cfg(test)]
mod tests;
