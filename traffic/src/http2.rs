//! Pure. HTTP/2 (RFC 9113), as a proxy speaks it with applications, and with other proxies where they do not speak `mesh/1`.
//!
//! A [`Connection`] is one side of one, as a state machine: bytes that came, what is sent and read, and the time go
//! in; bytes to send and [`Event`]s come out. It holds a bounded amount of memory, whatever the other side does. How
//! streams are waited for and when bytes are sent is its owner's matter. What fields mean is not looked at here, but for
//! what says where a message begins and ends.

mod code;
mod connection;
mod frame;
mod hpack;
mod section;
mod stream;

pub use code::{Broken, Code, Fault};
pub use connection::{Connection, Event, Patience, Side, Unopened};
pub use hpack::{Decoder, Field, Malformed, Writer};
pub use section::{Answer, Request};
pub use stream::{Piece, StreamId};

/// What one stream may send before it is read, in bytes: one large body on its own fills a link of 1 Gbit/s and 8 ms.
pub const WINDOW_STREAM_BYTES: u32 = 1_024 * 1_024;
/// What all streams of a connection may send before they are read, in bytes: held at most for each connection.
pub const WINDOW_CONNECTION_BYTES: u32 = 4 * 1_024 * 1_024;
/// The largest frame, in bytes: larger ones mean fewer of them for large bodies, and others wait longer behind one.
pub const FRAME_BYTES: u32 = 64 * 1_024;
/// The fields of a message, in bytes as RFC 9113 §6.5.2 counts them: the same as of one over HTTP/1.1.
pub const FIELDS_BYTES_MAX: usize = 64 * 1_024;
/// What the fields of a message may come to though they are not read, in bytes: who sends or packs more into it
/// does not mean to be answered, and the connection ends.
pub const UNPACKED_BYTES_MAX: usize = 4 * FIELDS_BYTES_MAX;
/// The frames that one message's fields come in: who splits them further does not mean to end.
pub const CONTINUATIONS_MAX: usize = 64;
/// Heads that may stand before an answer (RFC 9110 §15.2): a server that sends more does not mean to answer.
pub const INTERIM_MAX: u8 = 16;
/// Streams at once until the other side has said how many it takes (RFC 9113 §6.5.2 advises at least so many).
pub const STREAMS_AT_FIRST: u32 = 100;
/// Streams that their opener resets before they are answered, that are no requests, or on which it breaks the rules so that
/// they are reset, without one that is answered between them: each is work for nothing. As many as may be open here, so that a caller that gives up on all is not cut off.
pub const RESETS_UNANSWERED_MAX: u32 = 1_000;
/// What a stream sends before the next one's turn, in bytes: the largest frame that every server takes.
pub const TURN_BYTES: usize = 16 * 1_024;
/// What a stream holds of what is to be sent, in bytes: four turns, as much as is written at once.
pub const QUEUE_BYTES_MAX: usize = 4 * TURN_BYTES;
/// Frames other than DATA that wait to be sent, in bytes: beyond it nothing more is read, so that who does not read the
/// answers to its own frames waits itself.
pub const CONTROL_BYTES_MAX: usize = 64 * 1_024;

#[cfg(test)]
mod tests;
