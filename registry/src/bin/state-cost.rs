//! What the state costs as it grows: memory of its own process, the time of one change, the time and size of a snapshot.
//! Prints one line of JSON; it touches no file and no network.
//!
//! ```text
//! state-cost ENDPOINTS SERVICES
//! ```

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{error::Error, time::Instant};

use model::{
    duration::Millis,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::ServicePort,
};
use registry::{Change, Claim, Command, Entry, Expect, Register, Reply, State, Write};
use serde_json::{Map, Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Endpoints of one node, as many as a registration may have.
const ENDPOINTS_PER_NODE: usize = 1_000;
/// As many changes are timed; their median counts.
const CHANGES: usize = 400;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = || arguments.next().ok_or("usage: state-cost ENDPOINTS SERVICES");
    let (endpoints, services) = (next()??, next()??);
    let idle_kb = resident_kb();
    let started = now();
    let mut state = filled(endpoints, services)?;
    let load_ms = millis(started);
    // What the history keeps of the load goes as time goes on; here it stands, as in a member just loaded.
    let resident_kb = resident_kb() - idle_kb;
    let put = median((0..CHANGES).map(|n| timed_put(&mut state, n % services.max(1), n)));
    let register =
        median((0..CHANGES.min(40)).map(|n| timed_registration(&mut state, endpoints, services, n)));
    let started = now();
    let image = state.image();
    let image_ms = millis(started);
    let bytes: usize = image.records.iter().map(|(key, value)| key.0.len() + value.0.len()).sum();
    let started = now();
    let read = State::from_image(&image, registry::state::HISTORY_REVISIONS_MAX)?;
    let read_ms = millis(started);
    if read.hash() != state.hash() {
        return Err("the state that was read back is another".into());
    }
    let line = json!({
        "endpoints": endpoints, "services": services, "loadMs": load_ms, "residentMb": resident_kb * 1_024.0 / 1e6,
        "putMicros": put?, "registrationOfOneChangeMicros": register?,
        "snapshotMs": image_ms, "snapshotMb": bytes as f64 / 1e6, "readBackMs": read_ms,
    });
    println!("{line}");
    Ok(())
}

/// `services` services with `endpoints` endpoints between them, registered by as many nodes as it takes.
fn filled(endpoints: usize, services: usize) -> Outcome<State> {
    let mut state = State::new();
    for node in 0..endpoints.div_ceil(ENDPOINTS_PER_NODE) {
        let mut spec = Map::new();
        spec.insert("services".to_owned(), json!(["*/*"]));
        let object = Object::new(Key::mesh_wide(Kind::Node, node_name(node)?), spec);
        done(state.apply(entry(write(object))))?;
        done(state.apply(entry(Command::Register(registration(node, endpoints, services, 0)?))))?;
    }
    Ok(state)
}

/// One changed service, applied as a member does: while others hold the state of before.
fn timed_put(state: &mut State, service: usize, n: usize) -> Outcome<f64> {
    let key = Key::namespaced(Kind::Service, "default".parse()?, service_name(service)?);
    let mut spec = Map::new();
    spec.insert("ports".to_owned(), json!([{"port": 80}]));
    let mut object = Object::new(key, spec);
    object
        .metadata
        .annotations
        .insert("value".parse()?, model::shape::Text::new(&n.to_string()).ok_or("a text")?);
    timed(state, write(object))
}

/// A node registers its whole set, of which one endpoint became another.
fn timed_registration(state: &mut State, endpoints: usize, services: usize, n: usize) -> Outcome<f64> {
    timed(state, Command::Register(registration(0, endpoints, services, n + 1)?))
}

fn timed(state: &mut State, command: Command) -> Outcome<f64> {
    let held = state.clone();
    let started = now();
    let reply = state.apply(entry(command));
    let micros = millis(started) * 1e3;
    drop(held);
    done(reply)?;
    Ok(micros)
}

fn registration(node: usize, endpoints: usize, services: usize, change: usize) -> Outcome<Register> {
    let own = node * ENDPOINTS_PER_NODE..endpoints.min((node + 1) * ENDPOINTS_PER_NODE);
    let per_service = (endpoints / services.max(1)).max(1);
    let service_of = |endpoint: usize| endpoint / per_service;
    let mut claims = Vec::new();
    for service in service_of(own.start)..=service_of(own.end - 1) {
        let ports: Vec<ServicePort> = Vec::new();
        let service = ServiceName::new("default".parse()?, service_name(service)?);
        claims.push(Claim { service, ports, labels: Default::default() });
    }
    let mut objects = Vec::new();
    for endpoint in own.clone() {
        objects.push(endpoint_object(
            node,
            endpoint,
            service_of(endpoint),
            change * usize::from(endpoint == own.start),
        )?);
    }
    Ok(Register {
        node: node_name(node)?,
        version: "0.0.0".to_owned(),
        addresses: vec!["10.0.0.5".to_owned()],
        services: claims,
        endpoints: objects,
    })
}

fn endpoint_object(node: usize, endpoint: usize, service: usize, change: usize) -> Outcome<Object> {
    let name: Name = format!("ep-{endpoint}-host-{node}").parse()?;
    let spec = json!({
        "service": service_name(service)?, "node": node_name(node)?, "source": "registration",
        "address": format!("10.{}.{}.{}", endpoint >> 16 & 255, endpoint >> 8 & 255, endpoint & 255),
        "ports": [{"port": 80, "targetPort": 8_080 + change}], "zone": "a", "weight": 1,
    });
    let Value::Object(spec) = spec else { return Err("a map".into()) };
    let mut object = Object::new(Key::namespaced(Kind::Endpoint, "default".parse()?, name), spec);
    object.status = Some(json!({"health": "Healthy", "stale": false}));
    Ok(object)
}

fn write(object: Object) -> Command {
    let change = Change::Put { object, expect: Expect::Any, credential: None };
    Command::Write(Write { actor: "bench".to_owned(), changes: vec![change] })
}

fn entry(command: Command) -> Entry {
    Entry { at: Millis(1), command }
}

fn done(reply: Reply) -> Outcome<()> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.to_string().into()),
        _ => Ok(()),
    }
}

fn node_name(node: usize) -> Outcome<Name> {
    Ok(format!("host-{node}").parse()?)
}

fn service_name(service: usize) -> Outcome<Name> {
    Ok(format!("service-{service}").parse()?)
}

fn median(figures: impl Iterator<Item = Outcome<f64>>) -> Outcome<f64> {
    let mut figures = figures.collect::<Outcome<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().ok_or_else(|| "nothing was timed".into())
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn millis(since: Instant) -> f64 {
    now().duration_since(since).as_secs_f64() * 1e3
}

fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
