use registry::command::{Change, Command, Credential, Expect, Register};

use super::*;
use crate::api::testing::{THEN, apply, object, put, state, write};

const SERVICE: &str = r#"Service default/orders {"ports":[{"name":"http","port":80,"protocol":"http"},{"name":"db","port":5432,"protocol":"tcp"}],"subsets":[{"name":"v1","labels":{"version":"v1"}}]}"#;

#[track_caller]
fn shown(state: &State, text: &str) -> Value {
    let key = object(text).key();
    let heard = |node: &Name| {
        (node.as_str() == "host-a").then_some(Heard {
            generation: 1,
            revision: 7,
            nack: None,
            left_alone: Vec::new(),
            until: Some(Millis(1_000)),
        })
    };
    let object = Known { state, heard: &heard }.show(state.get(&key).expect("it exists"));
    object.status.expect("a status")
}

fn register(state: &mut State, health: &str) {
    put(state, r#"Node host-a {"services":["default/*"]}"#);
    let mut endpoint = object(
        r#"Endpoint default/orders-a {"service":"orders","node":"host-a","address":"10.0.0.5","ports":[{"port":80,"targetPort":8080}]}"#,
    );
    endpoint.status = Some(json!({"health": health}));
    let claim = serde_json::from_value(json!({"service": "default/orders", "ports": []})).expect("a claim");
    let reply = apply(
        state,
        Command::Register(Register {
            node: "host-a".parse().expect("a name"),
            version: "0.1.0".to_owned(),
            addresses: vec!["10.0.0.5".to_owned()],
            services: vec![claim],
            endpoints: vec![endpoint],
        }),
    );
    assert!(matches!(reply, registry::command::Reply::Registered { .. }), "{reply}");
}

#[test]
fn services_count_their_endpoints() {
    let mut state = state();
    put(&mut state, SERVICE);
    let status = shown(&state, "Service default/orders");
    assert_eq!(status["hostname"], "orders.default.mesh");
    assert_eq!(status["endpoints"], json!({"ready": 0, "total": 0}));
    assert_eq!(status["effective"]["ports"][0]["targetPort"], 80);
    register(&mut state, "Healthy");
    assert_eq!(shown(&state, "Service default/orders")["endpoints"], json!({"ready": 1, "total": 1}));
    register(&mut state, "Unhealthy");
    assert_eq!(shown(&state, "Service default/orders")["endpoints"], json!({"ready": 0, "total": 1}));
    let endpoint = shown(&state, "Endpoint default/orders-a");
    assert_eq!((&endpoint["health"], &endpoint["stale"]), (&json!("Unhealthy"), &json!(false)));
    assert_eq!(endpoint["effective"]["inboundPort"], 15_008);
}

#[test]
fn nodes_show_their_session_and_what_they_run() {
    let mut state = state();
    put(&mut state, "Node host-b {}");
    assert_eq!(shown(&state, "Node host-b")["session"], json!({"state": "None"}));
    register(&mut state, "Healthy");
    let status = shown(&state, "Node host-a");
    assert_eq!(status["session"]["state"], "Live");
    assert_eq!(status["session"]["expiresAt"], "1970-01-01T00:00:01Z");
    assert_eq!((&status["version"], &status["revision"]), (&json!("0.1.0"), &json!(7)));
    assert_eq!(status["addresses"], json!(["10.0.0.5"]));
    let proxies = Known { state: &state, heard: &|_| None }.proxies();
    let seen: Vec<_> = proxies.iter().map(|proxy| (proxy.node.as_str(), proxy.session.as_str())).collect();
    assert_eq!(seen, [("host-a", "Live"), ("host-b", "None")]);
    assert_eq!(proxies[0].services[0].to_string(), "default/orders");
}

#[track_caller]
fn conditions(state: &mut State, rule: &str, parent: &str, want: [&str; 2]) {
    put(
        state,
        &format!(r#"HTTPRoute default/r {{"parentRefs":[{parent}],"rules":[{{"backendRefs":[{rule}]}}]}}"#),
    );
    let status = shown(state, "HTTPRoute default/r");
    let got = [0, 1].map(|index| {
        let condition = &status["conditions"][index];
        match condition["status"].as_str() {
            Some("True") => String::new(),
            _ => format!(
                "{}: {}",
                condition["reason"].as_str().expect("a reason"),
                condition["message"].as_str().expect("a text")
            ),
        }
    });
    assert_eq!(got, want);
}

#[test]
fn policies_say_which_services_they_are_for_in_vain() {
    let mut state = state();
    put(&mut state, r#"AuthorizationPolicy default/p {"targetRefs":[{"name":"orders"}]}"#);
    let accepted = |state: &State| shown(state, "AuthorizationPolicy default/p")["conditions"][0].clone();
    let vain = accepted(&state);
    assert_eq!((&vain["status"], &vain["reason"]), (&json!("False"), &json!("TargetNotFound")));
    assert_eq!(vain["message"], "Service default/orders does not exist");
    put(&mut state, SERVICE);
    assert_eq!(accepted(&state)["status"], "True");
    put(&mut state, "AuthorizationPolicy default/p {}");
    assert_eq!(accepted(&state)["status"], "True", "all services of a namespace are nobody in particular");
}

#[test]
fn of_two_traffic_policies_for_the_same_the_younger_says_that_it_is_not_in_force() {
    let mut state = state();
    put(&mut state, SERVICE);
    // Admission refuses the second; two that were written at once both passed it.
    put(&mut state, r#"TrafficPolicy default/a {"targetRefs":[{"name":"orders"}]}"#);
    put(&mut state, r#"TrafficPolicy default/b {"targetRefs":[{"name":"orders"}]}"#);
    let condition =
        |name: &str| shown(&state, &format!("TrafficPolicy default/{name}"))["conditions"][1].clone();
    assert_eq!(condition("a")["status"], "True");
    let younger = condition("b");
    assert_eq!((&younger["type"], &younger["reason"]), (&json!("InForce"), &json!("Conflicted")));
    let older = "TrafficPolicy default/a, which is older, is for Service orders";
    assert_eq!(younger["message"], older);
}

#[test]
fn routes_say_what_they_refer_to_in_vain() {
    let mut state = state();
    let (ok, orders) = (r#"{"name":"orders","port":80}"#, r#"{"name":"orders"}"#);
    let none = "Service default/orders does not exist";
    conditions(
        &mut state,
        ok,
        orders,
        [&format!("NoMatchingParent: {none}"), &format!("BackendNotFound: {none}")],
    );
    put(&mut state, SERVICE);
    conditions(&mut state, ok, orders, ["", ""]);
    conditions(&mut state, r#"{"name":"orders","port":80,"subset":"v1"}"#, ok, ["", ""]);
    conditions(
        &mut state,
        r#"{"name":"orders","port":80,"subset":"v2"}"#,
        r#"{"name":"orders","port":5432}"#,
        [
            "NoMatchingParent: port 5432 of Service default/orders speaks tcp, not HTTP",
            "BackendNotFound: Service default/orders has no subset v2",
        ],
    );
    conditions(
        &mut state,
        r#"{"name":"orders","port":81}"#,
        r#"{"name":"orders","port":82}"#,
        [
            "NoMatchingParent: Service default/orders has no port 82",
            "BackendNotFound: Service default/orders has no port 81",
        ],
    );
}

#[test]
fn tokens_show_what_they_are_still_worth() {
    let mut state = state();
    let credential = Some(Credential { id: "k3f9".to_owned(), hash: [7; 32] });
    let token = object(r#"JoinToken hosts {"uses":3,"ttl":"1h"}"#);
    write(&mut state, vec![Change::Put { object: token, expect: Expect::Absent, credential }])
        .expect("written");
    let status = shown(&state, "JoinToken hosts");
    assert_eq!((&status["id"], &status["usesLeft"]), (&json!("k3f9"), &json!(3)));
    assert_eq!(status["expiresAt"], json!(THEN.after(std::time::Duration::from_secs(3_600))));
    assert!(status.get("token").is_none());
}

/// Whether a route is accepted, or why not.
fn accepted(state: &State, key: &str) -> String {
    let condition = shown(state, key)["conditions"][0].clone();
    match condition["status"].as_str() {
        Some("True") => "yes".to_owned(),
        _ => condition["message"].as_str().expect("a text").to_owned(),
    }
}

#[test]
fn routes_of_each_kind_say_which_ports_they_take() {
    let mut state = state();
    put(&mut state, SERVICE);
    let stream = |port: u16| {
        let backends = json!([{"name": "orders", "port": 5432}]);
        let spec =
            json!({"parentRefs": [{"name": "orders", "port": port}], "rules": [{"backendRefs": backends}]});
        format!("TCPRoute default/t {spec}")
    };
    put(&mut state, &stream(5432));
    assert_eq!(accepted(&state, "TCPRoute default/t"), "yes");
    put(&mut state, &stream(80));
    let want = "port 80 of Service default/orders speaks http, not bytes";
    assert_eq!(accepted(&state, "TCPRoute default/t"), want);
    // Of HTTPRoutes and GRPCRoutes the older have a port.
    put(&mut state, r#"GRPCRoute default/a {"parentRefs":[{"name":"orders"}],"rules":[{}]}"#);
    put(&mut state, r#"HTTPRoute default/b {"parentRefs":[{"name":"orders","port":80}],"rules":[{}]}"#);
    assert_eq!(accepted(&state, "GRPCRoute default/a"), "yes");
    let want = "GRPCRoute default/a, which is older, has the same port of Service default/orders";
    assert_eq!(accepted(&state, "HTTPRoute default/b"), want);
}
