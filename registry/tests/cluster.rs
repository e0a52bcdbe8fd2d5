//! Several members in one process: what holds while they come, go and are cut off from each other.

mod world;

use std::{collections::BTreeSet, sync::Arc, task::Poll};

use futures_util::poll;
use registry::{
    Command, KeepAlive, MemberChange, ProposeError, Refusal, Reply, SessionRef, Source, TrustChange,
};
use uuid::Uuid;
use world::{PATIENCE, World, copy_folder, description, key, put, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_writes_reads_and_comes_back() {
    let mut world = World::one().await;
    for n in 0..20 {
        let reply = world.members[&1].propose(put(&format!("n{n}"), "x")).await.expect("a leader");
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    let before = world.members[&1].read().await.expect("a leader");
    world.close(1).await;

    let recovery = world.open(1).await;
    assert_eq!((recovery.source, recovery.boot), (Source::Index, 2));
    assert_eq!(recovery.replayed_entries, 0, "the index was written at the end");
    assert_eq!(world.members[&1].applied().hash(), before.hash());
    world.members[&1].propose(put("after", "y")).await.expect("it leads again");
    let after = world.members[&1].read().await.expect("a leader");
    world.close(1).await;

    // Without its index it replays the whole log, and the index is there again afterwards.
    std::fs::remove_dir_all(world.folder(1).join("index")).expect("it is removed");
    let recovery = world.open(1).await;
    assert_eq!(recovery.source, Source::Empty);
    assert!(recovery.replayed_entries > 20, "{recovery:?}");
    let read = world.members[&1].read().await.expect("a leader");
    assert_eq!(description(&read, "after"), description(&after, "after"));
    assert!(world.members[&1].status().applied_entries >= recovery.replayed_entries);
    world.close(1).await;
    assert_eq!(world.open(1).await.source, Source::Index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_is_told_when_it_changed_and_never_else() {
    let world = World::one().await;
    let member = &world.members[&1];
    let mut trust = member.trust();
    trust.borrow_and_update();
    member.propose(put("a", "x")).await.expect("a leader");
    assert!(!trust.has_changed().expect("it runs"), "a namespace is nobody to trust");
    let domain = "mesh.internal".parse().expect("a domain");
    let found = Command::Trust(TrustChange::Found { domain, epoch: Uuid::new_v4() });
    member.propose(found).await.expect("a leader");
    assert!(trust.has_changed().expect("it runs"));
    let told = trust.borrow_and_update().clone().expect("it was founded");
    assert!(Arc::ptr_eq(&told, member.applied().trust().expect("it was founded")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_comes_back_from_its_snapshot() {
    let mut world = World::with_snapshots(50, 10).await;
    for n in 0..200 {
        world.members[&1].propose(put(&format!("n{}", n % 7), &n.to_string())).await.expect("a leader");
    }
    let member = world.members[&1].clone();
    until("a snapshot", || member.status().snapshot_index.filter(|index| *index >= 100)).await;
    drop(member);
    let before = world.members[&1].read().await.expect("a leader");
    world.close(1).await;
    std::fs::remove_dir_all(world.folder(1).join("index")).expect("it is removed");
    let recovery = world.open(1).await;
    assert_eq!(recovery.source, Source::Snapshot);
    assert!(recovery.replayed_entries < 110, "{recovery:?}");
    let after = world.members[&1].read().await.expect("a leader");
    for n in 0..7 {
        assert_eq!(description(&after, &format!("n{n}")), description(&before, &format!("n{n}")));
    }
    assert!(after.history_since(before.revision() - 5).is_ok(), "the history came back with the snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_takes_writes_and_reads_what_was_acknowledged() {
    let world = World::three().await;
    for (id, member) in &world.members {
        let name = format!("by-{id}");
        member.propose(put(&name, "x")).await.expect("a leader");
        for other in world.members.values() {
            let read = other.read().await.expect("a leader");
            assert!(read.get(&key(&name)).is_some(), "member {} does not have {name}", other.status().member);
        }
    }
    let refused = world
        .follower()
        .await
        .propose(Command::Member(MemberChange::Forget { id: 99 }))
        .await
        .expect("a leader");
    assert_eq!(
        refused,
        Reply::Refused(Refusal::UnknownMember { id: 99 }),
        "a refusal is a reply, from a follower too"
    );
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_entries() {
    let world = World::three().await;
    let before = world.leader().await.status().last_log_index.expect("a log");
    let writers = (0..600).map(|n| {
        let member = world.members[&(1 + n % 3)].clone();
        tokio::spawn(async move { member.propose(put(&format!("n{n}"), "x")).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        let reply = writer.await.expect("no panic").expect("a leader");
        assert!(matches!(&reply, Reply::Written(written) if written.len() == 1), "{reply:?}");
    }
    let entries = world.leader().await.status().last_log_index.expect("a log") - before;
    assert!(entries < 300, "600 writes took {entries} entries");
    let read = world.follower().await.read().await.expect("a leader");
    assert_eq!((0..600).filter(|n| read.get(&key(&format!("n{n}"))).is_some()).count(), 600);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_when_the_leader_is_cut_off_and_nothing_acknowledged_is_lost() {
    let world = World::three().await;
    world.leader().await.propose(put("before", "x")).await.expect("a leader");
    let old = world.leader().await;
    let id = old.status().member;
    world.net.cut(id);
    let new = world.members.values().find(|member| member.status().member != id).expect("another").clone();
    let mut acknowledged = BTreeSet::new();
    for n in 0..30 {
        let name = format!("n{n}");
        match new.propose(put(&name, "x")).await {
            Ok(_) => drop(acknowledged.insert(name)),
            Err(ProposeError::Unknown | ProposeError::NoLeader { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(acknowledged.len() >= 28, "only {} of 30 were acknowledged", acknowledged.len());
    let lost = old.propose(put("minority", "x")).await.expect_err("it has no majority");
    assert!(matches!(lost, ProposeError::Unknown | ProposeError::NoLeader { .. }), "{lost}");
    assert!(old.read().await.is_err(), "a leader without a majority must not say what is true");
    world.net.heal(id);
    let read = old.read().await.expect("it follows the new leader");
    assert!(acknowledged.iter().all(|name| read.get(&key(name)).is_some()));
    assert!(read.get(&key("before")).is_some());
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_hands_over_first() {
    let mut world = World::three().await;
    let id = world.leader().await.status().member;
    let term = world.leader().await.status().term;
    world.close(id).await;
    // No election timeout passes: another leads already, in the next term.
    let heirs: Vec<_> = world.members.values().map(|member| member.status()).collect();
    assert!(
        heirs.iter().any(|status| status.leader == Some(status.member) && status.term > term),
        "{heirs:?}"
    );
    world.follower().await.propose(put("after", "x")).await.expect("a leader");
    world.open(id).await;
    let read = world.members[&id].read().await.expect("it follows");
    assert!(read.get(&key("after")).is_some());
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut world = World::with_snapshots(50, 10).await;
    world.grow().await;
    world.grow().await;
    let away = world.follower().await;
    let id = away.status().member;
    world.net.cut(id);
    let leader = world.leader().await;
    for n in 0..300 {
        leader.propose(put(&format!("n{}", n % 11), &n.to_string())).await.expect("a majority");
    }
    until("a purged log", || leader.status().purged_index.filter(|index| *index >= 200)).await;
    let applied = away.status().applied_entries;
    world.net.heal(id);
    let read = away.read().await.expect("it follows");
    assert_eq!(description(&read, "n2").as_deref(), Some("299"), "299 = 27 * 11 + 2");
    assert!(away.status().applied_entries - applied < 200, "it replayed what a snapshot holds");
    assert!(read.history_since(read.revision() - 100).is_ok(), "the history came with it");
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_let_in_and_out() {
    let mut world = World::three().await;
    let fourth = world.learner().await;
    let status = world.leader().await.status();
    assert_eq!((status.voters.clone(), status.learners), (vec![1, 2, 3], vec![fourth]));
    world.leader().await.promote(fourth).await.expect("it may vote");
    assert_eq!(world.leader().await.status().voters, [1, 2, 3, fourth]);
    let read = world.members[&fourth].read().await.expect("it follows");
    let member = read.member(fourth).expect("it is known").clone();
    assert_eq!(member.addresses, world::addresses(fourth));

    let leader = world.leader().await;
    let leads = leader.status().member;
    let gone = world.members.keys().copied().find(|id| *id != leads).expect("another");
    leader.remove(gone).await.expect("it is taken out");
    assert!(!leader.status().voters.contains(&gone));
    leader.propose(Command::Member(MemberChange::Forget { id: gone })).await.expect("a leader");
    world.close(gone).await;
    // Coming back from its folder it is told that it is not of the cluster.
    world.open(gone).await;
    let refused = tokio::time::timeout(PATIENCE, world.members[&gone].refused()).await.expect("it is told");
    assert!(refused.contains(&format!("member {gone} is not of this cluster")), "{refused}");
    world.members.remove(&gone);
    assert!(world.grow().await > fourth, "ids are not used again");
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_from_an_old_disk_is_refused() {
    let mut world = World::three().await;
    let id = world.follower().await.status().member;
    world.close(id).await;
    let copy = world.root().join("copy");
    copy_folder(&world.folder(id), &copy);
    world.open(id).await;
    world.leader().await.propose(put("later", "x")).await.expect("a leader");
    world.members[&id].read().await.expect("it follows");
    let leader = world.leader().await;
    until("the second start to be known", || {
        leader.applied().member(id).filter(|member| member.boot == 2).map(drop)
    })
    .await;
    world.close(id).await;

    std::fs::remove_dir_all(world.folder(id)).expect("the disk is lost");
    copy_folder(&copy, &world.folder(id));
    world.open(id).await;
    let refused = tokio::time::timeout(PATIENCE, world.members[&id].refused()).await.expect("it is told");
    assert!(refused.contains("empty the folder and join under a new id"), "{refused}");
    let error = world.members[&id].propose(put("x", "x")).await.expect_err("it may do nothing");
    assert!(matches!(&error, ProposeError::Stopped(reason) if *reason == refused), "{error}");
    world.leader().await.propose(put("others", "x")).await.expect("the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_reach_the_leader_from_any_member() {
    let world = World::three().await;
    let alive =
        |generation| vec![KeepAlive { node: "host-a".parse().expect("a name"), generation, acked: 7 }];
    let told = world.follower().await.keep_alive(alive(1)).await.expect("a leader");
    assert_eq!((told.gone.len(), told.term), (1, world.leader().await.status().term));
    let node = model::object::Key::mesh_wide(model::kind::Kind::Node, "host-a".parse().expect("a name"));
    let change = registry::Change::Put {
        object: model::object::Object::new(node, serde_json::Map::new()),
        expect: registry::Expect::Absent,
        credential: None,
    };
    let write = Command::Write(registry::Write { actor: "test".to_owned(), changes: vec![change] });
    let register = Command::Register(registry::Register {
        node: "host-a".parse().expect("a name"),
        version: "1".to_owned(),
        addresses: Vec::new(),
        services: Vec::new(),
        endpoints: Vec::new(),
    });
    let reply =
        world.follower().await.propose(Command::Batch(vec![write, register])).await.expect("a leader");
    let Reply::Batch(replies) = reply else { panic!("{reply:?}") };
    let Reply::Registered { generation, .. } = replies[1] else { panic!("{replies:?}") };
    assert_eq!(world.follower().await.keep_alive(alive(generation)).await.expect("a leader").gone, []);
    assert_eq!(
        world.follower().await.keep_alive(alive(generation - 1)).await.expect("a leader").gone.len(),
        1
    );
    assert_eq!(world.leader().await.acked(), [("host-a".parse().expect("a name"), 7)]);
}

/// How many of these writes are told that too many wait, when they come as fast as can be, and whether there is a place
/// then for a command that is no write.
async fn flood(writes: impl Iterator<Item = Command>) -> (usize, bool) {
    let world = World::one().await;
    let leader = world.leader().await;
    let mut flood: Vec<_> = writes.map(|write| Box::pin(leader.propose(write))).collect();
    let mut busy = 0;
    for write in &mut flood {
        busy += usize::from(poll!(write) == Poll::Ready(Err(ProposeError::Busy)));
    }
    let node = "a".parse().expect("a name");
    let mut farewell = Box::pin(leader.propose(Command::Unregister(SessionRef { node, generation: 1 })));
    (busy, poll!(&mut farewell) != Poll::Ready(Err(ProposeError::Busy)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_writes_is_told_so_and_leaves_room_for_sessions() {
    let (busy, room) = flood((0..20_000).map(|n| put(&format!("n{n}"), "small"))).await;
    assert!(busy > 0 && room, "{busy} of 20,000 are more than writes have places");
    let text = "x".repeat(4 << 20);
    let (busy, room) = flood((0..40).map(|n| put(&format!("n{n}"), &text))).await;
    assert!(busy > 0 && room, "{busy} of 40 are more than 64 MiB");
}
