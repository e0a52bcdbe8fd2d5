//! The harness: real `meshd`, `mesh-proxy` and `meshctl` processes on loopback addresses of their own, for the demo,
//! the end-to-end tests and the benchmarks. It knows the programs only by their command lines, files and ports.

pub mod binaries;
pub mod cluster;
pub mod histogram;
pub mod host;
pub mod loopback;
pub mod process;
pub mod wait;
