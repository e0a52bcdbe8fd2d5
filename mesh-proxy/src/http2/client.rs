//! Requests, each with its answer.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{Method, Request, Response, request};
use http_body::Body as _;
use traffic::http2::{Answer, Broken, StreamId, Unopened};

use super::{Reader, Received, Shared, Writer, fields, sending::Sending};
use crate::{
    body::{self, Incoming},
    clock,
    transport::{Carrier, SendError},
};

/// A connection for many requests at once. When it is dropped the connection ends with its last stream.
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Client {
    /// Sends a request, and waits for its answer's head.
    ///
    /// # Errors
    /// If none came.
    pub async fn send(&self, request: Request<body::Request>) -> Result<Response<Incoming>, SendError> {
        let (head, body) = request.into_parts();
        let whole = body.is_end_stream();
        let id = self.open(&head, &body).await?;
        let reader = Reader { shared: self.shared.clone(), id };
        let mut sending = (!whole).then(|| Sending::new(Writer { shared: self.shared.clone(), id }, body));
        let answer = poll_fn(|cx| {
            let sent = sending.as_mut().map(|sending| sending.poll(cx));
            match sent {
                Some(Poll::Ready(Ok(()))) => sending = None,
                Some(Poll::Ready(Err(error))) => {
                    return Poll::Ready(Err(SendError::Caller(error.to_string())));
                }
                Some(Poll::Pending) | None => {}
            }
            reader.poll_head(cx).map_err(|broken| told(&broken))
        });
        let (answer, over) = answer.await?;
        if let Some(sending) = sending {
            // Both go on side by side from here: neither waits for the other.
            sending.beside();
        }
        let (head, length) = fields::answer(answer).map_err(SendError::Broken)?;
        let body = if over { Incoming::None } else { Incoming::Http2(Received::new(reader, length)) };
        Ok(Response::from_parts(head, body))
    }

    /// Opens a stream, as soon as there is room for one.
    async fn open(&self, head: &request::Parts, body: &body::Request) -> Result<StreamId, SendError> {
        let closed = || SendError::Refused("the connection was closed before".to_owned());
        match self.try_open(head, body) {
            Ok(id) => return Ok(id),
            Err(Unopened::Closed) => return Err(closed()),
            Err(Unopened::Full) => {}
        }
        loop {
            let mut room = pin!(self.shared.room.notified());
            // From here on no ring is missed.
            room.as_mut().enable();
            match self.try_open(head, body) {
                Ok(id) => {
                    if self.shared.state.lock().core.has_room() {
                        self.shared.room.notify_one();
                    }
                    return Ok(id);
                }
                Err(Unopened::Closed) => return Err(closed()),
                Err(Unopened::Full) => room.await,
            }
        }
    }

    fn try_open(&self, head: &request::Parts, body: &body::Request) -> Result<StreamId, Unopened> {
        self.shared.with(|state| {
            let (whole, bodiless) = (body.is_end_stream(), head.method == Method::HEAD);
            let opened = state.core.open(whole, bodiless, |writer| {
                fields::write(writer, head, body.size_hint().exact());
            });
            if opened.is_ok() {
                state.used = clock::now();
            }
            opened
        })
    }
}

impl Reader {
    fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<(Answer, bool), Broken>> {
        let mut state = self.shared.state.lock();
        match state.core.head(self.id) {
            Ok(Some(head)) => Poll::Ready(Ok(head)),
            Ok(None) => {
                self.wait(&mut state, cx);
                Poll::Pending
            }
            Err(broken) => Poll::Ready(Err(broken)),
        }
    }
}

/// What a broken exchange means for whoever sent the request.
fn told(broken: &Broken) -> SendError {
    match broken {
        Broken::Unseen => SendError::Refused(broken.to_string()),
        Broken::Reset(_) | Broken::Lost(_) | Broken::Malformed(_) | Broken::Ended => {
            SendError::Broken(broken.to_string())
        }
    }
}

impl Carrier for Client {
    fn load(&self) -> usize {
        self.shared.state.lock().core.streams()
    }

    fn usable(&self) -> bool {
        self.shared.state.lock().core.is_usable()
    }

    fn used(&self) -> Instant {
        self.shared.state.lock().used
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.drain();
    }
}
