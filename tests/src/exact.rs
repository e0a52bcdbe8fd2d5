//! Whether watches are exact: what each watcher saw, against what was really written. The judges are pure; the watchers,
//! the writers and a relay that plants faults are beside them.
//!
//! A watch of objects must tell every change of its scope once, in order, revision by revision and none in part, and go
//! on from where it was left; a proxy's watch must have, at each `sync`, exactly what stood at that revision.

pub mod judge;
pub mod proxy;
pub mod proxy_stream;
pub mod relay;
pub mod truth;
pub mod watcher;
pub mod writer;

use std::fmt;

use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
};

pub use judge::{Entry, Journal, check};
pub use truth::{At, Truth, Write};

/// The annotation by which a written object is told from all others, ever.
pub const VALUE: &str = "value";

/// What became of an object. No two writes of a run have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// Whether it is there, or gone.
    pub put: bool,
    /// Its value; that of the object as it was, if it is gone.
    pub value: String,
}

/// What a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Objects of these kinds.
    pub kinds: Vec<Kind>,
    /// Only of this namespace.
    pub namespace: Option<Name>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who saw it.
    pub watcher: String,
    /// At which entry of its journal.
    pub entry: usize,
    /// What is wrong.
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A change that was never told, though the watcher was told of later ones, or that nothing happened.
    Missing(u64, Change),
    /// A change that was told before.
    Doubled(u64, Change),
    /// A change that comes after what happened later.
    OutOfOrder(u64, Change),
    /// A revision of which only a part was told before something else came.
    Split(u64),
    /// A change that nobody made, or not at that revision.
    Invented(u64, Change),
    /// A place that is before what was told already.
    Back(u64),
    /// A list, an initial state or a synced set that is not what stood at its revision; the first key that differs.
    State(u64, Key),
    /// A long poll that was answered with a list although nothing had changed.
    Needless(u64),
    /// A watcher was sent away although everything that it lacked was kept.
    Dismissed(u64),
    /// What was acknowledged does not lead to what stands at the end.
    Unwritten(Key),
}

impl Change {
    /// The change that an object in a stream stands for.
    pub fn of(object: &Object, put: bool) -> Self {
        Self { key: object.key(), put, value: value(object) }
    }
}

/// The value of an object.
pub fn value(object: &Object) -> String {
    let mut annotations = object.metadata.annotations.iter();
    annotations
        .find(|(key, _)| key.as_str() == VALUE)
        .map_or_else(String::new, |(_, value)| value.as_str().to_owned())
}

impl Scope {
    /// Whether an object is of it.
    pub fn holds(&self, key: &Key) -> bool {
        self.kinds.contains(&key.kind)
            && self.namespace.as_ref().is_none_or(|namespace| key.namespace.as_ref() == Some(namespace))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {:?}", self.watcher, self.entry, self.what)
    }
}
