//! What only the leader does beside ordering the log: it makes the voters what the state says the members are, drops
//! distrust that nothing alive can fall under any more, and gives Services that are older than virtual IPs theirs.

use std::time::Duration;

use ca::profile::{INTERMEDIATE_LIFE, TTL_MAX};
use model::{name::ServiceName, trust::BACKDATE};
use registry::{
    ClusterStatus, Command, MemberId, MembershipError, NUMBERED_MAX, Registry, State, TrustChange,
    VIRTUAL_IPS_SINCE,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;

/// How often the leader looks what is to be done. A new member votes within a second or two of having caught up.
const STEP_EVERY: Duration = Duration::from_millis(500);
/// A learner that lacks no more than this many entries may vote: it will have them before the change is through.
const LAG_MAX: u64 = 64;
/// A new member is waited for so long before other duties are looked at again.
const LEARNER_WAIT: Duration = Duration::from_secs(5);
/// More voters make each write slower and nothing safer.
pub const VOTERS_MAX: usize = 7;
/// Steps between two looks at the distrusted: an hour.
const PRUNE_STEPS: u32 = 7_200;

/// What is to be done for the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send it the log.
    AddLearner(MemberId),
    /// Let it vote.
    Promote(MemberId),
    /// It is no member any more.
    Remove(MemberId),
    /// This member itself is to go: another one must lead first.
    StepDown,
}

/// The next step, if any: the state says who are members, the status who votes.
pub fn next(state: &State, status: &ClusterStatus) -> Option<Step> {
    // An empty log says nothing of members.
    state.trust()?;
    let known = |id: &MemberId| status.voters.contains(id) || status.learners.contains(id);
    let gone = status.voters.iter().chain(&status.learners).find(|id| state.member(**id).is_none());
    if let Some(&gone) = gone {
        if gone == status.member {
            return Some(Step::StepDown);
        }
        // A change that those who are left cannot confirm would hold up everything until they can.
        if !status.voters.contains(&gone) || status.can_do_without(gone).is_ok() {
            return Some(Step::Remove(gone));
        }
    }
    // A voter that is not there would be needed for decisions.
    let ready = |id: &&MemberId| status.answers(**id) && status.lag(**id).is_some_and(|lag| lag <= LAG_MAX);
    if let Some(&ready) = status.learners.iter().find(ready).filter(|_| status.voters.len() < VOTERS_MAX) {
        return Some(Step::Promote(ready));
    }
    state.members().map(|member| member.id).find(|id| !known(id)).map(Step::AddLearner)
}

/// Does the leader's duties until `stop`; on other members it only waits.
pub async fn run(registry: Registry, stop: CancellationToken) {
    let leadership = registry.leadership();
    let (mut steps, mut numbered) = (0_u32, None);
    while stop.run_until_cancelled(tokio::time::sleep(STEP_EVERY)).await.is_some() {
        if !leadership.borrow().is_me {
            continue;
        }
        let state = registry.applied();
        if let Some(step) = next(&state, &registry.status()) {
            // An election takes its time; a member that is away answers nothing. The next look tells what became of it.
            match stop.run_until_cancelled(take(&registry, step)).await {
                Some(Ok(())) => tracing::info!(?step, "membership changed"),
                Some(Err(error)) => tracing::warn!(?step, %error, "membership did not change"),
                None => return,
            }
        }
        if steps.is_multiple_of(PRUNE_STEPS) {
            prune(&registry, &state).await;
        }
        number(&registry, &state, &mut numbered).await;
        steps = steps.wrapping_add(1);
    }
}

async fn take(registry: &Registry, step: Step) -> Result<(), MembershipError> {
    match step {
        // It is a learner from the first moment on; that it has caught up is seen by the next looks.
        Step::AddLearner(id) => {
            tokio::time::timeout(LEARNER_WAIT, registry.add_learner(id)).await.unwrap_or(Ok(()))
        }
        Step::Promote(id) => registry.promote(id).await,
        Step::Remove(id) => registry.remove(id).await,
        Step::StepDown => registry.transfer_leader(None).await,
    }
}

/// Certificates of hosts that were distrusted have ended by now: their entries need not travel for ever.
async fn prune(registry: &Registry, state: &State) {
    let (leaf_ttl, intermediate_ttl) =
        ((TTL_MAX + BACKDATE).as_secs(), (INTERMEDIATE_LIFE + BACKDATE).as_secs());
    let Some(trust) = state.trust() else { return };
    let mut distrusted = trust.bundle.distrusted.clone();
    if !distrusted.prune(clock::wall().0 / 1_000, leaf_ttl, intermediate_ttl) {
        return;
    }
    if let Err(error) =
        registry.propose(Command::Trust(TrustChange::Prune { leaf_ttl, intermediate_ttl })).await
    {
        tracing::warn!(%error, "the distrusted could not be pruned");
    }
}

/// Gives Services that are older than virtual IPs theirs, some with each step, once every member understands that. `done`
/// is the history in which none is left: all later ones have theirs from the start.
async fn number(registry: &Registry, state: &State, done: &mut Option<Uuid>) {
    if *done == state.epoch() {
        return;
    }
    match unnumbered(state) {
        None => {}
        Some(services) if services.is_empty() && state.version_used() >= VIRTUAL_IPS_SINCE => {
            *done = state.epoch();
        }
        Some(services) => match registry.propose(Command::Number(services)).await {
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "Services wait for their virtual IPs"),
        },
    }
}

/// The next Services that lack virtual IPs; `None` while a member does not know of such.
fn unnumbered(state: &State) -> Option<Vec<ServiceName>> {
    let known = state.epoch().is_some() && state.command_version() >= VIRTUAL_IPS_SINCE;
    known.then(|| state.without_virtual_ips().take(NUMBERED_MAX).collect())
}

#[cfg(test)]
mod tests {
    use model::{
        duration::Millis,
        kind::Kind,
        object::{Key, Object},
    };
    use registry::{Addresses, Admission, Change, Entry, Expect, MemberChange, Write};
    use serde_json::Map;

    use super::*;

    /// `members` admitted; `gone` of them forgotten.
    fn state(members: u64, gone: &[MemberId]) -> State {
        let mut state = State::new();
        let mut apply = |command| drop(state.apply(Entry { at: Millis(1), command }));
        let domain = "mesh.internal".parse().expect("a domain");
        apply(Command::Trust(TrustChange::Found { domain, epoch: Uuid::nil() }));
        for id in 1..=members {
            let incarnation = Uuid::from_u128(u128::from(id));
            let admission = Admission { addresses: Addresses::default(), incarnation };
            apply(Command::Member(MemberChange::Admit(admission)));
        }
        gone.iter().for_each(|&id| apply(Command::Member(MemberChange::Forget { id })));
        state
    }

    fn status(voters: &[MemberId], learners: &[(MemberId, Option<u64>)]) -> ClusterStatus {
        ClusterStatus {
            member: 1,
            leader: Some(1),
            term: 1,
            voters: voters.to_vec(),
            learners: learners.iter().map(|(id, _)| *id).collect(),
            last_log_index: Some(1_000),
            applied_index: Some(1_000),
            snapshot_index: None,
            purged_index: None,
            revision: 0,
            matched: learners.to_vec(),
            heard: voters.iter().chain(learners.iter().map(|(id, _)| id)).map(|id| (*id, 20)).collect(),
            applied_entries: 1_000,
            refused: None,
        }
    }

    #[test]
    fn who_was_admitted_learns_first_and_votes_when_it_has_caught_up() {
        let three = state(3, &[]);
        assert_eq!(next(&three, &status(&[1], &[])), Some(Step::AddLearner(2)));
        assert_eq!(next(&three, &status(&[1], &[(2, None)])), Some(Step::AddLearner(3)));
        assert_eq!(next(&three, &status(&[1], &[(2, Some(900)), (3, None)])), None);
        assert_eq!(next(&three, &status(&[1], &[(2, Some(936)), (3, None)])), Some(Step::Promote(2)));
        assert_eq!(next(&three, &status(&[1, 2, 3], &[])), None);
    }

    #[test]
    fn who_was_forgotten_is_removed_and_never_by_itself() {
        assert_eq!(next(&state(3, &[2]), &status(&[1, 2, 3], &[])), Some(Step::Remove(2)));
        assert_eq!(next(&state(3, &[1]), &status(&[1, 2, 3], &[])), Some(Step::StepDown));
        assert_eq!(next(&state(3, &[3]), &status(&[1, 2], &[(3, Some(1))])), Some(Step::Remove(3)));
    }

    #[test]
    fn who_does_not_answer_is_not_counted_on() {
        let silent = |id: MemberId, status: ClusterStatus| ClusterStatus {
            heard: status.heard.into_iter().filter(|(other, _)| *other != id).collect(),
            ..status
        };
        let learner = silent(2, status(&[1], &[(2, Some(1_000))]));
        assert_eq!(next(&state(2, &[]), &learner), None, "a vote more would need it");
        let one_of_two_left = silent(3, status(&[1, 2, 3], &[]));
        assert_eq!(next(&state(3, &[2]), &one_of_two_left), None, "member 3 is needed without member 2");
        assert_eq!(next(&state(3, &[3]), &one_of_two_left), Some(Step::Remove(3)), "the silent one may go");
    }

    #[test]
    fn virtual_ips_wait_for_the_last_member_and_come_some_at_a_time() {
        let mut state = state(2, &[]);
        let boot = |id, command_version| {
            let (incarnation, addresses, program) = (Uuid::from_u128(id), None, None);
            let id = MemberId::try_from(id).expect("small");
            let boot = MemberChange::Boot {
                id,
                incarnation,
                boot: 1,
                nonce: Uuid::nil(),
                command_version,
                addresses,
                program,
            };
            Command::Member(boot)
        };
        let mut apply = |command| state.apply(Entry { at: Millis(1), command }).to_string();
        let service = |n: usize| {
            let key = Key::namespaced(
                Kind::Service,
                "default".parse().expect("a name"),
                format!("s{n}").parse().expect("a name"),
            );
            Change::Put { object: Object::new(key, Map::new()), expect: Expect::Any, credential: None }
        };
        let changes = (0..NUMBERED_MAX + 1).map(service).collect();
        apply(Command::Write(Write { actor: "test".to_owned(), changes }));
        for (id, version) in [(1_u128, VIRTUAL_IPS_SINCE), (2, VIRTUAL_IPS_SINCE - 1)] {
            assert_eq!(apply(boot(id, version)), "done");
        }
        assert_eq!(unnumbered(&state), None, "member 2 is of the previous release");
        let mut apply = |command| state.apply(Entry { at: Millis(1), command }).to_string();
        assert_eq!(apply(boot(2, VIRTUAL_IPS_SINCE)), "done");
        for left in [NUMBERED_MAX, 1, 0] {
            let some = unnumbered(&state).expect("all understand it");
            assert_eq!(some.len(), left);
            state.apply(Entry { at: Millis(1), command: Command::Number(some) });
        }
    }

    #[test]
    fn there_are_enough_voters_at_some_point() {
        let voters: Vec<MemberId> = (1..=7).collect();
        assert_eq!(next(&state(8, &[]), &status(&voters, &[(8, Some(1_000))])), None);
        assert_eq!(next(&State::new(), &status(&[1], &[])), None, "an empty log says nothing");
    }
}
