//! Pure. HTTP/1.1 (RFC 9112) as bytes: where a head ends, what it says, how long the body behind it is, and how all that
//! is written. Whoever moves the bytes asks here, on every leg, so that proxies and applications cannot differ on where a
//! message ends. httparse reads the words; whatever another reader might understand otherwise is refused, even where
//! the RFC would let it pass:
//!
//! | in a message | becomes |
//! |---|---|
//! | a line that ends in LF alone, a CR elsewhere, NUL, a folded line, a space before the colon | refused |
//! | one empty line before a request (§2.2) | passed over; more are refused |
//! | `Content-Length` twice, even the same; signed, spaced, a list, beyond 2^63 | refused |
//! | `Transfer-Encoding` other than `chunked`, twice, in HTTP/1.0, or beside `Content-Length` | refused |
//! | `Content_Length`, `Transfer_Encoding`, which some applications take for the same | refused |
//! | no `Host` in HTTP/1.1, or two, or one that is no host | refused |
//! | a target that is no path, no `http` URI, no `*` of OPTIONS, no authority of CONNECT; one with `#` | refused |
//! | a body of CONNECT or TRACE | refused |
//! | a `Connection` with bytes that are not ASCII | refused |
//! | an `Expect` other than `100-continue` | refused |
//! | a chunk's size with a sign, a space, `0x`, more than 16 digits; a chunk that does not end where it says | refused |
//! | extensions of chunks (§7.1.1) | passed over while they are printable; never forwarded |
//! | trailers (§6.5 of RFC 9110) | kept but those that frame, route or say who called |
//!
//! A connection on which something was refused ends: what follows has no meaning.

mod body;
mod head;
mod malformed;
mod write;

pub use body::{Decoder, Next};
pub use head::{Answer, Field, Fields, HeadEnd, Request, Spare, fields, spare};
pub use malformed::Malformed;
pub use write::{LAST_CHUNK, chunk_head, content_length, field, request_line, status_line};

/// Fields of a head or of trailers: more is a mistake or an attack, and each costs a look-up. Answers of HTTP/2 come to it, too,
/// where they ride between two proxies; requests that have more take another way.
pub const FIELDS_MAX: usize = 128;
/// Extensions of all chunks of one body, in bytes: nobody uses them, and reading past them is work for nothing.
pub const EXTENSIONS_BYTES_MAX: usize = 4 * 1_024;
/// The trailers of a body, in bytes: held until they are whole. As many as a head may have: gRPC tells what went wrong in them.
pub const TRAILERS_BYTES_MAX: usize = 64 * 1_024;

/// Which version a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; none is 0.
    Exactly(u64),
    /// It says so itself.
    Chunked,
    /// Up to the end of the connection. Answers only.
    UntilClose,
}
