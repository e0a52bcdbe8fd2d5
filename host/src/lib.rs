//! What a host run by systemd is to our daemons: where their log goes, whose their folders are, and how their units come to
//! run. It knows nothing of the mesh.

pub mod log;
pub mod owner;
pub mod unit;
