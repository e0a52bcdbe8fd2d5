//! What the mesh talks about: names, identities, kinds with their rules, and the shapes that travel over REST.
//! Every other crate depends on this one; it depends on none of them.

pub mod identity;
pub mod name;
