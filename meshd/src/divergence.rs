//! Compares this member's state with the others', now and then: replicas that diverged are an alarm, whatever made them so.
//! It repairs nothing: which of them is wrong is for people to say.

use std::{sync::Arc, time::Duration};

use model::answer;
use registry::{Registry, raft::Checkpoint};
use tokio_util::sync::CancellationToken;

use crate::{authority::Authority, peer::Peer};

/// Between two rounds.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

answer! {
    /// `GET /v1/cluster/checkpoints`, for members.
    #[derive(Debug)]
    pub struct Checkpoints {
        /// The member's version: another may add to the state what this one does not have.
        "version" version: String,
        /// Of its last entries, some.
        "checkpoints" checkpoints: Vec<Checkpoint>,
    }
}

impl Checkpoints {
    /// This member's.
    pub fn of(registry: &Registry) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), checkpoints: registry.checkpoints() }
    }
}

/// Compares until `stop`.
pub async fn watch(registry: Registry, authority: Arc<Authority>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(COMPARE_EVERY)).await.is_some() {
        let state = registry.applied();
        for member in state.members().filter(|member| member.id != authority.member()) {
            let Ok(peer) = Peer::member(&authority, &member.addresses.api) else { continue };
            // One that is away, or of a version that does not know this, is asked again in the next round.
            let asked = stop.run_until_cancelled(peer.get::<Checkpoints>("/v1/cluster/checkpoints")).await;
            let Some(Ok(theirs)) = asked else { continue };
            if theirs.version != env!("CARGO_PKG_VERSION") {
                continue;
            }
            if let Some(index) = registry.compare(member.id, &theirs.checkpoints) {
                tracing::error!(
                    member = member.id,
                    index,
                    "this member and that one hold different states: remove the one that differs from the others, and let \
                     it join anew"
                );
            }
        }
    }
}
