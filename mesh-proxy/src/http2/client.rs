//! Requests, each with its answer.

use std::{
    future::poll_fn,
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
        let id = poll_fn(|cx| self.poll_open(cx, &head, &body)).await?;
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

    fn poll_open(
        &self,
        cx: &Context<'_>,
        head: &request::Parts,
        body: &body::Request,
    ) -> Poll<Result<StreamId, SendError>> {
        let opened = self.shared.with(|state| {
            let (whole, bodiless) = (body.is_end_stream(), head.method == Method::HEAD);
            let opened = state.core.open(whole, bodiless, |writer| {
                fields::write(writer, head, body.size_hint().exact());
            });
            match opened {
                Ok(_) => state.used = clock::now(),
                Err(Unopened::Full) => state.crowd.push(cx.waker().clone()),
                Err(Unopened::Closed) => {}
            }
            opened
        });
        match opened {
            Ok(id) => Poll::Ready(Ok(id)),
            Err(Unopened::Full) => Poll::Pending,
            Err(Unopened::Closed) => {
                Poll::Ready(Err(SendError::Refused("the connection was closed before".to_owned())))
            }
        }
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
