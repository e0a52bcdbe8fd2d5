//! Every protocol through two proxies, and what becomes of it when something fails.
//!
//! One program, as each of its own would be linked with all that is tested: minutes on two cores.

mod world;

mod answers;
mod callers;
mod chaos;
mod conduct;
mod failures;
mod http1;
mod http2_streams;
mod keep;
mod lookups;
mod mux;
mod pass_through;
mod policies;
mod routing;
mod smuggling;
mod spines;
