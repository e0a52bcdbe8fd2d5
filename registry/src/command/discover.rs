//! Pure. What the log carries of a discovery source: a batch of what it brings and takes away, and how it stands.

use model::{
    duration::Millis,
    name::Name,
    object::{Key, Object},
    resource::DiscoveryState,
};
use serde::{Deserialize, Serialize};

/// A batch of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The DiscoverySource.
    pub source: Name,
    /// When it was made: one that was made anew meanwhile is another.
    pub created_at: Millis,
    /// How it stands from now on; as before if left out.
    #[serde(default)]
    pub said: Option<Said>,
    /// Services and Endpoints that it brings; Endpoints with `status.health`.
    #[serde(default)]
    pub puts: Vec<Object>,
    /// Services and Endpoints of it that are no more.
    #[serde(default)]
    pub gone: Vec<Key>,
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// In a word. `Stale` marks all of its Endpoints, `Lost` takes away all that it brought.
    pub state: DiscoveryState,
    /// When it was last heard; never if left out.
    #[serde(default)]
    pub heard: Option<Millis>,
    /// What is wrong; empty if nothing.
    #[serde(default)]
    pub error: String,
}
