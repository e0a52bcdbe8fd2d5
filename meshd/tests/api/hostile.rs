//! Clients that mean harm, or behave as if: each gets an error of its own, and nobody else notices.

use std::{sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use svid::{Expect, Trust, TrustStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::script::{World, answer};

/// A bare TLS connection that speaks what it likes as HTTP/1.1.
pub(crate) async fn connect(world: &World) -> TlsStream<TcpStream> {
    let root = std::fs::read_to_string(&world.dev.root_file).expect("the root's file");
    let root = svid::pem::certificate(&root).expect("a certificate");
    let domain = "mesh.internal".parse().expect("a domain");
    let trust = Trust::new(domain, 1, vec![root], Default::default()).expect("trust");
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let config = svid::client_config(None, TrustStore::new(trust), Expect::Meshd, &[b"http/1.1"], clock);
    let address = world.dev.address.strip_prefix("https://").expect("https");
    let socket = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
}

/// Sends bytes and reads the answer until the server closes.
async fn say(world: &World, bytes: &[u8]) -> String {
    let mut stream = connect(world).await;
    // The server may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server neither answers nor closes");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn put(world: &World, body: Vec<u8>) -> crate::script::Answer {
    let url = format!("{}/v1/nodes/a", world.dev.address);
    let request = world.client.put(url).bearer_auth(&world.dev.token).body(body);
    answer(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn bodies_are_bounded_and_read_to_the_byte() {
    let world = World::new().await;
    let too_large = put(&world, vec![b' '; meshd::api::body::BODY_BYTES_MAX + 1]).await;
    assert_eq!(too_large.status, 413, "{}", too_large.body);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = put(&world, deep.into_bytes()).await;
    assert_eq!(deep.status, 400, "{}", deep.body);
    assert!(deep.body.contains("recursion limit"), "{}", deep.body);
    let not_text = put(&world, b"{\"spec\": \"\xff\"}".to_vec()).await;
    assert_eq!(not_text.status, 400, "{}", not_text.body);
    assert!(not_text.body.contains("byte 10 is wrong"), "{}", not_text.body);
    let deep_yaml = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let url = format!("{}/v1/apply", world.dev.address);
    let request = world.client.post(url).bearer_auth(&world.dev.token).header("content-type", "text/yaml");
    let deep_yaml = answer(request.body(deep_yaml).send().await.expect("an answer")).await;
    assert_eq!(deep_yaml.status, 400, "{}", deep_yaml.body);
}

/// Annotations of so many times 4 KiB, by names that begin with `prefix`.
fn annotations(prefix: &str, count: usize) -> serde_json::Value {
    let text = "x".repeat(4_096);
    (0..count)
        .map(|n| (format!("{prefix}{n}"), text.clone().into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn an_object_has_a_largest_size_however_it_is_written() {
    let world = World::new().await;
    let most = meshd::api::write::OBJECT_BYTES_MAX;
    let object = |count| {
        let metadata = serde_json::json!({"name": "a", "annotations": annotations("x", count)});
        serde_json::json!({"kind": "Node", "metadata": metadata, "spec": {}})
    };
    let named = format!("at most {most} (OBJECT_BYTES_MAX)");
    let too_large = put(&world, object(256).to_string().into_bytes()).await;
    assert_eq!(too_large.status, 413, "{}", too_large.body);
    assert!(too_large.body.contains(&named), "{}", too_large.body);
    let send = async |request: reqwest::RequestBuilder, body: serde_json::Value| {
        let request = request.bearer_auth(&world.dev.token).header("content-type", "application/json");
        answer(request.body(body.to_string()).send().await.expect("an answer")).await
    };
    let small = serde_json::json!({"kind": "Node", "metadata": {"name": "b"}, "spec": {}});
    let both = serde_json::json!({"items": [small, object(256)]});
    let applied = send(world.client.post(format!("{}/v1/apply", world.dev.address)), both).await;
    assert!(applied.status == 413 && applied.body.contains(&named), "{}", applied.body);
    let url = format!("{}/v1/nodes", world.dev.address);
    let there = world.client.get(format!("{url}/b")).bearer_auth(&world.dev.token).send().await;
    assert_eq!(there.expect("an answer").status(), 404, "all or nothing");
    assert_eq!(put(&world, object(200).to_string().into_bytes()).await.status, 201);
    let more = serde_json::json!({"metadata": {"annotations": annotations("y", 100)}});
    let patched = send(world.client.patch(format!("{url}/a")), more).await;
    assert!(patched.status == 413 && patched.body.contains(&named), "{}", patched.body);
}

#[tokio::test]
async fn a_thousand_wrong_fields_make_a_bounded_answer() {
    let world = World::new().await;
    let fields: Vec<_> = (0..1_000).map(|n| format!("\"wrong{n}\":{n}")).collect();
    let answer = put(&world, format!("{{\"spec\":{{{}}}}}", fields.join(",")).into_bytes()).await;
    assert_eq!(answer.status, 422);
    let errors = crate::script::at(&answer.body, "errors").expect("errors");
    assert_eq!(errors.as_array().map(Vec::len), Some(model::invalid::FIELD_ERRORS_MAX));
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn huge_and_many_headers_are_refused() {
    let world = World::new().await;
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = say(&world, huge.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: String = (0..1_000).map(|n| format!("x-{n}: a\r\n")).collect();
    let answer = say(&world, format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let url = format!("{}/healthz", world.dev.address);
    let over_h2 = world.client.get(url).header("x-huge", "a".repeat(200 << 10)).send().await;
    assert!(over_h2.is_err() || over_h2.is_ok_and(|answer| answer.status() == 431));
}

#[tokio::test]
async fn malformed_http_gets_an_answer_or_an_end() {
    let world = World::new().await;
    for bytes in [
        &b"NONSENSE\r\n\r\n"[..],
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /v1/nodes/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"PUT /v1/nodes/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ] {
        let answer = say(&world, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_client_does_not_hold_its_place() {
    let world = World::new().await;
    let mut halves = connect(&world).await;
    halves.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.expect("written");
    let mut dripping = connect(&world).await;
    let token = &world.dev.token;
    let head = format!("authorization: Bearer {token}\r\ncontent-length: 99\r\n\r\n{{");
    let request = format!("PUT /v1/nodes/a HTTP/1.1\r\nhost: x\r\n{head}");
    dripping.write_all(request.as_bytes()).await.expect("written");
    let mut silent =
        TcpStream::connect(world.dev.address.trim_start_matches("https://")).await.expect("connected");
    // While they dawdle, others are served.
    let url = format!("{}/healthz", world.dev.address);
    assert_eq!(world.client.get(url).send().await.expect("an answer").status(), 200);
    let mut rest = Vec::new();
    let within = meshd::listener::HANDSHAKE_TIMEOUT * 2;
    let read = timeout(within, silent.read_to_end(&mut rest)).await;
    let _ = read.expect("a client that never says hello keeps its place");
    let within = meshd::listener::HEADER_TIMEOUT * 2;
    let read = timeout(within, halves.read_to_end(&mut rest)).await;
    let _ = read.expect("a client that never ends its headers keeps its place");
    let mut answer = vec![0; 12];
    let read = timeout(meshd::api::body::BODY_TIMEOUT * 2, dripping.read_exact(&mut answer)).await;
    read.expect("a client that never ends its body keeps its place").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
}

#[tokio::test]
async fn not_tls_is_closed() {
    let world = World::new().await;
    let mut plain =
        TcpStream::connect(world.dev.address.trim_start_matches("https://")).await.expect("connected");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(5), plain.read_to_end(&mut rest)).await;
    let _ = read.expect("plain HTTP keeps its connection");
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}
