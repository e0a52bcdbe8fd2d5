//! The control plane's daemon: puts registry, authority and API together and starts them. Owns no rules of its own.
//!
//! Read [`run`] for what a server consists of, `api` for what it answers.

pub mod admit;
pub mod apart;
pub mod api;
pub mod authority;
pub mod backup;
pub mod clock;
pub mod daemon;
pub mod dev;
pub mod discovery;
pub mod divergence;
pub mod explain;
pub mod guard;
pub mod home;
pub mod init;
pub mod join;
pub mod leader;
pub mod listener;
pub mod load;
pub mod members;
pub mod peer;
pub mod proxies;
pub mod proxy_scope;
pub mod rights;
pub mod rollback;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod service;
pub mod settings;
pub mod telemetry;
pub mod wake;
