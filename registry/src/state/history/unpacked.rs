//! Pure. The blocks that were asked for last, as they are: watchers that fall behind come in crowds and ask for the same.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::{Revision, block::Block};

/// Blocks that stay unpacked. Each takes some hundred KiB.
const UNPACKED_MAX: usize = 4;

/// A block's revisions, oldest first.
type Revisions = Arc<[Arc<Revision>]>;

/// The blocks that were asked for last. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Unpacked(Arc<Mutex<VecDeque<(Block, Revisions)>>>);

impl Unpacked {
    /// A block's revisions, oldest first.
    pub(super) fn of(&self, block: &Block) -> Revisions {
        let found = |held: &VecDeque<(Block, Revisions)>| {
            held.iter().find(|(held, _)| held.is(block)).map(|(_, revisions)| revisions.clone())
        };
        if let Some(revisions) = found(&self.0.lock()) {
            return revisions;
        }
        let revisions = block.revisions();
        let mut held = self.0.lock();
        held.truncate(UNPACKED_MAX - 1);
        held.push_front((block.clone(), revisions.clone()));
        revisions
    }
}
