//! Pure. What the log carries and what applying it answers. A closed set: a new feature is a new variant, and an arm
//! that the compiler demands in `state.rs`. Written as msgpack with field names; readers ignore unknown fields.
//!
//! Nothing here decides: a command says what is wanted, [`Refusal`] why it was not done.

use std::fmt;

use model::{
    duration::Millis,
    identity::TrustDomain,
    join::JoinAttempt,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Labels, Object},
    resource::ServicePort,
    trust::Distrust,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) mod bytes_field;
mod discover;
mod rejoin;
mod reply;
mod restore;
mod since;

use crate::state::{DISCOVERY_SINCE, REJOIN_REQUESTS_SINCE, VIRTUAL_IPS_SINCE};
pub use discover::{Discovery, Said};
pub use rejoin::{Filing, Judgement, RejoinStep};
pub use reply::{Joined, Outcome, Refusal, Reply, Written};
pub use restore::{Founder, RestoreCommit, RestoreStep};

/// A member of the control plane; numbered by the log, never used twice.
pub type MemberId = u64;

/// The version of the commands that this program understands. Raised with each new variant or field that an older
/// program must not miss; the leader proposes none above the cluster's minimum.
pub const COMMAND_VERSION: u32 = 5;
/// How deep batches nest: the leader's own around one that a client made. Deeper ones come only from a bug.
pub const BATCH_DEPTH_MAX: usize = 3;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's wall clock; log time is the greatest seen so far.
    pub at: Millis,
    /// What to do.
    pub command: Command,
}

/// What to do to the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// One after the other in one revision. Each sees what those before it did; a refused one changes nothing.
    Batch(Vec<Command>),
    /// An operator's change of objects; all or nothing.
    Write(Write),
    /// A node's whole set in one write; opens or continues its session.
    Register(Register),
    /// The node leaves for now: its endpoints go at once.
    Unregister(SessionRef),
    /// The leader saw no keep-alive of these for a time to live.
    Expire(Vec<SessionRef>),
    /// As `Expire`, but so many at once that their endpoints are kept for a while, marked stale.
    MarkStale(Vec<SessionRef>),
    /// A host or server joins with a token.
    RedeemJoin(RedeemJoin),
    /// A change of what is trusted.
    Trust(TrustChange),
    /// A change of the control plane's members.
    Member(MemberChange),
    /// A snapshot comes back. Since version 2.
    Restore(RestoreStep),
    /// These Services, which are older than virtual IPs, get theirs; others get theirs from now on when they come. Since
    /// version 3.
    Number(Vec<ServiceName>),
    /// A host asks to come back without a token, or an operator answers it. Since version 4.
    Rejoin(RejoinStep),
    /// What a discovery source brings, and how it stands. Since version 5.
    Discover(Box<Discovery>),
}

/// Changes of objects; all or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// Who asked, for the audit: an identity or a token's name.
    pub actor: String,
    /// What to change, in order.
    pub changes: Vec<Change>,
}

/// One change of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces. Revision and times of `object` are ignored, as is its status.
    Put {
        /// What to store.
        object: Object,
        /// What must hold before.
        #[serde(default)]
        expect: Expect,
        /// The hashed secret, where a token is created.
        #[serde(default)]
        credential: Option<Credential>,
    },
    /// Removes.
    Delete {
        /// Which.
        key: Key,
        /// What must hold before.
        #[serde(default)]
        expect: Expect,
    },
}

/// What must hold of an object before it is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// It does not exist (`If-None-Match: *`).
    Absent,
    /// It exists with this revision (`If-Match`).
    Revision(u64),
}

/// A token's secret as the cluster keeps it: apart from objects, never listed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The token's public half: what stands before the secret.
    pub id: String,
    /// SHA-256 of the secret's text as it is presented.
    pub hash: [u8; 32],
}

/// A node's session at one generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionRef {
    /// The node.
    pub node: Name,
    /// The generation that was seen; another one is another session.
    pub generation: u64,
}

/// A node's whole set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// The node.
    pub node: Name,
    /// Its proxy's version.
    #[serde(default)]
    pub version: String,
    /// Where it is reached, for people.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The services that it runs.
    #[serde(default)]
    pub services: Vec<Claim>,
    /// Their endpoints on this host, with `status.health`.
    #[serde(default)]
    pub endpoints: Vec<Object>,
}

/// A service that a node says it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub service: ServiceName,
    /// The ports that it serves.
    #[serde(deserialize_with = "ports_field")]
    pub ports: Vec<ServicePort>,
    /// Labels for the Service, should it have to be made.
    #[serde(default)]
    pub labels: Labels,
}

/// A join token's use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RedeemJoin {
    /// The token's public half, as in [`Credential::id`].
    pub token: String,
    /// What is asked for, with the secret's hash and the key's fingerprint.
    pub attempt: JoinAttempt,
    /// For role `server`: where the new member is reached.
    #[serde(default)]
    pub server: Option<Admission>,
}

/// A server that wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Where it is reached.
    pub addresses: Addresses,
    /// Of its data folder; the same one asked for twice is the same member.
    pub incarnation: Uuid,
}

/// What runs as a member, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What its configuration calls the server.
    pub node: String,
    /// The version of `meshd`.
    pub version: String,
}

/// Where a member is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// `host:port` for Raft.
    pub raft: String,
    /// `host:port` for the API.
    pub api: String,
}

/// A change of what is trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TrustChange {
    /// Once, at the very start: names the mesh and its history.
    Found {
        /// What all identities stand under.
        domain: TrustDomain,
        /// The cluster's history.
        epoch: Uuid,
    },
    /// One more root certificate.
    AddRoot {
        /// Its PEM.
        pem: String,
    },
    /// One root certificate less.
    DropRoot {
        /// Its PEM, as it was added.
        pem: String,
    },
    /// The root's key, sealed; opaque here.
    SealRoot {
        /// The sealed bytes.
        #[serde(with = "bytes_field")]
        blob: Vec<u8>,
    },
    /// A member's own intermediate.
    SetIntermediate {
        /// Whose.
        member: MemberId,
        /// Its PEM.
        pem: String,
    },
    /// Certificates to refuse before they expire.
    Distrust(Refused),
    /// Drops what can no longer meet a valid certificate.
    Prune {
        /// The longest life of a leaf, in seconds.
        leaf_ttl: u64,
        /// The longest life of an intermediate, in seconds.
        intermediate_ttl: u64,
    },
}

/// What to refuse; the log's form of [`Distrust`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// An intermediate, by the fingerprint of its key.
    Intermediate(String),
    /// A node and what was signed for it.
    Node(Name),
    /// One SPIFFE id.
    Id(model::identity::SpiffeId),
}

/// A change of the control plane's members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member; its id is in the reply.
    Admit(Admission),
    /// A member started.
    Boot {
        /// Which.
        id: MemberId,
        /// Of its data folder.
        incarnation: Uuid,
        /// How often the folder was started.
        boot: u64,
        /// Drawn at this start: tells a folder from its copy.
        nonce: Uuid,
        /// The commands that it understands.
        command_version: u32,
        /// Where it is reached now, if that changed.
        #[serde(default)]
        addresses: Option<Addresses>,
        /// What runs there. Since version 2: an older member would keep a state without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<Program>,
    },
    /// A member is gone for good; its id is not used again, and its certificates are refused.
    Forget {
        /// Which.
        id: MemberId,
    },
}

// === impl Refused ===

impl From<Refused> for Distrust {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Intermediate(fingerprint) => Self::Intermediate(fingerprint),
            Refused::Node(node) => Self::Node(node),
            Refused::Id(id) => Self::Id(id),
        }
    }
}

// === impl Change ===

impl Change {
    fn kind(&self) -> Kind {
        match self {
            Self::Put { object, .. } => object.kind,
            Self::Delete { key, .. } => key.kind,
        }
    }
}

// === impl Command ===

impl Command {
    /// The version that introduced what the command is made of: no older member may be given it.
    pub fn version(&self) -> u32 {
        match self {
            Self::Batch(commands) => commands.iter().map(Self::version).max().unwrap_or(1),
            Self::Write(write) => write.changes.iter().map(since::introduced).max().unwrap_or(1),
            Self::Register(_) | Self::Unregister(_) | Self::Expire(_) | Self::MarkStale(_) => 1,
            Self::Member(MemberChange::Boot { program: Some(_), .. }) => 2,
            Self::RedeemJoin(_) | Self::Trust(_) | Self::Member(_) => 1,
            Self::Restore(_) => 2,
            Self::Number(_) => VIRTUAL_IPS_SINCE,
            Self::Rejoin(_) => REJOIN_REQUESTS_SINCE,
            Self::Discover(_) => DISCOVERY_SINCE,
        }
    }

    /// Whether doing it twice is as good as once, whatever was done in between: then an unknown outcome may be tried
    /// again. A `Write` may not: its second run would undo what another wrote in between, or be refused for what its
    /// first run did.
    pub fn repeatable(&self) -> bool {
        match self {
            Self::Batch(commands) => commands.iter().all(Self::repeatable),
            Self::Write(_) => false,
            // Generations, fingerprints and incarnations tell a repetition from a new wish.
            Self::Register(_) | Self::Unregister(_) | Self::Expire(_) | Self::MarkStale(_) => true,
            Self::RedeemJoin(_) | Self::Trust(_) | Self::Member(_) => true,
            // The second run of a commit finds no pieces; whether the first was done, the epoch tells.
            Self::Restore(RestoreStep::Commit(_)) => false,
            Self::Restore(_) | Self::Number(_) | Self::Rejoin(_) => true,
            // The next look at the source finds what is missing.
            Self::Discover(_) => false,
        }
    }
}

/// A hash is no secret, but it does not belong in logs either.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Short, for the log engine's messages.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.command, self.at)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(commands) => write!(f, "batch of {}", commands.len()),
            Self::Write(write) => write!(f, "write of {} by {}", write.changes.len(), write.actor),
            Self::Register(register) => write!(f, "register {}", register.node),
            Self::Unregister(session) => write!(f, "unregister {}", session.node),
            Self::Expire(sessions) => write!(f, "expire {}", sessions.len()),
            Self::MarkStale(sessions) => write!(f, "mark {} stale", sessions.len()),
            Self::RedeemJoin(join) => write!(f, "join {}", join.attempt.node),
            Self::Trust(_) => f.write_str("trust"),
            Self::Member(_) => f.write_str("member"),
            Self::Restore(step) => f.write_str(step.about()),
            Self::Number(services) => write!(f, "number {}", services.len()),
            Self::Rejoin(step) => f.write_str(step.about()),
            Self::Discover(discovery) => {
                let (puts, gone) = (discovery.puts.len(), discovery.gone.len());
                write!(f, "discover {puts}, gone {gone}, by {}", discovery.source)
            }
        }
    }
}

/// Specs are read by their shape: leniently, as another version may have written them.
fn ports_field<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ServicePort>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    model::shape::decode(&value, model::shape::Mode::Lenient).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn objects_of_a_new_kind_are_for_members_that_know_it() {
        let write = |kinds: &[Kind]| {
            let name: Name = "a".parse().expect("a name");
            let object = |kind| Object::new(Key::namespaced(kind, name.clone(), name.clone()), Map::new());
            let put =
                |kind: &Kind| Change::Put { object: object(*kind), expect: Expect::Any, credential: None };
            Command::Write(Write { actor: "test".to_owned(), changes: kinds.iter().map(put).collect() })
        };
        assert_eq!(write(&[Kind::Service, Kind::HTTPRoute]).version(), 1);
        assert_eq!(write(&[Kind::Service, Kind::AuthorizationPolicy]).version(), 2);
        assert_eq!(write(&[Kind::Service, Kind::DiscoverySource]).version(), 5);
        assert_eq!(Command::Batch(vec![write(&[]), write(&[Kind::AuthorizationPolicy])]).version(), 2);
        let key = write(&[Kind::AuthorizationPolicy]);
        let Command::Write(Write { changes, .. }) = &key else { panic!("a write") };
        let Change::Put { object, .. } = &changes[0] else { panic!("a put") };
        let delete = Change::Delete { key: object.key(), expect: Expect::Any };
        let delete = Command::Write(Write { actor: "test".to_owned(), changes: vec![delete] });
        assert_eq!(delete.version(), 2);
    }
}
