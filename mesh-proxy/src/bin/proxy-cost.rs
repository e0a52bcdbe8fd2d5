//! What the data plane's decisions cost as the mesh grows, and what one change of it does: for a profiler that counts, as
//! the work is exactly as much as is asked for. Prints one line of JSON; it touches no file and no network.
//!
//! ```text
//! proxy-cost decide ROUTES ENDPOINTS REQUESTS     as many policies as routes, all for one service
//! proxy-cost apply ENDPOINTS SERVICES CHANGES     of one endpoint each, as lines of the control plane
//! ```

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{collections::BTreeMap, error::Error, hint::black_box, net::Ipv4Addr, time::Instant};

use mesh_proxy::config::held::{Coming, Held};
use model::{
    identity::SpiffeId,
    kind::Kind,
    name::ServiceName,
    object::{Key, Object},
    proxy::{Line, parse_line},
    resource::Protocol,
};
use serde_json::{Value, json};
use traffic::{
    Dice,
    balancer::{Ask, Experience, Known, pick},
    compile::{Inputs, LocalApp, compile},
    endpoint::EndpointKey,
    path,
    policy::{self, Peer},
    request::{Caller, RequestHead},
    snapshot::Snapshot,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: proxy-cost decide ROUTES ENDPOINTS REQUESTS | apply ENDPOINTS SERVICES CHANGES";
/// The seed of what is drawn: the same in every run, so that what is counted is the same.
const SEED: u64 = 7;

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [what, numbers @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let numbers: Vec<usize> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let line = match (what.as_str(), &numbers[..]) {
        ("decide", [routes, endpoints, requests]) => decide(*routes, *endpoints, *requests)?,
        ("apply", [endpoints, services, changes]) => apply(*endpoints, *services, *changes)?,
        _ => return Err(USAGE.into()),
    };
    println!("{line}");
    Ok(())
}

/// Nothing is known of any endpoint.
struct Unknown;

impl Experience for Unknown {
    fn of(&mut self, _: &EndpointKey) -> Known {
        Known::default()
    }

    fn ejected(&self, _: &ServiceName) -> usize {
        0
    }
}

/// Requests to one service: routed, balanced and, as on the other side, permitted. Half of the routes and policies ask for
/// a whole path, half for a prefix; each request is for the next of them.
fn decide(routes: usize, endpoints: usize, requests: usize) -> Outcome<Value> {
    let mut held = Mesh::new(endpoints, 1)?;
    for n in 0..routes {
        let path = json!({"type": if n % 2 == 0 { "Exact" } else { "PathPrefix" }, "value": format!("/api/v{n}/orders")});
        held.put(
            Kind::HTTPRoute,
            &format!("r{n}"),
            json!({"parentRefs": [{"name": "s0"}],
            "rules": [{"matches": [{"path": path}], "backendRefs": [{"name": "s0", "port": 80}]}]}),
        )?;
        held.put(Kind::AuthorizationPolicy, &format!("p{n}"), json!({"targetRefs": [{"name": "s0"}],
            "rules": [{"from": [{"services": ["default/web"]}], "to": [{"methods": ["GET"], "paths": [path]}]}]}))?;
    }
    let snapshot = held.compiled(None)?;
    let targets: Vec<_> = (0..routes).map(|n| format!("/api/v{n}/orders")).collect();
    let caller: ServiceName = "default/web".parse()?;
    let peer = SpiffeId::service(&snapshot.domain, &caller);
    let (started, mut dice) = (now(), Dice::seeded(SEED));
    for target in targets.iter().cycle().take(requests) {
        black_box(one(&snapshot, target, (&caller, &peer), &mut dice)?);
    }
    let micros = millis(started) * 1e3 / requests.max(1) as f64;
    Ok(json!({"routes": routes, "endpoints": endpoints, "requests": requests, "microsEach": micros}))
}

fn one(
    snapshot: &Snapshot,
    target: &str,
    (caller, peer): (&ServiceName, &SpiffeId),
    dice: &mut Dice,
) -> Outcome<u64> {
    let own = snapshot.inbound().by_server_name("s0.default.mesh").ok_or("it is not here")?;
    let path = path::normalize(target, own.policies.strictness())?;
    let head = RequestHead { method: "GET", path: &path, authority: "s0.default.mesh", fields: &[] };
    let destination = snapshot.by_hostname(head.authority).ok_or("there is no such service")?;
    let port = destination.default_port().ok_or("it has no port")?;
    let backend = port.route(&head, Caller::of(caller), dice).backend.map_err(ToString::to_string)?;
    let picked = pick(&backend.pool, &Ask::default(), &mut Unknown, &[], dice).ok_or("nobody is there")?;
    let call = policy::Call { port: 80, request: Some(&head) };
    let permit = policy::authorize(&own.policies, Peer::Verified(peer), call, &mut Vec::new())?;
    Ok(picked.key.id() ^ permit.rule().as_str().len() as u64)
}

/// Changes of one endpoint each: read as lines, held, and compiled.
fn apply(endpoints: usize, services: usize, changes: usize) -> Outcome<Value> {
    let mut held = Mesh::new(endpoints, services)?;
    let mut snapshot = held.compiled(None)?;
    let mut took = Vec::with_capacity(changes);
    for n in 0..changes {
        let mut object =
            held.held.objects[&key(Kind::Endpoint, &format!("e{}", n % endpoints))?].as_ref().clone();
        object.status =
            Some(json!({"health": if (n / endpoints).is_multiple_of(2) { "Unhealthy" } else { "Healthy" }}));
        let line = serde_json::to_vec(&json!({"type": "put", "object": object}))?;
        let started = now();
        held.take(parse_line(&line)?)?;
        held.take(Line::Sync { revision: n as u64 + 2 })?;
        snapshot = held.compiled(Some(&snapshot))?;
        took.push(millis(started));
    }
    took.sort_by(f64::total_cmp);
    let work = snapshot.work();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    Ok(json!({"endpoints": endpoints, "services": services, "changes": changes, "millis": median,
        "millisMost": took.last(), "readOfLast": work.read, "boundOfLast": work.bound}))
}

/// What a proxy holds: services with endpoints between them, of which it runs the first.
struct Mesh {
    held: Held,
    coming: Coming,
}

impl Mesh {
    fn new(endpoints: usize, services: usize) -> Outcome<Self> {
        let held = Held::default();
        let (_, coming) = held.ask(&Default::default(), false);
        let mut mesh = Self { held, coming };
        for n in 0..services {
            mesh.put(Kind::Service, &format!("s{n}"), json!({"ports": [{"port": 80, "protocol": "http"}]}))?;
        }
        for n in 0..endpoints {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + n as u32);
            mesh.put(
                Kind::Endpoint,
                &format!("e{n}"),
                json!({"service": format!("s{}", n % services), "node": format!("host-{n}"),
                "address": address, "ports": [{"port": 80, "targetPort": 9000}]}),
            )?;
        }
        Ok(mesh)
    }

    fn put(&mut self, kind: Kind, name: &str, spec: Value) -> Outcome<()> {
        let Value::Object(spec) = spec else { return Err("a spec is a map".into()) };
        self.take(Line::Put { object: Object::new(key(kind, name)?, spec) })
    }

    fn take(&mut self, line: Line) -> Outcome<()> {
        self.held.step(&mut self.coming, line);
        Ok(())
    }

    fn compiled(&mut self, before: Option<&Snapshot>) -> Outcome<Snapshot> {
        if before.is_none() {
            self.take(Line::Sync { revision: 1 })?;
        }
        let own = LocalApp {
            service: "default/s0".parse()?,
            port: 80,
            protocol: Protocol::Http,
            target: (Ipv4Addr::LOCALHOST, 9000).into(),
        };
        let inputs = Inputs {
            revision: self.held.revision,
            domain: "mesh.internal".parse()?,
            trust_generation: 0,
            objects: self.held.objects.clone(),
            local: vec![own],
            callers: BTreeMap::new(),
        };
        Ok(compile(before, &inputs)?)
    }
}

fn key(kind: Kind, name: &str) -> Outcome<Key> {
    Ok(Key::namespaced(kind, "default".parse()?, name.parse()?))
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn millis(since: Instant) -> f64 {
    now().duration_since(since).as_secs_f64() * 1e3
}
