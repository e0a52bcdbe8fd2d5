//! Pure. The first bytes of a `mesh-tcp/1` connection, inside TLS, from the calling proxy: which port the stream is for.
//!
//! ```text
//! u8   version = 1
//! u16  length of what follows, big-endian, at most PREAMBLE_BYTES_MAX
//! u16  the service's port, not 0
//! …    extensions, each: u8 type, u16 length, value
//! ```
//!
//! A reader passes over extensions that it does not know, but for those of type 128 and above, which must be understood.
//! There is no extension yet. The service itself is named by the connection's SNI.

/// The version that we write, and the only one that we read.
pub const VERSION: u8 = 1;
/// As long as a preamble may be, after its length field, in bytes: what a peer can make us hold before it is judged.
pub const PREAMBLE_BYTES_MAX: usize = 1_024;
/// Extensions from this type on must be understood.
const CRITICAL: u8 = 128;

/// What the calling proxy says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// The service's port.
    pub port: u16,
}

/// What was read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// All of it, and how many bytes it took: the stream's own begin there.
    Whole(Preamble, usize),
    /// Read on until there are at least so many bytes.
    Need(usize),
}

/// Why bytes are no preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// A version that we do not know.
    #[error("preamble version {0} is not known; {VERSION} is")]
    Version(u8),
    /// Too short for a port, or longer than [`PREAMBLE_BYTES_MAX`].
    #[error("a preamble of {0} bytes; 2 to {PREAMBLE_BYTES_MAX} are allowed")]
    Length(usize),
    /// Port 0.
    #[error("the preamble names port 0")]
    Port,
    /// An extension that is longer than what holds it.
    #[error("an extension of the preamble is cut off")]
    Extension,
    /// An extension that must be understood, and is not.
    #[error("the preamble's extension {0} must be understood, and is not known")]
    Critical(u8),
}

impl Preamble {
    /// Its bytes.
    pub fn encode(self) -> [u8; 5] {
        let [high, low] = self.port.to_be_bytes();
        [VERSION, 0, 2, high, low]
    }

    /// Reads it from the start of `bytes`. Never asks for more than 3 + [`PREAMBLE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn decode(bytes: &[u8]) -> Result<Decoded, PreambleError> {
        match bytes.first() {
            Some(&VERSION) | None => {}
            Some(&other) => return Err(PreambleError::Version(other)),
        }
        let [_, high, low, rest @ ..] = bytes else { return Ok(Decoded::Need(3)) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(2..=PREAMBLE_BYTES_MAX).contains(&length) {
            return Err(PreambleError::Length(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(Decoded::Need(3 + length)) };
        let port = u16::from_be_bytes([body[0], body[1]]);
        check_extensions(&body[2..])?;
        if port == 0 { Err(PreambleError::Port) } else { Ok(Decoded::Whole(Self { port }, 3 + length)) }
    }
}

pub(crate) fn check_extensions(mut bytes: &[u8]) -> Result<(), PreambleError> {
    while let [kind, rest @ ..] = bytes {
        let [high, low, rest @ ..] = rest else { return Err(PreambleError::Extension) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = rest.get(length..).ok_or(PreambleError::Extension)?;
        if *kind >= CRITICAL {
            return Err(PreambleError::Critical(*kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], want: Result<Decoded, PreambleError>) {
        assert_eq!(Preamble::decode(bytes), want, "{bytes:?}");
    }

    #[test]
    fn what_is_written_is_read_with_the_stream_behind_it() {
        let bytes = [&Preamble { port: 5_432 }.encode()[..], b"hello"].concat();
        check(&bytes, Ok(Decoded::Whole(Preamble { port: 5_432 }, 5)));
        check(b"", Ok(Decoded::Need(3)));
        check(&bytes[..2], Ok(Decoded::Need(3)));
        check(&bytes[..4], Ok(Decoded::Need(5)));
    }

    #[test]
    fn extensions_are_passed_over_unless_they_must_be_understood() {
        check(&[1, 0, 7, 0, 80, 9, 0, 2, 1, 2, 99], Ok(Decoded::Whole(Preamble { port: 80 }, 10)));
        check(&[1, 0, 5, 0, 80, 200, 0, 0], Err(PreambleError::Critical(200)));
        check(&[1, 0, 5, 0, 80, 9, 0, 1], Err(PreambleError::Extension));
        check(&[1, 0, 3, 0, 80, 9], Err(PreambleError::Extension));
    }

    #[test]
    fn what_is_wrong_is_refused_before_more_is_read() {
        check(&[2], Err(PreambleError::Version(2)));
        check(&[1, 0, 1], Err(PreambleError::Length(1)));
        check(&[1, 0xff, 0xff], Err(PreambleError::Length(65_535)));
        check(&[1, 0, 2, 0, 0], Err(PreambleError::Port));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_want_too_much(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[1, 0][..], &bytes].concat();
            match Preamble::decode(&bytes) {
                Ok(Decoded::Need(need)) => prop_assert!(need > bytes.len() && need <= 3 + PREAMBLE_BYTES_MAX),
                Ok(Decoded::Whole(_, length)) => prop_assert!(length <= bytes.len()),
                Err(_) => {}
            }
        }
    }
}
