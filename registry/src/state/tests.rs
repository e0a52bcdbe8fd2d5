//! The state through a tiny language: each script in `testdata/` is a series of blocks `command…`, `----`, what came of
//! it. `REWRITE=1` writes what came of it into the files; read the difference before you believe it.

use std::{fs, path::PathBuf};

use model::{
    identity::SpiffeId,
    join::{JoinAttempt, JoinRole},
    kind::Kind,
    name::Name,
    object::{Key, Object},
    resource::ServicePort,
    shape::{Mode, decode},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::command::{
    Addresses, Admission, Change, Claim, Credential, Discovery, Expect, Filing, Judgement, MemberChange,
    RedeemJoin, Refused, Register, RejoinStep, Said, SessionRef, TrustChange, Write,
};

mod growth;
mod random;
mod restore;

/// A state with something of every sort in it.
pub(crate) fn furnished() -> State {
    let mut state = State::new();
    for line in FURNITURE {
        perform(&mut state, line);
    }
    state.check().expect("the state keeps its invariants");
    state
}

const FURNITURE: &[&str] = &[
    "at 100\nfound mesh.internal",
    "root R1",
    "admit a",
    "boot 1 a 1 n",
    "intermediate 1 I1",
    "put AccessToken/boss roles=[\"admin\"] secret=boss",
    "put JoinToken/door services=[\"*/*\"] uses=5 secret=door",
    "put Namespace/shop",
    "put Service/shop/web ports=[{\"port\":80}]",
    "join door h1 k1",
    "register h1 shop/web:80 default/own:90",
    "put Role/ops rules=[]",
    "number shop/web",
    "ask h1 k2 10.0.0",
];

#[test]
fn scripts_say_what_comes_of_each_command() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/state/testdata");
    let mut scripts = 0;
    for entry in fs::read_dir(folder).expect("the scripts") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a script");
        let actual = run(&text);
        if std::env::var_os("REWRITE").is_some() {
            fs::write(&path, actual).expect("it is written");
        } else {
            assert_eq!(actual, text, "{}", path.display());
        }
        scripts += 1;
    }
    assert!(scripts >= 6, "only {scripts} scripts were found");
}

/// Runs a script; answers it with what came of each block.
fn run(text: &str) -> String {
    let mut state = State::new();
    let mut out = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with('#') {
            out += &format!("{block}\n\n");
            continue;
        }
        let commands = block.split("----").next().unwrap_or_default().trim();
        let result = perform(&mut state, commands);
        state.check().expect("the state keeps its invariants");
        out += &format!("{commands}\n----\n{result}\n\n");
    }
    format!("{}\n", out.trim_end())
}

/// One block: lines are one entry together, or one `show`.
pub(crate) fn perform(state: &mut State, commands: &str) -> String {
    if let Some(what) = commands.strip_prefix("show ") {
        return show(state, what);
    }
    let (mut at, mut list) = (state.time(), Vec::new());
    for line in commands.lines() {
        match line.strip_prefix("at ") {
            Some(seconds) => at = Millis(seconds.parse::<u64>().expect("seconds") * 1_000),
            None => list.push(command(line)),
        }
    }
    let single = list.len() == 1;
    let command = if single { list.remove(0) } else { Command::Batch(list) };
    let before = state.revision();
    let reply = state.apply(Entry { at, command });
    let revision = if state.revision() == before {
        "no revision".to_owned()
    } else {
        format!("revision {}", state.revision())
    };
    format!("{}\n{revision}", print(&reply))
}

fn command(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["put", ref changes @ ..] => {
            Command::Write(Write { actor: "test".to_owned(), changes: vec![put(changes)] })
        }
        ["delete", key, ref rest @ ..] => {
            let change = Change::Delete { key: parse_key(key), expect: expect(rest) };
            Command::Write(Write { actor: "test".to_owned(), changes: vec![change] })
        }
        ["both", ..] => {
            let changes = line["both ".len()..].split(" and ").map(|part| match command(part) {
                Command::Write(write) => write.changes,
                other => panic!("{other} is no write"),
            });
            Command::Write(Write { actor: "test".to_owned(), changes: changes.flatten().collect() })
        }
        ["register", node, ref services @ ..] => Command::Register(register(node, services)),
        ["unregister", node, generation] => Command::Unregister(session(node, generation)),
        ["expire", node, generation] => Command::Expire(vec![session(node, generation)]),
        ["stale", node, generation] => Command::MarkStale(vec![session(node, generation)]),
        ["join", token, node, key] => Command::RedeemJoin(join(token, node, key, JoinRole::Host)),
        ["join-server", token, node, key] => Command::RedeemJoin(join(token, node, key, JoinRole::Server)),
        ["ask", node, key, network] => {
            Command::Rejoin(RejoinStep::File(Box::new(filing(node, key, network))))
        }
        ["approve", node, key] => Command::Rejoin(RejoinStep::Judge(Box::new(judgement(node, key, "")))),
        ["deny", node, key, reason] => {
            Command::Rejoin(RejoinStep::Judge(Box::new(judgement(node, key, reason))))
        }
        ["discover", source, ref steps @ ..] => Command::Discover(Box::new(discovery(source, steps))),
        ["distrust-node", node] => Command::Trust(TrustChange::Distrust(Refused::Node(name(node)))),
        ["found", domain] => Command::Trust(TrustChange::Found {
            domain: domain.parse().expect("a domain"),
            epoch: Uuid::from_u128(7),
        }),
        ["root", pem] => Command::Trust(TrustChange::AddRoot { pem: pem.to_owned() }),
        ["drop-root", pem] => Command::Trust(TrustChange::DropRoot { pem: pem.to_owned() }),
        ["intermediate", member, pem] => Command::Trust(TrustChange::SetIntermediate {
            member: member.parse().expect("an id"),
            pem: pem.to_owned(),
        }),
        ["distrust", id] => {
            Command::Trust(TrustChange::Distrust(Refused::Id(id.parse::<SpiffeId>().expect("an id"))))
        }
        ["number", ref services @ ..] => {
            Command::Number(services.iter().map(|service| service.parse().expect("a service")).collect())
        }
        ["admit", folder] => Command::Member(MemberChange::Admit(admission(folder))),
        ["boot", id, folder, boot, nonce] => Command::Member(MemberChange::Boot {
            id: id.parse().expect("an id"),
            incarnation: uuid(folder),
            boot: boot.parse().expect("a number"),
            nonce: uuid(nonce),
            command_version: 1,
            addresses: None,
            program: None,
        }),
        ["forget", id] => Command::Member(MemberChange::Forget { id: id.parse().expect("an id") }),
        _ => panic!("'{line}' is no command"),
    }
}

/// `kind/[namespace/]name [field=json]… [~annotation=value] [if=absent|revision] [secret=id]`
fn put(words: &[&str]) -> Change {
    let mut object = Object::new(parse_key(words[0]), Map::new());
    let mut credential = None;
    for word in &words[1..] {
        let (name, value) = word.split_once('=').expect("name=value");
        match name {
            "if" => {}
            "secret" => credential = Some(Credential { id: value.to_owned(), hash: hash(value) }),
            _ => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
                object.spec.insert(name.to_owned(), value);
            }
        }
    }
    Change::Put { object, expect: expect(&words[1..]), credential }
}

fn expect(words: &[&str]) -> Expect {
    match words.iter().find_map(|word| word.strip_prefix("if=")) {
        None => Expect::Any,
        Some("absent") => Expect::Absent,
        Some(revision) => Expect::Revision(revision.parse().expect("a revision")),
    }
}

/// `service:port[/protocol][!Unhealthy]`: a claim, with an endpoint named after node and service.
fn register(node: &str, services: &[&str]) -> Register {
    let mut register = Register {
        node: name(node),
        version: "1".to_owned(),
        addresses: Vec::new(),
        services: Vec::new(),
        endpoints: Vec::new(),
    };
    for service in services {
        let (service, port) = service.split_once(':').expect("service:port");
        let (port, health) = port.split_once('!').unwrap_or((port, "Healthy"));
        let (port, protocol) = port.split_once('/').unwrap_or((port, "auto"));
        let port: u16 = port.parse().expect("a port");
        let service: ServiceName = service.parse().expect("a service");
        let ports: Vec<ServicePort> =
            decode(&json!([{"port": port, "protocol": protocol}]), Mode::Strict).expect("ports");
        let spec = json!({"service": service.name, "node": node, "address": "10.0.0.1", "ports": [{"port": port, "targetPort": port}]});
        let key = Key::namespaced(
            Kind::Endpoint,
            service.namespace.clone(),
            name(&format!("{node}-{}", service.name)),
        );
        let Value::Object(spec) = spec else { panic!("an object") };
        let mut endpoint = Object::new(key, spec);
        endpoint.status = Some(json!({"health": health}));
        register.endpoints.push(endpoint);
        register.services.push(Claim { service, ports, labels: Default::default() });
    }
    register
}

/// `@seconds` when the source was made; a state; `service:port` or `service=address`, which it brings, `-kind/ns/name`,
/// which it takes away.
fn discovery(source: &str, steps: &[&str]) -> Discovery {
    let mut discovery = Discovery {
        source: name(source),
        created_at: Millis(0),
        said: None,
        puts: Vec::new(),
        gone: Vec::new(),
    };
    for step in steps {
        if let Some(at) = step.strip_prefix('@') {
            discovery.created_at = Millis(at.parse::<u64>().expect("seconds") * 1_000);
        } else if let Some(key) = step.strip_prefix('-') {
            discovery.gone.push(parse_key(key));
        } else if let Some((service, port)) = step.split_once(':') {
            let service: ServiceName = service.parse().expect("a service");
            let mut object = Object::new(super::session::service_key(&service), Map::new());
            object.spec.insert("ports".to_owned(), json!([{"port": port.parse::<u16>().expect("a port")}]));
            let by = model::shape::Text::new(&format!("discovery/{source}")).expect("short");
            object.metadata.annotations.insert(MANAGED_BY.parse().expect("a key"), by);
            discovery.puts.push(object);
        } else if let Some((service, address)) = step.split_once('=') {
            let service: ServiceName = service.parse().expect("a service");
            let (of, from) = (service.name.clone(), format!("discovery/{source}"));
            let ports = json!([{"port": 80, "targetPort": 80}]);
            let spec = json!({"service": of, "source": from, "address": address, "ports": ports});
            let Value::Object(spec) = spec else { panic!("an object") };
            let key = Key::namespaced(Kind::Endpoint, service.namespace, name(&format!("{of}-x")));
            let mut object = Object::new(key, spec);
            object.status = Some(json!({"health": "Healthy"}));
            discovery.puts.push(object);
        } else {
            let state = serde_json::from_value(json!(step)).expect("a state");
            discovery.said = Some(Said { state, heard: Some(Millis(1_000)), error: String::new() });
        }
    }
    discovery
}

fn join(token: &str, node: &str, key: &str, role: JoinRole) -> RedeemJoin {
    let attempt =
        JoinAttempt { hash: tokens::hex(&hash(token)), role, node: name(node), fingerprint: key.to_owned() };
    let server = (role == JoinRole::Server).then(|| admission(node));
    RedeemJoin { token: token.to_owned(), attempt, server }
}

fn filing(node: &str, key: &str, network: &str) -> Filing {
    let (from, network) = (format!("{network}.9"), network.to_owned());
    let (csr, version) = (format!("CSR {key}"), "1".to_owned());
    Filing { node: name(node), fingerprint: key.to_owned(), csr, from, network, version }
}

/// Without a reason it is approved.
fn judgement(node: &str, key: &str, reason: &str) -> Judgement {
    let (id, node) = (rejoin::rejoin_request_id(&name(node), key), name(node));
    let (approved, reason, actor) = (reason.is_empty(), reason.to_owned(), "ann".to_owned());
    Judgement { id, node, fingerprint: key.to_owned(), approved, reason, actor }
}

fn admission(folder: &str) -> Admission {
    Admission {
        addresses: Addresses { raft: format!("{folder}:8444"), api: format!("{folder}:8443") },
        incarnation: uuid(folder),
    }
}

fn session(node: &str, generation: &str) -> SessionRef {
    SessionRef { node: name(node), generation: generation.parse().expect("a generation") }
}

fn parse_key(text: &str) -> Key {
    let parts: Vec<&str> = text.split('/').collect();
    let kind = Kind::named(parts[0]).expect("a kind");
    match parts[1..] {
        [namespace, object] => Key::namespaced(kind, name(namespace), name(object)),
        [object] => Key::mesh_wide(kind, name(object)),
        _ => panic!("'{text}' is no key"),
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn uuid(text: &str) -> Uuid {
    Uuid::from_u128(table::digest(b"uuid", text.as_bytes()))
}

fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&table::digest(b"secret", text.as_bytes()).to_le_bytes());
    hash
}

fn print(reply: &Reply) -> String {
    match reply {
        Reply::Nothing => "done".to_owned(),
        Reply::Batch(replies) => replies.iter().map(print).collect::<Vec<_>>().join("\n"),
        Reply::Written(written) => {
            written.iter().map(|one| format!("{:?} {}", one.outcome, one.key)).collect::<Vec<_>>().join("\n")
        }
        Reply::Registered { generation, .. } => format!("generation {generation}"),
        Reply::Joined(joined) => {
            let who = joined.node.as_ref().map(|node| format!("node {}", node.metadata.name));
            let who = who.or_else(|| joined.member.map(|id| format!("member {id}"))).unwrap_or_default();
            format!("joined as {who}{}", if joined.granted.first { "" } else { ", again" })
        }
        Reply::Member { id } => format!("member {id}"),
        Reply::Requested { record, .. } => show_request(record, record.filed_at),
        Reply::Refused(refusal) => format!("refused: {refusal}"),
    }
}

fn show(state: &State, what: &str) -> String {
    let words: Vec<&str> = what.split_whitespace().collect();
    let lines = match words[..] {
        ["sessions"] => show_sessions(state),
        ["history", since] => show_history(state, since.parse().expect("a revision")),
        ["numbers"] => show_numbers(state),
        ["trust"] => vec![show_trust(state)],
        ["requests"] => {
            state.rejoin_requests().map(|(_, record)| show_request(record, state.time())).collect()
        }
        ["token", id] => vec![show_token(state, id)],
        ["of", service] => {
            let service = service.parse().expect("a service");
            state
                .endpoints_of(&service)
                .chain(state.routes_of(&service))
                .map(|object| object.key().to_string())
                .collect()
        }
        ["all", kind] => {
            let kind = Kind::named(kind).expect("a kind");
            state.list(kind, None).map(|object| object.key().to_string()).collect()
        }
        [key] => show_object(state, &parse_key(key)),
        _ => panic!("'{what}' cannot be shown"),
    };
    lines.join("\n").trim_end().to_owned()
}

fn show_sessions(state: &State) -> Vec<String> {
    let one = |(node, session): (&Name, &std::sync::Arc<Session>)| {
        let stale = session.stale_since.map(|since| format!(", stale since {}", since.0 / 1_000));
        let (generation, since) = (session.generation, session.opened_at.0 / 1_000);
        format!("{node}: generation {generation}, since {since}{}", stale.unwrap_or_default())
    };
    state.sessions().map(one).collect()
}

fn show_history(state: &State, since: u64) -> Vec<String> {
    let change = |changed: &Changed| match (&changed.before, &changed.after) {
        (None, _) => format!("+{}", changed.key),
        (_, None) => format!("-{}", changed.key),
        _ => format!("~{}", changed.key),
    };
    match state.history_since(since) {
        Err(compacted) => vec![compacted.to_string()],
        Ok(revisions) => revisions
            .map(|kept| {
                let changes: Vec<_> = kept.changes.iter().map(change).collect();
                format!("{}: {}", kept.revision, changes.join(", "))
            })
            .collect(),
    }
}

fn show_numbers(state: &State) -> Vec<String> {
    let one = |(number, holder): (&u32, &std::sync::Arc<Holder>)| {
        let gone = holder.gone_at.map(|since| format!(", gone since {}", since.0 / 1_000));
        format!("{number}: {}{}", holder.service, gone.unwrap_or_default())
    };
    state.numbers.holders.iter().map(one).collect()
}

fn show_trust(state: &State) -> String {
    let Some(trust) = state.trust() else { return "none".to_owned() };
    let (bundle, intermediates) = (&trust.bundle, &trust.intermediates);
    let nodes = bundle.distrusted.nodes.iter().map(|(node, at)| format!("node {node} at {at}"));
    let ids = bundle.distrusted.ids.iter().map(|(id, at)| format!("{id} at {at}"));
    let distrusted: Vec<_> = nodes.chain(ids).collect();
    let (generation, roots) = (bundle.generation, &bundle.roots);
    format!(
        "generation {generation}, roots {roots:?}, intermediates {intermediates:?}, distrusted {distrusted:?}"
    )
}

fn show_token(state: &State, id: &str) -> String {
    let Some(held) = state.credential(id) else { return "none".to_owned() };
    let ends = held.expires_at.map(|at| format!(", ends at {}", at.0 / 1_000)).unwrap_or_default();
    let record = state.join_record(id);
    let uses = record.map(|record| format!(", {} uses left", record.uses_left)).unwrap_or_default();
    format!("{}{ends}{uses}", held.key)
}

fn show_request(record: &RejoinRecord, now: Millis) -> String {
    let said = record.verdict.as_ref().map(|verdict| format!(", by {} {}", verdict.by, verdict.reason));
    let (node, key, standing) = (&record.node, &record.fingerprint, record.standing(now));
    let (from, end) = (&record.from, record.expires_at.0 / 1_000);
    format!("{node} {key} from {from}: {standing:?} until {end}{}", said.unwrap_or_default().trim_end())
}

fn show_object(state: &State, key: &Key) -> Vec<String> {
    let Some(object) = state.get(key) else { return vec!["none".to_owned()] };
    let metadata = &object.metadata;
    let (created, updated) = (metadata.created_at.0 / 1_000, metadata.updated_at.0 / 1_000);
    let mut lines = vec![format!("revision {}, created {created}, updated {updated}", metadata.revision)];
    lines.push(format!("spec {}", Value::Object(object.spec.clone())));
    lines.extend(metadata.annotations.iter().map(|(key, value)| format!("~{key}={}", value.as_str())));
    lines.extend(object.status.iter().map(|status| format!("status {status}")));
    lines
}

#[test]
fn kinds_that_0_1_0_does_not_know_are_given_to_no_member_of_it() {
    for (key, version) in [
        ("Service/default/a", 1),
        ("HTTPRoute/default/a", 1),
        ("GRPCRoute/default/a", 2),
        ("TCPRoute/default/a", 2),
    ] {
        let key = parse_key(key);
        let put = Change::Put {
            object: Object::new(key.clone(), Map::new()),
            expect: Expect::Any,
            credential: None,
        };
        for change in [put, Change::Delete { key, expect: Expect::Any }] {
            let write = Command::Write(Write { actor: "t".to_owned(), changes: vec![change] });
            assert_eq!(write.version(), version, "{write}");
            assert_eq!(Command::Batch(vec![write]).version(), version);
        }
    }
}

#[test]
fn one_network_cannot_take_all_the_room_for_requests_and_time_makes_room() {
    let (per_network, all) = (REJOIN_REQUESTS_PER_NETWORK_MAX, REJOIN_REQUESTS_MAX);
    let mut state = State::new();
    perform(&mut state, "at 1000\nput Node/host-a");
    for n in 0..per_network {
        let asked = perform(&mut state, &format!("ask host-a stranger{n} n0"));
        assert!(asked.contains("Pending"), "{asked}");
    }
    let crowded = perform(&mut state, "ask host-a stranger n0");
    assert!(crowded.starts_with("refused: there are 16 requests to rejoin from n0 already"), "{crowded}");
    assert!(
        perform(&mut state, "ask host-a stranger0 n0").contains("Pending"),
        "whoever has asked may go on"
    );
    assert!(perform(&mut state, "ask host-a own n1").contains("Pending"), "the host itself is elsewhere");
    for n in 0..all - per_network - 1 {
        perform(&mut state, &format!("ask host-a crowd{n} m{}", n / per_network));
    }
    let full = perform(&mut state, "ask host-a late n2");
    assert!(full.starts_with("refused: there are 256 requests to rejoin in all already"), "{full}");
    assert_eq!(state.rejoin_requests().count(), all);
    let later = perform(&mut state, "at 4600\nask host-a late n0");
    assert!(later.contains("Pending") && state.rejoin_requests().count() == 1, "{later}");
    state.check().expect("it keeps its invariants");
}

#[test]
fn what_sources_bring_is_for_members_that_know_them() {
    for line in ["discover old Synced", "put DiscoverySource/old type=File"] {
        assert_eq!(command(line).version(), DISCOVERY_SINCE);
        let mut state = State::new();
        perform(&mut state, "put Namespace/shop");
        assert!(state.version_used() < DISCOVERY_SINCE);
        perform(&mut state, line);
        assert_eq!(state.version_used(), DISCOVERY_SINCE, "no older member follows from here on");
    }
    let mut state = State::new();
    perform(&mut state, "put DiscoverySource/old type=File\nput Namespace/shop");
    let many: Vec<String> = (0..=DISCOVERED_MAX).map(|n| format!("shop/s{n}:80")).collect();
    let refused = perform(&mut state, &format!("discover old {}", many.join(" ")));
    assert!(refused.contains("objects of a batch") && refused.contains("no revision"), "{refused}");
}

#[test]
fn requests_to_rejoin_are_for_members_that_know_them_and_leave_no_trace_before() {
    assert_eq!(command("ask host-a k1 n1").version(), REJOIN_REQUESTS_SINCE);
    assert_eq!(command("approve host-a k1").version(), REJOIN_REQUESTS_SINCE);
    let mut state = State::new();
    perform(&mut state, "put Node/host-a");
    assert!(state.version_used() < REJOIN_REQUESTS_SINCE);
    let (before, hash) = (state.records().count(), state.hash());
    assert_eq!(State::from_image(&state.image(), 10).expect("its own").hash(), hash);
    perform(&mut state, "ask host-a k1 n1");
    assert_eq!(state.version_used(), REJOIN_REQUESTS_SINCE, "no older member follows from here on");
    assert!(state.records().count() > before && state.hash() != hash);
}

#[test]
fn a_request_that_outlived_its_node_or_stands_under_another_s_id_is_found() {
    let sound = furnished();
    let (id, record) = sound.rejoin_requests().next().expect("one is there");
    let (id, record) = (id.to_owned(), record.clone());
    let mut ghost = sound.clone();
    ghost.requests.insert(id, RejoinRecord { node: name("gone"), ..(*record).clone() });
    let mut mislaid = sound.clone();
    mislaid.requests.insert("another".to_owned(), record);
    for broken in [ghost, mislaid] {
        let found = broken.check().expect_err("it is broken").to_string();
        assert!(found.contains("outlived node") && found.contains("or is another's"), "{found}");
    }
}
