//! Coming in with a token, and certificates: against a real server.

mod world;

use std::sync::Arc;

use model::{token::JoinToken, trust::TrustBundle};
use reqwest::Method;
use serde_json::{Value, json};
use svid::{KeyRequest, Usage, pem, verify};
use tokio::task::JoinSet;
use world::{Answer, Dev, Host, post_join};

fn service(name: &str) -> Value {
    json!({"service": name})
}

fn key() -> KeyRequest {
    KeyRequest::generate().expect("randomness")
}

#[tokio::test]
async fn a_host_joins_with_a_token_that_pins_the_root_and_gets_its_identity() {
    let dev = Dev::start();
    let token = dev.operator.join_token("t", json!({"services": ["default/orders"]})).await;
    let parsed: JoinToken = token.parse().expect("a token");
    let peer = meshd::peer::Peer::pinned(&dev.meshd.address, &parsed).await.expect("the pin fits");
    let bundle: TrustBundle = peer.bundle().await.expect("over the verified connection");
    assert!(bundle.roots.iter().any(|root| {
        meshd::authority::fingerprint(&pem::certificate(root).expect("a root")) == parsed.pin
    }));
    let host = Host::join(&dev.meshd.address, "host-a", &token).await.expect("it may join");
    let chain = pem::certificates(&host.chain).expect("a chain");
    let peer = verify(&chain, &host.trust.load(), Usage::Client, meshd::clock::unix()).expect("a good chain");
    assert_eq!(peer.id.to_string(), "spiffe://mesh.internal/node/host-a");
    assert_eq!(peer.node.expect("a node").as_str(), "host-a");
    assert_eq!(chain.len(), 2, "leaf and intermediate, not the root");
    let node = dev.operator.get("/v1/nodes/host-a").await;
    assert_eq!(node.body["spec"]["services"], json!(["default/orders"]));
}

#[tokio::test]
async fn the_roots_are_open_to_everybody_also_as_pem() {
    let dev = Dev::start();
    let root = std::fs::read_to_string(&dev.root_file).expect("a file");
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(root.as_bytes()).expect("a root")])
        .build()
        .expect("a client");
    let request = client.get(format!("{}/v1/ca/bundle", dev.meshd.address));
    let response = request.header("accept", "application/x-pem-file").send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/x-pem-file");
    assert_eq!(response.text().await.expect("a text"), root);
}

#[tokio::test]
async fn one_use_is_used_once_by_a_hundred_at_once() {
    let dev = Dev::start();
    let token = dev.operator.join_token("once", json!({"uses": 1})).await;
    let mut tries = JoinSet::new();
    for n in 0..100 {
        let (address, token) = (dev.meshd.address.clone(), token.clone());
        tries.spawn(async move { post_join(&address, &format!("host-{n}"), &token, &key()).await });
    }
    let answers: Vec<Answer> = tries.join_all().await;
    let granted = answers.iter().filter(|answer| answer.status == 201).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
    assert_eq!(granted, 1, "{refused:?}");
    for answer in refused {
        // The guard against floods may answer those who come last.
        assert!(answer.status == 403 || answer.status == 429, "{answer:?}");
        let used_up = answer.problem().detail.contains("the token is used up");
        assert!(answer.status == 429 || used_up, "{answer:?}");
    }
    let nodes = dev.operator.get("/v1/nodes").await;
    assert_eq!(nodes.body["items"].as_array().map(Vec::len), Some(1), "{nodes:?}");
}

#[tokio::test]
async fn a_use_is_bound_to_its_key_which_may_ask_again() {
    let dev = Dev::start();
    let token = dev.operator.join_token("once", json!({"uses": 1})).await;
    let mine = key();
    for _ in 0..2 {
        let answer = post_join(&dev.meshd.address, "host-a", &token, &mine).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let other = post_join(&dev.meshd.address, "host-b", &token, &key()).await;
    assert_eq!((other.status, other.problem().detail.contains("used up")), (403, true), "{other:?}");
    let renamed = post_join(&dev.meshd.address, "host-b", &token, &mine).await;
    assert!(renamed.problem().detail.contains("'host-a', not 'host-b'"), "{renamed:?}");
}

#[tokio::test]
async fn a_wrong_pin_ends_before_the_secret_is_said() {
    let dev = Dev::start();
    let token = dev.operator.join_token("once", json!({"role": "server"})).await;
    let right: JoinToken = token.parse().expect("a token");
    let wrong = JoinToken { pin: "ab".repeat(32), ..right };
    let place = tempfile::tempdir().expect("a folder");
    let config = place.path().join("meshd.toml");
    let text = format!("node = \"cp2\"\ndata_dir = \"{}\"\n", place.path().join("data").display());
    std::fs::write(&config, text).expect("written");
    let mut command = world::meshd();
    command.args(["join", &dev.meshd.address, "--token", &wrong.to_string(), "--config"]).arg(&config);
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("the secret was not sent"), "{error}");
    let log = dev.meshd.log();
    let metrics = log.lines().find_map(|line| line.strip_prefix("metrics: ")).expect("where metrics are");
    let text = reqwest::get(metrics).await.expect("metrics").text().await.expect("a text");
    assert!(text.contains("GET /v1/ca/bundle"), "{text}");
    assert!(!text.contains("POST /v1/ca/join"), "nothing was posted: {text}");
}

#[tokio::test]
async fn tokens_that_are_none_are_refused_and_floods_of_them_slowed_down() {
    let dev = Dev::start();
    let token = dev.operator.join_token("good", json!({"uses": 5})).await;
    let good: JoinToken = token.parse().expect("a token");
    let bad = JoinToken { secret: "0".repeat(64), ..good };
    let first = post_join(&dev.meshd.address, "host-a", &bad.to_string(), &key()).await;
    assert_eq!((first.status, first.problem().detail.as_str()), (403, "the token is not known"));
    let mut tries = JoinSet::new();
    for _ in 0..200 {
        let (address, bad) = (dev.meshd.address.clone(), bad.to_string());
        tries.spawn(async move { post_join(&address, "host-a", &bad, &key()).await.status });
    }
    let statuses = tries.join_all().await;
    assert!(statuses.contains(&429), "{statuses:?}");
    let good = post_join(&dev.meshd.address, "host-a", &token, &key()).await;
    assert_eq!(good.status, 201, "who has a token is not held up: {good:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_join_is_named() {
    let dev = Dev::start();
    let token = dev.operator.join_token("t", json!({"uses": 5, "nodes": ["shop-*"]})).await;
    let allowed = post_join(&dev.meshd.address, "web-1", &token, &key()).await;
    assert!(allowed.problem().detail.contains("does not allow node 'web-1', only [shop-*]"), "{allowed:?}");
    let mut broken = key();
    broken.csr_pem = broken.csr_pem.replace("MI", "AA");
    let csr = post_join(&dev.meshd.address, "shop-1", &token, &broken).await;
    assert_eq!((csr.status, csr.problem().errors[0].path.as_str()), (422, "csr"), "{csr:?}");
    assert_eq!(post_join(&dev.meshd.address, "shop-1", &token, &key()).await.status, 201);
    let again = post_join(&dev.meshd.address, "shop-1", &token, &key()).await;
    assert!(again.problem().detail.contains("make a token with rejoin"), "{again:?}");
}

#[tokio::test]
async fn a_host_gets_certificates_for_what_it_may_run_and_is_refused_by_name() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/orders", "shop/*"]).await;
    let orders = key();
    let granted = host.certificate(service("default/orders"), &orders, None).await;
    let chain = granted.certificate.expect("granted");
    let ders = pem::certificates(&chain).expect("a chain");
    let peer = verify(&ders, &host.trust.load(), Usage::Server, meshd::clock::unix()).expect("a good chain");
    assert_eq!(peer.id.to_string(), "spiffe://mesh.internal/ns/default/svc/orders");
    assert_eq!(peer.node.expect("signed for a node").as_str(), "host-a");
    for (subject, why) in [
        (service("default/payments"), "node 'host-a' may not run 'default/payments'"),
        (json!({"node": "host-b"}), "node 'host-a' asked for 'host-b'"),
    ] {
        let refused = host.certificate(subject, &key(), None).await;
        assert!(refused.error.as_deref().is_some_and(|error| error.contains(why)), "{refused:?}");
        assert!(refused.certificate.is_none());
    }
    assert!(dev.meshd.log().contains("may not run 'default/payments'"), "the log names it too");
}

#[tokio::test]
async fn a_renewal_needs_the_certificate_that_it_renews() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/*"]).await;
    let first = host.certificate(service("default/orders"), &key(), None).await.certificate.expect("granted");
    let second = host.certificate(service("default/orders"), &key(), Some(&first)).await;
    assert!(second.certificate.is_some() && second.not_after.is_some(), "{second:?}");
    let own = host.certificate(json!({"node": "host-a"}), &key(), Some(&host.chain)).await;
    assert!(own.certificate.is_some(), "{own:?}");
    let other = host.certificate(service("default/payments"), &key(), Some(&first)).await;
    assert!(
        other.error.as_deref().is_some_and(|error| error.contains("not for what was asked")),
        "{other:?}"
    );
    let host_b = dev.operator.host("host-b", &["default/*"]).await;
    let stolen = host_b.certificate(service("default/orders"), &key(), Some(&first)).await;
    assert!(stolen.error.as_deref().is_some_and(|error| error.contains("of node Some")), "{stolen:?}");
}

#[tokio::test]
async fn only_a_node_asks_for_certificates_and_it_gets_nothing_else() {
    let dev = Dev::start();
    let body = json!({"requests": []});
    let token = dev.operator.ask(Method::POST, "/v1/ca/certificates", Some(body)).await;
    assert_eq!(token.status, 403, "{token:?}");
    let host = dev.operator.host("host-a", &["default/*"]).await;
    for (method, path) in [
        (Method::GET, "/v1/ca"),
        (Method::GET, "/v1/cluster"),
        (Method::GET, "/v1/snapshot"),
        (Method::GET, "/v1/nodes/host-a"),
        (Method::POST, "/v1/ca/intermediate"),
        (Method::POST, "/v1/ca/distrust"),
    ] {
        let answer =
            host.ask(method.clone(), path, (method == Method::POST).then(|| json!({"csr": ""}))).await;
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_distrusted_node_is_out_and_may_come_back_with_a_rejoin_token() {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/*"]).await;
    let before = dev.operator.get("/v1/ca").await;
    let answer = dev.operator.ask(Method::POST, "/v1/ca/distrust", Some(json!({"node": "host-a"}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body["distrusted"]["nodes"]["host-a"].is_u64(), "{answer:?}");
    assert!(answer.body["generation"].as_u64() > before.body["generation"].as_u64());
    let shut_out = Arc::new(host);
    world::eventually("the host is refused", async || {
        let request = shut_out.http.delete(format!("{}/v1/proxy/registration", shut_out.address));
        match request.send().await {
            Err(_) => Some(()),
            Ok(response) => (response.status() == 401).then_some(()),
        }
    })
    .await;
    world::eventually("the log names it", async || {
        let named = "spiffe://mesh.internal/node/host-a is distrusted, by node host-a";
        dev.meshd.log().contains(named).then_some(())
    })
    .await;
    let status = dev.operator.get("/v1/ca").await;
    assert_eq!(status.body["trustDomain"], "mesh.internal");
    assert_eq!(status.body["roots"][0]["state"], "Active");
    assert_eq!(status.body["intermediates"][0]["member"], 1);
    let nothing = dev.operator.ask(Method::POST, "/v1/ca/distrust", Some(json!({}))).await;
    assert_eq!(nothing.status, 422, "{nothing:?}");
}
