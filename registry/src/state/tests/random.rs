//! Any log, however it is cut, gives one state; and every state keeps its invariants.

use proptest::prelude::*;

use super::*;

/// An index, as a store holds it.
type Index = std::collections::BTreeMap<RecordKey, Vec<u8>>;

/// Brings an index from one state to another.
fn follow(index: &mut Index, now: &State, before: &State) {
    for (key, value) in now.record_changes(before) {
        match value {
            Some(value) => drop(index.insert(key, value)),
            None => drop(index.remove(&key)),
        }
    }
}

/// Commands over few names, so that they meet.
fn any_line() -> impl Strategy<Value = String> {
    let node = prop::sample::select(vec!["host-a", "host-b", "host-c"]);
    let namespace = prop::sample::select(vec!["default", "shop", "mesh-system"]);
    let service = prop::sample::select(vec!["web", "orders"]);
    let condition = prop::sample::select(vec!["", " if=absent", " if=3"]);
    prop_oneof![
        2 => (namespace.clone(), condition.clone()).prop_map(|(ns, expect)| format!("put Namespace/{ns}{expect}")),
        1 => namespace.clone().prop_map(|ns| format!("delete Namespace/{ns}")),
        3 => (node.clone(), prop::sample::select(vec![r#"["*/*"]"#, r#"["default/*"]"#, r#"["shop/*"]"#]), any::<bool>())
            .prop_map(|(node, services, disabled)| format!("put Node/{node} services={services} disabled={disabled}")),
        1 => node.clone().prop_map(|node| format!("delete Node/{node}")),
        3 => (namespace.clone(), service.clone(), 1..4u16, condition)
            .prop_map(|(ns, service, port, expect)| format!(r#"put Service/{ns}/{service} ports=[{{"port":{port}}}]{expect}"#)),
        3 => (namespace.clone(), service.clone()).prop_map(|(ns, service)| format!("delete Service/{ns}/{service}")),
        6 => (node.clone(), namespace.clone(), service.clone(), 1..4u16)
            .prop_map(|(node, ns, service, port)| format!("register {node} {ns}/{service}:{port}")),
        2 => (node.clone(), 1..30u64).prop_map(|(node, generation)| format!("expire {node} {generation}")),
        2 => (node.clone(), 1..30u64).prop_map(|(node, generation)| format!("stale {node} {generation}")),
        1 => (node.clone(), 1..30u64).prop_map(|(node, generation)| format!("unregister {node} {generation}")),
        2 => (1..3u8, 1..3u8).prop_map(|(id, uses)| format!("put JoinToken/t{id} uses={uses} services=[\"*/*\"] secret=s{id}")),
        1 => (1..3u8).prop_map(|id| format!("delete JoinToken/t{id}")),
        2 => (node.clone(), 1..4u8, 1..3u8).prop_map(|(node, key, network)| format!("ask {node} k{key} n{network}")),
        1 => (node.clone(), 1..4u8).prop_map(|(node, key)| format!("approve {node} k{key}")),
        1 => (node.clone(), 1..4u8).prop_map(|(node, key)| format!("deny {node} k{key} no")),
        1 => node.clone().prop_map(|node| format!("distrust-node {node}")),
        3 => (1..3u8, node, 1..4u8).prop_map(|(id, node, key)| format!("join s{id} {node} k{key}")),
        2 => (prop::collection::vec((namespace, service), 0..3))
            .prop_map(|some| some.iter().fold("number".to_owned(), |line, (ns, service)| format!("{line} {ns}/{service}"))),
        1 => Just("found mesh.internal".to_owned()),
        1 => (1..4u8).prop_map(|n| format!("root PEM{n}")),
        1 => (1..4u8).prop_map(|n| format!("admit folder{n}")),
        1 => (1..4u8).prop_map(|n| format!("forget {n}")),
    ]
}

/// Entries: one command or several, at times that may go back.
fn any_log() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0..200_000u64, prop::collection::vec(any_line(), 1..5)).prop_map(|(at, lines)| {
        let mut commands: Vec<_> = lines.iter().map(|line| command(line)).collect();
        let command = if commands.len() == 1 { commands.remove(0) } else { Command::Batch(commands) };
        Entry { at: Millis(at), command }
    });
    prop::collection::vec(entry, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_state_keeps_its_invariants_and_one_revision_belongs_to_an_entry(log in any_log()) {
        let mut state = State::new();
        for entry in log {
            let (before, stored) = (state.clone(), rmp_serde::to_vec_named(&entry).expect("it is written"));
            let read: Entry = rmp_serde::from_slice(&stored).expect("it is read");
            prop_assert_eq!(&read, &entry);
            state.apply(entry);
            prop_assert_eq!(state.check(), Ok(()));
            prop_assert!(state.revision() <= before.revision() + 1);
            let same = state.image().records == before.image().records;
            if state.revision() == before.revision() {
                prop_assert!(same, "a change without a revision");
            }
        }
    }

    /// Chunks end in what a member does between them: a snapshot that is read back, or an index that is brought up to date.
    #[test]
    fn one_log_gives_one_hash_however_it_is_cut(log in any_log(), cuts in prop::collection::vec((1..10usize, any::<bool>()), 1..20)) {
        let mut whole = State::new();
        for entry in log.clone() {
            whole.apply(entry);
        }
        let mut cut = State::new();
        let (mut log, mut cuts) = (log.into_iter().peekable(), cuts.into_iter().cycle());
        let mut index: Index = cut.records().collect();
        while log.peek().is_some() {
            let (length, snapshot) = cuts.next().expect("it has no end");
            let before = cut.clone();
            for entry in log.by_ref().take(length) {
                cut.apply(entry);
            }
            follow(&mut index, &cut, &before);
            let read = State::from_records(cut.sum(), &index, HISTORY_REVISIONS_MAX);
            let read = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(read.check(), Ok(()));
            cut = read;
            if snapshot {
                let read = State::from_image(&cut.image(), HISTORY_REVISIONS_MAX);
                let read = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(read.check(), Ok(()));
                // A snapshot that came takes the state's place; the index goes on from what it holds.
                follow(&mut index, &read, &cut);
                cut = read;
            }
        }
        prop_assert_eq!(cut.hash(), whole.hash());
        prop_assert_eq!(cut.image().records, whole.image().records, "the history too");
    }

    /// What watchers replay is what happened: the history's changes lead from any of its states to the last.
    #[test]
    fn the_history_replays_to_the_present(log in any_log(), skip in 0..30usize) {
        let mut state = State::new();
        let mut old = state.clone();
        for (at, entry) in log.into_iter().enumerate() {
            state.apply(entry);
            if at == skip {
                old = state.clone();
            }
        }
        let mut replayed: std::collections::BTreeMap<_, _> = old.objects().iter().map(|object| (object.key(), object.clone())).collect();
        for kept in state.history_since(old.revision()).expect("it is kept") {
            for changed in &kept.changes {
                prop_assert_eq!(replayed.get(&changed.key), changed.before.as_ref());
                match &changed.after {
                    Some(after) => drop(replayed.insert(changed.key.clone(), after.clone())),
                    None => drop(replayed.remove(&changed.key)),
                }
            }
        }
        let present: std::collections::BTreeMap<_, _> = state.objects().iter().map(|object| (object.key(), object.clone())).collect();
        prop_assert_eq!(replayed, present);
    }
}
