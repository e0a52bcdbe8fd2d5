//! Slices in a tiny language: `name service port`, with endpoints as `address ready|serving|not|unknown`.

use serde_json::{Value, json};

use super::*;

fn slice(text: &str, endpoints: &[&str]) -> Value {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, service, port] = words[..] else { panic!("{text}") };
    let endpoint = |text: &&str| {
        let (address, state) = text.split_once(' ').expect("an address and a state");
        let conditions = match state {
            "ready" => json!({"ready": true, "serving": true, "terminating": false}),
            "serving" => json!({"ready": false, "serving": true, "terminating": true}),
            "not" => json!({"ready": false}),
            _ => json!({}),
        };
        json!({"addresses": [address], "conditions": conditions, "zone": "rack-1"})
    };
    let port: u16 = port.parse().expect("a port");
    json!({"addressType": "IPv4", "metadata": {"namespace": "shop", "name": name, "resourceVersion": "7",
           "labels": {"kubernetes.io/service-name": service, "team": "shop"}},
           "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
           "ports": [{"name": "http", "port": port, "protocol": "TCP", "appProtocol": "http"},
                     {"name": "dns", "port": 53, "protocol": "UDP"}]})
}

fn read(value: Value) -> Slice {
    serde_json::from_value(value).expect("a slice")
}

fn key(name: &str) -> FoundKey {
    FoundKey { namespace: Some("shop".to_owned()), name: name.to_owned() }
}

fn show(found: &Found) -> String {
    let ports: Vec<_> = found.ports.iter().map(|port| format!("{} {}", port.port, port.protocol)).collect();
    let one = |one: &Instance| {
        let at: Vec<_> = one.ports.iter().map(|port| port.target_port.to_string()).collect();
        format!("{}:{} {}", one.address, at.join("+"), one.health)
    };
    let instances: Vec<_> = found.instances.values().map(one).collect();
    format!("{} | {}", ports.join(", "), instances.join(", "))
}

#[test]
fn slices_together_are_a_service() {
    let mut slices = Slices::default();
    slices.put(read(slice("a orders 8080", &["10.0.0.1 ready", "10.0.0.2 serving"])));
    slices.put(read(slice("b orders 9090", &["10.0.0.3 not", "10.0.0.4 unknown", "10.0.0.2 ready"])));
    let found = slices.found(&key("orders")).expect("it is there");
    assert_eq!(
        show(&found),
        "8080 http | 10.0.0.1:8080 Healthy, 10.0.0.2:9090 Healthy, 10.0.0.3:9090 Unhealthy, 10.0.0.4:9090 Healthy"
    );
    assert_eq!(slices.set().get(&key("orders")), Some(&found));
    let one = &found.instances["10.0.0.1"];
    assert!(one.tags.contains("team=shop"), "{one:?}");
    assert_eq!(one.zone.as_ref().map(|zone| zone.as_str()), Some("rack-1"));
    // A slice that changes hands concerns both.
    let concerned = slices.put(read(slice("b web 80", &["10.0.0.3 ready"])));
    assert_eq!(concerned, BTreeSet::from([key("orders"), key("web")]));
    assert_eq!(show(&slices.found(&key("orders")).expect("it is there")).matches("Draining").count(), 1);
    let gone = read(slice("b web 80", &[]));
    assert_eq!(slices.remove(&gone), BTreeSet::from([key("web")]));
    assert_eq!((slices.found(&key("web")), slices.count()), (None, 1));
}

#[test]
fn what_is_of_no_service_or_has_no_address_is_left_out() {
    let mut slices = Slices::default();
    let mut stray = slice("a orders 80", &["10.0.0.1 ready"]);
    stray["metadata"]["labels"] = json!({});
    assert_eq!(slices.put(read(stray)), BTreeSet::new());
    let mut names = slice("b orders 80", &["host.example ready"]);
    names["addressType"] = json!("FQDN");
    slices.put(read(names));
    let mut null = slice("c orders 80", &[]);
    (null["endpoints"], null["ports"]) = (json!(null), json!(null));
    slices.put(read(null));
    assert_eq!(show(&slices.found(&key("orders")).expect("it is there")), "80 http | ");
    assert_eq!(slices.set().len(), 1);
}

#[test]
fn several_ports_need_names_and_have_each_number_once() {
    let mut several = slice("a orders 80", &["10.0.0.1 ready"]);
    several["ports"] = json!([{"name": "grpc", "port": 9000, "appProtocol": "grpc"}, {"name": "web", "port": 80},
                              {"name": "also", "port": 80}, {"port": 70}]);
    let mut slices = Slices::default();
    slices.put(read(several));
    let found = slices.found(&key("orders")).expect("it is there");
    assert_eq!(show(&found), "80 auto, 9000 grpc | 10.0.0.1:9000+80 Healthy");
}

#[test]
fn a_watch_is_read_word_by_word() {
    let word = |kind: &str, object: &Value| {
        Event::read(json!({"type": kind, "object": object}).to_string().as_bytes())
    };
    let one = slice("a orders 80", &[]);
    assert_eq!(word("ADDED", &one), Some(Event::Put(read(one.clone()))));
    assert_eq!(word("MODIFIED", &one), Some(Event::Put(read(one.clone()))));
    assert_eq!(word("DELETED", &one), Some(Event::Gone(read(one.clone()))));
    let mark = json!({"metadata": {"resourceVersion": "12"}, "endpoints": null});
    assert_eq!(word("BOOKMARK", &mark), Some(Event::Bookmark("12".to_owned())));
    assert_eq!(word("ERROR", &json!({"code": 410, "message": "too old"})), Some(Event::Expired));
    assert_eq!(word("ERROR", &json!({"code": 500, "message": "no"})), Some(Event::Fault("no".to_owned())));
    assert_eq!(word("OTHER", &one), None);
    for line in ["", "{", "[]", "{}", r#"{"type": "ADDED", "object": {}}"#] {
        assert_eq!(Event::read(line.as_bytes()), None, "{line}");
    }
}
