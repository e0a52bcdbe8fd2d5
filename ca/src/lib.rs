//! Who may be whom: a request becomes a grant, a grant a profile, a profile a certificate. No sockets, no clock, and of
//! a request nothing is taken but its key.
//!
//! In the order of a certificate's life: [`csr`] what was asked with which key, [`grant`] whether it may be, [`profile`]
//! which fields it gets, [`signer`] the keys that sign; [`slot`] when keys are followed by others, [`seal`] how the
//! root's key rests, [`token`] what lets a stranger in.

pub mod csr;
pub mod grant;
pub mod profile;
pub mod seal;
pub mod signer;
pub mod slot;
pub mod token;

pub use csr::{Csr, CsrError};
pub use grant::{Grant, GrantRefused, NodeGrant, decide};
pub use profile::{Fields, Serial, Ttl, TtlError};
pub use seal::{RecoveryPassphrase, SealError, Sealed, Unlock};
pub use signer::{Intermediate, Root, Signed, SignerError};
pub use slot::{Due, Slot, Tenure};
