//! X.509-SVIDs at TLS handshakes: who is at the other end, and who are we?
//!
//! Read [`verify()`] for what makes a certificate chain an identity, [`Accept`] and [`Expect`] for which identities are
//! taken where, [`tls`] for how both enter rustls. docs/spiffe.md lists each demand of the standards with its test.
//! This crate signs nothing (`ca` does) and opens no sockets.

pub mod error;
mod facts;
pub mod identity;
pub mod pem;
pub mod request;
pub mod rule;
mod session;
mod sound;
pub mod tls;
pub mod trust;
pub mod verify;

pub use error::SvidError;
pub use identity::{Identities, IdentitySlot, Svid};
pub use request::KeyRequest;
pub use rule::{Accept, Expect};
pub use tls::{client_config, provider, refusal, server_config};
pub use trust::{Trust, TrustError, TrustStore};
pub use verify::{Peer, Usage, peer_id, verify};
