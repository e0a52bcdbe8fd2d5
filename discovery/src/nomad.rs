//! Type Nomad: Nomad's own services (`provider = "nomad"`) by blocking queries, each in its namespace.

use std::{collections::BTreeMap, time::Duration};

use model::{
    resource::{DiscoverySourceSpec, Health, NomadSource as Spec},
    shape::Text,
};
use serde::Deserialize;

use crate::{
    blocking::{BlockingSource, Catalog, Dialect, Question},
    client::{Directory, Fields, Papers},
    files::Files,
    found::{Found, FoundKey, Instance},
    labels::labels,
};

/// What to mend where it refuses.
const FIELDS: Fields = Fields { secret: "spec.nomad.tokenFile", ca: "spec.nomad.caFile", lacks: None };

/// As many queries are open at once; the agent itself takes 100 connections from one address.
pub const QUERIES_MAX: usize = 64;
/// All namespaces.
const EVERY: &str = "*";
/// The namespace of a question that says none.
const DEFAULT: &str = "default";

/// How Nomad is asked.
#[derive(Debug, Clone)]
pub(crate) struct Nomad {
    region: Option<String>,
    namespace: String,
}

/// The agent that a spec names; `filter` is the whole spec. It says that it is there each `beat`.
pub(crate) fn open(
    spec: &Spec,
    filter: DiscoverySourceSpec,
    beat: Duration,
    files: Files,
) -> BlockingSource<Nomad> {
    let text = |text: &Option<Text<4096>>| text.as_ref().map(|text| text.as_str().to_owned());
    let namespace = spec.namespace.as_ref().map_or(DEFAULT, |namespace| namespace.as_str());
    let dialect = Nomad {
        region: spec.region.as_ref().map(|region| region.as_str().to_owned()),
        namespace: namespace.to_owned(),
    };
    let papers = Papers::files(text(&spec.ca_file), text(&spec.cert_file).zip(text(&spec.key_file)));
    let directory = Directory::new(spec.address.as_str(), FIELDS, papers, files);
    BlockingSource::new(dialect, (directory, text(&spec.token_file)), filter, beat)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    namespace: String,
    services: Vec<Stub>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stub {
    service_name: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: u32,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Dialect for Nomad {
    const INDEX: &'static str = "x-nomad-index";
    const TOKEN: &'static str = "x-nomad-token";
    const AT_ONCE: usize = QUERIES_MAX;

    fn catalog(&self) -> Question {
        self.question(&["v1", "services"], &self.namespace)
    }

    fn service(&self, key: &FoundKey) -> Question {
        let namespace = key.namespace.as_deref().unwrap_or(DEFAULT);
        self.question(&["v1", "service", &key.name], namespace)
    }

    fn read_catalog(&self, body: &[u8]) -> Option<Catalog> {
        let listed: Vec<Listed> = serde_json::from_slice(body).ok()?;
        let services = listed.into_iter().flat_map(|Listed { namespace, services }| {
            services.into_iter().map(move |stub| {
                let key = FoundKey { namespace: Some(namespace.clone()), name: stub.service_name };
                (key, stub.tags.unwrap_or_default())
            })
        });
        // Where one namespace was asked for, whatever else there is is none of ours.
        Some(services.filter(|(key, _)| self.asks_for(key)).collect())
    }

    fn read_service(&self, body: &[u8]) -> Option<Found> {
        let registrations: Vec<Registration> = serde_json::from_slice(body).ok()?;
        let instances = registrations.into_iter().filter_map(instance).collect();
        Some(Found { instances, ..Found::default() })
    }
}

impl Nomad {
    fn asks_for(&self, key: &FoundKey) -> bool {
        self.namespace == EVERY || key.namespace.as_deref() == Some(&self.namespace)
    }

    fn question(&self, path: &[&str], namespace: &str) -> Question {
        let region = self.region.iter().map(|region| ("region", region.clone()));
        let parameters = region.chain([("namespace", namespace.to_owned())]).collect();
        Question { path: path.iter().map(|step| (*step).to_owned()).collect(), parameters }
    }
}

/// A registration stands for as long as its task does; how the task is, Nomad does not say there. One without an IP address
/// or a port is left out.
fn instance(registration: Registration) -> Option<(String, Instance)> {
    let Registration { id, address, port, datacenter, tags } = registration;
    let tags = tags.unwrap_or_default();
    let instance = Instance {
        address: address.parse().ok()?,
        port: Some(u16::try_from(port).ok().filter(|port| *port > 0)?),
        ports: Vec::new(),
        labels: labels(&tags, &BTreeMap::new()),
        tags: tags.into_iter().collect(),
        zone: datacenter.parse().ok(),
        weight: 1,
        health: Health::Healthy,
    };
    Some((id, instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nomad(namespace: &str) -> Nomad {
        Nomad { region: None, namespace: namespace.to_owned() }
    }

    #[test]
    fn region_and_namespace_go_with_each_question() {
        let nomad = Nomad { region: Some("eu".to_owned()), namespace: EVERY.to_owned() };
        let key = FoundKey { namespace: Some("shop".to_owned()), name: "redis".to_owned() };
        for (question, namespace) in [(nomad.catalog(), EVERY), (nomad.service(&key), "shop")] {
            let want = [("region", "eu".to_owned()), ("namespace", namespace.to_owned())];
            assert_eq!(question.parameters, want, "{:?}", question.path);
        }
    }

    /// As the API's documentation shows it.
    const SERVICES: &str = r#"[{"Namespace": "default", "Services": [{"ServiceName": "redis", "Tags": ["cache", "db"]}]},
                               {"Namespace": "shop", "Services": [{"ServiceName": "redis", "Tags": null}]}]"#;
    const REDIS: &str = r#"[{"Address": "127.0.0.1", "AllocID": "177160af", "CreateIndex": 14, "Datacenter": "dc1",
        "ID": "_nomad-task-1", "JobID": "example", "ModifyIndex": 24, "Namespace": "default", "NodeID": "7406e90b",
        "Port": 29702, "ServiceName": "redis", "Tags": ["db", "team=shop"]},
        {"Address": "host.example", "ID": "2", "Port": 1}, {"Address": "10.0.0.1", "ID": "3", "Port": 0}]"#;

    #[test]
    fn services_are_read_with_their_namespaces_and_instances_as_far_as_they_can_be_dialled() {
        let every = nomad("*").read_catalog(SERVICES.as_bytes()).expect("services");
        let keys: Vec<_> = every.iter().map(|(key, tags)| (key.namespace.as_deref(), tags.len())).collect();
        assert_eq!(keys, [(Some("default"), 2), (Some("shop"), 0)]);
        assert_eq!(nomad("shop").read_catalog(SERVICES.as_bytes()).expect("services").len(), 1);
        let found = nomad("*").read_service(REDIS.as_bytes()).expect("instances");
        let ids: Vec<_> = found.instances.keys().map(String::as_str).collect();
        assert_eq!(ids, ["_nomad-task-1"]);
        let one = &found.instances["_nomad-task-1"];
        assert_eq!((one.port, one.zone.as_ref().map(|zone| zone.as_str())), (Some(29_702), Some("dc1")));
        let labels: Vec<_> = one.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("db", "true"), ("team", "shop")]);
        for body in ["", "{", "{}", "[{}]", "[1]"] {
            assert!(nomad("*").read_catalog(body.as_bytes()).is_none(), "{body}");
            assert!(nomad("*").read_service(body.as_bytes()).is_none(), "{body}");
        }
    }
}
