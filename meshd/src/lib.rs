//! The control plane's daemon: puts registry, authority and API together and starts them. Owns no rules of its own.
//!
//! Read [`run`] for what a server consists of, `api` for what it answers.

pub mod authority;
pub mod clock;
pub mod members;
pub mod peer;
pub mod proxy_scope;
pub mod settings;
