//! Steady writers and watchers of a control plane whose members come and go. They behave as good clients do: go to another
//! member where one is not there, and write again after «unavailable»; what was acknowledged is kept in a book.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{
    client::{Client, ClientError, Selection},
    kind::Kind,
    object::Object,
    watch::Event,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{steady::now, wait::until};

/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(20);
/// A write that takes longer is given up and tried at another member.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// How long a write may have to be tried again before it counts as lost.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long the watchers may need to see the last write, and the members to be equal.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Writers and watchers at work.
#[derive(Debug)]
pub struct Life {
    book: Arc<Book>,
    writers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Book {
    clients: Mutex<Vec<Client>>,
    stop: AtomicBool,
    /// Acknowledged names with their revisions.
    written: Mutex<BTreeMap<String, u64>>,
    /// The longest time between two acknowledged writes of one writer.
    longest: Mutex<Duration>,
    /// What each watcher saw, and whether it had virtual IPs when it saw it last.
    seen: Mutex<Vec<BTreeMap<String, bool>>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lived {
    /// Writes that were acknowledged; each of them is at each member, and each watcher saw it once.
    pub acknowledged: usize,
    /// The revision at which all members were equal.
    pub revision: u64,
}

impl Life {
    /// Starts writers and watchers against these members.
    pub fn start(clients: Vec<Client>, writers: usize, watchers: usize) -> Self {
        let book = Arc::new(Book {
            clients: Mutex::new(clients),
            stop: AtomicBool::new(false),
            written: Mutex::default(),
            longest: Mutex::default(),
            seen: Mutex::new(vec![BTreeMap::new(); watchers]),
        });
        let writers = (0..writers).map(|n| tokio::spawn(write(book.clone(), n))).collect();
        let watchers = (0..watchers).map(|n| tokio::spawn(watch(book.clone(), n))).collect();
        Self { book, writers, watchers }
    }

    /// From now on these members are asked.
    ///
    /// # Panics
    /// Never: nobody panics while the list is held.
    pub fn ask(&self, clients: Vec<Client>) {
        *self.book.clients.lock().expect("nobody panics with it") = clients;
    }

    /// How many writes were acknowledged.
    ///
    /// # Panics
    /// Never: nobody panics while the book is held.
    pub fn acknowledged(&self) -> usize {
        self.book.written.lock().expect("nobody panics with it").len()
    }

    /// Waits until so many more writes were acknowledged.
    ///
    /// # Errors
    /// If they were not in time.
    pub async fn goes_on(&self, writes: usize) -> anyhow::Result<()> {
        let goal = self.acknowledged() + writes;
        until("writes go on", WRITE_LIMIT * 4, || async {
            let now = self.acknowledged();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await
    }

    /// The longest time that a writer was without an acknowledgement since this was asked last.
    ///
    /// # Panics
    /// Never: nobody panics while it is held.
    pub fn longest_gap(&self) -> Duration {
        std::mem::take(&mut *self.book.longest.lock().expect("nobody panics with it"))
    }

    /// Ends the writers, and proves: every acknowledged write is at every member, at the same revision all members are
    /// equal, and each watcher saw each write once.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn finish(self) -> anyhow::Result<Lived> {
        self.book.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await?;
        }
        let written = self.book.written.lock().expect("nobody panics with it").clone();
        until("watchers see the last write", SETTLE_LIMIT, || async { self.book.unseen(&written) }).await?;
        for watcher in self.watchers {
            watcher.abort();
            if let Err(error) = watcher.await
                && error.is_panic()
            {
                anyhow::bail!("a watcher: {error}");
            }
        }
        let clients = self.book.clients.lock().expect("nobody panics with it").clone();
        let revision = until("members are equal", SETTLE_LIMIT, || equal(&clients, &written)).await?;
        Ok(Lived { acknowledged: written.len(), revision })
    }
}

impl Book {
    /// The member that the `turn`th try goes to.
    fn client(&self, turn: usize) -> Client {
        let clients = self.clients.lock().expect("nobody panics with it");
        clients[turn % clients.len()].clone()
    }

    /// Each is seen once as it was written. One that is older than virtual IPs is seen again when it gets them.
    fn saw(&self, watcher: usize, services: impl Iterator<Item = (String, bool)>) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        for (name, numbered) in services {
            let before = seen[watcher].insert(name.clone(), numbered);
            let once = before.is_none() || (before, numbered) == (Some(false), true);
            assert!(once, "{name} came twice: {before:?}, {numbered}");
        }
    }

    fn unseen(&self, written: &BTreeMap<String, u64>) -> Result<(), String> {
        let seen = self.seen.lock().expect("nobody panics with it");
        let missing =
            |seen: &BTreeMap<String, bool>| written.keys().find(|name| !seen.contains_key(*name)).cloned();
        match seen.iter().enumerate().find_map(|(n, seen)| Some((n, missing(seen)?))) {
            Some((n, name)) => Err(format!("watcher {n} did not see {name}")),
            None => Ok(()),
        }
    }
}

fn service(name: &str) -> Object {
    let text = json!({"kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {"ports": [{"port": 80, "protocol": "http"}]}});
    serde_json::from_value(text).expect("an object")
}

async fn write(book: Arc<Book>, writer: usize) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut turn, mut last) = (writer, now());
    for n in 0_u64.. {
        if book.stop.load(Ordering::Relaxed) {
            return;
        }
        pace.tick().await;
        let name = format!("life-{writer}-{n}");
        let revision = put(&book, &name, &mut turn).await;
        let gap = now().duration_since(last);
        last = now();
        book.written.lock().expect("nobody panics with it").insert(name, revision);
        let mut longest = book.longest.lock().expect("nobody panics with it");
        *longest = longest.max(gap);
    }
}

/// Writes until it is acknowledged; who does not answer is not asked again at once.
async fn put(book: &Book, name: &str, turn: &mut usize) -> u64 {
    let (object, end) = (service(name), now() + WRITE_LIMIT);
    loop {
        let refused = match tokio::time::timeout(ANSWER_LIMIT, book.client(*turn).put(&object)).await {
            Ok(Ok((object, _))) => return object.metadata.revision,
            Ok(Err(error)) => error,
            Err(_) => ClientError::Answer("none in time".to_owned()),
        };
        let again = matches!(refused.status(), None | Some(503 | 429));
        assert!(again, "{name} was refused: {refused}");
        assert!(now() < end, "{name} was not written within {WRITE_LIMIT:?}: {refused}");
        *turn += 1;
        // Poll: until the deadline above; a member that is not there refuses at once.
        tokio::time::sleep(PACE).await;
    }
}

/// Follows all changes, at another member where a stream ends, from where it was.
async fn watch(book: Arc<Book>, watcher: usize) {
    let (mut turn, mut last) = (watcher, 0);
    loop {
        turn += 1;
        // Poll: until the watcher is ended; a member that is not there refuses at once.
        tokio::time::sleep(PACE).await;
        let client = book.client(turn);
        let Ok(mut events) = client.watch(&[Kind::Service], &Selection::default(), Some(last)).await else {
            continue;
        };
        // Of the revision that is being told; told again from its start if the stream ends inside it.
        let mut part = Vec::new();
        while let Ok(Some(event)) = events.next().await {
            match event {
                Event::Put { revision, object, last: whole } => {
                    assert!(revision > last, "{revision} came after {last}");
                    let numbered = object.status.is_some_and(|status| status["virtualIPs"].is_array());
                    part.push((object.metadata.name.to_string(), numbered));
                    if whole {
                        last = revision;
                        book.saw(watcher, part.drain(..));
                    }
                }
                Event::Bookmark { revision } => last = last.max(revision),
                other => panic!("after {last}: {other:?}"),
            }
        }
    }
}

/// The revision at which all members list the same objects, all that was written among them.
async fn equal(clients: &[Client], written: &BTreeMap<String, u64>) -> Result<u64, String> {
    let mut first: Option<(u64, Vec<Object>)> = None;
    for client in clients {
        let list =
            client.list(Kind::Service, &Selection::default()).await.map_err(|error| error.to_string())?;
        let names: BTreeSet<_> = list.items.iter().map(|item| item.metadata.name.to_string()).collect();
        if let Some(lost) = written.keys().find(|name| !names.contains(*name)) {
            return Err(format!("{lost} was acknowledged and is not there"));
        }
        match &first {
            Some(known) if *known != (list.revision, list.items.clone()) => {
                return Err(format!("revision {} at one member, {} at another", known.0, list.revision));
            }
            _ => first = Some((list.revision, list.items)),
        }
    }
    first.map(|(revision, _)| revision).ok_or_else(|| "no member".to_owned())
}
