//! Pure. Why a message is refused.

/// Why bytes are no message, or one that could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin as a message does; with its byte.
    #[error("a message does not begin with the byte 0x{0:02x}")]
    Start(u8),
    /// LF without CR.
    #[error("a line ends without CR")]
    BareLf,
    /// The grammar of a head.
    #[error("the head has an {0}")]
    Syntax(httparse::Error),
    /// More fields than are read.
    #[error("there are more than {0} fields")]
    Fields(usize),
    /// A field's name or value.
    #[error("a field has a character that none may have")]
    Field,
    /// Neither path, nor URI, nor `*` of OPTIONS, nor authority of CONNECT.
    #[error("the target is no path and no http URI")]
    Target,
    /// None, or two, or not a host.
    #[error("there must be one Host field, and it must be a host")]
    Host,
    /// A field that applications may take for one that frames.
    #[error("a field looks like one that says where the message ends")]
    Lookalike,
    /// A `Connection` that no reader of text can read: some ignore all of it, and go on or end otherwise.
    #[error("a Connection field has a character that no option may have")]
    Connection,
    /// Not one number.
    #[error("there must be one Content-Length at most, of digits alone")]
    Length,
    /// Not `chunked` alone.
    #[error("a Transfer-Encoding other than chunked")]
    Coding,
    /// In HTTP/1.0.
    #[error("a Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// Both.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Of a method that has none.
    #[error("a body where the method has none")]
    Body,
    /// Not `100-continue`.
    #[error("an Expect other than 100-continue")]
    Expectation,
    /// A status that is none.
    #[error("the status {0} is none")]
    Status(u16),
    /// A chunk's size.
    #[error("a chunk's size is not hexadecimal digits alone")]
    ChunkSize,
    /// A chunk's extensions.
    #[error("a chunk's extensions are too long, or not printable")]
    Extension,
    /// A chunk that is longer or shorter than it says.
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    /// Trailers.
    #[error("the trailers are too long, or no fields")]
    Trailers,
    /// The connection ended first.
    #[error("the connection ended within a message")]
    CutOff,
}

impl From<httparse::Error> for Malformed {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::Fields(super::FIELDS_MAX),
            error => Self::Syntax(error),
        }
    }
}
