//! A request that goes on while its answer comes, as both streams of a call of gRPC may: neither waits for the other. The
//! answer moves when it is read; the request is sent by a task of its own.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Broke, line::Line};
use crate::transport::SendError;

/// The answer, and what sends the request.
pub struct Beside {
    both: Arc<Mutex<Both>>,
    sender: JoinHandle<()>,
    over: bool,
}

struct Both {
    /// There until answer and request are over, or one of them breaks off.
    line: Option<Box<Line>>,
    /// Nobody reads it any more: the answer came to its end.
    answered: bool,
    reader: Option<Waker>,
}

impl Beside {
    /// The answer's head has come, and the request has not been sent whole.
    pub(super) fn new(line: Box<Line>) -> Self {
        let both = Arc::new(Mutex::new(Both { line: Some(line), answered: false, reader: None }));
        let sends = both.clone();
        let sender = tokio::spawn(std::future::poll_fn(move |cx| sends.lock().poll_send(cx)));
        Self { both, sender, over: false }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Lets go of the line if the answer is over; what is left of the request is sent all the same.
    pub(super) fn went_home(&mut self) -> bool {
        let mut both = self.both.lock();
        if both.line.as_ref().is_some_and(|line| line.decoder.is_over()) {
            (self.over, both.answered) = (true, true);
            if let Some(line) = both.line.take_if(|line| line.sending.is_none()) {
                line.go_home();
            }
        }
        self.over
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = self.both.lock().poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.over = true;
            self.cut();
        } else if frame.is_ready() {
            self.went_home();
        }
        frame
    }

    /// Neither goes on.
    fn cut(&self) {
        self.sender.abort();
        drop(self.both.lock().line.take());
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.over {
            self.cut();
        }
    }
}

impl Both {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some(line) = &mut self.line else {
            let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "the request broke off");
            return Poll::Ready(Some(Err(cut.into())));
        };
        let frame = line.wire.poll_body(&mut line.decoder, cx);
        if frame.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        frame
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(line) = &mut self.line else { return Poll::Ready(()) };
        if let Err(SendError::Caller(_)) = line.poll_send(cx) {
            // Dropped, it is reset: half a request must not look like a whole one.
            self.line = None;
            self.reader.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(());
        }
        if line.sending.is_some() {
            return Poll::Pending;
        }
        if self.answered {
            self.line.take().into_iter().for_each(Line::go_home);
        }
        Poll::Ready(())
    }
}
