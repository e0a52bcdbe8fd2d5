//! HTTP/1.1 on streams of bytes, on every leg of a call: connections of applications and streams of other proxies are
//! served ([`serve`]), applications and other proxies are asked ([`Line`]). What a message is, is judged in
//! `traffic::http1`; here bytes are moved, and few times: a head and a small body come in one read and go in one write,
//! a connection that waits holds no buffer, and one that is asked has no task of its own.

use std::io;

use traffic::{http1::Malformed, mesh1::Broken};

mod asked;
mod beside;
mod fields;
mod line;
mod raw;
mod sending;
mod serve;
mod wire;

pub use asked::Asked;
pub(crate) use fields::name as field_name;
pub use line::{Answered, Line, Question};
pub(crate) use raw::Kept;
pub use raw::{Raw, RawError, Stream, raw};
pub use serve::{Edge, serve};
pub use wire::Io;

/// Why a message broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broke {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its head is larger than what is read.
    #[error("the head is larger than {} KiB", crate::limits::HEAD_BYTES_MAX / 1_024)]
    TooLarge,
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its body is not as long as its head says.
    #[error("the body is not as long as was said")]
    OtherLength,
}

impl Broke {
    /// What HTTP/2 says where another proxy ended the stream.
    pub(crate) fn http2_reason(&self) -> Option<h2::Reason> {
        let Self::Io(error) = self else { return None };
        match error.get_ref()?.downcast_ref::<Broken>()? {
            Broken::Reset(farewell) => farewell.code.http2().map(h2::Reason::from),
            Broken::Unseen | Broken::Lost(_) | Broken::Ended => None,
        }
    }
}
