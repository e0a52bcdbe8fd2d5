//! Paths and methods: what is there, what is not, and that the description says the same as the router.

use std::collections::{BTreeMap, BTreeSet};

use meshd::api::openapi::{self, OPERATIONS};
use model::kind::Kind;
use reqwest::Method;

use crate::script::{World, answer};

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let mut world = World::new().await;
    world
        .play(
            r#"
GET /v1/nonsense
= 404
< content-type: application/problem+json
~ httproutes
GET /v1/gateways
= 404
GET /v1/namespaces/default/gateways/g
= 404
GET /v1/nodes/a/b
= 404
GET /
= 404
PUT /v1/namespaces/default/nodes/a
| {}
= 404
POST /v1/services
= 405
< allow: GET,HEAD
< content-type: application/problem+json
PUT /v1/apply
= 405
< allow: POST
PATCH /healthz
> token: -
= 401
"#,
        )
        .await;
}

#[tokio::test]
async fn every_answer_says_of_which_history_and_revision_it_is() {
    let mut world = World::new().await;
    let url = format!("{}/healthz", world.dev.address);
    let answer = answer(world.client.get(url).send().await.expect("an answer")).await;
    let header = |name: &str| answer.headers[name].to_str().expect("a text").to_owned();
    let (epoch, revision) = (header("mesh-epoch"), header("mesh-revision"));
    assert_eq!((epoch.len(), revision.parse::<u64>().is_ok()), (36, true), "{epoch} {revision}");
    world.keep("epoch", &epoch);
    world
        .play(
            r#"
GET /v1/services
> mesh-epoch: $epoch
= 200
GET /v1/services
> mesh-epoch: 11111111-1111-1111-1111-111111111111
= 410
< mesh-epoch: $epoch
~ $epoch
"#,
        )
        .await;
}

#[tokio::test]
async fn what_was_done_is_in_the_audit() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/nodes/a
| {}
= 201
DELETE /v1/nodes/a
= 200
GET /v1/audit
= 200
~ "action":"put"
~ "action":"delete"
~ "target":"/v1/nodes/a"
~ "actor":"token/
GET /v1/audit?limit=1
= 200
$next .metadata.continue
GET /v1/audit?from=$next&limit=1000
= 200
~ /v1/nodes/a
"#,
        )
        .await;
}

/// Every path with its methods, by the description.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let document = openapi::document();
    let paths = document["paths"].as_object().expect("paths");
    let methods = |item: &serde_json::Value| {
        let methods = item.as_object().expect("operations").keys().map(|method| method.to_ascii_uppercase());
        methods.collect::<BTreeSet<_>>()
    };
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn the_router_has_what_is_described_and_nothing_else() {
    let world = World::new().await;
    for (path, methods) in described() {
        let url = format!("{}{}", world.dev.address, path.replace(['{', '}'], "x"));
        let brew = Method::from_bytes(b"BREW").expect("a token");
        let asked = world.client.request(brew, url).bearer_auth(&world.dev.token).send().await;
        let answer = answer(asked.expect("an answer")).await;
        assert_eq!(answer.status, 405, "{path} is described and not routed: {}", answer.body);
        let allow = answer.headers["allow"].to_str().expect("a text");
        let mut wanted = methods;
        if wanted.contains("GET") {
            wanted.insert("HEAD".to_owned());
        }
        let allowed: BTreeSet<_> = allow.split(',').map(|method| method.trim().to_owned()).collect();
        assert_eq!(allowed, wanted, "{path}");
    }
}

/// axum's router cannot be asked for its paths: they are read from where they are written.
#[test]
fn every_route_is_described() {
    let sources = [
        include_str!("../../src/api.rs"),
        include_str!("../../src/api/certificates.rs"),
        include_str!("../../src/api/cluster.rs"),
        include_str!("../../src/api/proxy.rs"),
        include_str!("../../src/api/rollout.rs"),
        include_str!("../../src/api/snapshot.rs"),
    ];
    let routed: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split(".route(\"").skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let listed: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
    assert_eq!(routed, listed);
    assert!(described().len() > listed.len() + Kind::ALL.len());
}
