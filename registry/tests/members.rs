//! Members that are not what the cluster remembers: restored from a copy, started twice, of another version. And what
//! the leader refuses because it would leave nobody to decide.

mod world;

use registry::{MembershipError, Program, ProposeError};
use world::{PATIENCE, World, copy_folder, key, put, until};

/// A copy of a running member's folder, made while nothing was written.
async fn copy_of(world: &World, id: u64) -> std::path::PathBuf {
    world.agree().await;
    let copy = world.root().join(format!("copy-of-{id}"));
    copy_folder(&world.folder(id), &copy);
    // sled's files are not copied at one moment; the index is built again without them.
    std::fs::remove_dir_all(copy.join("index")).expect("a folder");
    copy
}

async fn write(world: &World, count: usize) {
    for n in 0..count {
        world.leader().await.propose(put(&format!("n{n}"), &n.to_string())).await.expect("a majority");
    }
}

async fn why_refused(member: &registry::Registry) -> String {
    tokio::time::timeout(PATIENCE, member.refused()).await.expect("it is told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_since_the_last_start_is_refused_when_it_lacks_what_was_acknowledged() {
    let mut world = World::three().await;
    write(&world, 5).await;
    let id = world.follower().await.status().member;
    let copy = copy_of(&world, id).await;
    write(&world, 60).await;
    world.agree().await;
    world.close(id).await;
    world.open_from(id, copy).await;
    let refused = why_refused(&world.members[&id]).await;
    assert!(refused.contains("an older data folder") && refused.contains("join under a new id"), "{refused}");
    let error = world.members[&id].propose(put("x", "x")).await.expect_err("it may do nothing");
    assert!(matches!(error, ProposeError::Stopped(_)), "{error}");
    write(&world, 3).await;
    // The folder itself, as it was left, is as good as ever.
    world.open(id).await;
    world.members[&id].read().await.expect("it follows");
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_former_leader_saw_acknowledged_is_held_against_an_old_copy() {
    let mut world = World::three().await;
    let first = world.leader().await;
    let id = world.follower().await.status().member;
    let copy = copy_of(&world, id).await;
    write(&world, 60).await;
    world.agree().await;
    until("the leader to note it", || first.status().matched.iter().find(|(other, _)| *other == id).copied())
        .await;
    world.close(id).await;
    // Another leads now, who never had an answer from that member.
    let other = world.members.keys().copied().find(|other| *other != first.status().member).expect("another");
    first.transfer_leader(Some(other)).await.expect("it takes over");
    world.open_from(id, copy).await;
    let refused = why_refused(&world.members[&id]).await;
    assert!(refused.contains("an older data folder"), "{refused}");
    write(&world, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_at_once_one_goes_on() {
    let mut world = World::three().await;
    write(&world, 5).await;
    let id = world.follower().await.status().member;
    let (copy, stale) = (copy_of(&world, id).await, world.root().join("stale"));
    copy_folder(&copy, &stale);
    // Both have everything: the later start is the member, and the other one steps aside though it is connected.
    let original = world.members[&id].clone();
    world.open_from(id, copy).await;
    let refused = why_refused(&original).await;
    assert!(refused.contains("older data folder") || refused.contains("took its place"), "{refused}");
    write(&world, 40).await;
    world.members[&id].read().await.expect("it follows");
    world.agree().await;
    // A second copy, which lacks those writes: it is refused, and the one that runs goes on.
    let running = world.members[&id].clone();
    world.open_from(id, stale).await;
    let refused = why_refused(&world.members[&id]).await;
    assert!(refused.contains("older data folder"), "{refused}");
    assert_eq!(running.status().refused, None);
    running.propose(put("still", "x")).await.expect("it is a member as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again_a_member_is_welcome_each_time() {
    let mut world = World::three().await;
    for round in 0..3 {
        write(&world, 20).await;
        let id = if round == 1 {
            world.leader().await.status().member
        } else {
            world.follower().await.status().member
        };
        world.close(id).await;
        write(&world, 20).await;
        world.open(id).await;
        world.members[&id].read().await.expect("it follows");
        assert_eq!(world.members[&id].status().refused, None);
    }
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_only_to_who_can_take_it() {
    let world = World::three().await;
    let leader = world.leader().await;
    let leads = leader.status().member;
    let others: Vec<u64> = world.members.keys().copied().filter(|id| *id != leads).collect();
    let refused = leader.transfer_leader(Some(99)).await.expect_err("nobody");
    assert!(refused.to_string().contains("member 99 does not vote"), "{refused}");
    leader.transfer_leader(Some(leads)).await.expect("it leads already");
    world.net.cut(others[0]);
    until("the leader to miss it", || (!leader.status().answers(others[0])).then_some(())).await;
    let refused = leader.transfer_leader(Some(others[0])).await.expect_err("it is cut off");
    assert!(refused.to_string().contains("does not answer since"), "{refused}");
    leader.transfer_leader(Some(others[1])).await.expect("it takes over");
    assert_eq!(world.leader().await.status().member, others[1]);
    let refused = leader.transfer_leader(None).await.expect_err("it does not lead any more");
    assert_eq!(refused, MembershipError::NotLeader { leader: Some(others[1]) });
    world.net.heal(others[0]);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_only_just_elected_waits_for_a_first_sign_of_life() {
    let world = World::three().await;
    let leader = world.leader().await;
    let leads = leader.status().member;
    let others: Vec<u64> = world.members.keys().copied().filter(|id| *id != leads).collect();
    world.net.cut(others[0]);
    leader.transfer_leader(Some(others[1])).await.expect("it takes over");
    let new = world.leader().await;
    assert!(new.status().can_do_without(leads).is_err(), "it has not heard the third one");
    let (removed, ()) = tokio::join!(new.remove(leads), async { world.net.heal(others[0]) });
    removed.expect("the third one answers soon");
    assert_eq!(new.status().voters.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_out_who_is_needed_to_decide() {
    let mut world = World::three().await;
    let leader = world.leader().await;
    let leads = leader.status().member;
    let others: Vec<u64> = world.members.keys().copied().filter(|id| *id != leads).collect();
    world.net.cut(others[0]);
    until("the leader to miss it", || (!leader.status().answers(others[0])).then_some(())).await;
    let refused = leader.remove(others[1]).await.expect_err("then nothing could be decided");
    assert!(refused.to_string().contains("start or remove those first"), "{refused}");
    leader.remove(others[0]).await.expect("the silent one may go");
    assert_eq!(leader.status().voters.len(), 2);
    write(&world, 3).await;
    // A learner that fell silent is not let vote: two would have to agree, and one is not there.
    let fourth = world.learner().await;
    world.net.cut(fourth);
    until("the leader to miss it", || (!leader.status().answers(fourth)).then_some(())).await;
    let refused = leader.promote(fourth).await.expect_err("it is not there");
    assert!(refused.to_string().contains("does not answer"), "{refused}");
    write(&world, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_say_what_runs_there_as_soon_as_all_can_note_it() {
    let world = World::three().await;
    for id in 1..=3 {
        let said = Program { node: format!("cp{id}"), version: "test".to_owned() };
        let member = world.members[&id].clone();
        until("it to be known", || {
            member.applied().member(id)?.program.clone().filter(|known| *known == said)
        })
        .await;
    }
    world.agree().await;
    assert_eq!(world.leader().await.applied().version_used(), 2);
}

/// The planted bug: a state that does not compare. Without the comparison of logs the copy would be let in, as its boot
/// count is higher than any that was seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_boot_count_alone_would_let_the_old_copy_in() {
    let world = World::three().await;
    let id = world.follower().await.status().member;
    until("its start to be known", || {
        world.members[&id].applied().member(id).filter(|member| member.boot > 0).map(drop)
    })
    .await;
    let copy = copy_of(&world, id).await;
    write(&world, 30).await;
    let known = world.leader().await.applied().member(id).expect("a member").clone();
    let boot = registry::Folder::read(&copy).expect("it can be read").expect("it is a member's").boot + 1;
    let nonce = uuid::Uuid::new_v4();
    let started = registry::Member { boot, nonce, ..(*known).clone() };
    started.check_against(&known).expect("by this alone it is a later start of the same folder");
    // What it lacks, and would be asked to vote about.
    let read = world.leader().await.read().await.expect("a leader");
    assert!(read.get(&key("n29")).is_some());
}
