//! Pure. Limits that listeners and connections share. Those of one matter stand with it.

/// The largest head of a request or answer over HTTP/1.1, in bytes: larger ones are 431. Room for large cookies and
/// tokens; a connection holds at most this before it is judged.
pub const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// The same over HTTP/2, counted as RFC 9113 §6.5.2 does.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 * 1_024;
/// Calls at once on one connection of HTTP/2, from an application or another proxy.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;
/// Connections at once of one listener on one runtime thread, some 10 to 50 KiB each.
pub const CONNECTIONS_PER_LISTENER_MAX: usize = 16_384;
