//! Pure. Bodies, piece by piece.

use super::{EXTENSIONS_BYTES_MAX, FIELDS_MAX, Field, Length, Malformed, TRAILERS_BYTES_MAX, fields};

/// Reads one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of all extensions of chunks.
    extensions: usize,
    /// The trailers' lines.
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are to come.
    Exactly(u64),
    UntilClose,
    /// A chunk's size, and how many digits it had so far.
    Size(u64, u8),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A line of the trailers, or the empty one that ends the body; whether something stands in it.
    Trailer(bool),
    TrailerLf(bool),
    Over,
    /// It is none.
    Refused(Malformed),
}

/// What comes next of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So many bytes, from there on.
    Data {
        /// What stands before it is used up.
        at: usize,
        /// At least one.
        length: usize,
    },
    /// Nothing yet: all bytes are used up.
    More,
    /// The end; what follows from there on is no longer of the body.
    End {
        /// What stands before it is used up.
        at: usize,
    },
}

impl Decoder {
    /// For a body of this length.
    pub fn new(length: Length) -> Self {
        let state = match length {
            Length::Exactly(0) => State::Over,
            Length::Exactly(bytes) => State::Exactly(bytes),
            Length::Chunked => State::Size(0, 0),
            Length::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0, trailers: Vec::new() }
    }

    /// What comes next. What is used up, and the data that is handed out, must not be shown again.
    ///
    /// # Errors
    /// If it is no body, from then on.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, Malformed> {
        let next = self.step(bytes);
        if let Err(malformed) = next {
            self.state = State::Refused(malformed);
        }
        next
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Next, Malformed> {
        let mut at = 0;
        loop {
            match self.state {
                State::Over => return Ok(Next::End { at }),
                State::Refused(malformed) => return Err(malformed),
                _ if at == bytes.len() => return Ok(Next::More),
                State::Exactly(left) => {
                    let length = clamp(left, bytes.len() - at);
                    let left = left - length as u64;
                    self.state = if left == 0 { State::Over } else { State::Exactly(left) };
                    return Ok(Next::Data { at, length });
                }
                State::UntilClose => return Ok(Next::Data { at, length: bytes.len() - at }),
                State::Data(left) => {
                    let length = clamp(left, bytes.len() - at);
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok(Next::Data { at, length });
                }
                state => self.state = self.frame(state, bytes[at])?,
            }
            at += 1;
        }
    }

    /// One byte of what frames chunks.
    fn frame(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (State::Size(size, digits), byte) => size_digit(size, digits, byte)?,
            (State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Extension(size), b'\t' | b' '..=b'~') => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_BYTES_MAX {
                    return Err(Malformed::Extension);
                }
                State::Extension(size)
            }
            (State::Extension(_), _) => return Err(Malformed::Extension),
            (State::SizeLf(0), b'\n') => State::Trailer(false),
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::SizeLf(_), _) => return Err(Malformed::ChunkSize),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0, 0),
            (State::DataCr | State::DataLf, _) => return Err(Malformed::ChunkEnd),
            (State::Trailer(filled), byte) => {
                self.keep(byte)?;
                match byte {
                    b'\r' => State::TrailerLf(filled),
                    b'\n' => return Err(Malformed::BareLf),
                    _ => State::Trailer(true),
                }
            }
            (State::TrailerLf(filled), b'\n') => {
                self.keep(byte)?;
                if filled { State::Trailer(false) } else { self.end()? }
            }
            (State::TrailerLf(_), _) => return Err(Malformed::Trailers),
            (state, _) => state,
        })
    }

    /// Whatever it was, it ends here; but trailers that are no fields make it none.
    fn end(&self) -> Result<State, Malformed> {
        let mut room = [Field { name: "", value: b"" }; FIELDS_MAX];
        fields(&self.trailers, &mut room).map(|_| State::Over)
    }

    fn keep(&mut self, byte: u8) -> Result<(), Malformed> {
        self.trailers.push(byte);
        if self.trailers.len() >= TRAILERS_BYTES_MAX { Err(Malformed::Trailers) } else { Ok(()) }
    }

    /// Whether nothing more of it comes.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The connection ended.
    ///
    /// # Errors
    /// If that is not the body's end.
    pub fn cut(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Over => Ok(()),
            State::UntilClose => {
                self.state = State::Over;
                Ok(())
            }
            _ => Err(Malformed::CutOff),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Over => Some(0),
            State::Exactly(left) => Some(left),
            _ => None,
        }
    }

    /// The lines of the trailers with the empty line behind them, once the body is over; empty if there are none.
    pub fn take_trailers(&mut self) -> Vec<u8> {
        let lines = std::mem::take(&mut self.trailers);
        if lines == b"\r\n" { Vec::new() } else { lines }
    }
}

fn clamp(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

fn size_digit(size: u64, digits: u8, byte: u8) -> Result<State, Malformed> {
    let digit = match (byte, digits) {
        (b'\r', 1..) => return Ok(State::SizeLf(size)),
        (b';', 1..) => return Ok(State::Extension(size)),
        // A number that not every reader can count.
        (_, 16..) => return Err(Malformed::ChunkSize),
        _ => char::from(byte).to_digit(16).ok_or(Malformed::ChunkSize)?,
    };
    let size = (size << 4) | u64::from(digit);
    if i64::try_from(size).is_err() {
        return Err(Malformed::ChunkSize);
    }
    Ok(State::Size(size, digits + 1))
}
