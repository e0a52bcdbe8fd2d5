//! The harness: real `meshd`, `mesh-proxy` and `meshctl` processes on loopback addresses of their own, for the demo,
//! the end-to-end tests and the benchmarks. It knows the programs only by their command lines, files and ports.

pub mod backend;
pub mod binaries;
pub mod cluster;
pub mod consul;
pub mod dev;
pub mod dice;
pub mod dnsmasq;
pub mod eureka;
pub mod exact;
pub mod fake;
pub mod firewall;
pub mod fleet;
pub mod foreign;
pub mod histogram;
pub mod host;
pub mod life;
pub mod linear;
pub mod loopback;
pub mod machine;
pub mod nemesis;
pub mod netns;
pub mod nomad;
pub mod plain;
pub mod process;
pub mod python;
pub mod register;
pub mod scratch;
pub mod site;
pub mod steady;
pub mod stranger;
pub mod terraform;
pub mod tour;
pub mod wait;
pub mod websocket;
pub mod work;
