//! Type Consul: the catalog and the health of an agent, by blocking queries.

use std::time::Duration;

use model::{
    resource::{ConsulSource as Spec, DiscoverySourceSpec},
    shape::Text,
};

use crate::{
    blocking::{BlockingSource, Catalog, Dialect, Question},
    client::{Directory, Fields, Papers},
    files::Files,
    found::{Found, FoundKey},
};

mod read;

/// What to mend where it refuses.
const FIELDS: Fields = Fields { secret: "spec.consul.tokenFile", ca: "spec.consul.caFile", lacks: None };
/// What to mend where it does not know what a namespace is.
const NO_NAMESPACES: &str =
    "only Consul Enterprise has namespaces; elsewhere leave out spec.consul.namespace";

/// As many queries are open at once; the agent itself takes 200 connections from one address.
pub const QUERIES_MAX: usize = 128;
/// Consul's own service: it is no one's to call.
const ITSELF: &str = "consul";

/// A Consul agent.
pub(crate) type ConsulSource = BlockingSource<Consul>;

/// How Consul is asked.
#[derive(Debug, Clone)]
pub(crate) struct Consul {
    datacenter: Option<String>,
    /// Only Consul Enterprise has any.
    namespace: Option<String>,
    passing_only: bool,
}

/// The agent that a spec names; `filter` is the whole spec. It says that it is there each `beat`.
pub(crate) fn open(spec: &Spec, filter: DiscoverySourceSpec, beat: Duration, files: Files) -> ConsulSource {
    let text = |text: &Option<Text<4096>>| text.as_ref().map(|text| text.as_str().to_owned());
    let dialect = Consul {
        datacenter: spec.datacenter.as_ref().map(|datacenter| datacenter.as_str().to_owned()),
        namespace: spec.namespace.as_ref().map(|namespace| namespace.as_str().to_owned()),
        passing_only: spec.passing_only,
    };
    let papers = Papers::files(text(&spec.ca_file), None);
    let fields = Fields { lacks: dialect.namespace.as_ref().map(|_| NO_NAMESPACES), ..FIELDS };
    let directory = Directory::new(spec.address.as_str(), fields, papers, files);
    BlockingSource::new(dialect, (directory, text(&spec.token_file)), filter, beat)
}

impl Dialect for Consul {
    const INDEX: &'static str = "x-consul-index";
    const TOKEN: &'static str = "x-consul-token";
    const AT_ONCE: usize = QUERIES_MAX;

    fn catalog(&self) -> Question {
        self.question(&["v1", "catalog", "services"])
    }

    fn service(&self, key: &FoundKey) -> Question {
        self.question(&["v1", "health", "service", &key.name])
    }

    fn read_catalog(&self, body: &[u8]) -> Option<Catalog> {
        let key = |name| FoundKey { namespace: self.namespace.clone(), name };
        Some(read::services(body)?.into_iter().map(|(name, tags)| (key(name), tags)).collect())
    }

    fn read_service(&self, body: &[u8]) -> Option<Found> {
        read::health(body, self.passing_only)
    }

    fn is_own(&self, key: &FoundKey) -> bool {
        key.name == ITSELF
    }
}

impl Consul {
    fn question(&self, path: &[&str]) -> Question {
        let parameters = [("dc", &self.datacenter), ("ns", &self.namespace)];
        let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        Question {
            path: path.iter().map(|step| (*step).to_owned()).collect(),
            parameters: parameters.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
