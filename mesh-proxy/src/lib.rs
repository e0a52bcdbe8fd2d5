//! One host's share of the mesh: it registers the local services, watches their health, and carries their traffic over
//! mutual TLS to the other hosts. What is decided about a request is decided in `traffic`; here it is done.
//!
//! Read [`outbound`] and [`inbound`] first: they are the story of a call. The modules stand in the order in which a call
//! meets them; below them, what keeps the process going.

pub mod run;
pub mod settings;

pub mod worker;

pub mod handover;
pub mod listener;
pub mod server;
pub mod supervisor;

pub mod outbound;

pub mod caller;

pub mod inbound;
pub mod rates;

pub mod dns;

pub mod call;
pub mod idle;
pub mod refused;
mod short;
pub mod splice;
pub mod standing;

pub mod shared;

pub mod checker;
pub mod experience;

pub mod body;
pub mod heads;
pub mod http1;
pub mod http2;

pub mod transport;

pub mod telemetry;

pub mod control;

pub mod capture;

pub mod config;
pub mod identity;
pub mod join;
pub mod leave;
pub mod register;
pub mod services;

pub mod admin;
pub mod doctor;

pub mod clock;
pub mod disk;
pub mod limits;
