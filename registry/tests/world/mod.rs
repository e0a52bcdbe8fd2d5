//! Members in one process, with connections in memory that can be cut.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::disallowed_methods, reason = "tests wait against the real clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use model::{
    kind::Kind,
    object::{Key, Object},
};
use registry::{
    Addresses, Admission, Change, Command, Dial, Expect, Folder, MemberChange, MemberId, Program, Recovery,
    Registry, Reply, Settings, Stream, Tuning, Write,
};
use serde_json::Map;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod gate;

use gate::Gate;

/// So long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes between two members that are on their way.
const WIRE_BYTES: usize = 256 * 1024;

/// Everyone's wires.
#[derive(Default)]
pub(crate) struct Net {
    members: Mutex<BTreeMap<MemberId, Registry>>,
    cut: Mutex<BTreeSet<MemberId>>,
    wires: Mutex<Vec<(MemberId, MemberId, CancellationToken)>>,
    /// Wires that break, from whom to whom, and are not laid again.
    severed: Mutex<BTreeSet<(MemberId, MemberId)>>,
    /// What one asks another, and what that answers.
    gates: Mutex<BTreeMap<(MemberId, MemberId), [Gate; 2]>>,
}

struct From(MemberId, Arc<Net>);

impl Dial for From {
    fn dial(&self, member: MemberId, _address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (from, net) = (self.0, self.1.clone());
        async move { net.wire(from, member) }.boxed()
    }
}

/// The wires of a member that is alone.
pub(crate) struct Nobody;

impl Dial for Nobody {
    fn dial(&self, _member: MemberId, _address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        async { Err(io::ErrorKind::HostUnreachable.into()) }.boxed()
    }
}

impl Net {
    fn wire(&self, from: MemberId, to: MemberId) -> io::Result<Box<dyn Stream>> {
        let cut = self.cut.lock().expect("no panic");
        let severed = self.severed.lock().expect("no panic").contains(&(from, to));
        if severed || cut.contains(&from) || cut.contains(&to) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let target = self
            .members
            .lock()
            .expect("no panic")
            .get(&to)
            .cloned()
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let token = CancellationToken::new();
        self.wires.lock().expect("no panic").push((from, to, token.clone()));
        let (near, a) = tokio::io::duplex(WIRE_BYTES);
        let (b, far) = tokio::io::duplex(WIRE_BYTES);
        let ((asked, answering), (answered, asking)) = (tokio::io::split(a), tokio::io::split(b));
        let [questions, answers] = self.gates(from, to);
        tokio::spawn(async move {
            let both =
                async { tokio::join!(questions.carry(asked, asking), answers.carry(answered, answering)) };
            token.run_until_cancelled(both).await
        });
        tokio::spawn(async move { target.serve_peer(Box::new(far), from).await });
        Ok(Box::new(near))
    }

    /// Cuts a member off: connections break, new ones fail.
    pub(crate) fn cut(&self, member: MemberId) {
        self.cut.lock().expect("no panic").insert(member);
        let mut wires = self.wires.lock().expect("no panic");
        for (_, _, token) in wires.iter().filter(|(from, to, _)| *from == member || *to == member) {
            token.cancel();
        }
        wires.retain(|(_, _, token)| !token.is_cancelled());
    }

    /// Breaks the wires that one member laid to another; it lays no more.
    pub(crate) fn sever(&self, from: MemberId, to: MemberId) {
        self.severed.lock().expect("no panic").insert((from, to));
        let wires = self.wires.lock().expect("no panic");
        wires.iter().filter(|wire| (wire.0, wire.1) == (from, to)).for_each(|wire| wire.2.cancel());
    }

    /// What holds the questions on the wires that one member laid to another, and the answers on them.
    pub(crate) fn gates(&self, from: MemberId, to: MemberId) -> [Gate; 2] {
        self.gates.lock().expect("no panic").entry((from, to)).or_default().clone()
    }

    pub(crate) fn heal(&self, member: MemberId) {
        self.cut.lock().expect("no panic").remove(&member);
    }
}

/// A cluster.
pub(crate) struct World {
    pub(crate) net: Arc<Net>,
    pub(crate) cluster: Uuid,
    pub(crate) members: BTreeMap<MemberId, Registry>,
    pub(crate) snapshot_every: u64,
    pub(crate) log_kept: u64,
    pub(crate) tuning: fn(MemberId) -> Tuning,
    /// All that was opened and not closed again, among them members that a test let go of.
    opened: Vec<Registry>,
    root: tempfile::TempDir,
}

/// A member whose folder is gone ends its process. So the members end first.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What failed is told by the test, not by a log that lost its folder.
            return self.root.disable_cleanup(true);
        }
        self.net.members.lock().expect("no panic").clear();
        let opened = std::mem::take(&mut self.opened);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for member in opened {
                    member.shutdown().await;
                }
            });
        });
    }
}

impl World {
    /// One member that leads.
    pub(crate) async fn one() -> Self {
        Self::with_snapshots(10_000, 1_000).await
    }

    pub(crate) async fn with_snapshots(snapshot_every: u64, log_kept: u64) -> Self {
        Self::with(snapshot_every, log_kept, |_| Tuning::default()).await
    }

    pub(crate) async fn tuned(tuning: fn(MemberId) -> Tuning) -> Self {
        Self::with(10_000, 1_000, tuning).await
    }

    async fn with(snapshot_every: u64, log_kept: u64, tuning: fn(MemberId) -> Tuning) -> Self {
        // `RUST_LOG=openraft=debug` shows what a failing test went through.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
        let root = tempfile::tempdir().expect("a folder");
        let mut world = Self {
            net: Arc::default(),
            cluster: Uuid::new_v4(),
            members: BTreeMap::new(),
            snapshot_every,
            log_kept,
            tuning,
            opened: Vec::new(),
            root,
        };
        world.open(1).await;
        world.members[&1].bootstrap(Vec::new()).await.expect("it founds a cluster");
        world
    }

    /// Three members that vote.
    pub(crate) async fn three() -> Self {
        let mut world = Self::one().await;
        world.grow().await;
        world.grow().await;
        world
    }

    /// One more member that votes.
    pub(crate) async fn grow(&mut self) -> MemberId {
        let id = self.learner().await;
        self.leader().await.promote(id).await.expect("it may vote");
        id
    }

    /// One more member that follows.
    pub(crate) async fn learner(&mut self) -> MemberId {
        let incarnation = Uuid::new_v4();
        let next = self.members.keys().max().map_or(1, |id| id + 1);
        let admit =
            Command::Member(MemberChange::Admit(Admission { addresses: addresses(next), incarnation }));
        let leader = self.leader().await;
        let Reply::Member { id } = leader.propose(admit).await.expect("a leader") else {
            panic!("not admitted")
        };
        std::fs::create_dir_all(self.folder(id)).expect("a folder");
        Folder::prepare(&self.folder(id), id, self.cluster, incarnation).expect("a fresh folder");
        self.open(id).await;
        leader.add_learner(id).await.expect("it follows");
        id
    }

    pub(crate) async fn open(&mut self, id: MemberId) -> Recovery {
        self.open_from(id, self.folder(id)).await
    }

    /// Starts a member from any folder; from now on it is the one that others reach.
    pub(crate) async fn open_from(&mut self, id: MemberId, folder: PathBuf) -> Recovery {
        let mut settings = Settings::new(folder, id, self.cluster, addresses(id));
        settings.program = Some(Program { node: format!("cp{id}"), version: "test".to_owned() });
        (settings.snapshot_every, settings.log_kept) = (self.snapshot_every, self.log_kept);
        settings.tuning = (self.tuning)(id);
        let dial = Arc::new(From(id, self.net.clone()));
        let (registry, recovery) = Registry::open(settings, dial).await.expect("it opens");
        self.net.members.lock().expect("no panic").insert(id, registry.clone());
        self.opened.push(registry.clone());
        self.members.insert(id, registry);
        recovery
    }

    /// Ends a member in good order.
    pub(crate) async fn close(&mut self, id: MemberId) {
        self.net.members.lock().expect("no panic").remove(&id);
        let member = self.members.remove(&id).expect("a member");
        let folder = member.folder();
        self.opened.retain(|other| (other.folder().id, other.folder().boot) != (id, folder.boot));
        member.shutdown().await;
    }

    pub(crate) fn folder(&self, id: MemberId) -> PathBuf {
        self.root.path().join(format!("m{id}"))
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The member that leads, of those that are not cut off.
    pub(crate) async fn leader(&self) -> Registry {
        let cut = self.net.cut.lock().expect("no panic").clone();
        let reachable: Vec<_> = self
            .members
            .iter()
            .filter(|(id, _)| !cut.contains(id))
            .map(|(_, member)| member.clone())
            .collect();
        until("a leader", || reachable.iter().find(|member| member.leadership().borrow().is_me).cloned())
            .await
    }

    pub(crate) async fn follower(&self) -> Registry {
        let leader = self.leader().await.status().member;
        let other = self.members.keys().find(|id| **id != leader).expect("more than one member");
        self.members[other].clone()
    }

    /// All of them come to have the same state.
    pub(crate) async fn agree(&self) -> u128 {
        let revision = self.leader().await.read().await.expect("a leader").revision();
        until("members to agree", || {
            let states: Vec<_> = self.members.values().map(|member| member.applied()).collect();
            let same = states.windows(2).all(|pair| pair[0].hash() == pair[1].hash());
            (same && states[0].revision() >= revision).then(|| states[0].hash())
        })
        .await
    }
}

/// Waits until something is there.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        // Poll: with the deadline above; members do not tell of everything that is looked for.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn addresses(id: MemberId) -> Addresses {
    Addresses { raft: format!("m{id}:8444"), api: format!("m{id}:8443") }
}

pub(crate) fn key(name: &str) -> Key {
    Key::mesh_wide(Kind::Namespace, name.parse().expect("a name"))
}

/// A write of a namespace with a description.
pub(crate) fn put(name: &str, description: &str) -> Command {
    let spec = Map::from_iter([("description".to_owned(), description.into())]);
    let change = Change::Put { object: Object::new(key(name), spec), expect: Expect::Any, credential: None };
    Command::Write(Write { actor: "test".to_owned(), changes: vec![change] })
}

pub(crate) fn description(state: &registry::State, name: &str) -> Option<String> {
    Some(state.get(&key(name))?.spec.get("description")?.as_str()?.to_owned())
}

/// A copy of a folder, as a restored disk has it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("it is copied");
        }
    }
}
