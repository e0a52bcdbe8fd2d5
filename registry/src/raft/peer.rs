//! The serving side of a connection between members.

use std::{io, sync::Arc, task::Poll};

use futures_util::{StreamExt, stream::FuturesOrdered};
use openraft::{alias::SnapshotOf, raft::AppendEntriesRequest};
use tokio::{
    io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
    task::unconstrained,
    time::timeout,
};

use super::{
    Stream, Types,
    ask::Round,
    core::Core,
    frame::{self, Chunk, Identity, Installed, Numbered, Purpose, Request, Response, SnapshotHead},
    lead::size,
    link::{CONNECT_TIMEOUT, Greeted},
    snapshot::{Content, SNAPSHOT_BYTES_MAX},
};
use crate::command::MemberId;

/// Requests of one peer under way here; then its next ones stay on the wire.
const UNDER_WAY_MAX: usize = 1_024;
/// Appends of one peer that wait for the disk.
const APPENDS_MAX: usize = 64;
/// Responses that wait for the wire.
const OUTGOING_MAX: usize = 1_024;

/// What a leader is told by a member whose disk is full.
const NO_ROOM: &str = "the disk is full";

type Answers = mpsc::Sender<Numbered<Response>>;

/// Serves a peer until it hangs up.
pub(super) async fn serve(core: Arc<Core>, stream: Box<dyn Stream>, peer: MemberId) -> io::Result<()> {
    let greeted = timeout(CONNECT_TIMEOUT, core.peers.answer(stream, peer))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    match greeted.purpose {
        Purpose::Requests => requests(core, greeted).await,
        Purpose::Snapshot => snapshot(core, greeted).await,
    }
}

async fn requests(core: Arc<Core>, greeted: Greeted) -> io::Result<()> {
    let (answers, outgoing) = mpsc::channel(OUTGOING_MAX);
    let (appends, waiting) = mpsc::channel(APPENDS_MAX);
    tokio::select! {
        read = read(core.clone(), greeted.peer, greeted.reader, answers.clone(), appends) => read,
        () = append_in_order(core.clone(), waiting, answers) => Ok(()),
        written = write(greeted.writer, outgoing) => written,
    }
}

/// Reads requests. Appends go on in their order; all others by themselves.
async fn read(
    core: Arc<Core>,
    peer: Identity,
    mut reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    answers: Answers,
    appends: mpsc::Sender<(u64, AppendEntriesRequest<Types>)>,
) -> io::Result<()> {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    while let Some(Numbered { id, body }) = frame::read::<Numbered<Request>>(&mut reader).await? {
        if !core.peers.counts(peer.id, peer.nonce) {
            return Err(io::Error::other("another start of this member took its place"));
        }
        if let Request::Append(append) = body {
            appends.send((id, append)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            continue;
        }
        let slot = under_way.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (core, answers) = (core.clone(), answers.clone());
        core.tasks.clone().spawn(async move {
            let stop = core.stop.clone();
            if let Some(body) = stop.run_until_cancelled(carry_out(&core, body)).await {
                let _ = answers.send(Numbered { id, body }).await;
            }
            drop(slot);
        });
    }
    Ok(())
}

/// Several appends at a time are handed to the engine, so that one sync serves them; answered in their order.
async fn append_in_order(
    core: Arc<Core>,
    mut waiting: mpsc::Receiver<(u64, AppendEntriesRequest<Types>)>,
    answers: Answers,
) {
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some((id, response)) = under_way.next(), if !under_way.is_empty() => {
                if answers.send(Numbered { id, body: response }).await.is_err() {
                    return;
                }
            }
            Some((id, append)) = waiting.recv(), if under_way.len() < APPENDS_MAX => {
                let core = core.clone();
                let mut response = Box::pin(unconstrained(async move {
                    if !core.has_room_for(&append) {
                        return (id, Response::Failed(NO_ROOM.to_owned()));
                    }
                    match core.raft.append_entries(append).await {
                        Ok(response) => (id, Response::Append(response)),
                        Err(error) => (id, Response::Failed(error.to_string())),
                    }
                }));
                // Its first poll hands it to the engine: now, before the next one is read.
                let at_once = futures_util::poll!(&mut response);
                under_way.push_back(async move {
                    match at_once {
                        Poll::Ready(response) => response,
                        Poll::Pending => response.await,
                    }
                });
            }
            else => return,
        }
    }
}

async fn carry_out(core: &Core, request: Request) -> Response {
    let failed = |error: String| Response::Failed(error);
    // A vote that the leader itself asks for, as it hands over, breaks no lease: it has given its own up.
    if let Request::Vote(vote) | Request::PreVote(vote) = &request
        && !vote.leadership_transfer
    {
        core.promises_over().await;
    }
    match request {
        Request::Append(append) => match core.raft.append_entries(append).await {
            Ok(response) => Response::Append(response),
            Err(error) => failed(error.to_string()),
        },
        Request::Vote(vote) => match core.raft.vote(vote).await {
            Ok(response) => Response::Vote(response),
            Err(error) => failed(error.to_string()),
        },
        Request::PreVote(vote) => match core.raft.pre_vote(vote).await {
            Ok(response) => Response::Vote(response),
            Err(error) => failed(error.to_string()),
        },
        Request::TransferLeader(_) if core.disk_full().is_some() => failed(NO_ROOM.to_owned()),
        Request::TransferLeader(transfer) => match core.raft.handle_transfer_leader(transfer).await {
            Ok(response) => Response::TransferLeader(response),
            Err(error) => failed(error.to_string()),
        },
        Request::Propose(command) => {
            let bytes = size(&command);
            Response::Proposed(core.lead(command, bytes).await)
        }
        Request::ReadIndex => Response::ReadIndex(core.read_index(Round::Majority).await),
        Request::LeaseIndex => Response::ReadIndex(core.read_index(Round::Lease).await),
        Request::KeepAlive(alive) => Response::KeptAlive(core.hear(&alive).await),
    }
}

/// Writes responses, and flushes when none waits.
async fn write(
    writer: WriteHalf<Box<dyn Stream>>,
    mut outgoing: mpsc::Receiver<Numbered<Response>>,
) -> io::Result<()> {
    let mut writer = tokio::io::BufWriter::new(writer);
    while let Some(next) = outgoing.recv().await {
        writer.write_all(&frame::encode(&next)?).await?;
        while let Ok(next) = outgoing.try_recv() {
            writer.write_all(&frame::encode(&next)?).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

/// Takes a snapshot and hands it to the engine.
async fn snapshot(core: Arc<Core>, mut greeted: Greeted) -> io::Result<()> {
    let head: SnapshotHead = frame::expect(&mut greeted.reader).await?;
    let length = usize::try_from(head.length).map_err(io::Error::other)?;
    if length > SNAPSHOT_BYTES_MAX {
        let reason = format!("the snapshot has {length} bytes, at most {SNAPSHOT_BYTES_MAX}");
        return frame::write(&mut greeted.writer, &Installed::Failed(reason)).await;
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk: Chunk = frame::expect(&mut greeted.reader).await?;
        bytes.extend_from_slice(&chunk.0);
    }
    let snapshot = SnapshotOf::<Types, Content> { meta: head.meta, snapshot: Content::Bytes(bytes.into()) };
    let installed = match core.raft.install_full_snapshot(head.vote, snapshot).await {
        Ok(response) => Installed::Done(response),
        Err(error) => Installed::Failed(error.to_string()),
    };
    frame::write(&mut greeted.writer, &installed).await
}
