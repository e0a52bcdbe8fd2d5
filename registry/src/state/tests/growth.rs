//! A change costs what it changes, however much there is: the entry of the log, the revision that the history keeps of it,
//! and the records that the index writes. The index's own store is another matter.

use super::*;

/// As many changes are counted, each an entry of its own.
const CHANGES: usize = 40;
/// The index writes what so many entries changed.
const BATCH: usize = 4;

/// Bytes of [`CHANGES`] changes of single endpoints.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    log: usize,
    history: usize,
    index: usize,
}

/// One of the endpoints of a source that has very many; its texts are as long as every other's.
fn endpoint(number: usize, port: usize) -> Object {
    let service = format!("service-{:04}", number / 10);
    let spec = json!({
        "service": service, "source": "discovery/old", "address": format!("10.0.{}.{}", 100 + number / 100, 100 + number % 100),
        "ports": [{"port": 80, "targetPort": 10_000 + port}],
    });
    let Value::Object(spec) = spec else { panic!("an object") };
    let key = Key::namespaced(Kind::Endpoint, name("default"), name(&format!("{service}-{number:06}")));
    let mut object = Object::new(key, spec);
    object.status = Some(json!({"health": "Healthy"}));
    object
}

fn brought(state: &mut State, puts: Vec<Object>) -> usize {
    let discovery = Discovery { puts, ..discovery("old", &["@1"]) };
    let command = Command::Discover(Box::new(discovery));
    let bytes = encode(&command).len();
    let reply = state.apply(Entry { at: Millis(2_000), command });
    assert_eq!(reply, Reply::Nothing);
    bytes
}

fn cost(endpoints: usize) -> Cost {
    let mut state = State::new();
    perform(&mut state, "at 1\nput DiscoverySource/old type=\"File\"");
    let all: Vec<Object> = (0..endpoints).map(|number| endpoint(number, 0)).collect();
    all.chunks(DISCOVERED_MAX).for_each(|some| {
        brought(&mut state, some.to_vec());
    });
    // What the index and the history still have to do for the first of them is done before it counts.
    (1..=CHANGES).for_each(|port| {
        brought(&mut state, vec![endpoint(port, port)]);
    });
    let mut cost = Cost { log: 0, history: 0, index: 0 };
    let mut held = state.clone();
    for change in 1..=CHANGES {
        cost.log += brought(&mut state, vec![endpoint(change, 100 + change)]);
        let revision = state.history.iter().next_back().expect("it is kept");
        cost.history += encode(&*revision).len();
        if change % BATCH == 0 {
            let records = state.record_changes(&held);
            cost.index +=
                records.map(|(key, value)| key.len() + value.map_or(0, |value| value.len())).sum::<usize>();
            held = state.clone();
        }
    }
    cost
}

#[test]
fn a_change_costs_no_more_where_there_is_much() {
    let (few, many) = (cost(50), cost(3_000));
    assert_eq!(few, many);
    let Cost { log, history, index } = few;
    assert!(log / CHANGES < 600, "{few:?}");
    assert!(history / CHANGES < 2 * log / CHANGES + 300, "what it was, and what it is: {few:?}");
    assert!(index < 2 * (log + history), "each once, and what is packed again: {few:?}");
}
