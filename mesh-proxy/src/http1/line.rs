//! Connections that are asked: one request after the other, each with its answer. A line has no task of its own: it moves
//! while somebody waits for its answer, or reads it, and is kept where it belongs between two requests.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request, response};
use http_body::{Body, Frame, SizeHint};
use traffic::{
    http1::{self, Decoder, Length},
    mesh1::Broken,
};

use super::{
    Broke, Io, fields,
    sending::{Sending, Unsent},
    wire::Wire,
};
use crate::{
    body::{self, Incoming},
    transport::{Home, Hop, SendError},
};

/// What a head and a small body take, in bytes.
const MESSAGE_BYTES: usize = 2 * 1_024;
/// Heads that may stand before an answer (RFC 9110 §15.2): a server that sends more does not mean to answer.
const INTERIM_MAX: usize = 16;

/// A connection for one request at a time.
pub struct Line {
    wire: Wire,
    sending: Option<Sending<body::Request>>,
    decoder: Decoder,
    keep_alive: bool,
    home: Option<Arc<Home>>,
}

/// What is asked, beside the body.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub(super) head: &'a request::Parts,
    /// For another proxy: the endpoint that was picked.
    pub(super) endpoint: Option<&'a str>,
}

/// The body of an answer. When it is over its line goes home.
pub struct Answered(Option<Box<Line>>);

impl Line {
    /// Nothing was asked on it yet. It ends with its answer if it has no home.
    pub fn new(io: Box<dyn Io>, home: Option<Arc<Home>>) -> Box<Self> {
        let (wire, decoder) = (Wire::new(io), Decoder::new(Length::Exactly(0)));
        Box::new(Self { wire, sending: None, decoder, keep_alive: true, home })
    }

    /// Whether it may be asked again.
    pub fn is_quiet(&mut self) -> bool {
        self.home.as_ref().is_none_or(|home| home.is_open()) && self.wire.is_quiet()
    }

    /// It is not asked again.
    pub fn close(mut self: Box<Self>) {
        self.wire.say_last();
    }

    /// Asks, and waits for the answer's head.
    ///
    /// # Errors
    /// If none came.
    pub async fn ask(
        mut self: Box<Self>,
        question: Question<'_>,
        body: body::Request,
    ) -> Result<Response<Incoming>, SendError> {
        let method = &question.head.method;
        self.sending = Some(sending(question, body));
        let (head, length) = std::future::poll_fn(|cx| self.poll_answer(cx, method)).await?;
        self.decoder = Decoder::new(length);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Response::from_parts(head, Incoming::Left(Box::new(self.wire.into_stream()))));
        }
        let mut answered = Answered(Some(self));
        let body = if answered.went_home() { Incoming::None } else { Incoming::Answered(answered) };
        Ok(Response::from_parts(head, body))
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<(response::Parts, Length), SendError>> {
        let unsent = match self.poll_send(cx) {
            Err(error @ SendError::Caller(_)) => return Poll::Ready(Err(error)),
            sent => sent,
        };
        for _ in 0..INTERIM_MAX {
            let head = match ready!(self.wire.poll_head(cx)) {
                Ok(Some(head)) => head,
                // Why nothing more could be written says more.
                Ok(None) => return Poll::Ready(Err(unsent.err().unwrap_or_else(closed))),
                Err(broke) => return Poll::Ready(Err(unsent.err().unwrap_or_else(|| told(broke)))),
            };
            let (parts, length, keep_alive) =
                fields::answer(&head, method).map_err(|malformed| told(malformed.into()))?;
            if !parts.status.is_informational() || parts.status == StatusCode::SWITCHING_PROTOCOLS {
                self.keep_alive &= keep_alive;
                return Poll::Ready(Ok((parts, length)));
            }
        }
        Poll::Ready(Err(SendError::Broken("it does not come to its answer".to_owned())))
    }

    /// Sends what is there. A side that takes no more of a request may have answered it all the same.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let error = match sending.poll(cx, &mut self.wire.io) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => None,
            Poll::Ready(Err(Unsent::Io(error))) => Some(told(error.into())),
            Poll::Ready(Err(Unsent::Body(error))) => Some(SendError::Caller(error.to_string())),
        };
        self.sending = None;
        self.keep_alive &= error.is_none();
        error.map_or(Ok(()), Err)
    }
}

impl<'a> Question<'a> {
    /// For the proxy of the endpoint that was picked.
    pub fn to_peer(head: &'a request::Parts, hop: &'a Hop) -> Self {
        Self { head, endpoint: Some(hop.endpoint.name().as_str()) }
    }

    /// For an application.
    pub fn to_app(head: &'a request::Parts) -> Self {
        Self { head, endpoint: None }
    }
}

fn sending(question: Question<'_>, body: body::Request) -> Sending<body::Request> {
    let mut out = Vec::with_capacity(MESSAGE_BYTES);
    fields::write_question(&mut out, &question);
    let said = fields::said_length(&question.head.headers);
    let coding = said.or(body.size_hint().exact()).map_or(Length::Chunked, Length::Exactly);
    match coding {
        // Methods that mean to bring something say that it is nothing (RFC 9110 §8.6).
        Length::Exactly(0) if said.is_none() && !brings(&question.head.method) => {}
        Length::Exactly(length) => http1::content_length(&mut out, length),
        _ => http1::field(&mut out, header::TRANSFER_ENCODING.as_str(), b"chunked"),
    }
    out.extend_from_slice(b"\r\n");
    Sending::new(out, Some(body), coding)
}

fn brings(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn closed() -> SendError {
    SendError::Broken("the connection was closed before an answer came".to_owned())
}

/// What a broken exchange means for whoever sent the request.
fn told(broke: Broke) -> SendError {
    if let Broke::Io(error) = &broke {
        let unseen = io::Error::get_ref(error).and_then(|inner| inner.downcast_ref::<Broken>());
        if unseen == Some(&Broken::Unseen) {
            return SendError::Refused(Broken::Unseen.to_string());
        }
    }
    SendError::Broken(broke.to_string())
}

impl Answered {
    /// Gives the line back if its answer is over; a line that cannot be asked again ends.
    fn went_home(&mut self) -> bool {
        let Some(line) = self.0.take_if(|line| line.decoder.is_over()) else { return self.0.is_none() };
        let fit = line.keep_alive && line.sending.is_none() && !line.wire.is_ahead();
        match line.home.clone().filter(|_| fit) {
            Some(home) => home.take_back(line),
            None => line.close(),
        }
        true
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some(line) = &mut self.0 else { return Poll::Ready(None) };
        // The request may still be on its way; that it is not taken is not the answer's fault.
        let _ = line.poll_send(cx);
        let frame = ready!(line.wire.poll_body(&mut line.decoder, cx));
        if matches!(frame, Some(Err(_))) {
            self.0 = None;
        } else {
            self.went_home();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.as_ref().map_or(Some(0), |line| line.decoder.left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
