//! Lists: scopes, selectors, pages.

use crate::script::{World, at};

async fn filled() -> World {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
> content-type: application/yaml
| kind: Namespace
| metadata: {name: shop}
| ---
| kind: Service
| metadata: {namespace: default, name: a, labels: {app: web, tier: front}}
| spec: {ports: [{port: 80}]}
| ---
| kind: Service
| metadata: {namespace: default, name: b, labels: {app: api}}
| spec: {ports: [{port: 80}]}
| ---
| kind: Service
| metadata: {namespace: shop, name: a, labels: {app: web}}
| spec: {ports: [{port: 80}]}
= 200
$filled .metadata.revision
"#,
        )
        .await;
    world
}

#[tokio::test]
async fn lists_are_by_namespace_and_label() {
    let mut world = filled().await;
    world
        .play(
            r#"
GET /v1/services
= 200
.metadata {"revision":$filled,"continue":""}
.items[0].metadata.name "a"
.items[1].metadata.name "b"
.items[2].metadata.namespace "shop"
.items[2].status.hostname "a.shop.mesh"
.items[3] -
GET /v1/services?namespace=shop
= 200
.items[0].metadata.namespace "shop"
.items[1] -
GET /v1/namespaces/shop/services
= 200
.items[1] -
GET /v1/services?labelSelector=app%3Dweb
= 200
.items[1].metadata.namespace "shop"
.items[2] -
GET /v1/services?labelSelector=app%20in%20(web,api),!tier
= 200
.items[0].metadata.name "b"
.items[2] -
GET /v1/services?labelSelector=app!%3Dweb
= 200
.items[0].metadata.name "b"
.items[1] -
GET /v1/services?labelSelector=app%20like%20web
= 422
.errors[0].path "labelSelector"
GET /v1/namespaces/shop/services?namespace=default
= 422
.errors[0].path "namespace"
GET /v1/nodes?namespace=shop
= 422
.errors[0].path "namespace"
GET /v1/namespaces/nowhere/services
= 200
.items []
GET /v1/namespaces
= 200
.items[2].metadata.name "shop"
"#,
        )
        .await;
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let mut world = filled().await;
    world
        .play(
            r#"
GET /v1/services?limit=1
= 200
.items[0].metadata.name "a"
.items[1] -
.metadata.revision $filled
$next .metadata.continue
DELETE /v1/namespaces/default/services/b
= 200
PUT /v1/namespaces/default/services/c
| {"spec":{"ports":[{"port":80}]}}
= 201
GET /v1/services?limit=1&continue=$next
= 200
.items[0].metadata.name "b"
.metadata.revision $filled
$next .metadata.continue
GET /v1/services?limit=5&continue=$next
= 200
.items[0].metadata.namespace "shop"
.items[1] -
.metadata {"revision":$filled,"continue":""}
GET /v1/services?limit=0
= 422
.errors[0].path "limit"
GET /v1/services?continue=nonsense
= 422
.errors[0].path "continue"
GET /v1/services?continue=999999.default.a
= 410
"#,
        )
        .await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let mut world = filled().await;
    world
        .play(
            r#"
HEAD /v1/services
= 200
HEAD /v1/namespaces/default/services/a
= 200
< etag: "$filled"
HEAD /v1/namespaces/default/services/none
= 404
"#,
        )
        .await;
    assert_eq!(at("{\"a\":[1]}", "a[0]"), Some(serde_json::json!(1)), "the transcript's own places");
}
