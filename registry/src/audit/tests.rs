use std::fs;

use model::{
    kind::Kind,
    object::{Key, Object},
};
use serde_json::Map;

use super::*;
use crate::command::{Entry, Expect, TrustChange, Write};

fn write(actor: &str, name: &str) -> Command {
    let key = Key::mesh_wide(Kind::Namespace, name.parse().expect("a name"));
    let object = Object::new(key, Map::new());
    Command::Write(Write {
        actor: actor.to_owned(),
        changes: vec![Change::Put { object, expect: Expect::Absent, credential: None }],
    })
}

fn apply(state: &mut State, index: u64, command: Command) -> Vec<Record> {
    let actions = actions(&command);
    let reply = state.apply(Entry { at: Millis(index * 1_000), command });
    records(index, state, actions, &reply)
}

#[test]
fn lines_say_who_did_what_and_what_came_of_it() {
    let mut state = State::new();
    let batch = Command::Batch(vec![write("ann", "shop"), Command::Expire(Vec::new()), write("bob", "shop")]);
    let lines = apply(&mut state, 5, batch);
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.actor.as_str(), line.action.as_str(), line.target.as_str(), line.outcome.as_str()))
        .collect();
    let path = "/v1/namespaces/shop";
    assert_eq!(
        told,
        [("ann", "put", path, "created"), ("bob", "put", path, "refused: Namespace shop exists")]
    );
    assert_eq!((lines[0].index, lines[0].revision, lines[0].at), (5, 1, Millis(5_000)));
    let trust = apply(&mut state, 6, Command::Trust(TrustChange::AddRoot { pem: "PEM".to_owned() }));
    assert_eq!((trust[0].action.as_str(), trust[0].target.as_str()), ("trust", "AddRoot"));
}

#[tokio::test]
async fn a_replay_writes_no_line_twice_and_a_torn_line_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = State::new();
    let lines: Vec<_> = (1..=4).flat_map(|n| apply(&mut state, n, write("ann", &format!("n{n}")))).collect();
    let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
    sink.record(lines[..2].to_vec()).await;
    sink.synced().await.expect("it syncs");
    drop(sink);
    thread.join().expect("it ends");

    let path = segment::files(folder.path()).expect("the folder")[0].clone();
    let mut torn = fs::read(&path).expect("the file");
    let whole = torn.len();
    torn.extend_from_slice(b"00000000 {\"ind");
    fs::write(&path, torn).expect("it is written");
    let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
    sink.record(lines.clone()).await;
    drop(sink);
    thread.join().expect("it ends");
    assert_eq!(read(folder.path(), 0).expect("it reads"), lines);
    assert_eq!(read(folder.path(), 3).expect("it reads"), lines[3..]);

    let mut flipped = fs::read(&path).expect("the file");
    flipped[whole - 10] ^= 1;
    fs::write(&path, flipped).expect("it is written");
    let told = read(folder.path(), 0).expect("it reads");
    let sound: Vec<_> = told.iter().filter(|record| record.action != "gap").cloned().collect();
    assert_eq!(sound, [&lines[..1], &lines[2..]].concat(), "never a damaged line");
    assert!(told.iter().any(|record| record.outcome.contains("are damaged")), "{told:?}");

    // What comes next stands in a file of its own: the damaged one stays as it is.
    let fresh = apply(&mut state, 5, write("ann", "n5"));
    let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
    sink.record(fresh.clone()).await;
    drop(sink);
    thread.join().expect("it ends");
    assert_eq!(segment::files(folder.path()).expect("the folder").len(), 2);
    assert_eq!(read(folder.path(), 4).expect("it reads"), fresh);
}

#[tokio::test]
async fn lines_are_there_for_who_asks_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = State::new();
    let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
    let mut lines = Vec::new();
    for n in 1..=2 * QUEUE_BATCHES_MAX as u64 {
        let line = apply(&mut state, n, write("ann", &format!("n{n}")));
        sink.record(line.clone()).await;
        lines.extend(line);
    }
    sink.written().await.expect("it is written");
    assert_eq!(read(folder.path(), 0).expect("it reads"), lines);
    sink.end().await;
    thread.join().expect("it ends");
    sink.written().await.expect_err("nobody writes any more");
}

#[tokio::test]
async fn an_entry_whose_lines_were_torn_apart_is_whole_after_a_replay() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = State::new();
    let batch = Command::Batch(["a", "b", "c"].map(|name| write("ann", name)).into());
    let lines: Vec<_> = [apply(&mut state, 1, write("ann", "n1")), apply(&mut state, 2, batch)]
        .into_iter()
        .flatten()
        .collect();
    let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
    sink.record(lines.clone()).await;
    drop(sink);
    thread.join().expect("it ends");
    let path = segment::files(folder.path()).expect("the folder")[0].clone();
    let text = fs::read_to_string(&path).expect("the file");
    for kept in 0..=lines.len() {
        let torn: String = text.split_inclusive('\n').take(kept).collect();
        fs::write(&path, torn).expect("it is written");
        // The next start replays all of it, the one after that the last entry once more.
        for replayed in [&lines[..], &lines[1..]] {
            let (sink, thread) = open(folder.path(), Disk::new()).expect("it opens");
            sink.record(replayed.to_vec()).await;
            drop(sink);
            thread.join().expect("it ends");
        }
        assert_eq!(read(folder.path(), 0).expect("it reads"), lines, "{kept} lines were kept");
    }
}
