//! What the mesh talks about: names, identities, kinds with their rules, and the shapes that travel over REST.
//! Every other crate depends on this one; it depends on none of them.

pub mod duration;
pub mod identity;
pub mod invalid;
pub mod kind;
pub mod name;
pub mod object;
pub mod resource;
pub mod shape;
