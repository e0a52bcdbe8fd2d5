//! THE STORY, first half: a call of a local application comes in and goes to another proxy. Read `carry` first, which
//! is one request's way, and `reach`, which is one stream's. Where a request goes: `way`; how it is tried, and tried again:
//! `tries`. Where a stream goes: `stream`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{Request, Response, request};
use model::{name::ServiceName, resource::Protocol};
use tokio::{net::TcpStream, sync::Semaphore, time::sleep};
use traffic::{admission::Bounded, headers::Leg, protocol::Detected, route::FieldsMut, snapshot::Port};

use crate::{
    body::{Answer, Incoming},
    call::Call,
    caller::Callers,
    experience::Experience,
    heads::{self, Changed},
    http1::{self, Edge, Io, Raw},
    http2,
    listener::{DETECT_TIMEOUT, FIRST_WORD_TIMEOUT, Refusals, detect},
    refused::Refused,
    server::Ends,
    shared::{Config, Shared},
    splice,
    telemetry::{Direction, Spoken, Telemetry},
    transport::{SendError, Transport, Tunnel},
};

mod arrival;
mod captured;
mod checkups;
mod entry;
mod mirror;
mod step;
mod stream;
mod tries;
mod way;

pub use captured::Stray;
pub use checkups::CHECKED_MAX;
pub use entry::Entry;
pub use mirror::MIRRORS_MAX;
pub use stream::BadHello;
pub use tries::FAILOVERS_MAX;

use arrival::Arrival;
use step::Step;
use stream::{Begins, HELLO_WAIT_MAX};
use tries::Answered;
use way::Way;

/// How long a call waits for the endpoints of a destination that nobody called before.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// One thread's listeners for local applications.
pub struct Outbound {
    shared: Arc<Shared>,
    transport: Arc<Transport>,
    experience: Arc<Experience>,
    telemetry: Telemetry,
    callers: Callers,
    mirrors: Arc<Semaphore>,
    refusals: Refusals,
}

impl Outbound {
    /// Listeners that carry calls by `transport`.
    pub fn new(
        shared: Arc<Shared>,
        transport: Arc<Transport>,
        experience: Arc<Experience>,
        telemetry: Telemetry,
    ) -> Arc<Self> {
        let (callers, refusals) = (Callers::default(), Refusals::default());
        let mirrors = Arc::new(Semaphore::new(MIRRORS_MAX));
        Arc::new(Self { shared, transport, experience, telemetry, callers, mirrors, refusals })
    }

    /// Checks endpoints where traffic policies say so: on one of a proxy's threads, until the listeners are dropped.
    pub fn check_endpoints(&self) {
        tokio::spawn(checkups::run(self.shared.clone(), Arc::downgrade(&self.transport)));
    }

    /// One request's way to another proxy.
    async fn carry(
        self: &Arc<Self>,
        arrival: &Arrival,
        call: &mut Call,
        head: request::Parts,
        body: Incoming,
    ) -> Result<Carried, Refused> {
        let entry = &*arrival.entry;
        call.between(None, entry.service().cloned());
        let source = self.source(arrival, &self.shared.config()).await?;
        let service = entry.called(&head)?;
        call.between(Some(source.clone()), Some(service.clone()));
        let config = self.subscribed(entry, &service).await?;
        let port = entry.port(&config, &service, heads::authority(&head))?;
        let (plan, copies, delay) = match self.way(call, source, (&config, port), head, body)? {
            Way::Own(answer, delay) => {
                held_up(delay).await;
                return Ok(Carried::Own(answer));
            }
            Way::On(plan, copies, delay) => (plan, copies, delay),
        };
        let admitted = self.experience.admit(plan.backend, &plan.source, plan.bounded())?;
        held_up(delay).await;
        self.mirror(copies);
        self.answered(plan, admitted, call).await.map(Carried::Answered)
    }

    /// One stream's way to another proxy.
    async fn reach(&self, source: ServiceName, port: &Port, call: &mut Call) -> Result<Tunnel, Refused> {
        let (config, routed) = (self.shared.config(), self.experience.dice(|dice| port.stream(dice)));
        let node = config.snapshot.place.as_ref().map(|place| &place.node);
        call.between(Some(source.clone()), Some(port.backend().name.service.clone()));
        call.outcome.route = routed.rule.clone();
        let backend = routed.backend.map_err(Clone::clone)?;
        call.outcome.destination = Some(backend.name.service.clone());
        call.outcome.mtls = !backend.plain;
        let admitted = self.experience.admit(backend, &source, Bounded::Connections)?;
        call.idle = backend.conduct.idle;
        let ask = backend.conduct.balancer.ask_of_stream(&source, node);
        let (mut tried, mut failed) = (Vec::new(), None);
        while tried.len() <= FAILOVERS_MAX {
            let Some((endpoint, on_its_way)) = self.experience.pick(backend, &ask, &tried) else { break };
            if tried.contains(&endpoint.key) {
                break;
            }
            call.outcome.note.endpoint = Some(endpoint.key.address());
            call.outcome.note.tls = backend.tls(&endpoint).is_some();
            let step = Step { source: &source, backend, endpoint: &endpoint };
            match self.tunnel(&admitted, &step).await {
                Ok(tunnel) => {
                    self.experience.reached(&on_its_way);
                    call.hold((admitted, on_its_way));
                    return Ok(tunnel);
                }
                Err(error) => {
                    self.experience.missed(&on_its_way);
                    call.outcome.note.retries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                    tried.push(endpoint.key.clone());
                    failed = Some(error);
                }
            }
        }
        let reason = traffic::retry::Reason::Attempts;
        Err(failed.map_or_else(
            || Refused::NoEndpoint(backend.name.to_string()),
            |failed| Refused::Failed { failed, reason },
        ))
    }

    /// A configuration that has the destination's endpoints and routes.
    async fn subscribed(&self, entry: &Entry, service: &ServiceName) -> Result<Arc<Config>, Refused> {
        let has = |config: &Config| config.has(service) && config.snapshot.destination(service).is_some();
        let config = self.shared.config();
        if has(&config) {
            return Ok(config);
        }
        if config.snapshot.revision > 0
            && config.snapshot.destination(service).is_none()
            && !entry.declares(service)
        {
            return Err(Refused::UnknownService(service.clone()));
        }
        let come = self.shared.configured(SUBSCRIBE_TIMEOUT, |config| {
            let here = has(config);
            if !here {
                self.shared.want(service);
            }
            here
        });
        come.await.ok_or_else(|| Refused::NotYet(service.clone()))
    }

    /// Takes one connection of a local application. What finds out what it is goes when that is known: thousands may wait
    /// in what comes after it.
    pub fn take(
        self: Arc<Self>,
        entry: Arc<Entry>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = ()> + Send {
        let told_apart = Box::pin(async move {
            let arrival = self.arrival(entry, &stream, address);
            self.told_apart(Arc::new(arrival), stream).await
        });
        async move {
            let rest = told_apart.await;
            if let Some(rest) = rest {
                rest.await;
            }
        }
    }

    /// What is to be done with a connection from its first bytes on.
    async fn told_apart(
        self: Arc<Self>,
        arrival: Arc<Arrival>,
        stream: TcpStream,
    ) -> Option<BoxFuture<'static, ()>> {
        let entry = &*arrival.entry;
        let protocol = match entry.service() {
            None => Protocol::Http,
            Some(service) => match self.subscribed(entry, service).await {
                Ok(config) => entry.port(&config, service, "").map_or(Protocol::Auto, Port::protocol),
                // Whoever speaks HTTP is told why.
                Err(_) => Protocol::Auto,
            },
        };
        let patience = match protocol {
            Protocol::Tcp => {
                return self.stream(&arrival, Begins::Anyhow, stream).await;
            }
            Protocol::Tls => HELLO_WAIT_MAX,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => FIRST_WORD_TIMEOUT,
            Protocol::Auto => DETECT_TIMEOUT,
        };
        let (detected, stream) = detect(stream, patience).await.ok()?;
        let begins = match (&detected, protocol) {
            (_, Protocol::Tls) => Begins::Tls(detected),
            // A listener for many services takes TLS for that of a service.
            (Detected::Tls { .. }, _) if entry.service().is_none() => Begins::Tls(detected),
            (Detected::Http1 | Detected::Http2, _) => {
                return Some(Box::pin(self.requests(arrival, stream, detected)));
            }
            _ if protocol.is_http() => return Some(Box::pin(self.requests(arrival, stream, detected))),
            _ => Begins::Anyhow,
        };
        self.stream(&arrival, begins, stream).await
    }

    /// Serves the requests of one connection.
    async fn requests<S>(self: Arc<Self>, arrival: Arc<Arrival>, stream: S, detected: Detected)
    where
        S: Io + 'static,
    {
        // A token of its own: who looks at it with each request takes no lock that other connections do.
        let (draining, idle_until) =
            (self.shared.draining.child_token(), Some(self.shared.closing.child_token()));
        let ends = Ends { draining, idle_until, life: None };
        let serve = {
            let outbound = self.clone();
            move |request| outbound.clone().serve(arrival.clone(), request)
        };
        match detected {
            Detected::Http2 => Box::pin(http2::serve(stream, ends, serve)).await,
            // Something else on a port for HTTP: it is said what is wrong with it.
            _ => http1::serve(stream, Edge::App, ends, serve).await,
        }
    }

    /// What can be done at once is: what a future is made of is moved with it.
    fn serve(
        self: Arc<Self>,
        arrival: Arc<Arrival>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Answer>> + Send {
        let caller = http1::raw(&mut request);
        let (mut head, body) = request.into_parts();
        let context = self.telemetry.begin(&mut head.headers);
        let spoken = Spoken::of(head.version, &head.headers);
        let mut call =
            Call::new(Direction::Outbound, spoken, self.telemetry.clone(), self.shared.under_way());
        call.outcome.mtls = true;
        call.note(&head, arrival.peer, context);
        async move {
            if heads::is_connect(&head) {
                return Box::pin(self.connect(&arrival, call, &head, caller)).await;
            }
            match self.carry(&arrival, &mut call, head, body).await {
                Ok(Carried::Answered(answered)) => pass_on(call, answered, caller),
                Ok(Carried::Own(answer)) => call.answered(answer),
                Err(refused) => refuse(call, &refused),
            }
        }
    }

    /// `CONNECT orders.default.mesh:5432`: a stream by way of HTTP; to a port for HTTP, requests by way of HTTP.
    async fn connect(
        self: &Arc<Self>,
        arrival: &Arrival,
        call: Box<Call>,
        head: &request::Parts,
        caller: Raw,
    ) -> Response<Answer> {
        let (mut call, entry) = (call, &*arrival.entry);
        let opened = async {
            let service = entry.called(head)?;
            let config = self.subscribed(entry, &service).await?;
            let source = self.source(arrival, &config).await?;
            let port = entry.port(&config, &service, heads::authority(head))?;
            if port.protocol().is_http() {
                call.between(Some(source.clone()), Some(service.clone()));
                let (destination, port) = (service, Some(port.number()));
                return Ok(Opened::Requests(Entry::Upstream { source, destination, port }));
            }
            self.reach(source, port, &mut call).await.map(Opened::Stream)
        };
        match opened.await {
            Err(refused) => refuse(call, &refused),
            Ok(Opened::Requests(entry)) => {
                tokio::spawn(self.clone().tunnelled(arrival.through(entry), caller));
                call.answered(Response::new(Answer::text("")))
            }
            Ok(Opened::Stream(tunnel)) => {
                let life = tunnel.life();
                (call.outcome.code, call.outcome.spoken) = (0, Spoken::Tcp);
                tokio::spawn(async move {
                    match caller.stream().await {
                        Ok(caller) => splice::join(call, caller, tunnel, life).await,
                        Err(error) => call.over(Some(error.to_string())),
                    }
                });
                Response::new(Answer::text(""))
            }
        }
    }

    /// Serves what comes in a tunnel as requests, each carried by itself. Boxed: a request may open a tunnel in turn.
    fn tunnelled(self: Arc<Self>, arrival: Arrival, caller: Raw) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A caller that is gone wants nothing any more.
            let Ok(caller) = caller.stream().await else { return };
            if let Ok((detected, stream)) = detect(caller, FIRST_WORD_TIMEOUT).await {
                self.requests(Arc::new(arrival), stream, detected).await;
            }
        })
    }
}

/// A fault on purpose.
async fn held_up(delay: Option<Duration>) {
    if let Some(delay) = delay {
        sleep(delay).await;
    }
}

/// What came of a request.
enum Carried {
    /// An answer of an application.
    Answered(Answered),
    /// An answer of its route's rule.
    Own(Response<Answer>),
}

/// What a `CONNECT` opens.
enum Opened {
    /// A stream to an application.
    Stream(Tunnel),
    /// A connection like one that came in here.
    Requests(Entry),
}

fn refuse(mut call: Box<Call>, refused: &Refused) -> Response<Answer> {
    call.refused(refused);
    match call.outcome.spoken {
        Spoken::Grpc => call.answered(refused.answer_in_grpc()),
        _ => call.answered(refused.answer()),
    }
}

fn pass_on(mut call: Box<Call>, answered: Answered, caller: Raw) -> Response<Answer> {
    let Answered { answer, left, life, on_answer, cookie } = answered;
    let (mut head, body) = answer.into_parts();
    heads::answer(&mut head, Leg::AnswerIn);
    on_answer.apply(&mut Changed(&mut head.headers));
    if let Some(cookie) = cookie {
        Changed(&mut head.headers).add("set-cookie", &cookie);
    }
    if let Incoming::Left(callee) = body {
        call.outcome.code = head.status.as_u16();
        splice::upgraded(call, caller, Raw::Left(*callee), life);
        return Response::from_parts(head, Answer::text(""));
    }
    let body = Answer::stream(body).within(left).unless_idle(call.idle, call.upload.clone()).during(life);
    call.answered(Response::from_parts(head, body))
}

/// How a try that failed is told to the caller.
fn failed(failed: SendError, reason: traffic::retry::Reason) -> Refused {
    Refused::Failed { failed, reason }
}
