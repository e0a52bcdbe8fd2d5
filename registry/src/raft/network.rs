//! openraft's network: its requests as frames to a peer, appends pipelined, snapshots on connections of their own.

use std::{future::Future, io, sync::Arc, time::Duration};

use futures_util::{Stream as Items, StreamExt, stream};
use openraft::{
    AnyError, BasicNode, OptionalSend,
    alias::{LogIdOf, SnapshotOf, VoteOf},
    error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Types,
    floor::{Place, Start},
    frame::{self, CHUNK_BYTES, Chunk, Installed, Purpose, Request, Response, SnapshotHead},
    link::{Answer, CallError, Peers},
    machine::blocking,
    snapshot::Content,
};
use crate::{clock, command::MemberId};

/// Appends on their way to one follower before the first is answered: it hides the round trip, and bounds what a slow
/// follower makes the leader hold.
const APPENDS_UNDER_WAY_MAX: usize = 8;
/// A whole snapshot must be over in this time: 512 MiB at 10 MB/s.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the way to each peer.
pub(super) struct Factory(pub(super) Arc<Peers>);

/// The way to one peer.
#[derive(Clone)]
pub(super) struct Network {
    peers: Arc<Peers>,
    target: MemberId,
    address: String,
}

/// What is remembered of an append until it is answered.
struct Append {
    term: u64,
    /// What a follower has when it took all of it.
    last: Option<LogIdOf<Types>>,
    /// Before it left.
    sent: Instant,
}

impl Append {
    /// One that is about to leave.
    fn of(rpc: &AppendEntriesRequest<Types>) -> Self {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        Self { term: rpc.vote.leader_id.term, last, sent: clock::now() }
    }
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: MemberId, node: &BasicNode) -> Network {
        Network { peers: self.0.clone(), target, address: node.addr.clone() }
    }
}

impl Network {
    async fn send(&self, request: Request, within: Duration) -> Result<Answer, CallError> {
        self.peers.send(self.target, &self.address, request, within).await
    }

    async fn call(&self, request: Request, within: Duration) -> Result<Response, RPCError<Types>> {
        answered(self.peers.call(self.target, &self.address, request, within).await)
    }

    async fn append(
        &self,
        rpc: AppendEntriesRequest<Types>,
        within: Duration,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let append = Append::of(&rpc);
        let sent = self.send(Request::Append(rpc), within).await;
        self.taken(sent, within, &append).await
    }

    /// Waits for the answer to an append. What a start of the follower says that was overtaken is not its word.
    async fn taken(
        &self,
        sent: Result<Answer, CallError>,
        within: Duration,
        append: &Append,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let nonce = sent.as_ref().map_or(Uuid::nil(), |answer| answer.nonce);
        let response = match sent {
            Ok(answer) => answer.wait(within).await,
            Err(error) => Err(error),
        };
        let response = appended(answered(response)?)?;
        let reached = match &response {
            AppendEntriesResponse::Success => append.last,
            AppendEntriesResponse::PartialSuccess(reached) => *reached,
            _ => return Ok(response),
        };
        self.confirmed(nonce, append.term, reached)?;
        self.peers.answered.note(self.target, append.term, append.sent);
        Ok(response)
    }

    /// Notes what the follower has on disk now, before anything is concluded from it.
    fn confirmed(
        &self,
        nonce: Uuid,
        term: u64,
        reached: Option<LogIdOf<Types>>,
    ) -> Result<(), RPCError<Types>> {
        let now = Start { vote: term, last: reached.map(place).unwrap_or_default() };
        match self.peers.acknowledged(self.target, nonce, now) {
            true => Ok(()),
            false => Err(network(&io::Error::other("another start of this member took its place"))),
        }
    }

    async fn voting(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(request, within).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn send_snapshot(
        &self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Content>,
    ) -> io::Result<SnapshotResponse<Types>> {
        let mut greeted = self.peers.connect(self.target, &self.address, Purpose::Snapshot).await?;
        let SnapshotOf::<Types, Content> { meta, snapshot } = snapshot;
        let snapshot = blocking(|| snapshot.read()).await?;
        let (term, last) = (vote.leader_id.term, meta.last_log_id);
        frame::write(&mut greeted.writer, &SnapshotHead { vote, meta, length: snapshot.len() as u64 })
            .await?;
        for chunk in snapshot.chunks(CHUNK_BYTES) {
            frame::write(&mut greeted.writer, &Chunk { 0: chunk.to_vec() }).await?;
        }
        match frame::expect(&mut greeted.reader).await? {
            Installed::Done(response) => {
                self.confirmed(greeted.peer.nonce, term, last).map_err(io::Error::other)?;
                Ok(response)
            }
            Installed::Failed(reason) => Err(io::Error::other(reason)),
        }
    }
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = Content;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(rpc, option.hard_ttl()).await
    }

    /// Several appends under way on one ordered connection; the answers in their order. The first that is not a whole
    /// success ends the stream.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<
        's,
        Result<
            openraft::base::BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>,
            RPCError<Types>,
        >,
    >
    where
        S: Items<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let (network, within) = (self.clone(), option.hard_ttl());
        let receiving = network.clone();
        // Sent one after the other: one that overtakes another looks to the leader like a follower that lost its log.
        let sent = input.then(move |rpc| {
            let network = network.clone();
            async move {
                let (append, previous) = (Append::of(&rpc), rpc.prev_log_id);
                (network.send(Request::Append(rpc), within).await, append, previous)
            }
        });
        let answers = sent
            .map(move |(sent, append, previous)| {
                let network = receiving.clone();
                async move {
                    let response = network.taken(sent, within, &append).await?;
                    let partial =
                        matches!(&response, AppendEntriesResponse::PartialSuccess(got) if *got != append.last);
                    Ok((response.into_stream_result(previous, append.last), partial))
                }
            })
            .buffered(APPENDS_UNDER_WAY_MAX)
            .boxed();
        let until_broken = stream::unfold(Some(answers), |answers| async move {
            let mut answers = answers?;
            let answer: Result<(StreamAppendResult<Types>, bool), RPCError<Types>> = answers.next().await?;
            let whole = matches!(&answer, Ok((Ok(_), false)));
            Some((answer.map(|(result, _)| result), whole.then_some(answers)))
        });
        Box::pin(async move { Ok(until_broken.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.voting(Request::Vote(rpc), option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.voting(Request::PreVote(rpc), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Content>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = timeout(SNAPSHOT_TIMEOUT, self.send_snapshot(vote, snapshot)) => {
                let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Request::TransferLeader(rpc), option.hard_ttl()).await? {
            Response::TransferLeader(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}

/// Where an entry stands.
pub(super) fn place(id: LogIdOf<Types>) -> Place {
    Place { term: id.leader_id.term, index: id.index }
}

fn answered(answer: Result<Response, CallError>) -> Result<Response, RPCError<Types>> {
    match answer {
        Ok(Response::Failed(reason)) => Err(network(&io::Error::other(reason))),
        Ok(response) => Ok(response),
        Err(CallError::NotSent(error)) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        Err(CallError::Lost) => Err(network(&io::Error::from(io::ErrorKind::ConnectionReset))),
    }
}

fn appended(response: Response) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
    match response {
        Response::Append(response) => Ok(response),
        _ => Err(unexpected()),
    }
}

fn network(error: &io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

fn unexpected() -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&AnyError::error("the peer answered something else")))
}
