//! One host's share of the mesh: it registers the local services, watches their health, and carries their traffic over
//! mutual TLS to the other hosts. What is decided about a request is decided in `traffic`; here it is done.

pub mod settings;

pub mod clock;
pub mod disk;

pub mod admin;
pub mod body;
pub mod call;
pub mod config;
pub mod control;
pub mod experience;
pub mod heads;
pub mod identity;
pub mod inbound;
pub mod join;
pub mod limits;
pub mod listener;
pub mod outbound;
pub mod refused;
pub mod register;
pub mod run;
pub mod server;
pub mod services;
pub mod shared;
pub mod splice;
pub mod telemetry;
pub mod transport;
pub mod worker;
