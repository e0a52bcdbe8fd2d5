//! One source, followed: what it tells is gathered for a moment, compared with the registry, and written in one entry, or
//! in some where there is much. What could not be written is compared again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use discovery::{
    Failure, News, Source,
    changes::Change,
    files::Files,
    keeper::{Due, Keeper, Stands},
};
use model::{
    duration::Millis,
    kind::Kind,
    object::Key,
    resource::{DiscoverySourceStatus, DiscoveryState, status_error},
};
use registry::{Command, Discovery, Refusal, Registry, Reply, Said, State, state::DISCOVERED_MAX};
use tokio::sync::mpsc;

use super::{Counts, Subject, labels, plan};
use crate::clock;

/// So long what a source tells is gathered, from the first word on: a storm of changes becomes one entry.
const GATHER: Duration = Duration::from_millis(100);
/// How often all is compared with the registry, though neither the source nor anybody's writes call for it.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked how the source stands.
const BEAT: Duration = Duration::from_secs(1);
/// What a source told that waits here, in words of it: one that tells more waits.
const TOLD_MAX: usize = 64;
/// After a failure a source is asked again so much later, and twice as much after each further one.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// But never later than this: it is to be seen soon that it is there again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// As many services that cannot be told are named in the status; the rest are like them.
const SILENT_TOLD: usize = 3;

/// Follows a source for as long as it is not aborted, or until the source is no more.
pub(super) async fn follow(registry: Registry, subject: Subject, files: Files, counts: Counts) {
    let policy = subject.spec.stale();
    let beat = discovery::beat(policy.after.duration());
    let (tell, told) = mpsc::channel(TOLD_MAX);
    let ask = async {
        match discovery::open(&subject.spec, beat, &files) {
            Ok(source) => ask(source, tell).await,
            // Admission lets no such spec in; it may be one of a newer version.
            Err(failure) => drop(tell.send(Err(failure)).await),
        }
        std::future::pending::<()>().await;
    };
    let status = status(&registry.applied(), &subject);
    let keeper = Keeper::new(policy, status.as_ref(), (clock::now().into_std(), clock::wall()));
    let mut following = Following {
        registry,
        keeper,
        counts,
        error: String::new(),
        problems: Vec::new(),
        looked: 0,
        subject: subject.clone(),
    };
    tokio::select! {
        () = ask => {}
        () = following.run(told) => {}
    }
}

/// Asks a source without end; the failures, too, are told.
async fn ask(mut source: Box<dyn Source>, tell: mpsc::Sender<Result<News, Failure>>) {
    let mut pause = RETRY_AFTER;
    loop {
        let said = source.next().await;
        let failed = said.is_err();
        if tell.send(said).await.is_err() {
            return;
        }
        if failed {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AFTER_MAX);
        } else {
            pause = RETRY_AFTER;
        }
    }
}

struct Following {
    registry: Registry,
    subject: Subject,
    keeper: Keeper,
    counts: Counts,
    /// What the source failed with last; empty if it is well.
    error: String,
    /// What of it cannot be taken over.
    problems: Vec<String>,
    /// The revision up to which the writes of others were looked at.
    looked: u64,
}

/// Why following ends.
struct NoMore;

impl Following {
    async fn run(&mut self, mut told: mpsc::Receiver<Result<News, Failure>>) {
        let mut again = clock::now() + LOOK_EVERY;
        let mut revisions = self.registry.revisions();
        self.looked = *revisions.borrow_and_update();
        loop {
            tokio::select! {
                Some(said) = told.recv() => {
                    self.hear(said);
                    self.gather(&mut told).await;
                }
                Ok(()) = revisions.changed() => self.gather(&mut told).await,
                () = tokio::time::sleep(BEAT) => {}
            }
            if clock::now() >= again {
                self.keeper.look_again();
                again = clock::now() + LOOK_EVERY;
            }
            if let Err(NoMore) = self.write().await {
                return;
            }
        }
    }

    async fn gather(&mut self, told: &mut mpsc::Receiver<Result<News, Failure>>) {
        let until = clock::now() + GATHER;
        while let Ok(Some(said)) = tokio::time::timeout_at(until, told.recv()).await {
            self.hear(said);
        }
    }

    fn hear(&mut self, said: Result<News, Failure>) {
        let source = &self.subject.name;
        match said {
            Ok(News::Silent(key, why)) => {
                self.counts.failures.get_or_create(&labels(source)).inc();
                tracing::warn!(%source, service = key.name, error = %why, "a service of a discovery source is not told");
                self.keeper.hear(News::Silent(key, why), clock::now().into_std());
            }
            Ok(news) => {
                self.counts.heard(source, clock::wall());
                // A change of one service says nothing of the others.
                if !matches!(news, News::Changed(..) | News::Again(_)) {
                    self.error.clear();
                }
                self.keeper.hear(news, clock::now().into_std());
            }
            Err(failure) => {
                self.counts.failures.get_or_create(&labels(source)).inc();
                let error = failure.to_string();
                if self.error != error {
                    tracing::warn!(%source, %error, "a discovery source failed");
                    self.error = error;
                }
            }
        }
    }

    /// Writes what became another, and how the source stands if that did.
    async fn write(&mut self) -> Result<(), NoMore> {
        let state = self.registry.applied();
        self.look(&state);
        // One moment for both: what is lost must not be brought in the entry that says so.
        let now = clock::now().into_std();
        let due = self.keeper.take_due(now);
        let mut changes = Vec::new();
        if let (Some(due), Some(set)) = (&due, self.keeper.set()) {
            let silent: BTreeMap<_, _> =
                self.keeper.silences().map(|(key, stands, _)| (key.clone(), stands)).collect();
            let source = (&self.subject.name, &self.subject.spec);
            (changes, self.problems) = plan::plan(&state, source, (set, &silent), due);
        }
        let mut said = self.said(&state, now);
        if changes.is_empty() && said.is_none() {
            return Ok(());
        }
        if said.is_some() {
            // That the source is well takes the marks from all of its endpoints.
            self.keeper.look_at_silences();
        }
        let mut changes = changes.into_iter().peekable();
        while said.is_some() || changes.peek().is_some() {
            let some: Vec<_> = changes.by_ref().take(DISCOVERED_MAX).collect();
            self.propose(said.take(), some).await?;
        }
        Ok(())
    }

    /// What others wrote since the last look, where it concerns what this source brings.
    fn look(&mut self, state: &State) {
        let Some(set) = self.keeper.set() else { return };
        match plan::disturbed(state, self.looked, (&self.subject.name, &self.subject.spec), set) {
            Due::All => self.keeper.look_again(),
            Due::Some(keys) => self.keeper.look_at(keys),
        }
        self.looked = state.revision();
    }

    /// What the status has to say, if it says something else.
    fn said(&self, state: &State, now: Instant) -> Option<Said> {
        let stands = self.keeper.state(now);
        self.counts.stands(&self.subject.name, stands == DiscoveryState::Synced);
        let mut errors = self.problems.clone();
        if self.error.is_empty() {
            errors.extend(self.silent());
        } else {
            errors.push(self.error.clone());
        }
        let error = status_error(&errors.join("; ")).as_str().to_owned();
        let known = status(state, &self.subject);
        let told = |known: &DiscoverySourceStatus| known.state == stands && known.error.as_str() == error;
        if known.as_ref().is_some_and(told) {
            return None;
        }
        let was = known.map_or(DiscoveryState::Pending, |known| known.state);
        let source = &self.subject.name;
        match stands {
            _ if was == stands => {}
            DiscoveryState::Pending => {}
            DiscoveryState::Synced => tracing::info!(%source, "a discovery source is in step"),
            DiscoveryState::Stale => {
                tracing::warn!(%source, %error, "a discovery source fell silent: its endpoints are kept, marked stale");
            }
            DiscoveryState::Lost => {
                tracing::error!(%source, %error, "a discovery source was silent for too long: what it brought is removed");
            }
        }
        let wall = clock::wall();
        let silent = self.keeper.silent(now).and_then(|silent| u64::try_from(silent.as_millis()).ok());
        let heard = silent.map(|silent| Millis(wall.0.saturating_sub(silent)));
        Some(Said { state: stands, heard, error })
    }

    /// What is said of the services that cannot be told.
    fn silent(&self) -> Vec<String> {
        let word = |stands| match stands {
            Stands::Kept => "is kept as it was",
            Stands::Stale => "is stale",
            Stands::Lost => "is removed",
        };
        let all = self.keeper.silences();
        let mut told: Vec<_> =
            all.map(|(key, stands, why)| format!("service {:?} {}: {why}", key.name, word(stands))).collect();
        let more = told.len().saturating_sub(SILENT_TOLD);
        told.truncate(SILENT_TOLD);
        told.extend((more > 0).then(|| format!("so it is with {more} more")));
        told
    }

    async fn propose(&mut self, said: Option<Said>, changes: Vec<Change>) -> Result<(), NoMore> {
        let source = self.subject.name.clone();
        let count = changes.len() as u64;
        let mut discovery = Discovery {
            source: source.clone(),
            created_at: self.subject.created_at,
            said,
            puts: Vec::new(),
            gone: Vec::new(),
        };
        for change in changes {
            match change {
                Change::Put(object) => discovery.puts.push(object),
                Change::Gone(key) => discovery.gone.push(key),
            }
        }
        match self.registry.propose(Command::Discover(Box::new(discovery))).await {
            Ok(Reply::Refused(Refusal::NotFound { .. })) => return Err(NoMore),
            Ok(Reply::Refused(refusal)) => {
                tracing::warn!(%source, %refusal, "what a discovery source says was not written");
                self.keeper.look_again();
            }
            Ok(_) => {
                self.counts.changes.get_or_create(&labels(&source)).inc_by(count);
            }
            Err(error) => {
                tracing::debug!(%source, %error, "what a discovery source says waits");
                self.keeper.look_again();
            }
        }
        Ok(())
    }
}

fn status(state: &State, subject: &Subject) -> Option<DiscoverySourceStatus> {
    let object = state.get(&Key::mesh_wide(Kind::DiscoverySource, subject.name.clone()))?;
    model::object::status(object.status.as_ref()?).ok()
}
