//! How a request is tried, and tried again: another endpoint while none has seen it, else as the route and its budget
//! say. Which endpoint, and whether again, is decided in `traffic`.

use std::{
    borrow::Cow,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Response, request};
use model::name::ServiceName;
use tokio::time::{sleep, timeout};
use traffic::{
    admission::{Admitted, Bounded},
    balancer::Ask,
    endpoint::{Endpoint, EndpointKey, Health, outlier::Heard},
    retry::{self, Failure, Reason},
    route::{OnAnswer, Timeouts},
    snapshot::Backend,
};

use super::{Outbound, failed, step::Step};
use crate::{
    body::{self, Incoming, Kept},
    call::Call,
    clock,
    experience::{Hearing, OnItsWay},
    heads, idle,
    refused::Refused,
    transport::{SendError, life::Life},
};

/// Endpoints that a call is sent on to, one after the other, while none has seen it. It costs them nothing, and a call
/// must not fail while one endpoint is up; but it must not visit a thousand dead ones either.
pub const FAILOVERS_MAX: usize = 8;

/// A request that is ready to go.
pub(super) struct Plan<'a> {
    pub(super) source: ServiceName,
    pub(super) backend: &'a Arc<Backend>,
    /// When the request's head came.
    pub(super) began: Instant,
    pub(super) retry: &'a retry::Settings,
    pub(super) timeouts: Timeouts,
    pub(super) head: request::Parts,
    pub(super) upgrade: bool,
    pub(super) upload: Option<Kept>,
    pub(super) on_answer: OnAnswer,
    /// What it carries that bears on where it goes.
    pub(super) ask: Ask,
    /// Whether it is a call of gRPC.
    pub(super) grpc: bool,
    /// How long the application of such a call is told to take.
    pub(super) grpc_timeout: Option<Duration>,
}

/// An answer's head, and what its body needs.
pub(super) struct Answered {
    pub(super) answer: Response<Incoming>,
    /// The time that is left for the body.
    pub(super) left: Option<Duration>,
    /// Of a connection that left HTTP.
    pub(super) life: Option<Life>,
    /// What the route does to its fields.
    pub(super) on_answer: OnAnswer,
    /// The cookie by which the caller comes to the same endpoint again.
    pub(super) cookie: Option<String>,
}

/// A try that brought nothing that may be passed on without asking.
enum Missed {
    /// No answer.
    Unanswered(SendError),
    /// Not in time.
    Late,
    /// An answer that is to be tried again, as what failure, and after which wait.
    Answer(Box<(Response<Incoming>, Held)>, Failure, Option<Duration>),
}

struct Held {
    life: Option<Life>,
    /// What the endpoint says of the call comes at the answer's end.
    unheard: bool,
}

impl Outbound {
    /// Tries until there is an answer to pass on, or no reason to go on.
    pub(super) async fn answered(
        &self,
        plan: Box<Plan<'_>>,
        admitted: Admitted,
        call: &mut Call,
    ) -> Result<Answered, Refused> {
        let idle = plan.idle_for(call.idle);
        let (answer, held, on_its_way) = {
            // Pinned where it is: what is handed to `select!` or `timeout` is moved there, all of it.
            let mut tries = pin!(self.tries(&plan, &admitted, call));
            tokio::select! {
                answered = tries.as_mut() => answered?,
                () = plan.time_over() => return Err(Refused::Late),
                span = idle => return Err(Refused::Idle(span)),
            }
        };
        if let Some(upload) = &plan.upload {
            upload.settle();
        }
        let (cookie, left) = (plan.ask.to_keep(&plan.backend.conduct.balancer, on_its_way.id()), plan.left());
        if held.unheard {
            call.hears(Hearing::new(&self.experience, plan.backend, on_its_way));
            call.hold(admitted);
        } else {
            call.hold((admitted, on_its_way));
        }
        Ok(Answered { answer, left, life: held.life, on_answer: plan.on_answer, cookie })
    }

    async fn tries(
        &self,
        plan: &Plan<'_>,
        admitted: &Admitted,
        call: &mut Call,
    ) -> Result<(Response<Incoming>, Held, OnItsWay), Refused> {
        let (mut tried, mut retries, mut failovers) = (Vec::new(), 0, 0);
        // Held while a retry is under way, to its answer's head.
        let mut _retrying = None;
        loop {
            let picked = self.experience.pick(plan.backend, &plan.ask, &tried);
            let nobody = || Refused::NoEndpoint(plan.backend.name.to_string());
            let (endpoint, on_its_way) = picked.ok_or_else(nobody)?;
            call.outcome.note.endpoint = Some(endpoint.key.address());
            call.outcome.note.tls = plan.backend.tls(&endpoint).is_some();
            let missed = match self.one(plan, admitted, &endpoint, &on_its_way).await {
                Ok((answer, held)) => return Ok((answer, held, on_its_way)),
                Err(missed) => missed,
            };
            if let Missed::Unanswered(SendError::Full(full)) = missed {
                return Err(full.into());
            }
            tried.push(endpoint.key.clone());
            if missed.unseen() && plan.replayable() && failovers < FAILOVERS_MAX && plan.has_other(&tried) {
                failovers += 1;
            } else {
                let ask = retry::Call {
                    method: plan.head.method.as_str(),
                    retries,
                    replayable: plan.replayable() && !plan.upgrade,
                    asked: missed.asked(),
                    left: plan.left(),
                };
                _retrying = None;
                match self.experience.decide(plan.backend, plan.retry, ask, missed.failure(), admitted) {
                    Ok((wait, place)) => {
                        sleep(wait).await;
                        _retrying = Some(place);
                    }
                    Err(reason) => {
                        call.gave_up(reason);
                        return missed.give_up(reason, on_its_way);
                    }
                }
                retries += 1;
            }
            call.outcome.note.retries += 1;
        }
    }

    /// One try.
    async fn one(
        &self,
        plan: &Plan<'_>,
        admitted: &Admitted,
        endpoint: &Endpoint,
        on_its_way: &OnItsWay,
    ) -> Result<(Response<Incoming>, Held), Missed> {
        let mut sent = pin!(self.send(plan, admitted, endpoint));
        let sent = match plan.timeouts.backend_request {
            None => sent.await,
            Some(span) => timeout(span, sent.as_mut()).await.map_err(|_| {
                self.experience.heard(on_its_way, plan.backend, Heard::GatewayError);
                Missed::Late
            })?,
        };
        let (answer, mut held) = sent.map_err(|error| {
            match &error {
                SendError::Connect(_) => self.experience.missed(on_its_way),
                SendError::Broken(_) => self.experience.heard(on_its_way, plan.backend, Heard::GatewayError),
                SendError::Refused(_) | SendError::Full(_) | SendError::Caller(_) => {}
            }
            Missed::Unanswered(error)
        })?;
        if let Some(reason) = heads::unsent(answer.headers()) {
            self.experience.missed(on_its_way);
            return Err(Missed::Unanswered(SendError::Refused(reason)));
        }
        self.experience.reached(on_its_way);
        let said = heads::for_retry(&answer, plan.grpc);
        held.unheard = plan.backend.conduct.outliers.is_some() && said.is_open(plan.grpc);
        if !held.unheard {
            self.experience.heard(on_its_way, plan.backend, Heard::of(said.status, said.grpc_status));
        }
        match plan.retry.failure(said, clock::wall) {
            Some((failure, wait)) => Err(Missed::Answer(Box::new((answer, held)), failure, wait)),
            None => Ok((answer, held)),
        }
    }

    async fn send(
        &self,
        plan: &Plan<'_>,
        admitted: &Admitted,
        endpoint: &Endpoint,
    ) -> Result<(Response<Incoming>, Held), SendError> {
        let body =
            plan.upload.as_ref().map_or(body::Request::Empty, |upload| body::Request::Try(upload.attempt()));
        let step = Step { source: &plan.source, backend: plan.backend, endpoint };
        let mut head = Cow::Borrowed(&plan.head);
        if let Some(left) = plan.left().into_iter().chain(plan.timeouts.backend_request).min() {
            heads::set_deadline(head.to_mut(), left);
        }
        if plan.upgrade {
            // Boxed: what few requests need would be a part of all others' state, and moved with it.
            let (answer, life) = Box::pin(self.step_and_leave(admitted, &step, &head)).await?;
            return Ok((answer, Held { life, unheard: false }));
        }
        let answer = self.step(admitted, &step, &head, body).await?;
        Ok((answer, Held { life: None, unheard: false }))
    }
}

impl Plan<'_> {
    /// What it counts as while it is under way.
    pub(super) fn bounded(&self) -> Bounded {
        if self.upgrade { Bounded::Connections } else { Bounded::Requests }
    }

    fn replayable(&self) -> bool {
        self.upload.as_ref().is_none_or(Kept::replayable)
    }

    fn has_other(&self, tried: &[EndpointKey]) -> bool {
        let usable = |endpoint: &Endpoint| endpoint.weight > 0 && endpoint.health != Health::Draining;
        self.backend.endpoints().iter().any(|endpoint| usable(endpoint) && !tried.contains(&endpoint.key))
    }

    /// Waits until the time of the whole request is over: the rule's runs from the request's last byte on, the
    /// caller's from its head.
    async fn time_over(&self) {
        let by_rule = async {
            let Some(span) = self.timeouts.request else { return std::future::pending().await };
            if let Some(upload) = &self.upload {
                upload.came().await;
            }
            sleep(span).await;
        };
        let by_caller = async {
            let Some(span) = self.timeouts.call else { return std::future::pending().await };
            sleep(self.of_call(span)).await;
        };
        tokio::select! {
            () = by_rule => {}
            () = by_caller => {}
        }
    }

    /// Waits until nothing of the request came for so long, while nothing of its answer did either.
    async fn idle_for(&self, span: Option<Duration>) -> Duration {
        let seen = || self.upload.as_ref().map_or(0, Kept::seen_bytes);
        idle::over(span, seen).await
    }

    /// What of that time is left for the answer's body.
    fn left(&self) -> Option<Duration> {
        let by_rule = self.timeouts.request.map(|span| {
            let passed = self.upload.as_ref().and_then(Kept::since_it_came);
            span.saturating_sub(passed.unwrap_or_default())
        });
        let by_caller = self.timeouts.call.map(|span| self.of_call(span));
        by_rule.into_iter().chain(by_caller).min()
    }

    /// What is left of a span that began with the request's head.
    fn of_call(&self, span: Duration) -> Duration {
        span.saturating_sub(clock::now().saturating_duration_since(self.began))
    }
}

impl Missed {
    fn failure(&self) -> Failure {
        match self {
            Self::Unanswered(error) => error.failure(),
            Self::Late => Failure::Timeout,
            Self::Answer(_, failure, _) => *failure,
        }
    }

    /// The wait that the answer asks for.
    fn asked(&self) -> Option<Duration> {
        match self {
            Self::Answer(_, _, wait) => *wait,
            Self::Unanswered(_) | Self::Late => None,
        }
    }

    fn unseen(&self) -> bool {
        matches!(self.failure(), Failure::Connect | Failure::Refused)
    }

    /// What the caller gets where no other try follows.
    fn give_up(
        self,
        reason: Reason,
        on_its_way: OnItsWay,
    ) -> Result<(Response<Incoming>, Held, OnItsWay), Refused> {
        match self {
            Self::Answer(answer, ..) => {
                let (answer, held) = *answer;
                Ok((answer, held, on_its_way))
            }
            Self::Late => Err(Refused::Late),
            Self::Unanswered(error) => Err(failed(error, reason)),
        }
    }
}
