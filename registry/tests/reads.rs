//! What each consistency promises, on members in one process.

mod world;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use model::read::{Consistency, Freshness};
use registry::{MemberId, ReadError, Registry, Reply, Tuning};
use tokio_util::sync::CancellationToken;
use world::{World, description, put, until};

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

/// The first member waits long for answers, and sends few signs of life; the others miss it soon.
fn patient(member: MemberId) -> Tuning {
    let millis = Duration::from_millis;
    match member {
        1 => Tuning { heartbeat: millis(60_000), election_min: millis(61_000), election_max: millis(62_000) },
        _ => Tuning { heartbeat: millis(300), election_min: millis(1_000), election_max: millis(1_200) },
    }
}

/// What a leader that stands still goes through, without the luck that it takes: the answers to its last append come
/// after it was replaced and after a reader came, the second of them when it has just sent that member what is
/// committed. They answer nothing that was sent after the reader came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_to_a_leader_that_was_replaced_confirm_no_read() {
    let mut world = World::tuned(patient).await;
    let old = world.members[&1].clone();
    let (writer, grown) = (old.clone(), CancellationToken::new());
    let calm = grown.clone();
    let written = tokio::spawn(async move {
        for round in 0.. {
            writer.propose(put("calm", &round.to_string())).await.expect("it leads");
            if calm.is_cancelled() {
                return;
            }
            // Pace: its signs of life to members that would miss it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    world.grow().await;
    world.grow().await;
    let others = [2, 3].map(|id| (world.members[&id].clone(), world.net.gates(1, id)));
    // Whoever judges sessions has asked the others all that it asks of itself.
    old.keep_alive(Vec::new()).await.expect("it leads");
    grown.cancel();
    written.await.expect("it writes");
    until("all to have that", || {
        let all = others.iter().map(|(member, _)| member).chain([&old]);
        all.map(|member| member.status())
            .all(|status| status.applied_index == old.status().last_log_index)
            .then_some(())
    })
    .await;

    // Both take what the old leader writes last, and it does not hear of it.
    others.iter().for_each(|(_, [_, answers])| answers.hold());
    let writer = old.clone();
    let last = tokio::spawn(async move { writer.propose(put("n", "before")).await });
    until("both to have it", || {
        let index = old.status().last_log_index;
        let applied = old.status().applied_index;
        let all = others.iter().all(|(member, _)| member.status().last_log_index == index);
        (all && applied < index).then_some(())
    })
    .await;
    until("both to say so", || others.iter().all(|(_, [_, answers])| answers.held() > 0).then_some(())).await;
    others.iter().for_each(|(_, [questions, _])| questions.hold());
    [2, 3].into_iter().for_each(|other| world.net.sever(other, 1));

    // They have another, which takes a write.
    let new = until("another leader", || {
        others.iter().map(|(member, _)| member).find(|member| member.leadership().borrow().is_me).cloned()
    })
    .await;
    assert!(old.leadership().borrow().is_me, "it has not heard of that");
    write(&new, "n", "after").await;

    // A reader comes to the old one, which asks the others; then the late answers.
    let [(_, [_, first]), (_, [asked, second])] = &others;
    let questions = asked.held();
    let reader = old.clone();
    let read = tokio::spawn(async move { reader.read_as(Consistency::Linearizable.into()).await });
    until("the reader to be asked for", || (asked.held() > questions).then_some(())).await;
    let questions = asked.held();
    first.let_go();
    last.await.expect("no panic").expect("a majority has it");
    until("what is committed to be told", || (asked.held() > questions).then_some(())).await;
    second.let_go();
    let answered = read.await.expect("no panic").map(|state| description(&state, "n"));
    assert!(matches!(answered, Err(ReadError::NoLeader { .. })), "{answered:?}");
}
