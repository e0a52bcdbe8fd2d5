//! Writers: each with keys of its own, so that it knows what stands there, and with values that nobody else writes. They
//! say what was acknowledged, and what nobody knows the outcome of.

use std::collections::BTreeMap;

use model::{
    client::{Client, ClientError},
    kind::Kind,
    object::{Key, Object},
};
use serde_json::{Value, json};

use super::{At, Change, VALUE, Write, value};

/// The namespaces in which objects are written.
pub const NAMESPACES: [&str; 2] = ["default", "mesh-system"];
/// The service that proxies subscribe to, in each namespace.
pub const SUBSCRIBED: &str = "front";
/// Where large objects are written.
pub const BULK: &str = "bulk";
/// The services that routes name; nobody removes them.
const SERVICES: [&str; 3] = [SUBSCRIBED, "aside", "back"];
/// Objects of one writer, of each kind in each namespace.
const OBJECTS: u64 = 5;

/// A writer, and what it did so far.
#[derive(Debug)]
pub struct Writer {
    number: u64,
    clients: Vec<Client>,
    /// Which of them it talks to; another one after each failure.
    at: usize,
    chance: u64,
    count: u64,
    /// No write of its own is before this revision, from now on.
    after: u64,
    /// What it did.
    pub writes: Vec<Write>,
}

impl Writer {
    /// A writer that draws from `seed`, and begins after a revision.
    pub fn new(number: u64, seed: u64, clients: Vec<Client>, after: u64) -> Self {
        let chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1);
        let at = usize::try_from(number).unwrap_or(0) % clients.len();
        Self { number, clients, at, chance, count: 0, after, writes: Vec::new() }
    }

    /// A number below `limit` (xorshift).
    fn draw(&mut self, limit: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % limit
    }

    /// One write: an object, several in one revision, or a removal.
    ///
    /// # Errors
    /// If it is refused for another reason than that there is no leader.
    pub async fn step(&mut self) -> anyhow::Result<()> {
        match self.draw(8) {
            0..=3 => self.put().await,
            4 | 5 => self.apply().await,
            _ => self.delete().await,
        }
    }

    fn key(&mut self) -> Key {
        let namespace = NAMESPACES[usize::from(self.draw(2) == 1)];
        let kind = if self.draw(4) == 0 { Kind::HTTPRoute } else { Kind::Service };
        let object = self.draw(OBJECTS);
        key(kind, namespace, &format!("w{}-{object}", self.number))
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.number, self.count)
    }

    async fn put(&mut self) -> anyhow::Result<()> {
        let (key, value) = (self.key(), self.fresh());
        let answer = self.clients[self.at].put(&object(&key, &value)).await;
        let revision = answer.map(|(object, _)| object.metadata.revision);
        let change = Change { key, put: true, value };
        self.note(vec![change], revision.map(At::Revision))
    }

    async fn apply(&mut self) -> anyhow::Result<()> {
        let mut changes = BTreeMap::new();
        for _ in 0..2 + self.draw(3) {
            let (key, value) = (self.key(), self.fresh());
            changes.insert(key.clone(), Change { key, put: true, value });
        }
        let items: Vec<_> = changes.values().map(|change| object(&change.key, &change.value)).collect();
        let answer = self.clients[self.at].apply(json!({"items": items}).to_string(), false).await;
        let revision = answer.map(|applied| applied.items.iter().map(|item| item.metadata.revision).max());
        let at = revision.map(|revision| At::Revision(revision.unwrap_or(0)));
        self.note(changes.into_values().collect(), at)
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        let key = self.key();
        match self.clients[self.at].delete(&key).await {
            Ok(object) => {
                // The answer does not say when; a read after it does, at the latest.
                let to = self.present().await?;
                let change = Change { key, put: false, value: value(&object) };
                self.note(vec![change], Ok(At::Within(object.metadata.revision, to)))
            }
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => self.note(vec![Change { key, put: false, value: String::new() }], Err(error)),
        }
    }

    /// The revision now, from whoever answers.
    async fn present(&mut self) -> anyhow::Result<u64> {
        let what = "a list is answered";
        let clients = self.clients.clone();
        let revision = crate::wait::until(what, super::watcher::PATIENCE, || async {
            for client in &clients {
                if let Ok(list) = client.list(Kind::Namespace, &Default::default()).await {
                    return Ok(list.revision);
                }
            }
            Err("nobody answers")
        });
        revision.await
    }

    fn note(&mut self, changes: Vec<Change>, at: Result<At, ClientError>) -> anyhow::Result<()> {
        let at = match at {
            Ok(at) => at,
            Err(error) => {
                self.at = (self.at + 1) % self.clients.len();
                match error {
                    ClientError::Refused(problem) if problem.status != 503 => anyhow::bail!("{problem}"),
                    _ => At::Unknown(self.after),
                }
            }
        };
        if let At::Revision(revision) | At::Within(revision, _) = at {
            self.after = self.after.max(revision);
        }
        self.writes.push(Write { changes, at });
        Ok(())
    }
}

/// Writes what must stand before any writer begins: the services that routes name. In one revision.
///
/// # Errors
/// If it is refused.
pub async fn ground(client: &Client) -> anyhow::Result<Write> {
    let names = NAMESPACES.into_iter().flat_map(|namespace| SERVICES.map(|name| (namespace, name)));
    let keys: Vec<_> = names.map(|(namespace, name)| key(Kind::Service, namespace, name)).collect();
    together(client, &keys, "ground").await
}

/// Writes something that every watcher sees, whatever its namespace: who was told of it was told of all before.
///
/// # Errors
/// If it is refused.
pub async fn fence(client: &Client, value: &str) -> anyhow::Result<Write> {
    let kinds = [Kind::Service, Kind::HTTPRoute];
    let keys = NAMESPACES.iter().flat_map(|namespace| kinds.map(|kind| key(kind, namespace, "fence-0")));
    together(client, &keys.collect::<Vec<_>>(), value).await
}

/// Large objects, for those who read slowly: so many revisions of 64 KiB, in a namespace where nobody else writes.
///
/// # Errors
/// If it is refused.
pub async fn bulk(client: &Client, revisions: u64) -> anyhow::Result<Vec<Write>> {
    let metadata = |index: u64, value: &str| {
        let filler = "x".repeat(model::object::ANNOTATION_VALUE_BYTES_MAX);
        json!({"namespace": BULK, "name": format!("bulk-{index}"), "annotations": {VALUE: value, "filler": filler}})
    };
    client
        .apply(json!({"items": [{"kind": "Namespace", "metadata": {"name": BULK}}]}).to_string(), false)
        .await?;
    let mut writes = Vec::new();
    for revision in 0..revisions {
        let value = format!("bulk {revision}");
        let item = |index| json!({"kind": "Service", "metadata": metadata(index, &value), "spec": {"ports": [{"port": 80}]}});
        let items: Vec<_> = (0..16).map(item).collect();
        let applied = client.apply(json!({"items": items}).to_string(), false).await?;
        let changes = applied.items.iter().map(|item| Change::of(item, true)).collect();
        let at = applied.items.iter().map(|item| item.metadata.revision).max().unwrap_or(0);
        writes.push(Write { changes, at: At::Revision(at) });
    }
    Ok(writes)
}

async fn together(client: &Client, keys: &[Key], value: &str) -> anyhow::Result<Write> {
    let items: Vec<_> = keys.iter().map(|key| object(key, value)).collect();
    let applied = client.apply(json!({"items": items}).to_string(), false).await?;
    let revision = applied.items.iter().map(|item| item.metadata.revision).max().unwrap_or(0);
    let change = |key: &Key| Change { key: key.clone(), put: true, value: value.to_owned() };
    Ok(Write { changes: keys.iter().map(change).collect(), at: At::Revision(revision) })
}

/// An object in a namespace.
pub fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    let parse = |text: &str| text.parse().expect("a name");
    Key::namespaced(kind, parse(namespace), parse(name))
}

/// Whether a route belongs to [`SUBSCRIBED`]; the others belong to another service.
pub fn is_of_subscribed(route: &Key) -> bool {
    route.name.as_str().ends_with(['0', '2', '4'])
}

/// An object with a value.
pub fn object(key: &Key, value: &str) -> Object {
    let spec = match key.kind {
        Kind::HTTPRoute => {
            let parent = if is_of_subscribed(key) { SUBSCRIBED } else { "aside" };
            json!({"parentRefs": [{"name": parent}], "rules": [{"backendRefs": [{"name": "back", "port": 80}]}]})
        }
        _ => json!({"ports": [{"port": 80}]}),
    };
    let metadata: Value =
        json!({"namespace": key.namespace, "name": key.name, "annotations": {VALUE: value}});
    serde_json::from_value(json!({"kind": key.kind, "metadata": metadata, "spec": spec})).expect("an object")
}
