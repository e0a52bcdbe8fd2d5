//! Pure. Why a stream or a connection of HTTP/2 ends.

use std::{error, fmt};

/// An error code (RFC 9113 §7). Those that are not known are read as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The specification was broken.
    pub const PROTOCOL: Self = Self(1);
    /// Something went wrong inside.
    pub const INTERNAL: Self = Self(2);
    /// More was sent than a window allowed.
    pub const FLOW_CONTROL: Self = Self(3);
    /// A frame is longer or shorter than it may be.
    pub const FRAME_SIZE: Self = Self(6);
    /// The stream was not looked at.
    pub const REFUSED: Self = Self(7);
    /// Whoever resets has lost interest.
    pub const CANCEL: Self = Self(8);
    /// A section of fields cannot be read.
    pub const COMPRESSION: Self = Self(9);
    /// A limit was passed that protects the receiver.
    pub const CALM: Self = Self(11);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match usize::try_from(self.0).ok().and_then(|code| names.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// How the other side broke the rules, so that the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is told.
    pub code: Code,
    /// What it did.
    pub what: &'static str,
}

impl Fault {
    pub(super) fn protocol(what: &'static str) -> Self {
        Self { code: Code::PROTOCOL, what }
    }

    pub(super) fn size(what: &'static str) -> Self {
        Self { code: Code::FRAME_SIZE, what }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.code)
    }
}

impl error::Error for Fault {}

/// Why a stream has no more bytes, in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The other side reset it.
    Reset(Code),
    /// The other side did not look at it: the same as not sent.
    Unseen,
    /// The connection ended.
    Lost(String),
    /// What came on it is no answer.
    Malformed(&'static str),
    /// This side ended it.
    Ended,
}

impl Broken {
    /// What HTTP/2 says of it to whom the answer was for.
    pub fn code(&self) -> Code {
        match self {
            Self::Reset(code) => *code,
            Self::Unseen => Code::REFUSED,
            Self::Malformed(_) => Code::PROTOCOL,
            Self::Lost(_) => Code::INTERNAL,
            Self::Ended => Code::CANCEL,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the stream was reset: {code}"),
            Self::Unseen => f.write_str("the stream was refused unseen"),
            Self::Lost(why) => write!(f, "the connection ended: {why}"),
            Self::Malformed(what) => write!(f, "what came is no answer: {what}"),
            Self::Ended => f.write_str("the stream was ended here"),
        }
    }
}

impl error::Error for Broken {}
