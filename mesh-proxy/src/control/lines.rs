//! A stream of NDJSON from the control plane: bounded lines out of arbitrary pieces, dead when it is silent for long.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::{proxy::STREAM_SILENCE_MAX, watch::WATCH_LINE_BYTES_MAX};
use tokio::time::{Instant, timeout_at};

use super::{ControlError, Sender};
use crate::{clock, settings::Server};

/// The lines of an answer, as they arrive.
pub struct Lines {
    body: Incoming,
    server: Server,
    held: BytesMut,
    dead_at: Instant,
    /// The connection lives as long as its handle.
    _sender: Sender,
}

impl Lines {
    pub(super) fn new(body: Incoming, server: Server, sender: Sender) -> Self {
        Self { body, server, held: BytesMut::new(), dead_at: dead_at(), _sender: sender }
    }

    /// Who sends them.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The next line, without its end; `None` where the stream ends. Whoever stops waiting for it loses nothing.
    ///
    /// # Errors
    /// If the stream breaks off or falls silent, or a line is over [`WATCH_LINE_BYTES_MAX`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ControlError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.held[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.held.split_to(searched + at).freeze();
                self.held.advance(1);
                return Ok(Some(line));
            }
            searched = self.held.len();
            if searched > WATCH_LINE_BYTES_MAX {
                return Err(self.failed(format!("a line over {WATCH_LINE_BYTES_MAX} bytes")));
            }
            let frame = timeout_at(self.dead_at, self.body.frame()).await;
            let frame = frame.map_err(|_| self.failed(format!("silent for {STREAM_SILENCE_MAX}")))?;
            self.dead_at = dead_at();
            match frame {
                Some(Ok(frame)) => self.held.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(error)) => return Err(self.failed(error.to_string())),
                None => return Ok(None),
            }
        }
    }

    fn failed(&self, cause: String) -> ControlError {
        ControlError::Unreachable { server: self.server.clone(), cause }
    }
}

fn dead_at() -> Instant {
    Instant::from_std(clock::now() + STREAM_SILENCE_MAX.duration())
}
