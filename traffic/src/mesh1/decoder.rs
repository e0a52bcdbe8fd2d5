//! Pure. Cuts a stream of bytes into frames, however they are cut by the network. DATA is handed on as it comes, without
//! a copy; other frames are held until they are whole; those of unknown types are passed over.

use super::{
    CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX,
    frame::{Frame, FrameError, HEADER_BYTES, StreamId, kind},
};

/// Remembers what was begun.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The header that is incomplete, or the payload of a frame that is held.
    held: Vec<u8>,
    payload: Option<Payload>,
}

#[derive(Debug, Clone, Copy)]
struct Payload {
    kind: u8,
    stream: StreamId,
    left: usize,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of a stream; perhaps not all of their frame.
    Data(StreamId, &'a [u8]),
    /// A whole frame.
    Frame(Frame),
}

impl Decoder {
    /// The next piece of `bytes`, which is moved on behind it; `None` when all are taken.
    ///
    /// # Errors
    /// If they are no frame. Nothing that follows can be read then.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        loop {
            let Some(payload) = self.payload else {
                if !self.header(bytes)? {
                    return Ok(None);
                }
                continue;
            };
            if payload.left > 0 && bytes.is_empty() {
                return Ok(None);
            }
            let (part, rest) = bytes.split_at(payload.left.min(bytes.len()));
            *bytes = rest;
            let left = payload.left - part.len();
            self.payload = (left > 0).then_some(Payload { left, ..payload });
            match payload.kind {
                kind::DATA if part.is_empty() => {}
                kind::DATA => return Ok(Some(Piece::Data(payload.stream, part))),
                known if known <= kind::GOAWAY => {
                    self.held.extend_from_slice(part);
                    if left == 0 {
                        let frame = Frame::decode(known, payload.stream, &self.held);
                        self.held.clear();
                        return Ok(frame?.map(Piece::Frame));
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a header is whole.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<bool, FrameError> {
        let (part, rest) = bytes.split_at((HEADER_BYTES - self.held.len()).min(bytes.len()));
        *bytes = rest;
        self.held.extend_from_slice(part);
        let Ok(&[a, b, c, kind, d, e, f, g]) = <&[u8; HEADER_BYTES]>::try_from(&self.held[..]) else {
            return Ok(false);
        };
        self.held.clear();
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d, e, f, g]);
        if kind >= kind::CRITICAL {
            return Err(FrameError::Critical(kind));
        }
        let held = kind <= kind::GOAWAY && kind != kind::DATA;
        if length > if held { CONTROL_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX } {
            return Err(FrameError::Length { kind, length });
        }
        if kind == kind::DATA && stream == 0 {
            return Err(FrameError::Stream { kind, stream });
        }
        self.payload = Some(Payload { kind, stream, left: length });
        Ok(true)
    }
}
