//! What is answered to look-ups: any packet is answered, sent elsewhere or ignored, and an answer is one: it is read, it has
//! the query's number and question, and it is no longer than whoever asked takes. The first byte says how the packet came, and
//! whether there is another resolver.
#![no_main]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use hickory_proto::op::Message;
use proxy::answer::{Over, UDP_BYTES_MAX, Verdict, Zone, answer, answers, failed};
use serde_json::json;
use traffic::{
    compile::{Inputs, compile},
    snapshot::Snapshot,
};

// By file: to link the proxy would build its TLS and HTTP stacks a second time for one pure module.
#[allow(dead_code, reason = "as what queries are counted is not looked at")]
#[path = "../../mesh-proxy/src/dns"]
mod proxy {
    pub mod answer;
}

const SHOP: &str = "{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}";

/// One service, with more ports than a datagram has room for.
static MESH: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut parsed = model::manifest::parse(SHOP).expect("a manifest");
    let mut orders = parsed.remove(0).object;
    let port =
        |n: u16| json!({"name": format!("p{n}"), "port": n, "protocol": if n < 3 { "http" } else { "tcp" }});
    orders.spec.insert("ports".to_owned(), (1..200).map(port).collect());
    orders.status = Some(json!({"virtualIPs": ["240.0.0.7", "fd6d:6573:6800::7"]}));
    let objects = [(orders.key(), Arc::new(orders))].into_iter().collect();
    let domain = "mesh.internal".parse().expect("a domain");
    let inputs = Inputs {
        revision: 7,
        domain,
        trust_generation: 0,
        objects,
        local: Vec::new(),
        callers: BTreeMap::new(),
    };
    compile(None, &inputs).expect("it compiles")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, packet)) = data.split_first() else { return };
    let over = if mode & 1 == 0 { Over::Udp } else { Over::Tcp };
    let zone = Zone { snapshot: &MESH, forwards: mode & 2 != 0 };
    match answer(packet, over, zone) {
        Verdict::Ignored => assert!(packet.len() < 12 || packet[2] & 0x80 != 0),
        Verdict::Answered(told, _) => is_answer(&told, packet, over),
        Verdict::Elsewhere(_) => {
            assert!(zone.forwards);
            is_answer(&failed(packet, over, zone), packet, over);
        }
    }
});

fn is_answer(told: &[u8], packet: &[u8], over: Over) {
    assert!(told[..2] == packet[..2] && told[2] & 0x80 != 0);
    assert!(over == Over::Tcp || told.len() <= usize::from(UDP_BYTES_MAX));
    let read = Message::from_vec(told).expect("its own answer is read");
    if read.queries.is_empty() {
        assert_eq!(told.len(), 12);
    } else {
        assert!(answers(told, packet));
    }
    if read.edns.is_none() && over == Over::Udp {
        assert!(told.len() <= 512);
    }
}
