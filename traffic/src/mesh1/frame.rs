//! Pure. The frames of `mesh/1`: what each holds, written and read.

use super::{Code, REASON_BYTES_MAX, WINDOW_BYTES_MAX};
use crate::preamble::{self, PreambleError};

/// The number of a stream on its connection; 0 is the connection itself.
pub type StreamId = u32;

/// Before each payload: its length (24 bits), the type, the stream.
pub(super) const HEADER_BYTES: usize = 8;

/// The types of frames. Those from [`CRITICAL`] on must be understood.
pub(super) mod kind {
    pub(in super::super) const HELLO: u8 = 0;
    pub(in super::super) const OPEN: u8 = 1;
    pub(in super::super) const ACCEPT: u8 = 2;
    pub(in super::super) const DATA: u8 = 3;
    pub(in super::super) const END: u8 = 4;
    pub(in super::super) const RESET: u8 = 5;
    pub(in super::super) const WINDOW: u8 = 6;
    pub(in super::super) const PING: u8 = 7;
    pub(in super::super) const PONG: u8 = 8;
    pub(in super::super) const GOAWAY: u8 = 9;
    /// Those that a reader passes over lie between.
    pub(in super::super) const CRITICAL: u8 = 128;
}

/// A frame other than DATA, which is never held whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first of each side: what it allows.
    Hello(Hello),
    /// A stream begins; `None` if it is of a kind that is not known, or has to be understood and is not.
    Open(StreamId, Option<Open>),
    /// The application of a stream is reached.
    Accept(StreamId),
    /// Nothing more comes on the stream from this side.
    End(StreamId),
    /// The stream is over, both ways.
    Reset(StreamId, Farewell),
    /// So many bytes more may be sent, on a stream or (0) on the connection.
    Window(StreamId, u32),
    /// Asks whether the other side is there.
    Ping(u64),
    /// It is.
    Pong(u64),
    /// No stream above this one was looked at, nor will be.
    GoAway(StreamId, Farewell),
}

/// What a side allows the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Streams at once.
    pub streams: u32,
    /// What each stream may send before it is given more, in bytes.
    pub window_stream: u32,
    /// What all together may, in bytes.
    pub window_connection: u32,
    /// Whether this side takes requests that came in HTTP/2 on its streams for requests.
    pub http2: bool,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// What it carries.
    pub kind: Kind,
    /// The service's port; the service itself is named by the connection's SNI.
    pub port: u16,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, as TCP does.
    Tcp = 1,
    /// Requests and their answers, one after the other, in HTTP/1.1.
    Http1 = 2,
}

/// In the flags of HELLO: [`Hello::http2`].
const TAKES_HTTP2: u32 = 1;

/// Why a stream or a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// For programs.
    pub code: Code,
    /// For people; at most [`REASON_BYTES_MAX`].
    pub reason: String,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than any frame of its type.
    #[error("a frame of type {kind} with {length} bytes")]
    Length {
        /// The type.
        kind: u8,
        /// The payload's length.
        length: usize,
    },
    /// A type that must be understood, and is not.
    #[error("frames of type {0} must be understood, and are not known")]
    Critical(u8),
    /// A frame of a stream for the connection, or the other way round.
    #[error("a frame of type {kind} on stream {stream}")]
    Stream {
        /// The type.
        kind: u8,
        /// The stream.
        stream: StreamId,
    },
    /// A window of nothing, or beyond [`WINDOW_BYTES_MAX`].
    #[error("a window of {0} bytes")]
    Window(u32),
    /// A stream's preamble.
    #[error(transparent)]
    Open(PreambleError),
}

impl Farewell {
    /// Cuts the reason to what is allowed.
    pub fn new(code: Code, reason: &str) -> Self {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: reason[..end].to_owned() }
    }

    fn encode(&self) -> Vec<u8> {
        [&self.code.0.to_be_bytes()[..], self.reason.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (code, reason) = bytes.split_first_chunk()?;
        Some(Self::new(Code(u32::from_be_bytes(*code)), &String::from_utf8_lossy(reason)))
    }
}

impl Frame {
    /// Writes it behind what is in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                let flags = if hello.http2 { TAKES_HTTP2 } else { 0 };
                let fields = [hello.streams, hello.window_stream, hello.window_connection, flags];
                put(out, kind::HELLO, 0, &fields.map(u32::to_be_bytes).concat());
            }
            Self::Open(stream, open) => {
                let Open { kind, port } = open.expect("nobody writes what it does not know");
                let [high, low] = port.to_be_bytes();
                put(out, kind::OPEN, *stream, &[kind as u8, high, low]);
            }
            Self::Accept(stream) => put(out, kind::ACCEPT, *stream, &[]),
            Self::End(stream) => put(out, kind::END, *stream, &[]),
            Self::Reset(stream, farewell) => put(out, kind::RESET, *stream, &farewell.encode()),
            Self::Window(stream, bytes) => put(out, kind::WINDOW, *stream, &bytes.to_be_bytes()),
            Self::Ping(token) => put(out, kind::PING, 0, &token.to_be_bytes()),
            Self::Pong(token) => put(out, kind::PONG, 0, &token.to_be_bytes()),
            Self::GoAway(last, farewell) => {
                put(out, kind::GOAWAY, 0, &[&last.to_be_bytes()[..], &farewell.encode()].concat());
            }
        }
    }

    /// Reads the payload of a frame other than DATA; `None` is one that is passed over. What follows the fields that we
    /// know belongs to a later version.
    pub(super) fn decode(kind: u8, stream: StreamId, payload: &[u8]) -> Result<Option<Self>, FrameError> {
        let of_connection = matches!(kind, kind::HELLO | kind::PING | kind::PONG | kind::GOAWAY);
        let of_stream = matches!(kind, kind::OPEN | kind::ACCEPT | kind::END | kind::RESET);
        if (of_connection && stream != 0) || (of_stream && stream == 0) {
            return Err(FrameError::Stream { kind, stream });
        }
        let short = FrameError::Length { kind, length: payload.len() };
        let frame = match kind {
            kind::HELLO => Self::Hello(hello(payload).ok_or(short)??),
            kind::OPEN => Self::Open(stream, open(payload).ok_or(short)??),
            kind::ACCEPT => Self::Accept(stream),
            kind::END => Self::End(stream),
            kind::RESET => Self::Reset(stream, Farewell::decode(payload).ok_or(short)?),
            kind::WINDOW => Self::Window(stream, window(word(payload, 0).ok_or(short)?)?),
            kind::PING => Self::Ping(token(payload).ok_or(short)?),
            kind::PONG => Self::Pong(token(payload).ok_or(short)?),
            kind::GOAWAY => {
                let farewell = payload.get(4..).and_then(Farewell::decode).ok_or(short)?;
                Self::GoAway(word(payload, 0).ok_or(short)?, farewell)
            }
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// The header of a payload of so many bytes.
pub(super) fn header(kind: u8, stream: StreamId, length: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).expect("no payload is longer than a frame");
    let ([_, a, b, c], [d, e, f, g]) = (length.to_be_bytes(), stream.to_be_bytes());
    [a, b, c, kind, d, e, f, g]
}

fn put(out: &mut Vec<u8>, kind: u8, stream: StreamId, payload: &[u8]) {
    out.extend(header(kind, stream, payload.len()));
    out.extend(payload);
}

fn word(payload: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*payload.get(at..)?.first_chunk()?))
}

fn token(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*payload.first_chunk()?))
}

fn hello(payload: &[u8]) -> Option<Result<Hello, FrameError>> {
    let (streams, stream, connection) = (word(payload, 0)?, word(payload, 4)?, word(payload, 8)?);
    // Who says nothing of flags has none.
    let http2 = word(payload, 12).unwrap_or(0) & TAKES_HTTP2 != 0;
    let read = || {
        let (window_stream, window_connection) = (window(stream)?, window(connection)?);
        Ok(Hello { streams, window_stream, window_connection, http2 })
    };
    Some(read())
}

fn window(bytes: u32) -> Result<u32, FrameError> {
    if (1..=WINDOW_BYTES_MAX).contains(&bytes) { Ok(bytes) } else { Err(FrameError::Window(bytes)) }
}

fn open(payload: &[u8]) -> Option<Result<Option<Open>, FrameError>> {
    let [kind, high, low, extensions @ ..] = payload else { return None };
    let port = u16::from_be_bytes([*high, *low]);
    let kind = match kind {
        1 => Some(Kind::Tcp),
        2 => Some(Kind::Http1),
        _ => None,
    };
    Some(match preamble::check_extensions(extensions) {
        _ if port == 0 => Err(FrameError::Open(PreambleError::Port)),
        Err(PreambleError::Critical(_)) => Ok(None),
        Err(error) => Err(FrameError::Open(error)),
        Ok(()) => Ok(kind.map(|kind| Open { kind, port })),
    })
}
