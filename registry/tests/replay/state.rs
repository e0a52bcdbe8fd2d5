//! One log gives one state: however it is cut into chunks, and whatever is stored and read back between them.

use model::{
    duration::Millis,
    kind::Kind,
    name::Name,
    object::{Key, Object},
    shape::{Mode, decode},
};
use registry::{
    Addresses, Admission, Change, Claim, Command, Entry, Expect, MemberChange, Register, SessionRef, State,
    TrustChange, Write, state::HISTORY_REVISIONS_MAX,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{WORLDS, dice::Dice, found, worlds};

/// Carries out a chunk of the log.
type Apply = dyn Fn(&mut State, &[Entry], &mut Dice);

fn apply(state: &mut State, chunk: &[Entry], _dice: &mut Dice) {
    for entry in chunk {
        state.apply(entry.clone());
    }
}

#[test]
fn a_log_gives_one_state_however_it_is_cut_and_stored() {
    worlds("one log, one state", WORLDS.0 / 2, |seed| play(seed, &apply));
}

/// Planted: a state that stamps what it does with the time at which it does it.
#[test]
fn a_state_that_reads_a_clock_is_found() {
    let reads_a_clock = |state: &mut State, chunk: &[Entry], dice: &mut Dice| {
        for entry in chunk {
            let at = Millis(entry.at.0 + dice.below(2));
            state.apply(Entry { at, ..entry.clone() });
        }
    };
    found("a state that reads a clock", |seed| play(seed, &reads_a_clock));
}

/// Planted: a state that makes one revision of what it was handed at once.
#[test]
fn a_state_that_depends_on_its_chunks_is_found() {
    let by_chunk = |state: &mut State, chunk: &[Entry], _: &mut Dice| {
        let Some(last) = chunk.last() else { return };
        let commands = chunk.iter().map(|entry| entry.command.clone()).collect();
        state.apply(Entry { at: last.at, command: Command::Batch(commands) });
    };
    found("a state that depends on its chunks", |seed| play(seed, &by_chunk));
}

/// Planted: a snapshot that leaves out a record.
#[test]
fn a_snapshot_that_leaves_something_out_is_found() {
    found("a snapshot without its first record", |seed| {
        let log = log(&mut Dice::new(seed), 40);
        let mut state = State::new();
        apply(&mut state, &log, &mut Dice::new(seed));
        let mut image = state.image();
        image.records.remove(0);
        State::from_image(&image, HISTORY_REVISIONS_MAX).map(drop).map_err(|error| error.to_string())
    });
}

fn play(seed: u64, faulty: &Apply) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let length = 20 + dice.below(60);
    let log = log(&mut dice, length);
    let mut whole = State::new();
    apply(&mut whole, &log, &mut dice);
    let (mut cut, mut rest) = (State::new(), &log[..]);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + usize::try_from(dice.below(8)).expect("small") % rest.len());
        faulty(&mut cut, chunk, &mut dice);
        cut.check().map_err(|broken| broken.to_string())?;
        if dice.percent(40) {
            let image = rmp_serde::to_vec_named(&cut.image()).expect("it is written");
            let image = rmp_serde::from_slice(&image).map_err(|error| error.to_string())?;
            cut = State::from_image(&image, HISTORY_REVISIONS_MAX).map_err(|error| error.to_string())?;
        }
        rest = after;
    }
    match (cut.hash() == whole.hash(), cut.revision() == whole.revision()) {
        (true, true) => Ok(()),
        _ => Err(format!("revision {} cut, {} whole, or other content", cut.revision(), whole.revision())),
    }
}

/// Entries over few names, so that they meet; their times may go back.
pub(crate) fn log(dice: &mut Dice, length: u64) -> Vec<Entry> {
    let mut entry = |_| {
        let mut commands: Vec<_> = (0..=dice.below(3)).map(|_| command(dice)).collect();
        let command = if commands.len() == 1 { commands.remove(0) } else { Command::Batch(commands) };
        Entry { at: Millis(dice.below(100_000)), command }
    };
    (0..length).map(&mut entry).collect()
}

fn command(dice: &mut Dice) -> Command {
    let node: Name = dice.pick(&["host-a", "host-b", "host-c"]).parse().expect("a name");
    let namespace = *dice.pick(&["default", "shop", "mesh-system"]);
    let service = *dice.pick(&["web", "orders"]);
    let session = SessionRef { node: node.clone(), generation: 1 + dice.below(60) };
    match dice.below(21) {
        0..=1 => write(Kind::Namespace, None, namespace, json!({}), dice),
        2..=4 => {
            let granted = dice.pick(&["*/*", "default/*", "shop/*"]);
            let spec = json!({"services": [granted], "disabled": dice.percent(10)});
            write(Kind::Node, None, node.as_str(), spec, dice)
        }
        5..=7 => {
            let spec = json!({"ports": [{"port": 1 + dice.below(3), "protocol": "http"}]});
            write(Kind::Service, Some(namespace), service, spec, dice)
        }
        8..=13 => Command::Register(register(node, namespace, service, dice)),
        14 => Command::Expire(vec![session]),
        15 => Command::MarkStale(vec![session]),
        16 => Command::Unregister(session),
        17 => Command::Trust(TrustChange::Found {
            domain: "mesh.internal".parse().expect("a domain"),
            epoch: Uuid::from_u128(u128::from(dice.below(2))),
        }),
        18 => {
            let addresses = Addresses { raft: "a:1".to_owned(), api: "a:2".to_owned() };
            let incarnation = Uuid::from_u128(1 + u128::from(dice.below(4)));
            Command::Member(MemberChange::Admit(Admission { addresses, incarnation }))
        }
        19 => Command::Number(vec![format!("{namespace}/{service}").parse().expect("a name")]),
        _ => Command::Member(MemberChange::Forget { id: 1 + dice.below(4) }),
    }
}

fn write(kind: Kind, namespace: Option<&str>, name: &str, spec: Value, dice: &mut Dice) -> Command {
    let name = name.parse().expect("a name");
    let key = match namespace {
        Some(namespace) => Key::namespaced(kind, namespace.parse().expect("a name"), name),
        None => Key::mesh_wide(kind, name),
    };
    let expect = *dice.pick(&[Expect::Any, Expect::Any, Expect::Absent, Expect::Revision(3)]);
    let Value::Object(spec) = spec else { unreachable!("specs are objects") };
    let change = match dice.percent(25) {
        true => Change::Delete { key, expect },
        false => Change::Put { object: Object::new(key, spec), expect, credential: None },
    };
    Command::Write(Write { actor: "test".to_owned(), changes: vec![change] })
}

fn register(node: Name, namespace: &str, service: &str, dice: &mut Dice) -> Register {
    let port = 1 + dice.below(3);
    let ports = json!([{"port": port, "protocol": "http"}]);
    let claim = Claim {
        service: format!("{namespace}/{service}").parse().expect("a name"),
        ports: decode(&ports, Mode::Lenient).expect("ports"),
        labels: Default::default(),
    };
    let name = format!("{service}-{node}").parse().expect("a name");
    let spec = json!({
        "service": service, "node": node, "source": "registration", "address": "10.0.0.1",
        "ports": [{"port": port, "targetPort": 8_080}],
    });
    let spec: Map<String, Value> = spec.as_object().expect("an object").clone();
    let key = Key::namespaced(Kind::Endpoint, namespace.parse().expect("a name"), name);
    let mut endpoint = Object::new(key, spec);
    endpoint.status = Some(json!({"health": dice.pick(&["Healthy", "Unhealthy"])}));
    let endpoints = if dice.percent(80) { vec![endpoint] } else { vec![] };
    Register { node, version: String::new(), addresses: vec![], services: vec![claim], endpoints }
}
