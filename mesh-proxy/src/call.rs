//! One call from its head to the end of its answer: what becomes known of it on the way, and the one moment at which it
//! is over and counted. Both spines write into it; neither counts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response, header, request};
use model::name::ServiceName;
use traffic::{admission::Bounded, policy::Denied, rate::Told, retry};

use crate::{
    body::{Answer, BodyError, Kept, Watch},
    clock,
    experience::Hearing,
    heads,
    refused::Refused,
    shared::UnderWay,
    standing::Standing,
    telemetry::{Direction, Note, Outcome, Spoken, Telemetry, trace},
};

/// A call that is under way.
pub struct Call {
    /// What is known of it.
    pub outcome: Outcome,
    telemetry: Telemetry,
    /// Its body, for its size.
    pub upload: Option<Kept>,
    /// What its caller was let in for, if it lasts.
    pub standing: Option<Standing>,
    /// What its caller is told of how often it may call.
    pub told: Option<Told>,
    /// How long it may carry nothing.
    pub idle: Option<Duration>,
    hearing: Option<Hearing>,
    held: Option<Box<dyn Send>>,
    _under_way: UnderWay,
    finished: bool,
}

impl Call {
    /// A call that has just come in. Boxed: it goes through many hands.
    pub fn new(direction: Direction, spoken: Spoken, telemetry: Telemetry, under_way: UnderWay) -> Box<Self> {
        let outcome = Outcome::of(direction, spoken);
        let (upload, standing, told, idle, held) = (None, None, None, None, None);
        Box::new(Self {
            outcome,
            telemetry,
            upload,
            standing,
            told,
            idle,
            hearing: None,
            held,
            _under_way: under_way,
            finished: false,
        })
    }

    /// Notes what the log says of a request.
    pub fn note(&mut self, head: &request::Parts, peer: SocketAddr, context: trace::Context) {
        self.outcome.note = Note {
            method: Some(head.method.clone()),
            target: head.uri.clone(),
            host: head.headers.get(header::HOST).cloned(),
            peer: Some(peer),
            request_id: context.request_id,
            traceparent: context.traceparent,
            span: context.own,
            ..Note::default()
        };
    }

    /// Notes who calls whom.
    pub fn between(&mut self, source: Option<ServiceName>, destination: Option<ServiceName>) {
        (self.outcome.source, self.outcome.destination) = (source, destination);
    }

    /// Notes that policy refuses it, under which id.
    pub fn denied(&mut self, denied: &Denied, id: String) {
        self.outcome.judged.denied = Some(denied.rule());
        self.outcome.note.refusal = id;
    }

    /// Notes why it is not carried.
    pub fn refused(&mut self, refused: &Refused) {
        self.outcome.note.reason = refused.to_string();
        self.outcome.limited = refused.limit().or(self.outcome.limited);
        match refused {
            Refused::TooOften(too_often) => self.outcome.too_often = Some(too_often.name.clone()),
            Refused::Hello(bad) => self.outcome.bad_hello = Some(bad.as_str()),
            Refused::NotBound { why, id } => {
                self.outcome.not_bound = Some(why.kind());
                self.outcome.note.refusal.clone_from(id);
            }
            _ => {}
        }
    }

    /// Notes why it is not tried again.
    pub fn gave_up(&mut self, reason: retry::Reason) {
        if reason == retry::Reason::Limit {
            self.outcome.limited = Some(Bounded::Retries);
        }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.outcome.began
    }

    /// Keeps what it takes until the call is over.
    pub fn hold(&mut self, held: impl Send + 'static) {
        debug_assert!(self.held.is_none(), "all of it at once");
        self.held = Some(Box::new(held));
    }

    /// What the endpoint says of it is heard at the end of its answer.
    pub fn hears(&mut self, hearing: Hearing) {
        self.hearing = Some(hearing);
    }

    /// The answer goes out: the call is over when its body is.
    pub fn answered(mut self: Box<Self>, response: Response<Answer>) -> Response<Answer> {
        self.outcome.code = response.status().as_u16();
        self.trailers(response.headers());
        response.map(|body| body.watched(self))
    }

    /// The answer does not come to its end: what is left of the request goes no further.
    fn cut(&self) {
        self.upload.iter().for_each(Kept::cut);
    }

    /// The call is over.
    pub fn over(&mut self, reason: Option<String>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let outcome = &mut self.outcome;
        outcome.took = clock::now().saturating_duration_since(outcome.began);
        if let Some(upload) = &self.upload {
            outcome.request_bytes = upload.seen_bytes();
        }
        if let Some(reason) = reason {
            outcome.note.reason = reason;
        }
        self.telemetry.finished(outcome);
    }
}

impl Watch for Call {
    fn data(&mut self, bytes: usize) {
        self.outcome.response_bytes += bytes as u64;
    }

    /// gRPC's status stands in the trailers, or in the head of an answer that has nothing else.
    fn trailers(&mut self, trailers: &HeaderMap) {
        let status = trailers.get(heads::GRPC_STATUS).and_then(|status| status.to_str().ok());
        self.outcome.grpc_status = status.and_then(|status| status.parse().ok()).or(self.outcome.grpc_status);
    }

    fn ended(&mut self) {
        if let Some(hearing) = self.hearing.take() {
            hearing.ended(self.outcome.grpc_status);
        }
        self.over(None);
    }

    fn broke(&mut self, error: &BodyError) {
        if let Some(hearing) = self.hearing.take() {
            hearing.broke(error);
        }
        self.cut();
        self.over(Some(format!("the answer broke off: {error}")));
    }
}

/// Whoever drops it has lost interest: the caller went away.
impl Drop for Call {
    fn drop(&mut self) {
        if !self.finished {
            self.cut();
            self.over(Some("the caller went away".to_owned()));
        }
    }
}
