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
    Broke, Io,
    beside::Beside,
    fields,
    sending::{self, Sending, Unsent},
    wire::Wire,
};
use crate::{
    body::{self, Incoming},
    heads,
    transport::{Home, Hop, SendError},
};

/// Heads that may stand before an answer (RFC 9110 §15.2): a server that sends more does not mean to answer.
const INTERIM_MAX: usize = 16;

/// A connection for one request at a time.
pub struct Line {
    pub(super) wire: Wire,
    pub(super) sending: Option<Sending<body::Request>>,
    pub(super) decoder: Decoder,
    keep_alive: bool,
    home: Option<Arc<Home>>,
}

/// What is asked, beside the body.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub(super) head: &'a request::Parts,
    /// For another proxy: the endpoint that was picked.
    pub(super) endpoint: Option<&'a str>,
    /// It came in HTTP/2, and goes in HTTP/1.1 to a proxy that makes it HTTP/2 again.
    rides: bool,
}

/// The body of an answer. When it is over its line goes home.
pub enum Answered {
    /// What is left to send of the request is sent while the answer is read; `None` when it was read.
    Alone(Option<Box<Line>>),
    /// The request goes on beside it.
    Beside(Beside),
}

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

    /// Whether it takes requests that came in HTTP/2.
    pub fn takes_http2(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.takes_http2())
    }

    /// Its answer is over, or it was not asked: it goes home, if it can be asked again, and ends otherwise.
    pub fn go_home(self: Box<Self>) {
        let fit = self.keep_alive && self.sending.is_none() && !self.wire.is_ahead();
        match self.home.clone().filter(|_| fit) {
            Some(home) => home.take_back(self),
            None => self.close(),
        }
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
        let (mut head, length) = std::future::poll_fn(|cx| self.poll_answer(cx, method)).await?;
        self.decoder = Decoder::new(length);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Response::from_parts(head, Incoming::Left(Box::new(self.wire.into_stream()))));
        }
        if question.rides {
            heads::restore_answer(&mut head);
        }
        let mut answered = if question.rides && self.sending.is_some() {
            Answered::Beside(Beside::new(self))
        } else {
            Answered::Alone(Some(self))
        };
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
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let error = match sending.poll(cx, &mut self.wire) {
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
        Self { head, endpoint: Some(hop.endpoint.name().as_str()), rides: heads::came_in_http2(head) }
    }

    /// For an application.
    pub fn to_app(head: &'a request::Parts) -> Self {
        Self { head, endpoint: None, rides: false }
    }
}

fn sending(question: Question<'_>, body: body::Request) -> Sending<body::Request> {
    let mut out = sending::begun();
    fields::write_question(&mut out, &question);
    let said = fields::said_length(&question.head.headers);
    if question.rides {
        fields::write_length(&mut out, &question.head.headers);
    }
    let coding = match question.rides {
        // Trailers may come behind what length it says.
        true if body.is_end_stream() => Length::Exactly(0),
        true => Length::Chunked,
        false => said.or(body.size_hint().exact()).map_or(Length::Chunked, Length::Exactly),
    };
    match coding {
        // Methods that mean to bring something say that it is nothing (RFC 9110 §8.6).
        Length::Exactly(0) if question.rides => {}
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
    /// Gives the line back if its answer is over.
    fn went_home(&mut self) -> bool {
        match self {
            Self::Alone(line) => {
                line.take_if(|line| line.decoder.is_over()).into_iter().for_each(Line::go_home);
                line.is_none()
            }
            Self::Beside(beside) => beside.went_home(),
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let line = match &mut *self {
            Self::Beside(beside) => return beside.poll_frame(cx),
            Self::Alone(None) => return Poll::Ready(None),
            Self::Alone(Some(line)) => line,
        };
        // The request may still be on its way; that it is not taken is not the answer's fault.
        let _ = line.poll_send(cx);
        let frame = ready!(line.wire.poll_body(&mut line.decoder, cx));
        if matches!(frame, Some(Err(_))) {
            *self = Self::Alone(None);
        } else {
            self.went_home();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(line) => line.is_none(),
            Self::Beside(beside) => beside.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(None) => SizeHint::with_exact(0),
            Self::Alone(Some(line)) => {
                line.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            // It is told in HTTP/2, whose frames say where it ends.
            Self::Beside(_) => SizeHint::default(),
        }
    }
}
