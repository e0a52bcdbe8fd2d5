//! What each consistency promises, on members in one process.

mod world;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use model::read::{Consistency, Freshness};
use registry::{ReadError, Registry, Reply, Tuning};
use world::{World, description, put};

async fn seen(member: &Registry, freshness: impl Into<Freshness>, name: &str) -> Option<String> {
    let state = member.read_as(freshness.into()).await.expect("a state");
    description(&state, name)
}

fn at_least(consistency: Consistency, revision: u64) -> Freshness {
    Freshness { consistency, min_revision: Some(revision) }
}

async fn write(member: &Registry, name: &str, text: &str) -> u64 {
    let reply = member.propose(put(name, text)).await.expect("a leader");
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    member.read().await.expect("a leader").revision()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leased_reads_see_what_was_acknowledged_anywhere() {
    let world = World::three().await;
    for round in 0..100 {
        let text = round.to_string();
        let writer = &world.members[&(round % 3 + 1)];
        writer.propose(put("n", &text)).await.expect("a leader");
        for reader in world.members.values() {
            assert_eq!(seen(reader, Consistency::Leased, "n").await, Some(text.clone()), "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_stale_reads_alone() {
    let world = World::three().await;
    let old = world.leader().await;
    write(&old, "n", "before").await;
    world.net.cut(old.status().member);
    let revision = write(&world.leader().await, "n", "after").await;
    // Whoever asks it for more than its own view is refused, whatever it thought of itself when it was cut off.
    for consistency in [Consistency::Leased, Consistency::Linearizable] {
        let refused = old.read_as(consistency.into()).await;
        assert!(matches!(refused, Err(ReadError::NoLeader { .. })), "{consistency}: {refused:?}");
    }
    assert_eq!(seen(&old, Consistency::Stale, "n").await.as_deref(), Some("before"), "its own view");
    let behind = old.read_as(at_least(Consistency::Stale, revision)).await;
    let view = old.applied().revision();
    assert!(view < revision, "it hears of nothing: {view}");
    assert_eq!(
        behind.expect_err("it cannot have it"),
        ReadError::Behind { revision: view, wanted: revision }
    );
    world.net.heal(old.status().member);
    assert_eq!(seen(&old, Consistency::Leased, "n").await.as_deref(), Some("after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_asked_for_is_waited_for() {
    let world = World::three().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    for round in 0..50 {
        let text = round.to_string();
        leader.propose(put("n", &text)).await.expect("a leader");
        let revision = leader.applied().revision();
        for consistency in Consistency::ALL {
            let read = seen(&follower, at_least(*consistency, revision), "n").await;
            assert_eq!(read, Some(text.clone()), "{consistency}, round {round}");
        }
    }
}

/// `If-Match` names a revision: it must be one object's, of one writer, however many write it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_shows_an_object_as_one_writer_left_it() {
    let world = World::one().await;
    let leader = world.leader().await;
    for round in 0..20 {
        let write = |n| {
            let leader = leader.clone();
            async move { leader.propose(put("n", &format!("{round}-{n}"))).await.expect("a leader") }
        };
        let mut revisions = BTreeSet::new();
        for reply in futures_util::future::join_all((0..50).map(write)).await {
            let Reply::Written(written) = reply else { panic!("{reply:?}") };
            assert!(revisions.insert(written[0].object.metadata.revision), "two writers share a revision");
        }
    }
}

/// A leader's lease stands on what the others promised: to elect nobody else for a while. A member that is killed and
/// started at once remembers no promise, so it must wait out the longest that it can have made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_started_anew_elects_nobody_at_once() {
    let mut world = World::three().await;
    for round in 0..2 {
        write(&world.leader().await, "n", &round.to_string()).await;
        let leader = world.leader().await.status().member;
        let follower = world.follower().await.status().member;
        world.close(follower).await;
        world.net.cut(leader);
        // The third one knows by now that there is no leader, and asks again and again for the vote that it lacks.
        let third = world.members.iter().find(|(id, _)| **id != leader).expect("three less one").1.clone();
        third.read().await.expect_err("nobody leads");
        let started = now();
        world.open(follower).await;
        world.leader().await;
        let took = now().duration_since(started);
        let bound = Tuning::default().election_max;
        assert!(took >= bound, "round {round}: another leader after {took:?}, promised {bound:?}");
        world.net.heal(leader);
        world.agree().await;
    }
    assert!(Tuning::default().lease() + Duration::from_millis(100) < Tuning::default().election_max);
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the test measures")]
    Instant::now()
}
