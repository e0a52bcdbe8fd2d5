//! The leader's duty towards DiscoverySources: one task for each, which hears it and writes what became another. It ends
//! with leadership; the next leader begins anew, with what the registry says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use discovery::files::Files;
use model::{
    duration::Millis,
    kind::Kind,
    name::Name,
    object::Object,
    resource::{DiscoverySourceSpec, Resource},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod follow;
mod plan;

/// How often it is looked which sources there are.
const STEP_EVERY: Duration = Duration::from_millis(500);
/// As many sources are followed, each with a task and a copy of what it says; further ones wait.
pub const SOURCES_MAX: usize = 64;

/// What is counted of sources, by their names: bounded by [`SOURCES_MAX`].
#[derive(Clone, Default)]
pub struct Counts {
    /// When it was heard last, in seconds since 1970.
    pub heard: Family<SourceLabels, Gauge<i64, AtomicI64>>,
    /// Whether it is in step: 1, or 0 while it is silent or lost.
    pub synced: Family<SourceLabels, Gauge<i64, AtomicI64>>,
    /// Objects written and removed for it.
    pub changes: Family<SourceLabels, Counter>,
    /// Times that it said nothing, or nothing of use.
    pub failures: Family<SourceLabels, Counter>,
}

/// Of one source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    source: String,
}

/// A source, as it is followed: one that is made anew, or has another spec, is followed anew.
#[derive(Debug, Clone, PartialEq)]
struct Subject {
    name: Name,
    created_at: Millis,
    spec: DiscoverySourceSpec,
}

struct Running {
    subject: Subject,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the sources until `stop`, while this member leads.
pub async fn run(registry: Registry, files: Files, counts: Counts, stop: CancellationToken) {
    let leadership = registry.leadership();
    let mut running = BTreeMap::<Name, Running>::new();
    while stop.run_until_cancelled(tokio::time::sleep(STEP_EVERY)).await.is_some() {
        if !leadership.borrow().is_me {
            running.clear();
            continue;
        }
        let state = registry.applied();
        let wanted: Vec<_> = state.list(Kind::DiscoverySource, None).filter_map(subject).collect();
        let names: BTreeSet<_> = wanted.iter().map(|subject| subject.name.clone()).collect();
        running.retain(|name, running| {
            if !names.contains(name) {
                counts.forget(name);
            }
            names.contains(name) && wanted.contains(&running.subject) && !running.task.is_finished()
        });
        for subject in wanted {
            if running.contains_key(&subject.name) {
                continue;
            }
            if running.len() >= SOURCES_MAX {
                tracing::warn!(source = %subject.name, limit = SOURCES_MAX, "too many discovery sources: one is not followed");
                break;
            }
            let follow = follow::follow(registry.clone(), subject.clone(), files.clone(), counts.clone());
            let task = tokio::spawn(follow);
            running.insert(subject.name.clone(), Running { subject, task });
        }
    }
}

fn subject(object: &Arc<Object>) -> Option<Subject> {
    match object.resource() {
        Ok(Resource::DiscoverySource(spec)) => {
            Some(Subject { name: object.metadata.name.clone(), created_at: object.metadata.created_at, spec })
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(source = %object.metadata.name, %error, "a discovery source of a newer version is not followed");
            None
        }
    }
}

impl Counts {
    /// Tells of them under `meshd_discovery_…`.
    pub fn register(&self, exposition: &mut prometheus_client::registry::Registry) {
        exposition.register(
            "discovery_heard_timestamp_seconds",
            "When a discovery source was heard last, by this server",
            self.heard.clone(),
        );
        exposition.register(
            "discovery_synced",
            "Whether a discovery source is in step: 0 while it is silent or lost",
            self.synced.clone(),
        );
        exposition.register(
            "discovery_changes",
            "Services and endpoints written and removed for a discovery source",
            self.changes.clone(),
        );
        exposition.register(
            "discovery_failures",
            "Times that a discovery source said nothing of use",
            self.failures.clone(),
        );
    }

    fn heard(&self, source: &Name, wall: Millis) {
        let seconds = i64::try_from(wall.0 / 1_000).unwrap_or(i64::MAX);
        self.heard.get_or_create(&labels(source)).inner().store(seconds, Ordering::Relaxed);
    }

    fn stands(&self, source: &Name, synced: bool) {
        self.synced.get_or_create(&labels(source)).inner().store(i64::from(synced), Ordering::Relaxed);
    }

    fn forget(&self, source: &Name) {
        let labels = labels(source);
        self.heard.remove(&labels);
        self.synced.remove(&labels);
        self.changes.remove(&labels);
        self.failures.remove(&labels);
    }
}

fn labels(source: &Name) -> SourceLabels {
    SourceLabels { source: source.to_string() }
}
