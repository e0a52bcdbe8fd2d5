//! A snapshot comes back, in the words of the scripts.

use super::*;
use crate::{
    command::{Founder, RestoreCommit, RestoreStep},
    saved,
};

const EPOCH: Uuid = Uuid::from_u128(8);

fn stage(id: u128, part: u32, bytes: &[u8]) -> Command {
    Command::Restore(RestoreStep::Stage { id: Uuid::from_u128(id), part, bytes: bytes.to_vec() })
}

fn commit(id: u128, parts: u32, saved: &State) -> RestoreCommit {
    let (id, sum) = (Uuid::from_u128(id), saved.to_save().sum());
    RestoreCommit { id, actor: "token/boss".to_owned(), parts, sum, epoch: EPOCH, founder: None }
}

fn apply(state: &mut State, command: Command) -> Reply {
    let reply = state.apply(Entry { at: state.time(), command });
    state.check().expect("the state keeps its invariants");
    reply
}

/// The steps of a restore of `saved`, its state cut in two so that there are several pieces.
fn steps(saved: &State, founder: Option<Founder>) -> Vec<Command> {
    let mut records = saved.to_save().into_saved_records();
    let rest = records.split_off(records.len() / 2);
    let blob = |(key, value)| (Blob(key), Blob(value));
    let pieces = [records, rest].map(|records| encode(&records.into_iter().map(blob).collect::<Vec<_>>()));
    let mut steps: Vec<_> = (0..).zip(&pieces).map(|(part, piece)| stage(1, part, piece)).collect();
    steps.push(Command::Restore(RestoreStep::Commit(Box::new(RestoreCommit {
        founder,
        ..commit(1, 2, saved)
    }))));
    steps
}

fn restore(state: &mut State, saved: &State) -> Reply {
    steps(saved, None).into_iter().map(|step| apply(state, step)).last().expect("three steps")
}

/// Tells a session apart from its later self, and shows what stands where.
fn lines(state: &mut State, script: &[&str]) -> String {
    script.iter().map(|line| perform(state, line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_operators_wrote_comes_back_and_facts_of_the_present_stand() {
    let mut state = furnished();
    let saved = state.clone();
    lines(
        &mut state,
        &[
            "at 200\ndelete AccessToken/boss",
            "put AccessToken/next roles=[\"admin\"] secret=next",
            "put Service/shop/web ports=[{\"port\":81}]",
            "put Service/shop/late ports=[{\"port\":1}]",
            "put Namespace/new",
            "join door h2 k2",
            "register h2 shop/web:80 new/thing:70",
            "register h1 shop/web:80",
            "delete Node/h1",
            "join door h3 k3",
            "register h3 shop/web:80",
            "distrust spiffe://mesh.internal/ns/shop/svc/web",
            "root R2",
            "admit b",
            "intermediate 2 I2",
        ],
    );
    let before = state.clone();
    assert_eq!(restore(&mut state, &saved), Reply::Nothing);
    assert_eq!(state.epoch(), Some(EPOCH));
    assert!(state.revision() > before.revision(), "no number is seen twice");
    // What operators configured is as it was, under a revision that nobody has seen.
    let web = perform(&mut state, "show Service/shop/web");
    assert!(
        web.starts_with(&format!("revision {}", state.revision())) && web.contains("\"port\":80"),
        "{web}"
    );
    assert_eq!(lines(&mut state, &["show Service/shop/late", "show Namespace/new"]), "none\nnone");
    // Tokens: a revoked one stays so, one made since stays, and what was used of a join token is used.
    assert_eq!(lines(&mut state, &["show token boss"]), "none");
    assert!(perform(&mut state, "show token next").contains("AccessToken"));
    assert_eq!(perform(&mut state, "show token door"), perform(&mut before.clone(), "show token door"));
    // Hosts: one removed since stays out, one that came since stays; what stands in a namespace that is gone, ends.
    assert_eq!(perform(&mut state, "show all Node"), "Node h2\nNode h3");
    let sessions = perform(&mut state, "show sessions");
    assert!(sessions.contains("h3:") && !sessions.contains("h2:") && !sessions.contains("h1:"), "{sessions}");
    assert_eq!(perform(&mut state, "show of shop/web"), "Endpoint shop/h3-web");
    // Trust and members are the present's; distrust is never forgotten.
    let trust = state.trust().expect("founded");
    let present = before.trust().expect("founded");
    assert_eq!((&trust.bundle.roots, &trust.intermediates), (&present.bundle.roots, &present.intermediates));
    assert_eq!(trust.bundle.distrusted, present.bundle.distrusted);
    assert!(trust.bundle.generation > present.bundle.generation);
    assert_eq!(state.members().count(), 2);
    // Who followed the old history starts anew.
    assert_eq!(state.history_since(before.revision()).map(drop), Err(Compacted { oldest: state.revision() }));
    assert_eq!(state.history().oldest(), state.revision());
    perform(&mut state, "put Service/shop/after ports=[{\"port\":1}]");
    let since = state.revision() - 1;
    assert_eq!(perform(&mut state, &format!("show history {since}")).lines().count(), 1);
}

#[test]
fn what_did_not_change_keeps_its_revision_and_a_kept_host_its_service() {
    let mut state = furnished();
    let mut saved = state.clone();
    perform(&mut saved, "delete Service/default/own");
    let web = perform(&mut state, "show Service/shop/web");
    assert_eq!(restore(&mut state, &saved), Reply::Nothing);
    assert_eq!(perform(&mut state, "show Service/shop/web"), web);
    // The snapshot does not have it, but the host that runs it is here.
    assert!(perform(&mut state, "show Service/default/own").contains(MANAGED_BY));
}

#[test]
fn a_member_that_missed_a_piece_refuses_and_is_told_apart() {
    let (saved, mut whole) = (furnished(), furnished());
    perform(&mut whole, "delete Role/ops");
    let mut lacking = whole.clone();
    let steps = steps(&saved, None);
    for (at, step) in steps.iter().enumerate() {
        apply(&mut whole, step.clone());
        // The planted fault: one piece never comes to this member.
        if at != 1 {
            let before = lacking.clone();
            let reply = apply(&mut lacking, step.clone());
            if at == 2 {
                assert!(
                    matches!(&reply, Reply::Refused(Refusal::Restore { reason }) if reason.contains("piece 1")),
                    "{reply}"
                );
                assert_eq!(lacking.hash(), before.hash(), "half a snapshot changes nothing");
            }
        }
    }
    assert_eq!(whole.epoch(), Some(EPOCH));
    assert_ne!(whole.hash(), lacking.hash(), "members compare their hashes");
}

#[test]
fn a_wrong_piece_changes_nothing() {
    let (saved, mut state) = (furnished(), furnished());
    let pieces: Vec<_> = saved::pieces(&saved).collect();
    let mut flipped = pieces[0].clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    apply(&mut state, stage(1, 0, &flipped));
    let staged = state.clone();
    let reply = apply(&mut state, Command::Restore(RestoreStep::Commit(Box::new(commit(1, 1, &saved)))));
    assert!(matches!(reply, Reply::Refused(Refusal::Restore { .. })), "{reply}");
    assert_eq!((state.hash(), state.revision()), (staged.hash(), staged.revision()));
    apply(&mut state, Command::Restore(RestoreStep::Discard { id: Uuid::from_u128(1) }));
    assert_ne!(state.hash(), staged.hash(), "nothing stays aside");
}

#[test]
fn another_restore_drops_what_the_first_left_aside_and_no_file_holds_it() {
    let (saved, mut state) = (furnished(), furnished());
    let piece = saved::pieces(&saved).next().expect("a piece");
    let hash = state.to_save().hash();
    apply(&mut state, stage(1, 0, &piece));
    apply(&mut state, stage(2, 0, &piece));
    let reply = apply(&mut state, Command::Restore(RestoreStep::Commit(Box::new(commit(1, 1, &saved)))));
    assert!(matches!(reply, Reply::Refused(_)), "its pieces are gone: {reply}");
    let image = State::from_image(&state.image(), 10).expect("pieces stand in members' own snapshots");
    assert_eq!(image.hash(), state.hash());
    assert_ne!(state.to_save().hash(), state.hash());
    assert!(state.to_save().revision() > 0 && hash != state.hash());
    let huge = vec![0; saved::PIECE_BYTES_MAX + 1];
    assert!(matches!(apply(&mut state, stage(3, 0, &huge)), Reply::Refused(Refusal::TooLarge { .. })));
    assert!(matches!(apply(&mut state, stage(3, STAGED_PARTS_MAX, &[])), Reply::Refused(_)));
}

#[test]
fn a_snapshot_of_another_domain_is_refused() {
    let mut state = furnished();
    let mut other = State::new();
    perform(&mut other, "found other.example");
    let reply = restore(&mut state, &other);
    assert!(
        matches!(&reply, Reply::Refused(Refusal::Restore { reason }) if reason.contains("other.example")),
        "{reply}"
    );
    let reply = restore(&mut state, &State::new());
    assert!(
        matches!(&reply, Reply::Refused(Refusal::Restore { reason }) if reason.contains("never founded")),
        "{reply}"
    );
}

#[test]
fn a_new_cluster_begins_with_everything_but_the_members() {
    let saved = furnished();
    let founder = |id| Some(Founder { id, admission: admission("new") });
    let mut state = State::new();
    for (step, want) in steps(&saved, founder(1)).into_iter().zip([false, false, true]) {
        let reply = apply(&mut state, step);
        assert_eq!(matches!(reply, Reply::Refused(_)), want, "an id is never given twice: {reply}");
    }
    for step in steps(&saved, founder(2)) {
        assert_eq!(apply(&mut state, step), Reply::Nothing);
    }
    assert_eq!(state.members().map(|member| member.id).collect::<Vec<_>>(), [2]);
    assert!(state.id_was_given(2) && !state.id_was_given(3));
    assert!(state.revision() > saved.revision());
    assert!(perform(&mut state, "show token boss").contains("AccessToken"));
    assert_eq!(perform(&mut state, "show sessions"), perform(&mut saved.clone(), "show sessions"));
    let trust = state.trust().expect("founded");
    assert!(trust.intermediates.is_empty());
    assert_eq!(
        trust.bundle.distrusted.ids.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["spiffe://mesh.internal/meshd/1"]
    );
    let reply = steps(&saved, founder(3)).into_iter().map(|step| apply(&mut state, step)).last();
    assert!(matches!(reply, Some(Reply::Refused(_))), "only a new cluster begins so");
}

#[test]
fn virtual_ips_of_the_present_stand_and_what_comes_back_has_its_own_where_nobody_else_does() {
    let mut state = furnished();
    lines(&mut state, &["put Service/shop/back ports=[]", "put Service/shop/taken ports=[]"]);
    let saved = state.clone();
    // Another cluster's past: there `taken` never was, and `rival` has its number.
    let mut state = furnished();
    lines(&mut state, &["put Service/shop/first ports=[]", "delete Service/shop/first"]);
    lines(&mut state, &["put Service/shop/rival ports=[]", "put Service/shop/web ports=[{\"port\":81}]"]);
    let ips = |state: &State, service: &str| state.virtual_ips(&service.parse().expect("a name"));
    let (web, taken) = (ips(&state, "shop/web"), ips(&saved, "shop/taken"));
    assert_eq!(ips(&state, "shop/rival"), taken);
    assert_eq!(restore(&mut state, &saved), Reply::Nothing);
    assert_eq!(ips(&state, "shop/web"), web, "what was there keeps its own");
    assert_eq!(ips(&state, "shop/rival"), None, "it is gone, and its number is kept back");
    let (back, instead) = (ips(&state, "shop/back"), ips(&state, "shop/taken"));
    assert!(back.is_some() && instead.is_some() && instead != taken, "{back:?}, {instead:?}");
}

#[test]
fn what_comes_back_to_a_cluster_that_lost_it_has_the_virtual_ips_that_it_had() {
    let saved = furnished();
    let mut state = State::new();
    perform(&mut state, "found mesh.internal");
    perform(&mut state, "number\nput Service/default/rival ports=[]");
    let (rival, web) = ("default/rival".parse().expect("a name"), "shop/web".parse().expect("a name"));
    assert_eq!(state.virtual_ips(&rival), saved.virtual_ips(&web), "the first one each");
    restore(&mut state, &saved);
    let mut later = State::new();
    perform(&mut later, "found mesh.internal");
    perform(&mut later, "number");
    later.numbers.last.insert((), 40);
    restore(&mut later, &saved);
    assert_eq!(later.virtual_ips(&web), saved.virtual_ips(&web));
    assert_ne!(state.virtual_ips(&web), saved.virtual_ips(&web), "another had it at the time");
}

#[test]
fn a_snapshot_with_virtual_ips_waits_for_members_that_do_not_know_of_them() {
    let saved = furnished();
    let mut state = State::new();
    perform(&mut state, "found mesh.internal");
    let reply = restore(&mut state, &saved);
    assert!(
        matches!(&reply, Reply::Refused(Refusal::Restore { reason }) if reason.contains("understand yet")),
        "{reply}"
    );
    perform(&mut state, "number");
    assert_eq!(restore(&mut state, &saved), Reply::Nothing);
    // A new cluster, which no older program can join from then on.
    let mut fresh = State::new();
    let founder = Founder { id: 2, admission: admission("new") };
    for step in steps(&saved, Some(founder)) {
        assert_eq!(apply(&mut fresh, step), Reply::Nothing);
    }
    assert_eq!(fresh.version_used(), VIRTUAL_IPS_SINCE);
    assert_eq!(perform(&mut fresh, "show numbers"), perform(&mut saved.clone(), "show numbers"));
}

#[test]
fn requests_to_rejoin_are_of_the_present_and_in_no_saved_snapshot() {
    let (saved, mut state) = (furnished(), furnished());
    assert_eq!((saved.rejoin_requests().count(), saved.to_save().rejoin_requests().count()), (1, 0));
    perform(&mut state, "ask h1 k5 10.0.1");
    assert_eq!(restore(&mut state, &saved), Reply::Nothing);
    assert_eq!(state.rejoin_requests().count(), 2, "who asks now asks still");
    state.check().expect("it keeps its invariants");
}
