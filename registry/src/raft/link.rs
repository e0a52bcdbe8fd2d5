//! Connections to peers: one for requests, shared by all who ask, and a fresh one for each snapshot. Requests carry
//! numbers, so that many are under way at once; urgent ones (votes, signs of life) overtake appends.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    Dial, Stream,
    floor::{Floors, Start},
    frame::{self, Hello, Identity, Numbered, PROTOCOL, Proposed, Purpose, Request, Response, Verdict},
    machine::View,
    quorum::Answered,
};
use crate::{
    command::{Command, MemberId, Refusal},
    state::Member,
};

mod pending;

use pending::{Forget, Pending};

/// Requests that may wait for one connection to take them; more is a peer that does not read.
const OUTGOING_MAX: usize = 256;
/// Commands of this member under way at one leader; further ones wait here. The leader takes 1,024 requests of a peer at
/// once, and signs of life must not stand behind commands for which it has no place.
const FORWARDED_MAX: usize = 896;
/// How long a command waits for such a place: a leader that takes longer has more to do than it can.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// Opening a connection and the handshake: a peer in the same region needs a few milliseconds.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member needs to talk to others.
pub(super) struct Peers {
    pub(super) cluster: Uuid,
    pub(super) identity: Identity,
    pub(super) view: Arc<View>,
    /// Why the others refuse this member, once they do.
    pub(super) banned: watch::Sender<Option<String>>,
    /// Which start of the others counts, and what it must have on disk.
    floors: Mutex<Floors>,
    /// What of this member's appends, as the leader, the others have answered.
    pub(super) answered: Answered,
    dial: Arc<dyn Dial>,
    links: Mutex<HashMap<MemberId, Arc<Slot>>>,
    forwarded: Semaphore,
    /// Where the member runs: connections live there, whoever first had use for one.
    runtime: Handle,
}

/// One peer's connection, or the making of it.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<Arc<Link>>>);

/// One connection for requests.
struct Link {
    /// At which start of the peer.
    nonce: Uuid,
    urgent: mpsc::Sender<Numbered<Request>>,
    bulk: mpsc::Sender<Numbered<Request>>,
    pending: Arc<Pending>,
    next: AtomicU64,
    closed: CancellationToken,
    _close: DropGuard,
}

/// A request on its way.
pub(super) struct Answer {
    /// To which start of the peer.
    pub(super) nonce: Uuid,
    wait: oneshot::Receiver<Response>,
    closed: CancellationToken,
    _forget: Forget,
}

/// A request without a response.
#[derive(Debug)]
pub(super) enum CallError {
    /// It never left.
    NotSent(io::Error),
    /// It may have arrived.
    Lost,
}

/// Both halves of a connection after its handshake.
pub(super) struct Greeted {
    /// Who is at the other end, at which start of its.
    pub(super) peer: Identity,
    pub(super) reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
    pub(super) purpose: Purpose,
}

impl Peers {
    /// On the runtime that is to carry its connections.
    pub(super) fn new(cluster: Uuid, identity: Identity, view: Arc<View>, dial: Arc<dyn Dial>) -> Self {
        let (banned, floors, links) = (watch::Sender::new(None), Mutex::default(), Mutex::default());
        let answered = Answered::default();
        let (forwarded, runtime) = (Semaphore::new(FORWARDED_MAX), Handle::current());
        Self { cluster, identity, view, banned, floors, answered, dial, links, forwarded, runtime }
    }

    /// Hands a command to the member that leads, when there is a place for it there.
    pub(super) async fn forward(
        &self,
        leader: MemberId,
        address: &str,
        command: Command,
        within: Duration,
    ) -> Result<Response, CallError> {
        let place = timeout(PLACE_TIMEOUT, self.forwarded.acquire()).await;
        let Ok(Ok(_place)) = place else { return Ok(Response::Proposed(Proposed::Busy)) };
        self.call(leader, address, Request::Propose(command), within).await
    }

    /// A member acknowledged so much; `false` if that start of it does not count any more.
    pub(super) fn acknowledged(&self, id: MemberId, nonce: Uuid, now: Start) -> bool {
        self.floors.lock().acknowledged(id, nonce, now)
    }

    /// Whether this start of a member is the one that counts.
    pub(super) fn counts(&self, id: MemberId, nonce: Uuid) -> bool {
        self.floors.lock().counts(id, nonce)
    }

    /// Sends a request and waits for its response.
    pub(super) async fn call(
        &self,
        member: MemberId,
        address: &str,
        request: Request,
        within: Duration,
    ) -> Result<Response, CallError> {
        let answer = self.send(member, address, request, within).await?;
        let nonce = answer.nonce;
        let response = answer.wait(within).await?;
        // A vote of a start that was overtaken meanwhile is nobody's vote.
        if self.counts(member, nonce) { Ok(response) } else { Err(CallError::Lost) }
    }

    /// Puts a request on its way; those of one kind leave in the order of these calls.
    pub(super) async fn send(
        &self,
        member: MemberId,
        address: &str,
        request: Request,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let sent = async {
            let link = self.link(member, address).await.map_err(CallError::NotSent)?;
            link.send(request).await
        };
        timeout(within, sent)
            .await
            .unwrap_or_else(|_| Err(CallError::NotSent(io::ErrorKind::TimedOut.into())))
    }

    /// The connection for requests; opened if there is none.
    async fn link(&self, member: MemberId, address: &str) -> io::Result<Arc<Link>> {
        let slot = self.links.lock().entry(member).or_default().clone();
        let mut link = slot.0.lock().await;
        let usable = |link: &&Arc<Link>| !link.closed.is_cancelled() && self.counts(member, link.nonce);
        if let Some(open) = link.as_ref().filter(usable) {
            return Ok(open.clone());
        }
        let connect = self.connect(member, address, Purpose::Requests);
        let open = on(&self.runtime, async { connect.await.map(Link::start) }).await?;
        let open = Arc::new(open);
        *link = Some(open.clone());
        Ok(open)
    }

    /// Opens a connection and greets.
    pub(super) async fn connect(
        &self,
        member: MemberId,
        address: &str,
        purpose: Purpose,
    ) -> io::Result<Greeted> {
        if let Some(reason) = self.banned.borrow().clone() {
            return Err(io::Error::other(reason));
        }
        timeout(CONNECT_TIMEOUT, self.greet(member, address, purpose))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn greet(&self, member: MemberId, address: &str, purpose: Purpose) -> io::Result<Greeted> {
        let stream = self.dial.dial(member, address).await?;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let hello = Hello { protocol: PROTOCOL, cluster: self.cluster, identity: self.identity, purpose };
        frame::write(&mut writer, &hello).await?;
        let peer = self.accepted(frame::expect(&mut reader).await?)?;
        let verdict = self.judge(member, &peer);
        frame::write(&mut writer, &verdict).await?;
        match verdict {
            Verdict::Welcome(_) => Ok(Greeted { peer, reader, writer, purpose }),
            Verdict::Banned(reason) | Verdict::Refused(reason) => Err(io::Error::other(reason)),
        }
    }

    /// The other side of [`Peers::connect`].
    pub(super) async fn answer(&self, stream: Box<dyn Stream>, member: MemberId) -> io::Result<Greeted> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let hello: Hello = frame::expect(&mut reader).await?;
        let verdict = self.judge_hello(member, &hello);
        frame::write(&mut writer, &verdict).await?;
        match verdict {
            Verdict::Banned(reason) | Verdict::Refused(reason) => return Err(io::Error::other(reason)),
            Verdict::Welcome(_) => {}
        }
        let peer = self.accepted(frame::expect(&mut reader).await?)?;
        Ok(Greeted { peer, reader, writer, purpose: hello.purpose })
    }

    fn judge_hello(&self, member: MemberId, hello: &Hello) -> Verdict {
        if let Some(reason) = self.banned.borrow().clone() {
            return Verdict::Refused(reason);
        }
        if hello.protocol != PROTOCOL {
            return Verdict::Refused(format!(
                "member {} speaks protocol {PROTOCOL}, not {}",
                self.identity.id, hello.protocol
            ));
        }
        if hello.cluster != self.cluster {
            return Verdict::Refused(format!(
                "member {} is of cluster {}, not of {}",
                self.identity.id, self.cluster, hello.cluster
            ));
        }
        self.judge(member, &hello.identity)
    }

    /// Whether a peer is the member that it should be, started from the data folder that the cluster knows.
    fn judge(&self, member: MemberId, peer: &Identity) -> Verdict {
        if peer.id != member {
            return Verdict::Refused(format!("expected member {member}, met {}", peer.id));
        }
        let state = self.view.state();
        let started = Member {
            id: peer.id,
            addresses: crate::command::Addresses::default(),
            incarnation: peer.incarnation,
            boot: peer.boot,
            nonce: peer.nonce,
            command_version: peer.commands,
            program: None,
        };
        let refusal = match state.member(member) {
            Some(known) => started.check_against(known).err(),
            // Its admission is not applied here yet, or it was forgotten.
            None => state.id_was_given(member).then_some(Refusal::UnknownMember { id: member }),
        };
        if let Some(refusal) = refusal {
            return Verdict::Banned(refusal.to_string());
        }
        let used = state.version_used();
        if peer.commands < used {
            return Verdict::Banned(format!(
                "the log holds commands of version {used}, and this program understands them up to version {}: \
                 start this member with the newer meshd again",
                peer.commands
            ));
        }
        match self.floors.lock().meet(peer.id, peer.nonce, peer.start) {
            Ok(()) => Verdict::Welcome(self.identity),
            Err(lost) => Verdict::Banned(lost.to_string()),
        }
    }

    /// Whether this member is still the one that the cluster knows: its record tells of another start of its folder when
    /// a copy of that was started too.
    pub(super) fn overtaken(&self) -> Option<Refusal> {
        let state = self.view.state();
        let known = state.member(self.identity.id)?;
        let Identity { id, boot, nonce, .. } = self.identity;
        let another = known.boot >= boot && known.nonce != nonce && known.nonce != Uuid::nil();
        another.then_some(Refusal::StaleMember { id, boot, known: known.boot })
    }

    fn accepted(&self, verdict: Verdict) -> io::Result<Identity> {
        match verdict {
            Verdict::Welcome(peer) => Ok(peer),
            Verdict::Refused(reason) => Err(io::Error::other(reason)),
            Verdict::Banned(reason) => {
                self.ban(&reason);
                Err(io::Error::other(reason))
            }
        }
    }

    /// The others refuse this member: it must not vote or acknowledge anything from now on.
    pub(super) fn ban(&self, reason: &str) {
        tracing::error!(member = self.identity.id, reason, "the cluster refuses this member");
        self.banned.send_if_modified(|banned| {
            let first = banned.is_none();
            banned.get_or_insert_with(|| reason.to_owned());
            first
        });
    }
}

/// Polls a future within a runtime: its sockets, timers and tasks belong there, not to whoever waits for it.
async fn on<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

impl Link {
    fn start(greeted: Greeted) -> Self {
        let (urgent, urgent_rx) = mpsc::channel(OUTGOING_MAX);
        let (bulk, bulk_rx) = mpsc::channel(OUTGOING_MAX);
        let (pending, closed) = (Arc::new(Pending::default()), CancellationToken::new());
        let Greeted { peer, reader, writer, .. } = greeted;
        let (reading, writing) = (closed.clone(), closed.clone());
        let waiting = pending.clone();
        tokio::spawn(async move {
            let ended = reading.run_until_cancelled(receive(reader, &waiting)).await;
            tracing::debug!(?ended, "a connection to a peer ended");
            reading.cancel();
            waiting.clear();
        });
        tokio::spawn(async move {
            let _ = writing.run_until_cancelled(send(writer, urgent_rx, bulk_rx)).await;
            writing.cancel();
        });
        let (nonce, next, _close) = (peer.nonce, AtomicU64::new(0), closed.clone().drop_guard());
        Self { nonce, urgent, bulk, pending, next, _close, closed }
    }

    /// Puts a request on its way; those of one kind leave in the order of these calls. The answer is waited for apart.
    async fn send(&self, request: Request) -> Result<Answer, CallError> {
        let (answer, wait) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let forget = self.pending.enter(id, answer)?;
        let queue = if request.urgent() { &self.urgent } else { &self.bulk };
        let closed = || CallError::NotSent(io::ErrorKind::ConnectionReset.into());
        queue.send(Numbered { id, body: request }).await.map_err(|_| closed())?;
        Ok(Answer { nonce: self.nonce, wait, closed: self.closed.clone(), _forget: forget })
    }
}

impl Answer {
    /// Waits for the answer.
    pub(super) async fn wait(self, within: Duration) -> Result<Response, CallError> {
        let exchange = async {
            tokio::select! {
                answer = self.wait => answer.map_err(|_| CallError::Lost),
                () = self.closed.cancelled() => Err(CallError::Lost),
            }
        };
        timeout(within, exchange).await.unwrap_or(Err(CallError::Lost))
    }
}

async fn receive(mut reader: BufReader<ReadHalf<Box<dyn Stream>>>, pending: &Pending) -> io::Result<()> {
    while let Some(Numbered { id, body }) = frame::read::<Numbered<Response>>(&mut reader).await? {
        if let Some(waiting) = pending.take(id) {
            let _ = waiting.send(body);
        }
    }
    Ok(())
}

/// Writes what waits, urgent first, and flushes when nothing waits.
async fn send(
    writer: WriteHalf<Box<dyn Stream>>,
    mut urgent: mpsc::Receiver<Numbered<Request>>,
    mut bulk: mpsc::Receiver<Numbered<Request>>,
) -> io::Result<()> {
    let mut writer = tokio::io::BufWriter::new(writer);
    loop {
        let next = match urgent.try_recv().or_else(|_| bulk.try_recv()) {
            Ok(next) => Some(next),
            Err(_) => {
                writer.flush().await?;
                tokio::select! {
                    biased;
                    next = urgent.recv() => next,
                    next = bulk.recv() => next,
                }
            }
        };
        let Some(next) = next else { return Ok(()) };
        writer.write_all(&frame::encode(&next)?).await?;
    }
}
