//! THE STORY, second half: a call of another proxy comes in and goes to the application that it is for. Read `carry`
//! first, which is one request's way, and `reach`, which is one stream's. Callers that have no proxy: `plain`.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response, request};
use model::identity::Identity;
use rustls::ServerConfig;
use svid::Accept;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use traffic::{
    headers::Leg,
    mesh1::{Code, Kind, Open},
    path,
    policy::Permit,
    snapshot::App,
};

use crate::{
    body::{self, Answer, Incoming, Kept},
    call::Call,
    clock,
    heads::{self, Labels},
    http1::{self, Edge, Raw},
    http2,
    limits::CONNECTIONS_PER_LISTENER_MAX,
    listener::Refusals,
    refused::Refused,
    server::Ends,
    shared::{Config, Shared},
    splice,
    standing::Standing,
    telemetry::{Direction, Spoken, Telemetry},
    transport::{
        Ahead, Transport,
        life::{Life, Rule},
        mux, tcp,
        tls::Alpn,
    },
};

mod connection;
mod plain;

use connection::Connection;

/// How long a caller's TLS handshake may take: meanwhile it takes one of the listener's places.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams at once that come on shared connections, on one runtime thread: as many as there are connections at most.
const STREAMS_PER_THREAD_MAX: usize = CONNECTIONS_PER_LISTENER_MAX;

/// One thread's listener for other proxies.
pub struct Inbound {
    shared: Arc<Shared>,
    transport: Arc<Transport>,
    telemetry: Telemetry,
    tls: TlsAcceptor,
    turn: AtomicUsize,
    refusals: Refusals,
    /// For streams that share connections.
    places: Arc<Semaphore>,
}

/// The TLS of listeners for other proxies; one for all threads, so that sessions are resumed on any.
pub fn tls(shared: &Shared) -> Arc<ServerConfig> {
    let (identities, trust) = (shared.identities.clone(), shared.trust.clone());
    Arc::new(svid::server_config(identities, trust, Accept::Services, &Alpn::ALL, clock::tls()))
}

impl Inbound {
    /// A listener that carries calls by `transport`.
    pub fn new(
        shared: Arc<Shared>,
        transport: Arc<Transport>,
        telemetry: Telemetry,
        tls: Arc<ServerConfig>,
    ) -> Arc<Self> {
        let tls = TlsAcceptor::from(tls);
        Arc::new(Self {
            shared,
            transport,
            telemetry,
            tls,
            turn: AtomicUsize::new(0),
            refusals: Refusals::default(),
            places: Arc::new(Semaphore::new(STREAMS_PER_THREAD_MAX)),
        })
    }

    /// One request's way to its application.
    async fn carry(
        &self,
        connection: &Connection,
        call: &mut Call,
        head: request::Parts,
        body: Incoming,
    ) -> Result<Response<Incoming>, Refused> {
        let config = self.shared.config();
        let labels = connection.labels(&head);
        let port = labels.port.ok_or(Refused::NotFromProxy)?;
        let (own, app) = connection.called(&config, port)?;
        call.between(connection.caller.clone(), Some(own.name.clone()));
        // What the path is read from stays here when the head goes on.
        let uri = head.uri.clone();
        let path = path::normalize(heads::path_of(&uri), own.policies.strictness())?;
        let permit = connection.authorize(call, own, port, Some((&head, &path)))?;
        call.told = self.shared.rates.take(own, &permit, &head, &path)?;
        if heads::is_upgrade(&head) {
            call.standing = Some(connection.standing.for_request(port, &head, path.path_and_query()));
        }
        let http2 = heads::wants_http2(app.protocol, &head, labels.spoke_http2);
        let target = self.target(&config, connection, app, &labels);
        call.outcome.note.endpoint = Some(target);
        let next = heads::to_app(head, path.path_and_query(), &permit, http2)?;
        let mut sent = pin!(self.send(&permit, target, next, body, call));
        match labels.deadline {
            None => sent.await,
            // Whoever waited is gone, or goes now: the application need not work for it.
            Some(left) => timeout(left, sent.as_mut()).await.map_err(|_| Refused::Late)?,
        }
    }

    /// One stream's way to its application.
    async fn reach(&self, connection: &Connection, call: &mut Call, port: u16) -> Result<TcpStream, Refused> {
        let config = self.shared.config();
        let (own, app) = connection.called(&config, port)?;
        if app.protocol.is_http() {
            return Err(Refused::NoStream(own.name.to_string(), port));
        }
        call.between(connection.caller.clone(), Some(own.name.clone()));
        let permit = connection.authorize(call, own, port, None)?;
        call.standing = Some(connection.standing.for_stream(port));
        let target = self.target(&config, connection, app, &Labels::default());
        call.outcome.note.endpoint = Some(target);
        self.transport.app_stream(&permit, target).await.map_err(Refused::AppUnreached)
    }

    async fn send(
        &self,
        permit: &Permit,
        target: SocketAddr,
        head: request::Parts,
        body: Incoming,
        call: &mut Call,
    ) -> Result<Response<Incoming>, Refused> {
        if heads::is_upgrade(&head) {
            let answer = Box::pin(self.transport.app_upgrade(permit, target, &head)).await;
            return answer.map_err(unanswered);
        }
        let body = match http_body::Body::is_end_stream(&body) {
            true => body::Request::Empty,
            false => {
                let upload = Kept::new(body);
                // Whoever called can send it again; here it is only counted.
                upload.settle();
                let attempt = upload.attempt();
                call.upload = Some(upload);
                body::Request::Try(attempt)
            }
        };
        let sent = self.transport.app_request(permit, target, head, body).await;
        sent.map_err(unanswered)
    }

    /// Where the picked endpoint's application listens, or the next of those that there are.
    fn target(&self, config: &Config, connection: &Connection, app: &App, labels: &Labels) -> SocketAddr {
        if let Some(plain) = &connection.plain {
            return plain.target;
        }
        let named = labels.endpoint.as_ref().and_then(|name| config.targets.get(name.to_str().ok()?));
        if let Some(target) = named.filter(|target| app.targets.contains(target)) {
            return *target;
        }
        app.targets[self.turn.fetch_add(1, Ordering::Relaxed) % app.targets.len()]
    }

    /// Takes one connection of another proxy.
    pub async fn take(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let shaken = Box::pin(timeout(HANDSHAKE_TIMEOUT, self.handshake(stream, address))).await;
        let (stream, connection) = match shaken {
            Ok(Ok(taken)) => taken,
            Ok(Err(reason)) => return self.refusals.tell(address, &reason),
            Err(_) => return tracing::debug!(peer = %address, "a caller's handshake took too long"),
        };
        let alpn = stream.get_ref().1.alpn_protocol().and_then(Alpn::named);
        // Other proxies know that a connection may end between two calls.
        let (draining, life) = (self.shared.draining.clone(), connection.life.clone());
        let (ends, connection) = (Ends { draining, idle_until: None, life }, Arc::new(connection));
        let serve = {
            let (inbound, connection) = (self.clone(), connection.clone());
            move |request| inbound.clone().serve(connection.clone(), request)
        };
        match alpn {
            Some(Alpn::H2) => Box::pin(http2::serve(stream, ends, serve)).await,
            Some(Alpn::Http1) => Box::pin(http1::serve(stream, Edge::Proxy, ends, serve)).await,
            Some(Alpn::Tcp) => Box::pin(self.stream(&connection, stream)).await,
            Some(Alpn::Mesh) => Box::pin(self.streams(connection, stream, ends)).await,
            None => {
                let id = connection.id.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(peer = %address, id, "a caller is refused: it asks for no protocol of proxies");
            }
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(TlsStream<Ahead<TcpStream>>, Connection), String> {
        let stream = self.tls.accept(Ahead::new(stream)).await;
        let stream = stream.map_err(|error| match svid::refusal(&error) {
            Some(refused) => refused.to_string(),
            None => error.to_string(),
        })?;
        let (_, tls) = stream.get_ref();
        let (trust, chain) = (self.shared.trust.clone(), tls.peer_certificates().unwrap_or_default());
        // A resumed session skips the verifier.
        let peer = Accept::Services.recheck(Some(chain), &trust.load(), clock::unix());
        let peer = peer.map_err(|refused| refused.to_string())?.ok_or("no certificate was presented")?;
        let server_name = tls.server_name().unwrap_or_default().to_ascii_lowercase();
        let (rule, changes) = (Rule::Caller(Accept::Services), self.shared.trust_changes.clone());
        let caller = match peer.id.identity() {
            Identity::Service(caller) => Some(caller.clone()),
            _ => None,
        };
        let standing = Standing::new(&self.shared, &server_name, Some(&peer.id));
        let life = Life::new(rule, chain, peer.not_after, trust, changes).standing(standing.clone());
        let (id, life) = (Some(peer.id), Some(life));
        Ok((stream, Connection { server_name, id, caller, address, life, standing, plain: None }))
    }

    /// What can be done at once is: what a future is made of is moved with it.
    fn serve(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Answer>> + Send {
        let caller = http1::raw(&mut request);
        let (mut head, body) = request.into_parts();
        let context = self.telemetry.begin(&mut head.headers);
        let spoken = Spoken::of(head.version, &head.headers);
        let mut call = Call::new(Direction::Inbound, spoken, self.telemetry.clone(), self.shared.under_way());
        call.outcome.mtls = connection.id.is_some();
        call.note(&head, connection.address, context);
        async move {
            match self.carry(&connection, &mut call, head, body).await {
                Err(refused) => {
                    call.refused(&refused);
                    call.answered(match (&connection.plain, spoken) {
                        (None, _) => refused.answer_to_peer(spoken),
                        (Some(_), Spoken::Grpc) => refused.answer_in_grpc(),
                        (Some(_), _) => refused.answer(),
                    })
                }
                Ok(answer) => {
                    let (mut head, body) = answer.into_parts();
                    heads::answer(&mut head, Leg::AnswerOut);
                    if let Some(told) = &call.told {
                        heads::tell_rate(&mut head.headers, told);
                    }
                    if let Incoming::Left(callee) = body {
                        call.outcome.code = head.status.as_u16();
                        splice::upgraded(call, caller, Raw::Left(*callee), connection.life.clone());
                        return Response::from_parts(head, Answer::text(""));
                    }
                    call.answered(Response::from_parts(head, Answer::stream(body)))
                }
            }
        }
    }

    async fn stream(&self, connection: &Connection, mut stream: TlsStream<Ahead<TcpStream>>) {
        let mut call =
            Call::new(Direction::Inbound, Spoken::Tcp, self.telemetry.clone(), self.shared.under_way());
        (call.outcome.mtls, call.outcome.note.peer) = (true, Some(connection.address));
        let preamble = match tcp::introduced(&mut stream).await {
            Ok(preamble) => preamble,
            Err(error) => return call.over(Some(format!("no port was named: {error}"))),
        };
        match self.reach(connection, &mut call, preamble.port).await {
            Err(refused) => {
                // That the caller is gone by now says less than why it was refused.
                let _ = tcp::answer(&mut stream, Err(&refused.told())).await;
                call.over(Some(refused.to_string()));
            }
            Ok(app) => match tcp::answer(&mut stream, Ok(())).await {
                Err(error) => call.over(Some(error.to_string())),
                Ok(()) => splice::join(call, stream, app, connection.life.clone()).await,
            },
        }
    }
}

/// Many streams on one connection.
impl Inbound {
    async fn streams(
        self: Arc<Self>,
        connection: Arc<Connection>,
        stream: TlsStream<Ahead<TcpStream>>,
        ends: Ends,
    ) {
        let (address, counts) = (connection.address, self.telemetry.mux());
        let take = {
            let inbound = self.clone();
            move |stream, open| inbound.clone().opened(connection.clone(), stream, open)
        };
        if let Some(fault) = mux::serve(stream, ends, counts, take).await {
            self.refusals.tell(address, &format!("its connection is cut off: {fault}"));
        }
    }

    async fn opened(self: Arc<Self>, connection: Arc<Connection>, stream: mux::Stream, open: Open) {
        let Ok(_place) = self.places.try_acquire() else {
            return stream.refuse(Code::REFUSED, "this proxy carries as many streams as it can");
        };
        if open.kind == Kind::Http1 {
            // When to end is said by GOAWAY: a stream that ends by itself could meet the next request.
            let ends = Ends { draining: CancellationToken::new(), idle_until: None, life: None };
            let inbound = self.clone();
            let serve = move |request| inbound.clone().serve(connection.clone(), request);
            return Box::pin(http1::serve(stream, Edge::Proxy, ends, serve)).await;
        }
        // Nothing of the way in is left in what thousands may wait in.
        let carried = match Box::pin(self.way_in(&connection, open.port)).await {
            Err(refused) => return stream.refuse(Code::UNREACHED, &refused.told()),
            Ok((call, app)) => {
                stream.accept();
                splice::join(call, stream, app, None).boxed()
            }
        };
        carried.await;
    }

    /// The way of a stream to its application; the call is over where there is none.
    async fn way_in(&self, connection: &Connection, port: u16) -> Result<(Box<Call>, TcpStream), Refused> {
        let mut call =
            Call::new(Direction::Inbound, Spoken::Tcp, self.telemetry.clone(), self.shared.under_way());
        (call.outcome.mtls, call.outcome.note.peer) = (true, Some(connection.address));
        match self.reach(connection, &mut call, port).await {
            Ok(app) => Ok((call, app)),
            Err(refused) => {
                call.over(Some(refused.to_string()));
                Err(refused)
            }
        }
    }
}

fn unanswered(error: crate::transport::SendError) -> Refused {
    use crate::transport::SendError;
    match error {
        SendError::Connect(_) | SendError::Refused(_) | SendError::Full(_) => Refused::AppUnreached(error),
        SendError::Broken(_) | SendError::Caller(_) => Refused::AppBroke(error),
    }
}
