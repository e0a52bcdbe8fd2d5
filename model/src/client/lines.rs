//! A stream of NDJSON: bounded lines out of arbitrary pieces.

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Response;

use super::{ClientError, cause};
use crate::watch::{Event, WATCH_LINE_BYTES_MAX, parse_line};

/// The lines of an answer, as they arrive.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    address: String,
    held: BytesMut,
}

/// The events of a watch, as they arrive.
#[derive(Debug)]
pub struct Events(Lines);

impl Lines {
    /// The lines of this answer from `address`.
    pub(super) fn new(response: Response, address: &str) -> Self {
        Self { response, address: address.to_owned(), held: BytesMut::new() }
    }

    /// The next line, without its end; `None` where the stream ends.
    ///
    /// # Errors
    /// If the stream breaks off, or a line is over [`WATCH_LINE_BYTES_MAX`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.held[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.held.split_to(searched + at).freeze();
                self.held.advance(1);
                return Ok(Some(line));
            }
            searched = self.held.len();
            if searched > WATCH_LINE_BYTES_MAX {
                return Err(ClientError::Answer(format!("a line over {WATCH_LINE_BYTES_MAX} bytes")));
            }
            let unreachable =
                |error| ClientError::Unreachable { address: self.address.clone(), cause: cause(&error) };
            match self.response.chunk().await.map_err(unreachable)? {
                Some(chunk) => self.held.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl Events {
    pub(super) fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// The next event; `None` where the stream ends.
    ///
    /// # Errors
    /// If the stream breaks off, or a line is no event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        match self.0.next().await? {
            Some(line) => parse_line(&line).map(Some).map_err(|error| ClientError::Answer(error.to_string())),
            None => Ok(None),
        }
    }
}
