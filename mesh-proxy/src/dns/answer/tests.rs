use std::sync::Arc;

use hickory_proto::op::{MessageType, OpCode};
use model::{kind::Kind, manifest, object::Key};
use serde_json::json;
use traffic::compile::{Inputs, compile};

use super::*;

const SHOP: &str = "
kind: Service
metadata: {namespace: default, name: orders}
spec: {ports: [{name: web, port: 80, protocol: http}, {name: admin, port: 81, protocol: http}, {name: db, port: 5432, protocol: tcp}]}
---
kind: Service
metadata: {namespace: shop, name: old}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {namespace: shop, name: many}
spec: {ports: [{port: 1}]}
";

/// The mesh of `SHOP`: `orders` has virtual IPs, `old` has none yet, `many` has ports without end.
fn mesh() -> Snapshot {
    let parsed = manifest::parse(SHOP).expect("a manifest");
    let mut objects: std::collections::BTreeMap<_, _> =
        parsed.into_iter().map(|parsed| (parsed.object.key(), parsed.object)).collect();
    let mut change = |namespace: &str, name: &str| {
        let parse = |text: &str| text.parse().expect("a name");
        objects
            .get_mut(&Key::namespaced(Kind::Service, parse(namespace), parse(name)))
            .expect("it is there")
            .clone()
    };
    let (mut orders, mut many) = (change("default", "orders"), change("shop", "many"));
    orders.status = Some(json!({"virtualIPs": ["240.0.0.7", "fd6d:6573:6800::7"]}));
    let ports: Vec<_> =
        (1..1_000).map(|n| json!({"name": format!("p{n}"), "port": n, "protocol": "tcp"})).collect();
    many.spec.insert("ports".to_owned(), json!(ports));
    many.status = Some(json!({"virtualIPs": ["240.0.0.8", "fd6d:6573:6800::8"]}));
    [orders, many].into_iter().for_each(|object| drop(objects.insert(object.key(), object)));
    let objects = objects.into_iter().map(|(key, object)| (key, Arc::new(object))).collect();
    let domain = "mesh.internal".parse().expect("a domain");
    let inputs = Inputs {
        revision: 7,
        domain,
        trust_generation: 0,
        objects,
        local: Vec::new(),
        callers: Default::default(),
    };
    compile(None, &inputs).expect("it compiles")
}

fn query(name: &str, sort: &str) -> Message {
    let mut query = Message::query();
    (query.metadata.id, query.metadata.recursion_desired) = (0x1234, true);
    let sort = sort.parse().expect("a type");
    query.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), sort));
    query
}

fn asked(query: &Message, over: Over, zone: Zone<'_>) -> (Message, End) {
    let packet = query.to_vec().expect("it is written");
    match answer(&packet, over, zone) {
        Verdict::Answered(bytes, counted) => {
            assert!(answers(&bytes, &packet), "it has the number and the question");
            (Message::from_vec(&bytes).expect("it is read"), counted.end)
        }
        other => panic!("{other:?}"),
    }
}

/// `code end: answers / authorities / additionals`, each record as `name ttl type data`.
fn say(name: &str, sort: &str) -> String {
    let mesh = mesh();
    let zone = Zone { snapshot: &mesh, forwards: false };
    let (answer, end) = asked(&query(name, sort), Over::Udp, zone);
    assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
    let records = |records: &[Record]| {
        let one = |record: &Record| {
            format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
        };
        records.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let parts = [&answer.answers, &answer.authorities, &answer.additionals].map(|part| records(part));
    format!("{}: {}", end.as_str(), parts.join(" / "))
}

const NO_SUCH: &str = "mesh. 5 SOA mesh. nobody.invalid. 7 60 60 86400 5";

#[test]
fn names_of_services_have_their_virtual_ips() {
    assert_eq!(say("orders.default.mesh", "A"), "found: orders.default.mesh. 30 A 240.0.0.7 /  / ");
    assert_eq!(
        say("orders.default.mesh", "AAAA"),
        "found: orders.default.mesh. 30 AAAA fd6d:6573:6800::7 /  / "
    );
    let any = say("orders.default.mesh", "ANY");
    assert!(any.contains(" A ") && any.contains(" AAAA "), "{any}");
    // The case of the question stays (0x20), and does not count.
    assert_eq!(say("oRders.DEFAULT.mesH", "A"), "found: oRders.DEFAULT.mesH. 30 A 240.0.0.7 /  / ");
}

#[test]
fn ports_are_found_by_name_and_by_what_they_speak() {
    let extra = "orders.default.mesh. 30 A 240.0.0.7, orders.default.mesh. 30 AAAA fd6d:6573:6800::7";
    let owner = "_db._tcp.orders.default.mesh.";
    assert_eq!(
        say("_db._tcp.orders.default.mesh", "SRV"),
        format!("found: {owner} 30 SRV 0 0 5432 orders.default.mesh. /  / {extra}")
    );
    let both = say("_HTTP._tcp.orders.default.mesh", "SRV");
    assert!(both.contains(" 0 0 80 ") && both.contains(" 0 0 81 ") && !both.contains("5432"), "{both}");
}

#[test]
fn what_is_there_without_such_a_record_is_told_from_what_is_not_there() {
    for (name, sort) in [
        ("orders.default.mesh", "MX"),
        ("orders.default.mesh", "SRV"),
        ("old.shop.mesh", "A"),
        ("default.mesh", "A"),
        ("mesh", "A"),
        ("_tcp.orders.default.mesh", "SRV"),
        ("_db._tcp.orders.default.mesh", "A"),
    ] {
        assert_eq!(say(name, sort), format!("nodata:  / {NO_SUCH} / "), "{name} {sort}");
    }
    for (name, sort) in [
        ("nobody.default.mesh", "A"),
        ("nobody.mesh", "A"),
        ("www.orders.default.mesh", "A"),
        ("_ftp._tcp.orders.default.mesh", "SRV"),
        ("_db._udp.orders.default.mesh", "SRV"),
        ("db._tcp.orders.default.mesh", "SRV"),
        ("_db._tcp.nobody.default.mesh", "SRV"),
        ("not_a_name.default.mesh", "A"),
    ] {
        assert_eq!(say(name, sort), format!("nxdomain:  / {NO_SUCH} / "), "{name} {sort}");
    }
    assert_eq!(say("mesh", "SOA"), format!("found: {NO_SUCH} /  / "));
}

#[test]
fn what_is_not_of_the_mesh_is_another_resolvers_or_nobodys() {
    let mesh = mesh();
    for name in ["example.com", "orders.default.mesh.example.com", "mesh.internal", ""] {
        let packet = query(name, "AAAA").to_vec().expect("it is written");
        let forwards = Zone { snapshot: &mesh, forwards: true };
        assert_eq!(answer(&packet, Over::Udp, forwards), Verdict::Elsewhere(Sort::Aaaa), "{name}");
        let told = Message::from_vec(&failed(&packet, Over::Udp, forwards)).expect("it is read");
        assert_eq!((told.metadata.response_code, told.queries.len()), (ResponseCode::ServFail, 1));
        let (refused, end) = asked(&query(name, "A"), Over::Udp, Zone { snapshot: &mesh, forwards: false });
        assert_eq!((refused.metadata.response_code, end), (ResponseCode::Refused, End::Refused));
        assert!(!refused.metadata.authoritative && refused.authorities.is_empty());
    }
    let mut chaos = query("orders.default.mesh", "A");
    chaos.queries[0].query_class = DNSClass::CH;
    let (refused, _) = asked(&chaos, Over::Udp, Zone { snapshot: &mesh, forwards: false });
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn before_anything_is_known_no_name_is_denied() {
    let nothing = Snapshot::empty("mesh.internal".parse().expect("a domain"));
    let (told, end) =
        asked(&query("orders.default.mesh", "A"), Over::Udp, Zone { snapshot: &nothing, forwards: false });
    assert_eq!((told.metadata.response_code, end), (ResponseCode::ServFail, End::Failed));
}

#[test]
fn an_answer_is_as_long_as_whoever_asked_takes() {
    let mesh = mesh();
    let zone = Zone { snapshot: &mesh, forwards: false };
    let with = |payload: Option<u16>, over| {
        let mut query = query("_tcp._tcp.many.shop.mesh", "SRV");
        query.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(true);
            edns
        });
        let (told, _) = asked(&query, over, zone);
        let edns = told.edns.as_ref();
        assert_eq!(
            edns.map(|edns| (edns.max_payload(), edns.flags().dnssec_ok)),
            payload.map(|_| (1_232, true))
        );
        let length = told.to_vec().expect("it is written").len();
        (told.metadata.truncation, told.answers.len(), length)
    };
    for payload in [None, Some(0), Some(512), Some(4_096)] {
        let (cut, answers, length) = with(payload, Over::Udp);
        assert_eq!((cut, answers), (true, 0));
        assert!(length <= 512);
    }
    let (cut, answers, _) = with(Some(512), Over::Tcp);
    assert_eq!((cut, answers), (false, ANSWERS_MAX));
    // What it did not ask for is left out before that.
    let mut srv = query("_db._tcp.orders.default.mesh", "SRV");
    srv.edns = Some(Edns::new());
    assert_eq!(asked(&srv, Over::Udp, zone).0.additionals.len(), 2);
}

#[test]
fn a_version_of_edns_that_is_not_known_is_said_to_be_so() {
    let mesh = mesh();
    let mut later = query("orders.default.mesh", "A");
    later.edns = Some(Edns::new());
    later.edns.as_mut().expect("it has one").set_version(1);
    let packet = later.to_vec().expect("it is written");
    let verdict = answer(&packet, Over::Udp, Zone { snapshot: &mesh, forwards: false });
    let Verdict::Answered(bytes, _) = verdict else { panic!("{verdict:?}") };
    let told = Message::from_vec(&bytes).expect("it is read");
    assert_eq!((u16::from(told.metadata.response_code), told.answers.len()), (16, 0));
}

#[test]
fn what_is_no_query_of_one_question_is_not_looked_into() {
    let mesh = mesh();
    let zone = Zone { snapshot: &mesh, forwards: true };
    let good = query("orders.default.mesh", "A").to_vec().expect("it is written");
    let said = |packet: &[u8]| match answer(packet, Over::Udp, zone) {
        Verdict::Answered(bytes, counted) => {
            assert_eq!((counted.end, bytes.len(), &bytes[..2]), (End::Malformed, 12, &packet[..2]));
            Some(bytes[3] & 15)
        }
        Verdict::Ignored => None,
        Verdict::Elsewhere(_) => panic!("it goes nowhere"),
    };
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    for length in 0..12 {
        assert_eq!(said(&good[..length]), None, "{length}");
    }
    for length in 12..good.len() {
        assert_eq!(said(&good[..length]), Some(1), "{length}");
    }
    assert_eq!(said(&changed(2, 0x81)), None, "an answer is not answered");
    let notify = OpCode::Notify;
    assert_eq!(said(&changed(2, u8::from(notify) << 3)), Some(4));
    for questions in [0, 2, 255] {
        assert_eq!(said(&changed(5, questions)), Some(1));
    }
    assert_eq!(said(&changed(4, 255)), Some(1));
    assert_eq!(said(&changed(12, 0xc0)), Some(1), "a name that points at itself");
}

#[test]
fn an_answer_is_told_from_what_only_looks_like_one() {
    let asked = query("example.com", "A");
    let packet = asked.to_vec().expect("it is written");
    let mut told = asked.clone();
    told.metadata.message_type = MessageType::Response;
    let bytes = |message: &Message| message.to_vec().expect("it is written");
    assert!(answers(&bytes(&told), &packet));
    assert!(!answers(&packet, &packet), "the query itself");
    let mut other = told.clone();
    other.metadata.id ^= 1;
    assert!(!answers(&bytes(&other), &packet));
    let mut other = query("example.org", "A");
    other.metadata.message_type = MessageType::Response;
    assert!(!answers(&bytes(&other), &packet));
    assert!(!answers(&bytes(&told)[..20], &packet));
}
