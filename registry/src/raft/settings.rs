//! How a member is set up, and how fast its Raft is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use openraft::{Config, ConfigError, SnapshotPolicy};
use uuid::Uuid;

use crate::{
    command::{Addresses, MemberId, Program},
    state::HISTORY_REVISIONS_MAX,
};

/// Entries between two snapshots: a restart without its index replays at most so many, in about a second.
pub const SNAPSHOT_EVERY: u64 = 10_000;
/// Entries that stay in the log behind a snapshot: a member that was away for a moment needs no whole snapshot, and where
/// the newest snapshot turns out to be damaged, the one before it and the log make the same state.
pub const LOG_KEPT: u64 = SNAPSHOT_EVERY + 2_000;
/// Entries in one append to a follower; their bytes are bounded where they are read.
const APPEND_ENTRIES_MAX: u64 = 256;

/// How a member is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it keeps everything; one member at a time.
    pub data_dir: PathBuf,
    /// Its id: 1 for the member that founds a cluster, else the one that its admission answered.
    pub member: MemberId,
    /// The cluster, drawn at its founding: members of another are refused.
    pub cluster: Uuid,
    /// Where others reach it.
    pub addresses: Addresses,
    /// What runs here, for people; told to the cluster at each start.
    pub program: Option<Program>,
    /// How fast its Raft is.
    pub tuning: Tuning,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept in the log behind a snapshot.
    pub log_kept: u64,
    /// Revisions kept for watchers.
    pub history_revisions_max: usize,
}

/// How fast Raft is. Followers believe in a leader for `election_max` after its last sign of life; then the first stands
/// for election after a wait between `election_min` and `election_max`. So another leads 0.6 to 0.8 s after one is
/// gone, and five signs of life may be late before anyone doubts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Between two signs of life of the leader.
    pub heartbeat: Duration,
    /// Without one for so long, at least, a follower stands for election.
    pub election_min: Duration,
    /// At most so long.
    pub election_max: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(220),
            election_max: Duration::from_millis(420),
        }
    }
}

impl Tuning {
    /// How long after a majority was last asked, and answered, its leader answers by itself. A member that answered
    /// elects nobody else for `election_max`; the quarter between the two is what clocks may differ in their rates.
    pub fn lease(&self) -> Duration {
        self.election_max * 3 / 4
    }
}

impl Settings {
    /// The settings of a member with the usual tuning.
    pub fn new(data_dir: PathBuf, member: MemberId, cluster: Uuid, addresses: Addresses) -> Self {
        Self {
            data_dir,
            member,
            cluster,
            addresses,
            program: None,
            tuning: Tuning::default(),
            snapshot_every: SNAPSHOT_EVERY,
            log_kept: LOG_KEPT,
            history_revisions_max: HISTORY_REVISIONS_MAX,
        }
    }

    /// As the Raft engine takes it.
    pub(super) fn engine(&self) -> Result<Arc<Config>, ConfigError> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let Tuning { heartbeat, election_min, election_max } = self.tuning;
        let config = Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(election_min),
            election_timeout_max: millis(election_max),
            enable_pre_vote: Some(true),
            // Allowed as soon as what was promised before the start is over.
            enable_elect: false,
            // A leader without a majority refuses writes when its lease ends, and from then on only asks after it.
            quorum_loss_probe_interval: Some(3 * millis(election_max)),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.log_kept,
            max_payload_entries: APPEND_ENTRIES_MAX,
            ..Config::default()
        };
        config.validate().map(Arc::new)
    }
}
