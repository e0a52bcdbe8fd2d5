//! The API of several servers: what one of them was told the others know, and what is left without a majority.

mod world;

use reqwest::{Certificate, Client, Method, Response};
use serde_json::{Value, json};
use world::{cluster::Cluster, eventually};

/// A client that sees headers and streams, with a token of its own.
struct Caller {
    http: Client,
    token: String,
}

impl Caller {
    async fn new(cluster: &Cluster, name: &str) -> Self {
        let root = Certificate::from_pem(cluster.root.as_bytes()).expect("a certificate");
        let http = Client::builder().tls_certs_only([root]).build().expect("a client");
        Self { http, token: token(cluster, 1, name).await }
    }

    async fn get(&self, address: &str, path: &str) -> Response {
        let request = self.http.get(format!("{address}{path}")).bearer_auth(&self.token);
        request.send().await.expect("an answer")
    }
}

/// A viewer's token, made at a member.
async fn token(cluster: &Cluster, member: usize, name: &str) -> String {
    let path = format!("/v1/accesstokens/{name}");
    let answer =
        cluster.at(member).ask(Method::PUT, &path, Some(json!({"spec": {"roles": ["viewer"]}}))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["status"]["token"].as_str().expect("the token, this once").to_owned()
}

#[tokio::test]
async fn what_one_member_was_told_the_others_know() {
    let cluster = Cluster::of_three().await;
    let mut caller = Caller::new(&cluster, "first").await;
    for n in 0..12 {
        let (at, elsewhere) = (n % 3 + 1, (n + 1) % 3 + 1);
        caller.token = token(&cluster, at, &format!("t{n}")).await;
        let address = cluster.at(elsewhere).address;
        let seen = caller.get(&address, &format!("/v1/accesstokens/t{n}")).await;
        assert_eq!(seen.status(), 200, "a token made at {at} is good at {elsewhere} at once");
        let object: Value = seen.json().await.expect("an object");
        let revision = object["metadata"]["revision"].as_u64().expect("a revision");
        let further = cluster.at(n % 2 + 2).address;
        let watch = caller.get(&further, &format!("/v1/watch?kinds=Service&from={revision}")).await;
        assert_eq!(watch.status(), 200, "a place that another member has shown");
    }
}

#[tokio::test]
async fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::of_three().await;
    let caller = Caller::new(&cluster, "viewer").await;
    let last = cluster.at(1).address;
    // From here on the token and what it sees are known where it will be needed.
    assert_eq!(caller.get(&last, "/v1/services").await.status(), 200);
    cluster.kill(2);
    cluster.kill(3);
    let path = "/v1/namespaces/default/services/late";
    let write = json!({"spec": {"ports": [{"port": 80}]}});
    eventually("writes are refused", async || {
        let answer = cluster.at(1).try_ask(Method::PUT, path, Some(write.clone())).await?;
        (answer.status == 503).then_some(())
    })
    .await;
    let read = caller.get(&last, "/v1/services").await;
    assert_eq!((read.status().as_u16(), read.headers()["retry-after"].to_str().expect("a text")), (503, "1"));
    assert_eq!(read.headers()["content-type"], "application/problem+json");
    assert_eq!(caller.get(&last, "/healthz").await.status(), 200);
    assert_eq!(caller.get(&last, "/readyz").await.status(), 503);
    assert_eq!(caller.get(&last, "/v1/ca/bundle").await.status(), 200);
    let mut watch = caller.get(&last, "/v1/watch?kinds=Namespace").await;
    assert_eq!(watch.status(), 200, "watches are local");
    let state = watch.chunk().await.expect("a stream").expect("lines");
    assert!(String::from_utf8_lossy(&state).contains("mesh-system"));
}
