//! Who calls: nobody, tokens, nodes by certificate, and those who are refused at the handshake.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use reqwest::{Client, Identity};
use serde_json::json;
use svid::KeyRequest;

use crate::script::{World, client};

/// A host that joined: its name in the transcript is `host-a`, and it may run `default/web`.
async fn joined(world: &mut World) -> Client {
    let key = KeyRequest::generate().expect("a key");
    world.play("PUT /v1/jointokens/hosts\n| {\"spec\":{\"services\":[\"default/*\"]}}\n= 201\n$join .status.token").await;
    let token: model::token::JoinToken = world.name("join").parse().expect("a join token");
    let body =
        json!({"token": token.without_pin(), "node": "host-a", "csr": key.csr_pem, "version": "0.1.0"});
    world.keep("body", &body.to_string());
    world
        .play("POST /v1/ca/join\n> token: -\n> content-type: application/json\n| $body\n= 201\n$chain .certificate")
        .await;
    with_certificate(world, &key)
}

/// A client with the certificate that was last kept as `$chain`.
fn with_certificate(world: &World, key: &KeyRequest) -> Client {
    let pem = format!("{}\n{}", key.key_pem, world.name("chain"));
    let identity = Identity::from_pem(pem.as_bytes()).expect("key and certificate");
    client(&world.dev, |builder| builder.identity(identity))
}

#[tokio::test]
async fn nobody_gets_to_the_open_paths_only() {
    let mut world = World::new().await;
    world
        .play(
            r#"
GET /healthz
> token: -
= 200
GET /readyz
> token: -
= 200
GET /openapi.json
> token: -
= 200
.openapi "3.1.0"
GET /v1/ca/bundle
> token: -
= 200
GET /v1/services
> token: -
= 401
< www-authenticate: Bearer realm="mesh"
< content-type: application/problem+json
PUT /v1/nodes/a
> token: -
| {}
= 401
GET /v1/watch
> token: -
= 401
GET /v1/proxies
> token: -
= 401
GET /v1/services
> token: mesha1.nobody.0000000000000000000000000000000000000000000000000000000000000000
= 401
~ not valid
GET /v1/services
> token: nonsense
= 401
GET /v1/services
> token: -
> authorization: Basic YTpi
= 401
~ Bearer
GET /healthz
> token: nonsense
= 200
"#,
        )
        .await;
}

#[tokio::test]
async fn a_node_s_certificate_opens_its_own_paths_only() {
    let mut world = World::new().await;
    world.client = joined(&mut world).await;
    world
        .play(
            r#"
GET /v1/services
> token: -
= 403
~ node host-a has no rights here
PUT /v1/nodes/host-a
> token: -
| {}
= 403
PUT /v1/proxy/registration
> token: -
| {"version":"0.1.0","addresses":["10.0.0.5"],"services":[{"service":"default/web","ports":[{"port":80,"protocol":"http"}]}],
|  "endpoints":[{"kind":"Endpoint","metadata":{"namespace":"default","name":"web-host-a"},"spec":{"service":"web","node":"host-a","address":"10.0.0.5","ports":[{"port":80,"targetPort":8080}]},"status":{"health":"Unhealthy"}}]}
= 200
PUT /v1/proxy/registration
| {"version":"0.1.0"}
= 403
~ node's client certificate
GET /v1/nodes/host-a
= 200
.status.session.state "Live"
.status.version "0.1.0"
.status.addresses ["10.0.0.5"]
GET /v1/namespaces/default/endpoints/web-host-a
= 200
.status.health "Unhealthy"
.status.stale false
GET /v1/namespaces/default/services/web
= 200
.metadata.annotations {"mesh/managed-by":"registration"}
.status.endpoints {"ready":0,"total":1}
GET /v1/proxies
= 200
.items[0].node "host-a"
.items[0].session "Live"
.items[0].services ["default/web"]
GET /v1/jointokens/hosts
= 200
.status.usesLeft 0
PUT /v1/namespaces/default/services/web
| {"spec":{"ports":[{"port":80,"protocol":"http"}]}}
= 200
.metadata.annotations -
"#,
        )
        .await;
}

/// What is logged, for a look.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_service_s_certificate_is_refused_by_name() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let mut world = World::new().await;
    world.client = joined(&mut world).await;
    let key = KeyRequest::generate().expect("a key");
    let body = json!({"requests": [{"service": "default/web", "csr": key.csr_pem}]});
    world.keep("body", &body.to_string());
    world
        .play("POST /v1/ca/certificates\n> token: -\n| $body\n= 200\n$chain .certificates[0].certificate")
        .await;
    let service = with_certificate(&world, &key);
    let asked = service.get(format!("{}/healthz", world.dev.address)).send().await;
    assert!(asked.is_err(), "a service was let in");
    let text = String::from_utf8(log.0.lock().expect("nobody panicked").clone()).expect("UTF-8");
    let line = text.lines().find(|line| line.contains("handshake refused")).expect("a line of the refusal");
    assert!(line.contains("spiffe://mesh.internal/ns/default/svc/web is not accepted here"), "{line}");
}

#[tokio::test]
async fn a_distrusted_node_s_connection_does_not_live_on() {
    let mut world = World::new().await;
    let admin = world.client.clone();
    let node = joined(&mut world).await;
    let stream = node.get(format!("{}/v1/proxy/watch?subscribe=*", world.dev.address)).send().await;
    let mut stream = stream.expect("an answer");
    assert_eq!(stream.status(), 200);
    world.client = admin;
    world.play("DELETE /v1/nodes/host-a\n= 200").await;
    let over = async { while let Ok(Some(_)) = stream.chunk().await {} };
    let within = meshd::listener::RECHECK_INTERVAL * 3;
    tokio::time::timeout(within, over).await.expect("the stream goes on for a node that is distrusted");
    // What was acknowledged reaches the listeners a moment later; from then on it is final.
    let refused = async { while node.get(format!("{}/healthz", world.dev.address)).send().await.is_ok() {} };
    tokio::time::timeout(within, refused).await.expect("a distrusted node is served");
    let asked = node.get(format!("{}/healthz", world.dev.address)).send().await;
    assert!(asked.is_err(), "a distrusted node was let in again");
}
