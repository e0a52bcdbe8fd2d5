//! A Nomad agent of the tests' own, for services alone: as strict as Nomad's documentation of `/v1/services` and
//! `/v1/service/:name`, of blocking queries, namespaces and tokens. Nomad itself is in no package registry that tests use.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fake::{Api, Asked, Told, held};

/// The token that it takes.
pub const TOKEN: &str = "5f2c-0001";
/// The only region that it knows.
pub const REGION: &str = "global";
/// The longest wait that it grants.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// The namespaces that it has.
const NAMESPACES: [&str; 2] = ["default", "shop"];

/// What it knows.
#[derive(Debug)]
pub struct Nomad {
    index: watch::Sender<u64>,
    /// Namespace and name to registrations: `id address port tags`, tags with commas between.
    services: Mutex<BTreeMap<(String, String), Vec<String>>>,
    /// Each question, as path, namespace and index.
    asked: Mutex<Vec<(String, String, u64)>>,
}

impl Default for Nomad {
    fn default() -> Self {
        Self { index: watch::channel(10).0, services: Mutex::default(), asked: Mutex::default() }
    }
}

impl Nomad {
    /// A service has these registrations from now on; one without any is gone.
    pub fn put(&self, namespace: &str, service: &str, registrations: &[&str]) {
        let key = (namespace.to_owned(), service.to_owned());
        let registrations: Vec<_> = registrations.iter().map(|one| (*one).to_owned()).collect();
        let mut services = held(&self.services);
        if registrations.is_empty() {
            services.remove(&key)
        } else {
            services.insert(key, registrations)
        };
        drop(services);
        self.index.send_modify(|index| *index += 1);
    }

    /// As after a restore of its servers: indexes begin anew.
    pub fn restore(&self, index: u64) {
        self.index.send_replace(index);
    }

    /// What it was asked since the last call.
    pub fn asked(&self) -> Vec<(String, String, u64)> {
        std::mem::take(&mut held(&self.asked))
    }

    /// Waits until the index is beyond `wanted`, for as long as the question says.
    async fn wait(&self, wanted: u64, wait: Duration) {
        let mut index = self.index.subscribe();
        let changed =
            async { while *index.borrow_and_update() <= wanted && index.changed().await.is_ok() {} };
        // That the wait of a blocking query is over is no fault.
        let _ = tokio::time::timeout(wait.min(WAIT_MAX), changed).await;
    }

    fn body(&self, path: &str, namespace: &str) -> Option<Value> {
        let services = held(&self.services);
        let wanted = |own: &str| namespace == "*" || own == namespace;
        if path == "/v1/services" {
            let mut by_namespace = BTreeMap::<&str, Vec<Value>>::new();
            for ((own, name), registrations) in services.iter().filter(|((own, _), _)| wanted(own)) {
                let mut tags: Vec<_> = registrations.iter().flat_map(|one| fields(one).3).collect();
                tags.sort();
                tags.dedup();
                by_namespace.entry(own).or_default().push(json!({"ServiceName": name, "Tags": tags}));
            }
            let one = |(namespace, services)| json!({"Namespace": namespace, "Services": services});
            return Some(by_namespace.into_iter().map(one).collect());
        }
        let name =
            path.strip_prefix("/v1/service/").filter(|name| !name.is_empty() && !name.contains('/'))?;
        let found = services.get(&(namespace.to_owned(), name.to_owned())).into_iter().flatten();
        Some(found.map(|one| registration(namespace, name, one)).collect())
    }
}

impl Api for Nomad {
    async fn answer(&self, asked: Asked) -> Told {
        if asked.method != "GET" {
            return Told::refused("405 Method Not Allowed", "Invalid method");
        }
        if asked.headers.get("x-nomad-token").is_none_or(|token| token != TOKEN) {
            return Told::refused("403 Forbidden", "Permission denied");
        }
        let parameter = |name: &str| asked.query.get(name).map(String::as_str);
        if parameter("region").is_some_and(|region| region != REGION) {
            return Told::refused("500 Internal Server Error", "No path to region");
        }
        let namespace = parameter("namespace").unwrap_or("default");
        // A service is read in one namespace; only the list is of all.
        let every = namespace == "*" && asked.path == "/v1/services";
        if !every && !NAMESPACES.contains(&namespace) {
            return Told::refused("400 Bad Request", "no such namespace");
        }
        let Ok(wanted) = parameter("index").unwrap_or("0").parse::<u64>() else {
            return Told::refused("400 Bad Request", "Invalid index");
        };
        let wait = parameter("wait").map_or(Some(Duration::from_secs(300)), duration);
        let Some(wait) = wait.filter(|_| wanted > 0 || parameter("wait").is_none()) else {
            return Told::refused("400 Bad Request", "Invalid wait time");
        };
        held(&self.asked).push((asked.path.clone(), namespace.to_owned(), wanted));
        if wanted > 0 {
            self.wait(wanted, wait).await;
        }
        let index = *self.index.borrow();
        let Some(body) = self.body(&asked.path, namespace) else {
            return Told::refused("404 Not Found", "no such path");
        };
        let mut told = Told::json(&body);
        told.headers.push(format!("X-Nomad-Index: {index}"));
        told.headers.push("X-Nomad-KnownLeader: true".to_owned());
        told.headers.push("X-Nomad-LastContact: 0".to_owned());
        told
    }
}

/// `1500ms`, `30s`, as Go writes a span.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

fn fields(registration: &str) -> (&str, &str, u16, Vec<&str>) {
    let words: Vec<&str> = registration.split(' ').collect();
    let [id, address, port, tags] = words[..] else { panic!("{registration}") };
    let tags = tags.split(',').filter(|tag| !tag.is_empty()).collect();
    (id, address, port.parse().expect("a port"), tags)
}

fn registration(namespace: &str, service: &str, text: &str) -> Value {
    let (id, address, port, tags) = fields(text);
    json!({"Address": address, "AllocID": "177160af-26f6-619f-9c9f-5e46d1104395", "CreateIndex": 14,
           "Datacenter": "dc1", "ID": format!("_nomad-task-{id}"), "JobID": "example", "ModifyIndex": 24,
           "Namespace": namespace, "NodeID": "7406e90b-de16-d118-80fe-60d0f2730cb3", "Port": port,
           "ServiceName": service, "Tags": tags})
}
