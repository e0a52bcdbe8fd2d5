//! What the mesh talks about: names, identities, kinds with their rules, and the shapes that travel over REST.
//! Every other crate depends on this one; it depends on none of them.

pub mod answer;
pub mod ca;
#[cfg(feature = "client")]
pub mod client;
pub mod discovery;
pub mod duration;
pub mod explain;
pub mod identity;
pub mod invalid;
pub mod join;
pub mod kind;
pub mod manifest;
pub mod name;
pub mod object;
pub mod problem;
pub mod proxy;
pub mod read;
pub mod rejoin;
pub mod resource;
pub mod rollout;
pub mod saved;
pub mod shape;
pub mod token;
pub mod trust;
pub mod virtualip;
pub mod watch;
