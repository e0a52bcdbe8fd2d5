//! Pure. Why a log is not opened. Every variant carries its evidence, and every one has a way out.

use crate::wal::header::{HeaderDamage, Identity};
use crate::wal::ledger::Gap;
use crate::wal::record::{Damage, Stamp, Unknown};

/// The log is not opened: which file, where in it, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log segment {file}, byte {offset}: {why}. {}", why.way_out())]
pub struct Refusal {
    /// The segment's file name.
    pub file: String,
    /// Bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a log that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Its header does not read back.
    #[error("{0}")]
    Header(#[from] HeaderDamage),
    /// Another cluster's or member's log.
    #[error(
        "this is the log of member {} of cluster {}, not of member {} of cluster {}",
        found.node, found.cluster, expected.node, expected.cluster
    )]
    Foreign {
        /// What the header says.
        found: Identity,
        /// Who opens it.
        expected: Identity,
    },
    /// The file's name and its header differ.
    #[error("the header says that this is segment {0}")]
    Misnamed(u64),
    /// The file was cut short or has grown.
    #[error("the file has {found} bytes where its header says {expected}")]
    Length {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        expected: u64,
    },
    /// A segment between two others is not there.
    #[error("segment {0} is missing before it")]
    MissingSegment(u64),
    /// The segment before it lost its last records, or this one its first.
    #[error("it begins with record {found} where record {expected} follows")]
    MissingRecords {
        /// The sequence number that follows the last record.
        expected: u64,
        /// The one that the header promises.
        found: u64,
    },
    /// The header's summary of all earlier records is not what they add up to.
    #[error("its header contradicts the segments before it")]
    Contradiction,
    /// A bad record where all were durable.
    #[error("record {sequence} of a finished segment is damaged: {bad}")]
    Sealed {
        /// The sequence number of the record that should stand there.
        sequence: u64,
        /// What stands there instead.
        bad: Bad,
    },
    /// A bad record which a later one proves durable.
    #[error(
        "record {sequence} was acknowledged and is damaged ({bad}): record {} at byte {later_offset} \
         was written when {} was already on disk", later.sequence, later.durable
    )]
    Acknowledged {
        /// The sequence number of the record that should stand there.
        sequence: u64,
        /// What stands there instead.
        bad: Bad,
        /// The record that proves it.
        later: Stamp,
        /// Where that one stands.
        later_offset: u64,
    },
    /// Sound bytes of a newer version.
    #[error("{0}")]
    Unknown(#[from] Unknown),
    /// Sound records which contradict each other.
    #[error("{0}")]
    Gap(#[from] Gap),
    /// A record that says a later one was durable before it.
    #[error("record {} claims that {} was durable before it", .0.sequence, .0.durable)]
    Durable(Stamp),
    /// Entries that nobody purged stood in segments which are gone.
    #[error("entries {from} to {to} stood in older segments, which are missing")]
    MissingEntries {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
}

/// What stands in a record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// No sound record.
    #[error("{0}")]
    Damage(#[from] Damage),
    /// A sound record that belongs elsewhere.
    #[error("record {0} stands there")]
    Stray(u64),
}

impl Why {
    /// What the operator can do.
    fn way_out(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => {
                "Point data_dir at this member's own folder, or the folder was restored from another member"
            }
            Self::Header(HeaderDamage::Version(_)) | Self::Unknown(_) => {
                "Start the version that wrote it, or a newer one"
            }
            _ => {
                "Do not edit the files. Remove this member from the cluster, move its data folder away and \
                 let it join under a new id; a cluster of one is restored from its last backup"
            }
        }
    }
}
