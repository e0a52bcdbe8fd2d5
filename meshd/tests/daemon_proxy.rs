//! What a host's proxy says and is told: against a real server.

mod world;

use std::time::Duration;

use model::proxy::{Line, parse_line};
use reqwest::Method;
use serde_json::{Value, json};
use world::{Answer, Dev, Host, Operator};

/// A watch stream, line by line.
struct Watch {
    response: reqwest::Response,
    bytes: Vec<u8>,
}

impl Watch {
    async fn open(host: &Host, query: &str) -> Self {
        let request = host.http.get(format!("{}/v1/proxy/watch?{query}", host.address));
        let response = request.timeout(Duration::from_secs(120)).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { response, bytes: Vec::new() }
    }

    async fn line(&mut self) -> Line {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return parse_line(&line).expect("a line");
            }
            let chunk = tokio::time::timeout(world::DEADLINE, self.response.chunk()).await;
            let chunk = chunk.expect("in time").expect("unbroken");
            self.bytes.extend_from_slice(&chunk.expect("the stream goes on"));
        }
    }

    /// The lines up to the next sync, as words, and the revision.
    async fn step(&mut self) -> (Vec<String>, u64) {
        let mut words = Vec::new();
        loop {
            match self.line().await {
                Line::Put { object } => words.push(format!("+{} {}", object.kind, object.metadata.name)),
                Line::Delete { object } => words.push(format!("-{} {}", object.kind, object.metadata.name)),
                Line::Trust { .. } => words.push("trust".to_owned()),
                Line::Error { status } => words.push(format!("error {status}")),
                Line::Sync { revision } => {
                    let first = usize::from(words.first().is_some_and(|word| word == "trust"));
                    words[first..].sort();
                    return (words, revision);
                }
            }
        }
    }

    /// Steps until one has news.
    async fn news(&mut self) -> (Vec<String>, u64) {
        loop {
            let step = self.step().await;
            if !step.0.is_empty() {
                return step;
            }
        }
    }
}

fn registration(host: &str, services: &[&str], health: &str) -> Value {
    let claims: Vec<_> = services
        .iter()
        .map(|name| json!({"service": format!("default/{name}"), "ports": [{"port": 80, "targetPort": 8080, "protocol": "http"}]}))
        .collect();
    let endpoints: Vec<_> = services
        .iter()
        .map(|name| {
            json!({
                "kind": "Endpoint", "metadata": {"namespace": "default", "name": format!("{name}-{host}")},
                "spec": {"service": name, "node": host, "address": "127.0.0.1",
                         "ports": [{"port": 80, "targetPort": 8080}]},
                "status": {"health": health},
            })
        })
        .collect();
    json!({"version": "0.1.0", "addresses": ["127.0.0.1"], "services": claims, "endpoints": endpoints})
}

async fn register(host: &Host, services: &[&str]) -> Answer {
    let body = registration(&host.name, services, "Healthy");
    host.ask(Method::PUT, "/v1/proxy/registration", Some(body)).await
}

async fn route(operator: &Operator, name: &str, parent: &str, backends: &[&str]) {
    let backends: Vec<_> = backends.iter().map(|name| json!({"name": name, "port": 80})).collect();
    let spec = json!({"parentRefs": [{"name": parent}], "rules": [{"backendRefs": backends}]});
    let answer = operator.put(&format!("/v1/namespaces/default/httproutes/{name}"), spec).await;
    assert!(answer.status == 200 || answer.status == 201, "{answer:?}");
}

#[tokio::test]
async fn a_registration_makes_services_and_endpoints_and_ends_when_the_host_leaves() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/*"]).await;
    let answer = register(&host, &["orders", "web"]).await;
    assert_eq!((answer.status, &answer.body["ttl"]), (200, &json!("10s")), "{answer:?}");
    let endpoint = dev.operator.get("/v1/namespaces/default/endpoints/orders-host-a").await;
    assert_eq!(endpoint.body["status"]["health"], "Healthy", "{endpoint:?}");
    let service = dev.operator.get("/v1/namespaces/default/services/orders").await;
    assert_eq!(service.body["metadata"]["annotations"]["mesh/managed-by"], "registration", "{service:?}");
    let (generation, revision) = (answer.body["generation"].clone(), answer.body["revision"].clone());
    let alive = json!({"generation": generation, "revision": revision});
    let kept = host.ask(Method::POST, "/v1/proxy/keepalive", Some(alive.clone())).await;
    assert_eq!((kept.status, kept.body["term"].is_u64()), (200, true), "{kept:?}");
    let proxies = dev.operator.get("/v1/proxies").await;
    assert_eq!(proxies.body["items"][0]["revision"], revision, "{proxies:?}");
    assert_eq!(host.ask(Method::DELETE, "/v1/proxy/registration", None).await.status, 200);
    assert_eq!(dev.operator.get("/v1/namespaces/default/endpoints/orders-host-a").await.status, 404);
    let gone = host.ask(Method::POST, "/v1/proxy/keepalive", Some(alive)).await;
    assert_eq!((gone.status, gone.problem().detail.contains("register anew")), (410, true), "{gone:?}");
    assert_eq!(host.ask(Method::DELETE, "/v1/proxy/registration", None).await.status, 200, "twice is fine");
}

#[tokio::test]
async fn a_host_that_leaves_for_good_is_forgotten_and_may_come_again_at_once() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/*"]).await;
    assert_eq!(register(&host, &["orders"]).await.status, 200);
    let token = dev.operator.ask(Method::DELETE, "/v1/proxy/node", None).await;
    assert_eq!(token.status, 403, "{token:?}");
    let left = host.ask(Method::DELETE, "/v1/proxy/node", None).await;
    assert_eq!(left.status, 200, "{left:?}");
    assert_eq!(dev.operator.get("/v1/nodes/host-a").await.status, 404);
    assert_eq!(dev.operator.get("/v1/namespaces/default/endpoints/orders-host-a").await.status, 404);
    let trust = dev.operator.get("/v1/ca").await;
    assert!(trust.body["distrusted"]["nodes"]["host-a"].is_u64(), "{trust:?}");
    let token = dev.operator.join_token("again", json!({"services": ["default/*"]})).await;
    let again = Host::join(&dev.operator.address, "host-a", &token).await.expect("the name is free");
    let answer = register(&again, &["orders"]).await;
    assert_eq!(answer.status, 200, "its new certificate is none of the distrusted ones: {answer:?}");
}

#[tokio::test]
async fn a_registration_is_the_caller_s_own_and_within_its_grant() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/orders"]).await;
    let refused = register(&host, &["payments"]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.problem().detail.contains("node host-a may not run default/payments"), "{refused:?}");
    let other = registration("host-b", &["orders"], "Healthy");
    let refused = host.ask(Method::PUT, "/v1/proxy/registration", Some(other)).await;
    assert_eq!((refused.status, refused.problem().errors[0].path.as_str()), (422, "endpoints[0].spec.node"));
    let unknown = json!({"version": "1", "endpoint": []});
    assert_eq!(host.ask(Method::PUT, "/v1/proxy/registration", Some(unknown)).await.status, 422);
    let token = dev.operator.ask(Method::PUT, "/v1/proxy/registration", Some(json!({"version": "1"}))).await;
    assert_eq!(token.status, 403, "{token:?}");
    assert_eq!(dev.operator.get("/v1/namespaces/default/endpoints").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_proxy_is_told_what_it_subscribed_to_as_it_changes() {
    let dev = Dev::start();
    let (a, b) = (dev.operator.host("a", &["default/*"]).await, dev.operator.host("b", &["default/*"]).await);
    register(&b, &["orders", "payments", "stock"]).await;
    route(&dev.operator, "to-payments", "orders", &["payments"]).await;
    let mut watch = Watch::open(&a, "subscribe=default/orders").await;
    let (words, _) = watch.step().await;
    assert_eq!(
        words,
        [
            "trust",
            "+Endpoint orders-b",
            "+Endpoint payments-b",
            "+HTTPRoute to-payments",
            "+Node a",
            "+Service orders",
            "+Service payments",
            "+Service stock"
        ]
    );
    route(&dev.operator, "to-payments", "orders", &["stock"]).await;
    let (words, at) = watch.news().await;
    assert_eq!(words, ["+Endpoint stock-b", "+HTTPRoute to-payments", "-Endpoint payments-b"]);
    b.ask(Method::DELETE, "/v1/proxy/registration", None).await;
    let (words, _) = watch.news().await;
    assert!(words.contains(&"-Endpoint orders-b".to_owned()), "{words:?}");
    assert!(words.contains(&"-Endpoint stock-b".to_owned()), "{words:?}");
    drop(watch);
    register(&b, &["orders", "web"]).await;
    let mut resumed =
        Watch::open(&a, &format!("subscribe=default/orders,default/web&add=default/web&from={at}")).await;
    let (words, _) = resumed.step().await;
    assert_eq!(words.first().map(String::as_str), Some("trust"));
    for word in ["+Endpoint orders-b", "+Endpoint web-b", "+Service web", "-Endpoint stock-b"] {
        assert!(words.contains(&word.to_owned()), "{word} is missing: {words:?}");
    }
    assert!(!words.contains(&"+Node a".to_owned()), "it did not change: {words:?}");
}

#[tokio::test]
async fn trust_is_told_when_it_changes_and_wrong_questions_are_refused() {
    let dev = Dev::start();
    let host = dev.operator.host("a", &["default/*"]).await;
    dev.operator.host("b", &[]).await;
    let mut watch = Watch::open(&host, "subscribe=*").await;
    assert_eq!(watch.step().await.0, ["trust", "+Node a"]);
    let answer = dev.operator.ask(Method::POST, "/v1/ca/distrust", Some(json!({"node": "b"}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(watch.news().await.0, ["trust"]);
    for (query, status, field) in [
        ("subscribe=orders", 422, "subscribe"),
        ("subscribe=a/b&from=x", 422, "from"),
        ("subscibe=a/b", 422, "subscibe"),
    ] {
        let answer = host.ask(Method::GET, &format!("/v1/proxy/watch?{query}"), None).await;
        assert_eq!((answer.status, answer.problem().errors[0].path.as_str()), (status, field), "{answer:?}");
    }
    let future = host.ask(Method::GET, "/v1/proxy/watch?from=1000000", None).await;
    assert_eq!(future.status, 410, "{future:?}");
    let request = host.http.get(format!("{}/v1/proxy/watch", host.address));
    let other =
        request.header("mesh-epoch", "00000000-0000-0000-0000-000000000000").send().await.expect("an answer");
    assert_eq!(other.status(), 410);
}

/// A host that registered and never says that it runs anything holds every write that waits for all.
#[tokio::test]
async fn so_many_writes_wait_at_once_and_the_next_one_is_told_to_come_again() {
    const WAITS_MAX: usize = 64;
    let dev = Dev::start();
    let host = dev.operator.host("a", &["default/*"]).await;
    assert_eq!(register(&host, &["orders"]).await.status, 200);
    let named = |n: usize, query: &str| format!("/v1/namespaces/default/services/s{n}?wait=applied&{query}");
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..WAITS_MAX {
        let (operator, path) = (dev.operator.clone(), named(n, "timeout=60s"));
        waiting.spawn(async move {
            // The one below may have the last place for a moment.
            while write(&operator, &path).await.status() == 503 {
                // Poll: until it waits.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let refused = world::eventually("all wait", async || {
        let answer = write(&dev.operator, &named(100, "timeout=1ms")).await;
        (answer.status() == 503).then_some(answer)
    });
    let refused = refused.await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let said = refused.text().await.expect("a body");
    assert!(said.contains("64 writes wait") && said.contains("nothing was written"), "{said}");
    assert_eq!(write(&dev.operator, &named(101, "timeout=1ms")).await.status(), 503);
    assert_eq!(dev.operator.get("/v1/namespaces/default/services/s101").await.status, 404);
    let alone = write(&dev.operator, "/v1/namespaces/default/services/s101").await.status();
    assert_eq!(alone, 201, "who does not wait is not counted");
    assert!(waiting.try_join_next().is_none(), "one of them was answered");
    // Who hangs up waits no more.
    waiting.abort_all();
    let answer = world::eventually("there is room", async || {
        let status = write(&dev.operator, &named(101, "timeout=1ms")).await.status();
        (status != 503).then_some(status)
    });
    assert_eq!(answer.await, 202);
}

/// Writes a Service.
async fn write(operator: &Operator, path: &str) -> reqwest::Response {
    operator.send(Method::PUT, path, json!({"spec": {"ports": [{"port": 80, "protocol": "http"}]}})).await
}

#[tokio::test]
async fn a_stream_has_a_line_every_fifteen_seconds_and_ends_when_the_server_does() {
    let mut dev = Dev::start();
    let host = dev.operator.host("a", &["default/*"]).await;
    let mut watch = Watch::open(&host, "").await;
    let (_, revision) = watch.step().await;
    let (words, again) =
        tokio::time::timeout(Duration::from_secs(20), watch.step()).await.expect("a heartbeat");
    assert_eq!((words.len(), again), (0, revision));
    assert_eq!(dev.meshd.terminate().await, Some(0));
    let rest = tokio::time::timeout(world::DEADLINE, watch.response.chunk()).await.expect("it ends");
    assert!(!matches!(rest, Ok(Some(_))), "{rest:?}");
}

#[tokio::test]
async fn the_endpoints_of_a_host_that_falls_silent_go_after_its_time() {
    let dev = Dev::start();
    let (a, b) = (dev.operator.host("a", &["default/*"]).await, dev.operator.host("b", &["default/*"]).await);
    let kept = register(&a, &["orders"]).await;
    register(&b, &["web"]).await;
    let alive = json!({"generation": kept.body["generation"], "revision": 1});
    let went = world::eventually("b's endpoints go", async || {
        let answer = a.ask(Method::POST, "/v1/proxy/keepalive", Some(alive.clone())).await;
        assert_eq!(answer.status, 200, "a is alive all the time: {answer:?}");
        let answer = dev.operator.get("/v1/namespaces/default/endpoints").await;
        let left: Vec<_> = answer.body["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| item["metadata"]["name"].clone())
            .collect();
        (left == [json!("orders-a")]).then_some(())
    });
    went.await;
}
