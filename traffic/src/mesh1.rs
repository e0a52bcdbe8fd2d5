//! Pure. `mesh/1`: many streams on one connection between two proxies, inside TLS. The specification is docs/mesh1.md;
//! what is written here is what it says.
//!
//! A [`Connection`] is one side of it, as a state machine: bytes that came, what the application wrote and read, and the
//! time go in; bytes to send and [`Event`]s come out. It holds a bounded amount of memory, whatever the other side does.
//! How streams are waited for and when bytes are sent is its owner's matter.

mod by_number;
mod connection;
mod decoder;
mod fault;
mod frame;
mod stream;

pub use by_number::ByNumber;
pub use connection::{Connection, Event, Patience, Read, Side, Unopened};
pub use decoder::{Decoder, Piece};
pub use fault::{Broken, Code, Fault};
pub use frame::{Farewell, Frame, FrameError, Hello, Kind, Open, StreamId};

/// The name in the TLS handshake (ALPN).
pub const ALPN: &[u8] = b"mesh/1";
/// The longest payload of a frame, in bytes: what a reader may have to pass over before the next frame.
pub const FRAME_BYTES_MAX: usize = 64 * 1_024;
/// The longest payload of a frame other than DATA, in bytes: it is held until it is whole.
pub const CONTROL_FRAME_BYTES_MAX: usize = 1_024;
/// The longest reason in a RESET or GOAWAY, in bytes: a sentence for the other side's log.
pub const REASON_BYTES_MAX: usize = 128;
/// Streams at once on one connection. Idle TCP streams are cheap; four connections carry those of 16,384 clients.
pub const STREAMS_MAX: u32 = 4_096;
/// What a stream may send before any of it is read, in bytes. It doubles, up to [`WINDOW_STREAM_BYTES_MAX`], for streams
/// that are read quickly, so that those which are not read take little of the connection's window.
pub const WINDOW_STREAM_BYTES: u32 = 64 * 1_024;
/// What a stream that is read quickly may have on the way, in bytes: one body fills a link of 1 Gbit/s and 8 ms.
pub const WINDOW_STREAM_BYTES_MAX: u32 = 1_024 * 1_024;
/// What all streams of a connection may send before it is read, in bytes: held at most for each connection.
pub const WINDOW_CONNECTION_BYTES: u32 = 8 * 1_024 * 1_024;
/// The largest window that may be given, in bytes: sums of windows stay far from overflow.
pub const WINDOW_BYTES_MAX: u32 = 1 << 30;
/// What a stream sends before the next one's turn, in bytes: it fills one TLS record with its header.
pub const QUANTUM_BYTES: usize = 16 * 1_024 - frame::HEADER_BYTES;
/// What a stream holds of what is to be sent, in bytes: four turns, as much as is written at once.
pub const QUEUE_BYTES_MAX: usize = 4 * QUANTUM_BYTES;
/// A piece from here on is sent from where it lies, in bytes. It may keep a buffer of four times its length (what is read of
/// a body at once), so that what is queued keeps no more than four times [`QUEUES_BYTES_MAX`].
pub const GIVEN_BYTES_LEAST: usize = 16 * 1_024;
/// What all streams of a connection hold of what is to be sent, in bytes; beyond it each may hold
/// [`QUEUE_BYTES_LEAST`] only, so that streams which are stuck do not stop the others.
pub const QUEUES_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// What a stream may hold in any case, in bytes.
pub const QUEUE_BYTES_LEAST: usize = 1_024;
/// Frames other than DATA that wait to be sent, in bytes: who does not read the answers to its own frames is cut off.
pub const CONTROL_BYTES_MAX: usize = 1_024 * 1_024;

/// Streams that their opener resets before they are answered, without one that is answered between them: each makes
/// us dial an application for nothing. As many as may be open, so that a caller that gives up on all is not cut off.
pub const RESETS_UNANSWERED_MAX: u32 = STREAMS_MAX;

const _: () =
    assert!(CONTROL_BYTES_MAX > STREAMS_MAX as usize * (REASON_BYTES_MAX + 2 * frame::HEADER_BYTES));

#[cfg(test)]
mod tests;
