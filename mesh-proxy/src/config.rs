//! How the configuration comes in: a stream of objects, complete at every sync, compiled by `traffic`, put in force
//! whole, acknowledged. What was last in force is on disk.

pub mod cache;
pub mod held;
pub mod watch;
