//! A Kubernetes API server of the tests' own, for EndpointSlices alone: lists in pages, watches with resume, bookmarks, and
//! 410 Gone once a version is no longer kept. The real one is built from source in 20 minutes: too long for tests.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::fake::{Api, Asked, Told, held};

/// The token that it takes.
pub const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
/// The paths that it has, with or without a namespace between.
const PREFIX: &str = "/apis/discovery.k8s.io/v1/";
/// How often a watch says how far all is, where it was asked to.
const BOOKMARK_EVERY: Duration = Duration::from_millis(500);

/// What it knows.
#[derive(Debug)]
pub struct Kubernetes {
    world: std::sync::Arc<Mutex<World>>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct World {
    /// `namespace/name` to slice.
    slices: BTreeMap<String, Value>,
    /// Version to what it did, in words of a watch.
    events: Vec<(u64, Value)>,
    /// Versions before this one are no longer kept.
    oldest: u64,
    /// Lists and watches since the last look, as `list` and `watch from 12`.
    asked: Vec<String>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self { world: Default::default(), version: watch::channel(10).0 }
    }
}

impl Kubernetes {
    /// `namespace/name service port`, with endpoints as `address ready|serving|not`.
    pub fn put(&self, slice: &str, endpoints: &[&str]) {
        let words: Vec<&str> = slice.split(' ').collect();
        let [key, service, port] = words[..] else { panic!("{slice}") };
        let (namespace, name) = key.split_once('/').expect("a namespace and a name");
        let endpoint = |text: &&str| {
            let (address, state) = text.split_once(' ').expect("an address and a state");
            let (ready, going) = (state == "ready", state == "serving");
            json!({"addresses": [address], "zone": "rack-1",
                   "conditions": {"ready": ready, "serving": ready || going, "terminating": going}})
        };
        let port: u16 = port.parse().expect("a port");
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": namespace, "name": name,
                         "labels": {"kubernetes.io/service-name": service, "team": "shop"}},
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": port, "protocol": "TCP", "appProtocol": "http"}],
        });
        let mut world = held(&self.world);
        let sort = if world.slices.contains_key(key) { "MODIFIED" } else { "ADDED" };
        let version = *self.version.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        world.slices.insert(key.to_owned(), object.clone());
        world.events.push((version, json!({"type": sort, "object": object})));
        drop(world);
        self.version.send_replace(version);
    }

    /// `namespace/name` is no more.
    pub fn remove(&self, key: &str) {
        let mut world = held(&self.world);
        let version = *self.version.borrow() + 1;
        if let Some(mut object) = world.slices.remove(key) {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            world.events.push((version, json!({"type": "DELETED", "object": object})));
        }
        drop(world);
        self.version.send_replace(version);
    }

    /// Nothing that happened up to now is kept, as after a compaction; watches that are open are told so.
    pub fn compact(&self) {
        let version = *self.version.borrow() + 1;
        let mut world = held(&self.world);
        world.events.clear();
        world.oldest = version;
        drop(world);
        self.version.send_replace(version);
    }

    /// What it was asked since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut held(&self.world).asked)
    }

    fn list(&self, asked: &Asked, wanted: impl Fn(&Value) -> bool) -> Told {
        let (world, version) = (held(&self.world), *self.version.borrow());
        let number = |name: &str| asked.query.get(name).and_then(|text| text.parse::<usize>().ok());
        // Pages of two at most, whatever is asked for: the API may always give fewer.
        let (from, limit) =
            (number("continue").unwrap_or(0), number("limit").map_or(usize::MAX, |limit| limit.min(2)));
        let all: Vec<&Value> = world.slices.values().filter(|slice| wanted(slice)).collect();
        let items: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
        let more = from + items.len();
        let more = if more < all.len() { more.to_string() } else { String::new() };
        Told::json(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
            "metadata": {"resourceVersion": version.to_string(), "continue": more}, "items": items,
        }))
    }

    fn watch(&self, asked: &Asked, wanted: impl Fn(&Value) -> bool + Send + 'static) -> Told {
        let parameter = |name: &str| asked.query.get(name).map(String::as_str);
        let Some(from) = parameter("resourceVersion").and_then(|text| text.parse::<u64>().ok()) else {
            return status("400 Bad Request", 400, "invalid resource version");
        };
        if from < held(&self.world).oldest {
            return status("410 Gone", 410, "too old resource version");
        }
        let span = parameter("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(300);
        let bookmarks = parameter("allowWatchBookmarks") == Some("true");
        let (tell, told) = mpsc::channel(64);
        let (world, version) = (self.world.clone(), self.version.subscribe());
        let following = follow(world, version, from, (bookmarks, Box::new(wanted)), tell);
        // The end of its time is how a watch ends.
        tokio::spawn(tokio::time::timeout(Duration::from_secs(span), following));
        Told::stream(told)
    }
}

impl Api for Kubernetes {
    async fn answer(&self, asked: Asked) -> Told {
        if asked.headers.get("authorization").is_none_or(|given| *given != format!("Bearer {TOKEN}")) {
            return status("401 Unauthorized", 401, "Unauthorized");
        }
        let path = asked.path.strip_prefix(PREFIX).unwrap_or_default();
        let steps: Vec<&str> = path.split('/').collect();
        let namespace = match steps[..] {
            ["endpointslices"] => None,
            ["namespaces", namespace, "endpointslices"] => Some(namespace.to_owned()),
            _ => return status("404 Not Found", 404, "the server could not find the requested resource"),
        };
        let selector = asked.query.get("labelSelector").cloned();
        let wanted = move |slice: &Value| {
            let labelled = |selector: &String| {
                selector.split_once('=').is_some_and(|(key, value)| slice["metadata"]["labels"][key] == value)
            };
            namespace.iter().all(|namespace| slice["metadata"]["namespace"] == *namespace)
                && selector.iter().all(labelled)
        };
        let watches = asked.query.get("watch").is_some_and(|watch| watch.eq_ignore_ascii_case("true"));
        let from = asked.query.get("resourceVersion").cloned().unwrap_or_default();
        let what = if watches { format!("watch from {from}") } else { "list".to_owned() };
        held(&self.world).asked.push(what);
        if watches { self.watch(&asked, wanted) } else { self.list(&asked, wanted) }
    }
}

type Wanted = Box<dyn Fn(&Value) -> bool + Send>;

/// What happens after `from`, line by line.
async fn follow(
    world: std::sync::Arc<Mutex<World>>,
    mut version: watch::Receiver<u64>,
    mut from: u64,
    (bookmarks, wanted): (bool, Wanted),
    tell: mpsc::Sender<String>,
) {
    loop {
        let now = *version.borrow_and_update();
        let (expired, events) = {
            let world = held(&world);
            let events: Vec<_> = world
                .events
                .iter()
                .filter(|(at, event)| *at > from && wanted(&event["object"]))
                .map(|(_, event)| event.clone())
                .collect();
            (from < world.oldest, events)
        };
        if expired {
            let object = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                                "code": 410, "message": "too old resource version"});
            // Whoever does not listen any more need not hear it.
            let _ = tell.send(format!("{}\n", json!({"type": "ERROR", "object": object}))).await;
            return;
        }
        for event in events {
            if tell.send(format!("{event}\n")).await.is_err() {
                return;
            }
        }
        from = now;
        if tokio::time::timeout(BOOKMARK_EVERY, version.changed()).await.is_err() && bookmarks {
            let metadata = json!({"resourceVersion": now.to_string()});
            let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata,
                                "addressType": "", "endpoints": null});
            if tell.send(format!("{}\n", json!({"type": "BOOKMARK", "object": object}))).await.is_err() {
                return;
            }
        }
    }
}

fn status(line: &'static str, code: u16, message: &str) -> Told {
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
    Told { status: line, ..Told::json(&body) }
}
