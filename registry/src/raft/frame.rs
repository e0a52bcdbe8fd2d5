//! What members say to each other: frames of a length (u32, little-endian) and a msgpack body with field names. Readers
//! ignore unknown fields; an unknown request is answered as failed.

use std::io;

use openraft::{
    alias::{SnapshotMetaOf, VoteOf},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::{KeepAlive, KeepAlives, Types, floor::Start};
use crate::{
    command::{Command, MemberId, Reply},
    state::Blob,
};

/// The version of this protocol; both sides must speak the same.
pub(super) const PROTOCOL: u16 = 1;
/// The longest frame, in bytes: one append with one entry of the greatest length, and some room.
pub(super) const FRAME_BYTES_MAX: usize = 24 * 1024 * 1024;
/// A piece of a snapshot, in bytes: large enough to fill a connection, small enough to be held twice.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Who a member is, at this start of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) id: MemberId,
    pub(super) incarnation: Uuid,
    pub(super) boot: u64,
    pub(super) nonce: Uuid,
    /// The commands that it understands. 0.1.0 does not say.
    #[serde(default = "first_version")]
    pub(super) commands: u32,
    /// What its log and vote were at this start. 0.1.0 does not say.
    #[serde(default)]
    pub(super) start: Option<Start>,
}

fn first_version() -> u32 {
    1
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Requests and responses, many at once.
    Requests,
    /// One snapshot: it must not stand in the way of votes and appends.
    Snapshot,
}

/// The first frame of a connection, from who opened it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u16,
    pub(super) cluster: Uuid,
    pub(super) identity: Identity,
    pub(super) purpose: Purpose,
}

/// The second frame, from the other side; the third, from the opener, has the same form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// Go on: this is who I am.
    Welcome(Identity),
    /// You may not be of this cluster: stop.
    Banned(String),
    /// We cannot talk.
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    pub(super) id: u64,
    pub(super) body: T,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
    Propose(Command),
    ReadIndex,
    KeepAlive(Vec<KeepAlive>),
    /// As `ReadIndex`, by the leader's lease. Since command version 2: an older member drops the connection at it.
    LeaseIndex,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Response {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    Proposed(Proposed),
    /// The index that a reader has to wait for; `None`: not the leader.
    ReadIndex(Option<u64>),
    /// `None`: not the leader, or not ready to judge.
    KeptAlive(Option<KeepAlives>),
    /// The request could not be carried out at all.
    Failed(String),
}

/// What the leader made of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Proposed {
    /// It is applied.
    Done(Reply),
    /// It was not taken: another leads, or none.
    NotLeader,
    /// It was not taken: too many wait.
    Busy,
    /// It may or may not be applied.
    Unknown,
}

/// The frames of a connection for a snapshot, after the handshake.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: VoteOf<Types>,
    pub(super) meta: SnapshotMetaOf<Types>,
    pub(super) length: u64,
}

pub(super) type Chunk = Blob;

/// The last frame, from the receiver.
#[derive(Serialize, Deserialize)]
pub(super) enum Installed {
    Done(SnapshotResponse<Types>),
    Failed(String),
}

impl Request {
    /// Whether it must not wait behind appends.
    pub(super) fn urgent(&self) -> bool {
        matches!(self, Self::Vote(_) | Self::PreVote(_) | Self::TransferLeader(_) | Self::ReadIndex | Self::LeaseIndex | Self::KeepAlive(_))
            // A bare sign of life. Other appends, empty ones too, must stay in their order.
            || matches!(self, Self::Append(append) if append.entries.is_empty() && append.prev_log_id.is_none())
    }
}

/// Reads one frame; `None` at the end of the stream.
pub(super) async fn read<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let length = match reader.read_u32_le().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX}")));
    }
    // What is announced is not taken on trust: memory grows with what arrives.
    let mut body = Vec::with_capacity(length.min(CHUNK_BYTES));
    (&mut *reader).take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rmp_serde::from_slice(&body).map(Some).map_err(|error| invalid(error.to_string()))
}

/// Reads one frame that must come.
pub(super) async fn expect<T: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    read(reader).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A frame as bytes.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, message).map_err(|error| invalid(error.to_string()))?;
    let length = bytes.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX}")));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    Ok(bytes)
}

/// Writes one frame and flushes it.
pub(super) async fn write<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    writer.write_all(&encode(message)?).await?;
    writer.flush().await
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_travel_and_wrong_ones_are_refused() {
        let alive = vec![KeepAlive { node: "host-a".parse().expect("a name"), generation: 3, acked: 9 }];
        let sent = encode(&Numbered { id: 7, body: Request::KeepAlive(alive.clone()) }).expect("it is short");
        let mut twice = sent.repeat(2);
        let mut reader = &twice[..];
        for _ in 0..2 {
            let Numbered { id, body } = expect::<Numbered<Request>>(&mut reader).await.expect("a frame");
            assert!(id == 7 && matches!(body, Request::KeepAlive(got) if got == alive));
        }
        assert!(read::<Numbered<Request>>(&mut reader).await.expect("the end").is_none());

        let refused = |bytes: Vec<u8>| async move {
            read::<Numbered<Request>>(&mut &bytes[..]).await.expect_err("not a frame")
        };
        assert_eq!(refused(sent[..sent.len() - 1].to_vec()).await.kind(), io::ErrorKind::UnexpectedEof);
        assert!(refused(vec![0xff; 64]).await.to_string().contains("at most"), "a length that nobody sends");
        twice.truncate(sent.len());
        twice[4] = 0xc1;
        assert_eq!(refused(twice).await.kind(), io::ErrorKind::InvalidData);
    }
}
