//! Pure. Frames as bytes (RFC 9113 §4, §6).

use super::{Code, Fault, StreamId};

/// A frame's header, in bytes.
pub(super) const HEADER_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS: nothing follows on its stream.
pub(super) const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING: an answer.
pub(super) const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION: the section of fields is whole.
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: StreamId,
}

impl Header {
    /// `None` until it is whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, id @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Self { length, kind, flags, stream: u32::from_be_bytes(id) & 0x7fff_ffff })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let [_, length @ ..] = u32::try_from(self.length).expect("a frame has at most 24 bits").to_be_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What a payload of DATA, HEADERS or PUSH_PROMISE is without its padding and priority.
    pub(super) fn stripped(&self, payload: &[u8]) -> Result<(usize, usize), Fault> {
        let (mut start, mut end) = (0, payload.len());
        if self.has(PADDED) {
            let padding = usize::from(*payload.first().ok_or(Fault::size("a padded frame is empty"))?);
            start = 1;
            end = end.checked_sub(padding).filter(|end| *end >= start).ok_or(PADDING)?;
        }
        if self.kind == HEADERS && self.has(WITH_PRIORITY) {
            start += 5;
            if end < start {
                return Err(Fault::size("a priority is cut short"));
            }
        }
        Ok((start, end))
    }
}

const PADDING: Fault = Fault { code: Code::PROTOCOL, what: "the padding is longer than its frame" };

/// A frame with a payload of numbers.
pub(super) fn short(out: &mut Vec<u8>, kind: u8, flags: u8, stream: StreamId, payload: &[u8]) {
    Header { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// The number of four bytes that is a frame's whole payload.
pub(super) fn number(payload: &[u8]) -> Result<u32, Fault> {
    let bytes = payload.try_into().map_err(|_| Fault::size("a frame of one number has another length"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// What settings say, in order.
pub(super) fn settings(payload: &[u8]) -> Result<impl Iterator<Item = (u16, u32)>, Fault> {
    let (settings, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(Fault::size("a setting is cut short"));
    }
    Ok(settings.iter().map(|[a, b, value @ ..]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))))
}
