//! Pure. How streams and connections of `mesh/1` end before their time.

use std::{fmt, time::Duration};

use super::{Farewell, FrameError, StreamId};

/// Why a stream or a connection ends, as one side tells the other. Codes that a reader does not know are read as they
/// are: none changes what has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong: the connection drains.
    pub const DRAIN: Self = Self(0);
    /// The specification was broken.
    pub const PROTOCOL: Self = Self(1);
    /// More was sent than a window allowed.
    pub const WINDOW: Self = Self(2);
    /// The stream was not looked at: it is as if it had never been opened.
    pub const REFUSED: Self = Self(3);
    /// The application was not reached; it got nothing.
    pub const UNREACHED: Self = Self(4);
    /// Whoever resets has lost interest, or its own other side broke off.
    pub const CANCEL: Self = Self(5);
    /// A limit was passed that protects the receiver.
    pub const LIMIT: Self = Self(6);
    /// The other side was not heard of for too long.
    pub const SILENT: Self = Self(7);
    /// The other side's certificate is no longer believed.
    pub const DISTRUSTED: Self = Self(8);
    /// From here on: what was said in HTTP/2 (RFC 9113 §7) where an application ended a request or its answer.
    const HTTP2: u32 = 0x1_0000;

    /// For an error code of HTTP/2.
    pub fn of_http2(reason: u32) -> Self {
        Self(Self::HTTP2.saturating_add(reason))
    }

    /// The error code of HTTP/2 that it stands for. Who lost interest says CANCEL there, too.
    pub fn http2(self) -> Option<u32> {
        const CANCEL: u32 = 8;
        if self == Self::CANCEL { Some(CANCEL) } else { self.0.checked_sub(Self::HTTP2) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            "drain",
            "protocol",
            "window",
            "refused",
            "unreached",
            "cancel",
            "limit",
            "silent",
            "distrusted",
        ];
        match usize::try_from(self.0).ok().and_then(|code| names.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// Why a stream has no more bytes, in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The other side reset it.
    Reset(Farewell),
    /// The other side went away before it looked at it.
    Unseen,
    /// The connection ended under it.
    Lost(String),
    /// It was said that nothing more comes, or the stream is gone.
    Ended,
}

impl std::error::Error for Broken {}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(Farewell { code, reason }) if reason.is_empty() => {
                write!(f, "the stream was reset: {code}")
            }
            Self::Reset(Farewell { reason, .. }) => f.write_str(reason),
            Self::Unseen => f.write_str("the other proxy went away before it looked at the stream"),
            Self::Lost(reason) => write!(f, "the connection was lost: {reason}"),
            Self::Ended => f.write_str("the stream has ended"),
        }
    }
}

/// What the other side did to the connection, which ends by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Something before HELLO, or another one.
    #[error("HELLO must come first, and once")]
    Hello,
    /// A frame that only the other role sends.
    #[error("{0} does not come from that side")]
    Role(&'static str),
    /// Streams are numbered upwards.
    #[error("stream {0} was opened after a later one")]
    Order(StreamId),
    /// A frame for a stream that never was.
    #[error("stream {0} was never opened")]
    Unopened(StreamId),
    /// Data or another end after the end.
    #[error("stream {0} went on after its end")]
    AfterEnd(StreamId),
    /// Beyond a stream's window, or (0) the connection's.
    #[error("stream {0} sent more than its window")]
    Beyond(StreamId),
    /// A window that grew beyond what can be given.
    #[error("the window of stream {0} grew too large")]
    Overflow(StreamId),
    /// It opens more and more streams beyond what it may.
    #[error("too many streams: {0} were refused, one after the other")]
    Streams(u32),
    /// It opens streams and resets them at once, over and over.
    #[error("{0} streams were reset before they were answered, one after the other")]
    Resets(u32),
    /// It does not read the answers to what it sends.
    #[error("it does not read what it is answered")]
    Unread,
    /// Nothing came for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
}

impl Fault {
    /// How it is told to the other side.
    pub fn code(&self) -> Code {
        match self {
            Self::Beyond(_) | Self::Overflow(_) => Code::WINDOW,
            Self::Streams(_) | Self::Resets(_) | Self::Unread => Code::LIMIT,
            Self::Silent(_) => Code::SILENT,
            _ => Code::PROTOCOL,
        }
    }
}
