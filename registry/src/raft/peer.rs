//! The serving side of a connection between members.

use std::{io, sync::Arc, task::Poll, time::Duration};

use futures_util::{StreamExt, stream::FuturesOrdered};
use openraft::{
    alias::{LogIdOf, SnapshotOf},
    raft::{AppendEntriesRequest, AppendEntriesResponse},
};
use tokio::{
    io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
    task::unconstrained,
    time::{timeout, timeout_at},
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
use crate::{clock, command::MemberId};

/// Requests of one peer under way here; then its next ones stay on the wire.
const UNDER_WAY_MAX: usize = 1_024;
/// Appends of one peer that wait for the disk.
const APPENDS_MAX: usize = 64;
/// Responses that wait for the wire.
const OUTGOING_MAX: usize = 1_024;
/// A confirmation waits so long at most for another response to go with: under a stream of writes the next one is due
/// sooner, and a leader hears one message less for each.
const CONFIRMATION_PATIENCE: Duration = Duration::from_millis(5);

/// What a leader is told by a member whose disk is full.
const NO_ROOM: &str = "the disk is full";

type Answers = mpsc::Sender<Answer>;

/// A response on its way.
struct Answer {
    response: Numbered<Response>,
    /// Nobody waits for it: this member took note of what is committed, and has no more entries than before.
    confirms: bool,
}

impl Answer {
    /// `notice`: to an append that only told what is committed.
    fn new(id: u64, body: Response, notice: bool) -> Self {
        let confirms = notice && matches!(body, Response::Append(AppendEntriesResponse::Success));
        Self { response: Numbered { id, body }, confirms }
    }
}

/// What a leader has told over one connection.
#[derive(Default)]
struct Told {
    committed: Option<LogIdOf<Types>>,
}

impl Told {
    /// Whether an append only tells that more is committed. A sign of life tells nothing new, and a reader may wait for
    /// its answer.
    fn is_notice(&mut self, append: &AppendEntriesRequest<Types>) -> bool {
        let more = append.leader_commit > self.committed;
        self.committed = self.committed.max(append.leader_commit);
        more && append.entries.is_empty()
    }
}

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
                let _ = answers.send(Answer::new(id, body, false)).await;
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
    let (mut under_way, mut told) = (FuturesOrdered::new(), Told::default());
    loop {
        tokio::select! {
            biased;
            Some((id, response, notice)) = under_way.next(), if !under_way.is_empty() => {
                if answers.send(Answer::new(id, response, notice)).await.is_err() {
                    return;
                }
            }
            Some((id, append)) = waiting.recv(), if under_way.len() < APPENDS_MAX => {
                let (core, notice) = (core.clone(), told.is_notice(&append));
                let mut response = Box::pin(unconstrained(async move {
                    if !core.has_room_for(&append) {
                        return (id, Response::Failed(NO_ROOM.to_owned()), notice);
                    }
                    match core.raft.append_entries(append).await {
                        Ok(response) => (id, Response::Append(response), notice),
                        Err(error) => (id, Response::Failed(error.to_string()), notice),
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

/// Writes responses, and flushes when none waits, but for one that can.
async fn write(writer: WriteHalf<Box<dyn Stream>>, mut outgoing: mpsc::Receiver<Answer>) -> io::Result<()> {
    let mut writer = tokio::io::BufWriter::new(writer);
    while let Some(first) = outgoing.recv().await {
        let (mut next, mut patient) = (Some(first), true);
        let patience = clock::now() + CONFIRMATION_PATIENCE;
        while let Some(answer) = next {
            writer.write_all(&frame::encode(&answer.response)?).await?;
            patient &= answer.confirms;
            next = match outgoing.try_recv() {
                Ok(next) => Some(next),
                Err(_) if patient => timeout_at(patience, outgoing.recv()).await.ok().flatten(),
                Err(_) => None,
            };
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

#[cfg(test)]
mod tests {
    use openraft::{
        Entry,
        alias::{LeaderIdOf, VoteOf},
        entry::RaftEntry,
        vote::RaftLeaderIdExt,
    };

    use super::*;
    use crate::raft::frame::Proposed;

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_waits_for_company_but_not_for_long() {
        let (near, far) = tokio::io::duplex(4_096);
        let (_, writer) = tokio::io::split(Box::new(near) as Box<dyn Stream>);
        let (answers, outgoing) = mpsc::channel(8);
        tokio::spawn(write(writer, outgoing));
        let mut reader = BufReader::new(far);
        let confirmation = |id| Answer::new(id, Response::Append(AppendEntriesResponse::Success), true);
        let mut read = async || frame::expect::<Numbered<Response>>(&mut reader).await.expect("a frame").id;

        let began = clock::now();
        answers.send(confirmation(1)).await.expect("it runs");
        answers.send(confirmation(2)).await.expect("it runs");
        assert_eq!([read().await, read().await], [1, 2]);
        assert_eq!(clock::now() - began, CONFIRMATION_PATIENCE);

        let began = clock::now();
        answers.send(confirmation(3)).await.expect("it runs");
        tokio::task::yield_now().await;
        let busy = Answer::new(4, Response::Proposed(Proposed::Busy), false);
        answers.send(busy).await.expect("it runs");
        assert_eq!([read().await, read().await], [3, 4]);
        assert_eq!(clock::now(), began, "what is waited for goes at once, in its order");
    }

    #[test]
    fn only_a_notice_of_more_can_wait() {
        let append = |entries: usize, committed: u64| AppendEntriesRequest::<Types> {
            vote: VoteOf::<Types>::new_committed(3, 1),
            prev_log_id: Some(id(9)),
            entries: vec![Entry::new_blank(id(10)); entries],
            leader_commit: Some(id(committed)),
        };
        let mut told = Told::default();
        let asked = [(1, 7), (0, 7), (0, 8), (0, 8), (1, 9), (0, 9)];
        let notices = asked.map(|(entries, committed)| told.is_notice(&append(entries, committed)));
        assert_eq!(notices, [false, false, true, false, false, false]);

        let success = || Response::Append(AppendEntriesResponse::Success);
        assert!(Answer::new(1, success(), true).confirms && !Answer::new(1, success(), false).confirms);
        assert!(!Answer::new(1, Response::Append(AppendEntriesResponse::Conflict), true).confirms);
    }

    fn id(index: u64) -> LogIdOf<Types> {
        LogIdOf::<Types>::new(LeaderIdOf::<Types>::new_committed(3, 1), index)
    }
}
