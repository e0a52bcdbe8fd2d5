//! What is written, as lines: `put Service/orders 80`, `gone Endpoint/…`.

use std::collections::BTreeMap;

use model::object::Parsed;

use super::*;

const FILE: &str = r#"{"type": "File", "file": {"path": "/a"}}"#;

fn source() -> (Name, DiscoverySourceSpec) {
    let spec: Value = serde_json::from_str(FILE).expect("JSON");
    let object = json!({"kind": "DiscoverySource", "metadata": {"name": "old"}, "spec": spec});
    match Parsed::from_input(&object, None).expect("valid").resource {
        Resource::DiscoverySource(spec) => ("old".parse().expect("a name"), spec),
        other => panic!("{other:?}"),
    }
}

fn orders() -> ServiceName {
    "default/orders".parse().expect("a service")
}

/// A service of one port, with instances as `id=address:port`.
fn found(port: Option<u16>, instances: &[&str]) -> Found {
    let instance = |text: &&str| {
        let (id, at) = text.split_once('=').expect("id=address:port");
        let (address, port) = at.split_once(':').expect("address:port");
        let instance = Instance {
            address: address.parse().expect("an address"),
            port: port.parse().ok(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            tags: Default::default(),
            zone: None,
            weight: 1,
            health: Health::Healthy,
        };
        (id.to_owned(), instance)
    };
    let port = port.and_then(|port| Port::new(port.into()));
    let port = port.map(|port| ServicePort { name: None, port, target_port: None, protocol: Protocol::Http });
    Found {
        ports: port.into_iter().collect(),
        instances: instances.iter().map(instance).collect(),
        ..Found::default()
    }
}

/// A registry of one service.
#[derive(Default)]
struct World(BTreeMap<Key, Object>);

impl World {
    /// Writes what has to change, and says what that was.
    fn follow(&mut self, found: Option<&Found>) -> Vec<String> {
        self.follow_as(&source().1, found)
    }

    fn follow_as(&mut self, spec: &DiscoverySourceSpec, found: Option<&Found>) -> Vec<String> {
        let (name, _) = source();
        let service = Key::namespaced(Kind::Service, orders().namespace, orders().name);
        let endpoints: Vec<_> = self.0.values().filter(|object| object.kind == Kind::Endpoint).collect();
        let standing = Standing { service: self.0.get(&service), endpoints: &endpoints };
        let mut out = Vec::new();
        changes((&name, spec), &orders(), found, standing, &mut out);
        let lines = out.iter().map(line).collect();
        for change in out {
            match change {
                Change::Put(object) => drop(self.0.insert(object.key(), object)),
                Change::Gone(key) => drop(self.0.remove(&key)),
            }
        }
        lines
    }

    fn write(&mut self, manifest: &Value) {
        let object = Parsed::from_input(manifest, None).expect("valid").object;
        self.0.insert(object.key(), object);
    }
}

fn line(change: &Change) -> String {
    match change {
        Change::Put(object) if object.kind == Kind::Service => {
            format!("put Service {}", object.spec["ports"])
        }
        Change::Put(object) => format!("put {} {}", object.spec["address"], object.spec["ports"]),
        Change::Gone(key) => format!("gone {}", key.kind),
    }
}

#[test]
fn only_what_differs_is_written() {
    let mut world = World::default();
    let two = found(Some(80), &["a=10.0.0.1:8080", "b=10.0.0.2:"]);
    assert_eq!(
        world.follow(Some(&two)),
        [
            r#"put Service [{"port":80,"protocol":"http"}]"#,
            r#"put "10.0.0.1" [{"port":80,"targetPort":8080}]"#,
            r#"put "10.0.0.2" [{"port":80,"targetPort":80}]"#,
        ]
    );
    assert!(world.follow(Some(&two)).is_empty());
    let moved = found(Some(80), &["a=10.0.0.1:8080", "b=10.0.0.3:"]);
    assert_eq!(world.follow(Some(&moved)), [r#"put "10.0.0.3" [{"port":80,"targetPort":80}]"#]);
    assert_eq!(world.follow(Some(&found(Some(80), &["a=10.0.0.1:8080"]))), ["gone Endpoint"]);
    assert_eq!(world.follow(None), ["gone Endpoint", "gone Service"]);
    assert!(world.0.is_empty());
}

#[test]
fn an_operator_s_service_stays_and_endpoints_serve_its_port() {
    let mut world = World::default();
    world.write(&json!({"kind": "Service", "metadata": {"namespace": "default", "name": "orders"},
                        "spec": {"ports": [{"port": 9000}]}}));
    let one = found(Some(80), &["a=10.0.0.1:8080"]);
    assert_eq!(world.follow(Some(&one)), [r#"put "10.0.0.1" [{"port":9000,"targetPort":8080}]"#]);
    assert_eq!(world.follow(None), ["gone Endpoint"]);
    assert_eq!(world.0.len(), 1, "the Service stays");
}

#[test]
fn a_port_that_only_instances_say_stays_as_callers_know_it() {
    let mut world = World::default();
    assert!(world.follow(Some(&found(None, &[]))).is_empty(), "there is no port yet");
    let several = found(None, &["a=10.0.0.1:9001", "b=10.0.0.2:9002", "c=10.0.0.3:9002"]);
    let lines = world.follow(Some(&several));
    assert_eq!(lines[0], r#"put Service [{"port":9002,"protocol":"auto"}]"#);
    assert_eq!(lines[1], r#"put "10.0.0.1" [{"port":9002,"targetPort":9001}]"#);
    let other = found(None, &["a=10.0.0.1:7000"]);
    let lines = world.follow(Some(&other));
    assert_eq!(
        lines,
        [r#"put "10.0.0.1" [{"port":9002,"targetPort":7000}]"#, "gone Endpoint", "gone Endpoint"]
    );
}

#[test]
fn an_instance_that_is_unwell_or_was_stale_is_written_anew() {
    let mut world = World::default();
    let mut one = found(Some(80), &["a=10.0.0.1:8080"]);
    world.follow(Some(&one));
    one.instances.get_mut("a").expect("it is there").health = Health::Unhealthy;
    assert_eq!(world.follow(Some(&one)).len(), 1);
    for object in world.0.values_mut().filter(|object| object.kind == Kind::Endpoint) {
        object.status = Some(json!({"health": "Unhealthy", "stale": true}));
    }
    assert_eq!(world.follow(Some(&one)).len(), 1);
}

#[test]
fn what_a_source_says_of_tls_stands_in_its_endpoints() {
    let mut world = World::default();
    let one = found(Some(80), &["a=10.0.0.1:8080"]);
    world.follow(Some(&one));
    let (_, mut spec) = source();
    let tls = json!({"type": "File", "file": {"path": "/a"}, "tls": {"hostname": "{service}.example"}});
    let object = json!({"kind": "DiscoverySource", "metadata": {"name": "old"}, "spec": tls});
    if let Resource::DiscoverySource(said) = Parsed::from_input(&object, None).expect("valid").resource {
        spec = said;
    }
    assert_eq!(world.follow_as(&spec, Some(&one)).len(), 1, "the endpoint is another");
    let endpoint = world.0.values().find(|object| object.kind == Kind::Endpoint).expect("it is there");
    assert_eq!(endpoint.spec["tls"], json!({"hostname": "orders.example"}));
    assert!(world.follow_as(&spec, Some(&one)).is_empty());
    assert_eq!(world.follow(Some(&one)).len(), 1, "in plaintext again");
}
