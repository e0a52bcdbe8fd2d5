//! A Eureka server of the tests' own: registration, heartbeats, statuses and cancellation as clients do them, all
//! applications and what became another, in XML and in JSON. Eureka itself is in no package registry that tests use.

use std::{collections::BTreeMap, fmt::Write as _, sync::Mutex};

use serde_json::{Value, json};

use crate::fake::{Api, Asked, Told, held};

/// The name and the password that it takes, as HTTP's Basic scheme writes `mesh:secret`.
const AUTHORIZATION: &str = "Basic bWVzaDpzZWNyZXQ=";
/// The same as a file has it.
pub const SECRET: &str = "mesh:secret\n";
/// What an instance must say of itself.
const REQUIRED: [&str; 5] = ["instanceId", "hostName", "ipAddr", "app", "dataCenterInfo"];

/// What it knows.
#[derive(Debug, Default)]
pub struct Eureka {
    world: Mutex<World>,
}

#[derive(Debug, Default)]
struct World {
    /// Application and id to instance.
    instances: BTreeMap<(String, String), Value>,
    /// What became another, oldest first.
    changes: Vec<Value>,
    version: u64,
    /// Whether it says what became another at all.
    without_delta: bool,
    /// Paths below `/eureka` that were read.
    asked: Vec<String>,
}

impl Eureka {
    /// `app id address port status`, as if it had registered.
    pub fn put(&self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let [app, id, address, port, status] = words[..] else { panic!("{text}") };
        let port: u16 = port.parse().expect("a port");
        let instance = json!({
            "instanceId": id, "hostName": address, "app": app, "ipAddr": address, "status": status,
            "overriddenStatus": "UNKNOWN", "port": {"$": port, "@enabled": "true"},
            "securePort": {"$": 443, "@enabled": "false"}, "metadata": {"zone": "rack-1"},
            "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        });
        held(&self.world).put(instance);
    }

    /// As if it had cancelled its registration.
    pub fn remove(&self, app: &str, id: &str) {
        held(&self.world).remove(app, id);
    }

    /// What became another is not said any more: its time is over.
    pub fn forget_changes(&self) {
        held(&self.world).changes.clear();
    }

    /// As a server whose settings forbid it.
    pub fn disable_delta(&self) {
        held(&self.world).without_delta = true;
    }

    /// Paths that were read since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut held(&self.world).asked)
    }
}

impl Api for Eureka {
    async fn answer(&self, asked: Asked) -> Told {
        if asked.headers.get("authorization").is_none_or(|given| given != AUTHORIZATION) {
            return Told::refused("401 Unauthorized", "");
        }
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        let mut world = held(&self.world);
        match (asked.method.as_str(), &path[..]) {
            ("GET", ["eureka", "apps"]) => world.tell("apps", &asked),
            ("GET", ["eureka", "apps", "delta"]) if world.without_delta => Told::refused("403 Forbidden", ""),
            ("GET", ["eureka", "apps", "delta"]) => world.tell("apps/delta", &asked),
            ("POST", ["eureka", "apps", app]) => world.register(app, &asked.body),
            ("PUT", ["eureka", "apps", app, id]) => world.known(app, id),
            ("PUT", ["eureka", "apps", app, id, "status"]) => match asked.query.get("value") {
                Some(status) => world.set_status(app, id, status),
                None => Told::refused("400 Bad Request", "no value"),
            },
            ("DELETE", ["eureka", "apps", app, id]) => {
                if world.remove(app, id) {
                    done("200 OK")
                } else {
                    done("404 Not Found")
                }
            }
            _ => done("404 Not Found"),
        }
    }
}

impl World {
    fn put(&mut self, instance: Value) {
        let text = |field: &str| instance[field].as_str().unwrap_or_default().to_owned();
        let key = (text("app"), text("instanceId"));
        let action = if self.instances.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.note(&instance, action);
        self.instances.insert(key, instance);
    }

    fn remove(&mut self, app: &str, id: &str) -> bool {
        let removed = self.instances.remove(&(app.to_owned(), id.to_owned()));
        removed.iter().for_each(|instance| self.note(instance, "DELETED"));
        removed.is_some()
    }

    fn note(&mut self, instance: &Value, action: &str) {
        let mut change = instance.clone();
        change["actionType"] = json!(action);
        self.changes.push(change);
        self.version += 1;
    }

    fn register(&mut self, app: &str, body: &[u8]) -> Told {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let instance = &body["instance"];
        let missing = REQUIRED.iter().find(|field| instance[**field].is_null() || instance[**field] == "");
        if let Some(field) = missing {
            return Told::refused("400 Bad Request", &format!("Missing {field}"));
        }
        if instance["app"] != app {
            return Told::refused("400 Bad Request", "Mismatched appName");
        }
        self.put(instance.clone());
        done("204 No Content")
    }

    fn known(&self, app: &str, id: &str) -> Told {
        let known = self.instances.contains_key(&(app.to_owned(), id.to_owned()));
        done(if known { "200 OK" } else { "404 Not Found" })
    }

    fn set_status(&mut self, app: &str, id: &str, status: &str) -> Told {
        let Some(mut instance) = self.instances.get(&(app.to_owned(), id.to_owned())).cloned() else {
            return done("404 Not Found");
        };
        instance["status"] = json!(status);
        self.put(instance);
        done("200 OK")
    }

    fn tell(&mut self, what: &str, asked: &Asked) -> Told {
        self.asked.push(what.to_owned());
        let mut by_name = Vec::<(String, Vec<Value>)>::new();
        let all: Vec<&Value> =
            if what == "apps" { self.instances.values().collect() } else { self.changes.iter().collect() };
        for instance in all {
            let name = instance["app"].as_str().unwrap_or_default();
            match by_name.iter_mut().find(|(own, _)| own == name) {
                Some((_, instances)) => instances.push(instance.clone()),
                None => by_name.push((name.to_owned(), vec![instance.clone()])),
            }
        }
        let applications: Vec<_> =
            by_name.into_iter().map(|(name, instance)| json!({"name": name, "instance": instance})).collect();
        let version = if what == "apps" { "1".to_owned() } else { self.version.to_string() };
        let applications =
            json!({"versions__delta": version, "apps__hashcode": self.hash(), "application": applications});
        if asked.headers.get("accept").is_some_and(|accept| accept.contains("json")) {
            return Told::json(&json!({"applications": applications}));
        }
        let mut body = String::new();
        xml("applications", &applications, &mut body);
        Told {
            status: "200 OK",
            headers: vec!["Content-Type: application/xml".to_owned()],
            body,
            stream: None,
        }
    }

    fn hash(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for instance in self.instances.values() {
            *counts.entry(instance["status"].as_str().unwrap_or_default()).or_default() += 1;
        }
        counts.iter().map(|(status, count)| format!("{status}_{count}_")).collect()
    }
}

fn done(status: &'static str) -> Told {
    Told { status, headers: Vec::new(), body: String::new(), stream: None }
}

/// As XStream has it: `@` before attributes, `$` for the text beside them, lists without a name of their own.
fn xml(name: &str, value: &Value, out: &mut String) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| xml(name, value, out)),
        Value::Object(fields) => {
            let attributes = fields.iter().filter_map(|(key, value)| Some((key.strip_prefix('@')?, value)));
            let attributes: String =
                attributes.map(|(key, value)| format!(" {}=\"{}\"", key, text(value))).collect();
            let _ = write!(out, "<{name}{attributes}>");
            for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with('@')) {
                if key == "$" { out.push_str(&text(value)) } else { xml(key, value, out) }
            }
            let _ = write!(out, "</{name}>");
        }
        Value::Null => {}
        _ => {
            let _ = write!(out, "<{name}>{}</{name}>", text(value));
        }
    }
}

fn text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
