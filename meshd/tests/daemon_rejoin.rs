//! A host comes back without a token, by an operator's approval: against a real server, with strangers who ask, too.

mod world;

use model::rejoin::grouped;
use reqwest::Method;
use serde_json::{Value, json};
use svid::{KeyRequest, Usage, pem, verify};
use world::{Answer, Dev, Host, eventually, stranger};

const REQUESTS: &str = "/v1/ca/requests";

fn key() -> KeyRequest {
    KeyRequest::generate().expect("randomness")
}

/// A server, and a host that has joined.
async fn mesh() -> (Dev, Host) {
    let dev = Dev::start();
    let host = dev.operator.host("host-a", &["default/orders"]).await;
    (dev, host)
}

async fn file(dev: &Dev, node: &str, key: &KeyRequest) -> Answer {
    let body = json!({"node": node, "csr": key.csr_pem, "version": "0.2.0"});
    stranger(&dev.meshd.address, Method::POST, REQUESTS, Some(body)).await
}

/// The id of a request that is filed.
async fn filed(dev: &Dev, node: &str, key: &KeyRequest) -> String {
    let answer = file(dev, node, key).await;
    assert_eq!((answer.status, &answer.body["state"]), (201, &json!("pending")), "{answer:?}");
    assert_eq!(answer.body["fingerprint"], key.fingerprint.as_str());
    answer.body["id"].as_str().expect("an id").to_owned()
}

async fn poll(dev: &Dev, id: &str) -> Answer {
    stranger(&dev.meshd.address, Method::GET, &format!("{REQUESTS}/{id}"), None).await
}

async fn judge(dev: &Dev, id: &str, verb: &str, body: Value) -> Answer {
    dev.operator.ask(Method::POST, &format!("{REQUESTS}/{id}/{verb}"), Some(body)).await
}

async fn listed(dev: &Dev) -> Vec<Value> {
    let list = dev.operator.get(REQUESTS).await;
    assert_eq!(list.status, 200, "{list:?}");
    list.body["items"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_host_comes_back_with_the_key_that_was_approved() {
    let (dev, host) = mesh().await;
    let mine = key();
    let id = filed(&dev, "host-a", &mine).await;
    let again = file(&dev, "host-a", &mine).await;
    assert_eq!((again.status, &again.body["id"]), (200, &json!(id)), "the same request");
    let polled = poll(&dev, &id).await;
    assert_eq!((polled.status, &polled.body["state"]), (200, &json!("pending")), "{polled:?}");
    assert!(polled.body.get("joined").is_none() && polled.body.get("from").is_none(), "{polled:?}");
    let shown = listed(&dev).await;
    assert_eq!((shown.len(), &shown[0]["id"], &shown[0]["from"]), (1, &json!(id), &json!("127.0.0.1")));

    let wrong = judge(&dev, &id, "approve", json!({"fingerprint": "ab".repeat(32)})).await;
    assert_eq!(wrong.status, 409, "{wrong:?}");
    assert!(wrong.problem().detail.contains(&mine.fingerprint), "{wrong:?}");
    let part = judge(&dev, &id, "approve", json!({"fingerprint": &mine.fingerprint[..8]})).await;
    assert_eq!(part.status, 422, "{part:?}");
    assert_eq!(poll(&dev, &id).await.body["state"], "pending");

    let fingerprint = grouped(&mine.fingerprint).to_uppercase();
    let approved = judge(&dev, &id, "approve", json!({"fingerprint": fingerprint})).await;
    assert_eq!((approved.status, &approved.body["state"]), (200, &json!("approved")), "{approved:?}");
    let twice = judge(&dev, &id, "approve", json!({})).await;
    assert_eq!((twice.status, &twice.body["expiresAt"]), (200, &approved.body["expiresAt"]), "said once");
    let polled = poll(&dev, &id).await;
    let joined = &polled.body["joined"];
    assert!(joined["bundle"].is_object() && joined["node"] == "host-a", "{polled:?}");
    let chain = joined["certificate"].as_str().expect("a chain");
    let ders = pem::certificates(chain).expect("a chain");
    let peer = verify(&ders, &host.trust.load(), Usage::Client, meshd::clock::unix()).expect("a good chain");
    assert_eq!(peer.id.to_string(), "spiffe://mesh.internal/node/host-a");
    let back = world::client_as(chain, &mine.key_pem, &host.trust);
    let put = back.put(format!("{}/v1/proxy/registration", host.address)).json(&json!({"version": "0.2.0"}));
    let registered = put.send().await.expect("an answer");
    assert!(registered.status().is_success(), "{registered:?}");
    it_is_audited(&dev, &mine).await;
}

async fn it_is_audited(dev: &Dev, mine: &KeyRequest) {
    let target = format!("host-a key {}", mine.fingerprint);
    let lines = eventually("the audit names who, node and key", async || {
        let audit = dev.operator.get("/v1/audit").await;
        let lines: Vec<Value> = audit.body["items"].as_array().expect("a list").clone();
        let lines: Vec<_> = lines.into_iter().filter(|line| line["target"] == target.as_str()).collect();
        lines.iter().any(|line| line["action"] == "approve").then_some(lines)
    })
    .await;
    assert!(lines[0]["action"] == "rejoin" && lines[0]["actor"] == "127.0.0.1", "{lines:?}");
    let approval = lines.iter().find(|line| line["action"] == "approve").expect("it is there");
    assert!(approval["actor"].as_str().expect("a text").starts_with("token/"), "{approval}");
}

#[tokio::test]
async fn only_who_may_approve_does_and_who_may_list_sees() {
    let (dev, host) = mesh().await;
    let id = filed(&dev, "host-a", &key()).await;
    let spec = json!({"roles": ["viewer"]});
    let viewer = dev.operator.put("/v1/accesstokens/eve", spec).await;
    let token = viewer.body["status"]["token"].as_str().expect("a token");
    let root = std::fs::read_to_string(&dev.root_file).expect("a root");
    let viewer = world::Operator::new(&dev.meshd.address, token, &root);
    assert_eq!(viewer.get(REQUESTS).await.status, 200);
    for verb in ["approve", "deny"] {
        let path = format!("{REQUESTS}/{id}/{verb}");
        let refused = viewer.ask(Method::POST, &path, Some(json!({}))).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.problem().detail.contains("needs approve on Node"), "{refused:?}");
        assert_eq!(host.ask(Method::POST, &path, Some(json!({}))).await.status, 403);
        assert_eq!(stranger(&dev.meshd.address, Method::POST, &path, Some(json!({}))).await.status, 401);
    }
    assert_eq!(stranger(&dev.meshd.address, Method::GET, REQUESTS, None).await.status, 401);
    assert_eq!(poll(&dev, &id).await.body["state"], "pending");
}

#[tokio::test]
async fn a_stranger_who_asks_first_neither_comes_in_nor_keeps_the_host_out() {
    let (dev, _host) = mesh().await;
    let (theirs, mine) = (key(), key());
    let stranger = filed(&dev, "host-a", &theirs).await;
    let own = filed(&dev, "host-a", &mine).await;
    assert_eq!(listed(&dev).await.len(), 2, "an operator sees both, and the fingerprints differ");
    let mistaken = judge(&dev, &stranger, "approve", json!({"fingerprint": mine.fingerprint})).await;
    assert_eq!(mistaken.status, 409, "what the host shows does not approve another: {mistaken:?}");
    assert_eq!(judge(&dev, &own, "approve", json!({"fingerprint": mine.fingerprint})).await.status, 200);
    let refused = poll(&dev, &stranger).await;
    assert_eq!((&refused.body["state"], refused.body.get("joined")), (&json!("denied"), None), "{refused:?}");
    assert_eq!(refused.body["reason"], "another key of this node was approved");
    let late = judge(&dev, &stranger, "approve", json!({})).await;
    assert_eq!((late.status, late.problem().detail.contains("was denied")), (409, true), "{late:?}");
    assert!(poll(&dev, &own).await.body["joined"].is_object());
}

#[tokio::test]
async fn what_was_denied_stays_so_and_what_was_approved_may_be_denied() {
    let (dev, _host) = mesh().await;
    let id = filed(&dev, "host-a", &key()).await;
    let long = judge(&dev, &id, "deny", json!({"reason": "x".repeat(257)})).await;
    assert_eq!(long.status, 422, "{long:?}");
    let escape = judge(&dev, &id, "deny", json!({"reason": "\u{1b}[2J"})).await;
    assert_eq!(escape.status, 422, "it comes to a terminal: {escape:?}");
    assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 200);
    let denied = judge(&dev, &id, "deny", json!({"reason": "not this one"})).await;
    assert_eq!((denied.status, &denied.body["state"]), (200, &json!("denied")), "{denied:?}");
    let polled = poll(&dev, &id).await;
    assert_eq!((&polled.body["reason"], polled.body.get("joined")), (&json!("not this one"), None));
    assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 409);
}

#[tokio::test]
async fn a_request_does_not_outlive_its_node_nor_distrust() {
    let (dev, _host) = mesh().await;
    let mine = key();
    let distrust = json!({"node": "host-a"});
    for approved in [false, true] {
        let id = filed(&dev, "host-a", &mine).await;
        if approved {
            assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 200);
        }
        let answer = dev.operator.ask(Method::POST, "/v1/ca/distrust", Some(distrust.clone())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(poll(&dev, &id).await.status, 404, "approved: {approved}");
        assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 404);
    }
    let id = filed(&dev, "host-a", &mine).await;
    assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 200);
    assert_eq!(dev.operator.ask(Method::DELETE, "/v1/nodes/host-a", None).await.status, 200);
    let gone = file(&dev, "host-a", &mine).await;
    assert_eq!(
        (gone.status, gone.problem().detail.as_str()),
        (404, "Node host-a does not exist"),
        "{gone:?}"
    );
    assert_eq!(dev.operator.put("/v1/nodes/host-a", json!({})).await.status, 201);
    assert_eq!(poll(&dev, &id).await.status, 404, "the approval was for the Node that is gone");
    assert_eq!(judge(&dev, &id, "approve", json!({})).await.status, 404);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let (dev, _host) = mesh().await;
    let mine = key();
    let csr = mine.csr_pem.as_str();
    let other = key().csr_pem;
    let mixed: String = csr
        .lines()
        .zip(other.lines())
        .enumerate()
        .map(|(n, (a, b))| {
            let line = if n < 4 { a } else { b };
            format!("{line}\n")
        })
        .collect();
    for (body, path) in [
        (json!({"node": "host-a", "csr": csr.replace("MI", "AA")}), "csr"),
        (json!({"node": "host-a", "csr": mixed}), "csr"),
        (json!({"node": "host-a", "csr": csr, "version": "\u{1b}[2J"}), "version"),
        (json!({"node": "host-a", "csr": csr, "version": "9".repeat(65)}), "version"),
        (json!({"node": "host-a", "csr": csr, "services": ["*/*"]}), ""),
        (json!({"node": "../host-a", "csr": csr}), ""),
        (json!({"node": "host-a\u{0}", "csr": csr}), ""),
        (json!({"node": "HOST-A", "csr": csr}), ""),
        (json!({"node": "höst", "csr": csr}), ""),
        (json!({"node": "", "csr": csr}), ""),
    ] {
        let refused = stranger(&dev.meshd.address, Method::POST, REQUESTS, Some(body.clone())).await;
        assert_eq!(
            (refused.status, refused.problem().errors[0].path.as_str()),
            (422, path),
            "{body}: {refused:?}"
        );
    }
    for id in ["nothing", "%2e%2e", "0000000000000000000%00", "%1b%5b2J"] {
        let unknown = poll(&dev, id).await;
        assert_eq!(unknown.status, 404, "{unknown:?}");
        assert!(!unknown.problem().detail.contains(char::is_control), "{unknown:?}");
        assert_eq!(judge(&dev, id, "approve", json!({})).await.status, 404);
    }
    assert_eq!(listed(&dev).await, Vec::<Value>::new());
}

#[tokio::test]
async fn floods_are_bounded_and_cost_the_leader_little() {
    let (dev, _host) = mesh().await;
    let keys: Vec<_> = std::iter::repeat_with(key).take(20).collect();
    let mut statuses = Vec::new();
    for key in &keys {
        statuses.push(file(&dev, "host-a", key).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 16, "{statuses:?}");
    assert!(statuses[16..].iter().all(|status| *status == 429), "{statuses:?}");
    let crowded = file(&dev, "host-a", &keys[19]).await;
    assert!(crowded.problem().detail.contains("16 requests to rejoin from 127.0.0.1"), "{crowded:?}");
    assert_eq!(file(&dev, "host-a", &keys[0]).await.status, 200, "who has asked may go on");
    let mut unknown = tokio::task::JoinSet::new();
    for n in 0..200 {
        let address = dev.meshd.address.clone();
        let path = format!("{REQUESTS}/{n:020}");
        unknown.spawn(async move { stranger(&address, Method::GET, &path, None).await.status });
    }
    let statuses = unknown.join_all().await;
    assert!(
        statuses.contains(&429) && statuses.iter().all(|status| [404, 429].contains(status)),
        "{statuses:?}"
    );
}
