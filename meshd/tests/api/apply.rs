//! Many objects at once.

use crate::script::World;

#[tokio::test]
async fn all_of_it_in_one_revision() {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
| {"items":[{"kind":"Namespace","metadata":{"name":"shop"}},
|  {"kind":"Service","metadata":{"namespace":"shop","name":"web"},"spec":{"ports":[{"port":80}]}}]}
= 200
.items[1].status.hostname "web.shop.mesh"
.results[0] {"kind":"Namespace","name":"shop","outcome":"created"}
.results[1] {"kind":"Service","namespace":"shop","name":"web","outcome":"created"}
$revision .metadata.revision
GET /v1/namespaces/shop
= 200
.metadata.revision $revision
GET /v1/namespaces/shop/services/web
= 200
.metadata.revision $revision
POST /v1/apply
> content-type: application/yaml
| kind: Namespace
| metadata: {name: shop}
| ---
| kind: Service
| metadata: {namespace: shop, name: web}
| spec: {ports: [{port: 81}]}
= 200
.results[0].outcome "unchanged"
.results[1].outcome "configured"
POST /v1/apply
> content-type: application/json
| {"kind":"Namespace","metadata":{"name":"alone"}}
= 200
.results[0].outcome "created"
POST /v1/apply
| {"items":[]}
= 200
.items []
"#,
        )
        .await;
}

#[tokio::test]
async fn or_nothing_and_the_item_is_named() {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
| {"items":[{"kind":"Namespace","metadata":{"name":"shop"}},{"kind":"Service","metadata":{"namespace":"shop","name":"web"},"spec":{"ports":[{"port":0}]}},{"kind":"Gateway","metadata":{"name":"g"}}]}
= 422
.errors[0].path "items[1].spec.ports[0].port"
.errors[1].path "items[2].kind"
POST /v1/apply
| {"items":[{"kind":"Namespace","metadata":{"name":"shop"}},{"kind":"Service","metadata":{"namespace":"nowhere","name":"web"},"spec":{"ports":[{"port":80}]}}]}
= 422
.errors[0].path "items[1].metadata.namespace"
POST /v1/apply
| {"items":[{"kind":"Namespace","metadata":{"name":"shop"}},{"kind":"Endpoint","metadata":{"namespace":"default","name":"e"},"spec":{"service":"s","address":"10.0.0.1"}}]}
= 403
~ items[1]
GET /v1/namespaces/shop
= 404
POST /v1/apply?dryRun=true
| {"kind":"Namespace","metadata":{"name":"shop"}}
= 200
.results[0].outcome "created"
GET /v1/namespaces/shop
= 404
"#,
        )
        .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_400_with_its_place() {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
> content-type: application/json
| {"items": [
|   {"kind" "Namespace"}
| ]}
= 400
~ line 2 column 11
POST /v1/apply
> content-type: application/yaml
| kind: [
= 400
~ not YAML
POST /v1/apply
> content-type: text/plain
| kind: Namespace
= 415
~ application/yaml
PUT /v1/nodes/a
> content-type: application/yaml
| kind: Node
= 415
PUT /v1/nodes/a
| {"spec":
= 400
~ line 2 column 0
"#,
        )
        .await;
}

#[tokio::test]
async fn later_items_see_earlier_ones() {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
> content-type: application/yaml
| kind: Role
| metadata: {name: shop-operator}
| spec:
|   rules: [{kinds: [Service], verbs: [get, list, write], namespaces: [default]}]
| ---
| kind: AccessToken
| metadata: {name: ci}
| spec: {roles: [shop-operator]}
= 200
.results[1].outcome "created"
$ci .items[1].status.token
PUT /v1/namespaces/default/services/s
> token: $ci
| {"spec":{"ports":[{"port":80}]}}
= 201
DELETE /v1/namespaces/default/services/s
> token: $ci
= 403
"#,
        )
        .await;
}

/// As many objects as one call takes: in one revision, or, where the last of them is wrong, none.
#[tokio::test]
async fn a_thousand_at_once_or_none_of_them() {
    let mut world = World::new().await;
    let many = |count: usize, port: u16, last: u16| {
        let one = |n: usize| {
            let port = if n + 1 == count { last } else { port };
            format!(
                r#"{{"kind":"Service","metadata":{{"namespace":"default","name":"s{n}"}},"spec":{{"ports":[{{"port":{port}}}]}}}}"#
            )
        };
        format!(r#"{{"items":[{}]}}"#, (0..count).map(one).collect::<Vec<_>>().join(","))
    };
    let (all, spoiled, more) = (many(1_000, 80, 80), many(1_000, 81, 0), many(1_001, 81, 81));
    let script = format!(
        r#"
POST /v1/apply
| {all}
= 200
.results[0].outcome "created"
.results[999] {{"kind":"Service","namespace":"default","name":"s999","outcome":"created"}}
.results[1000] -
$revision .metadata.revision
GET /v1/namespaces/default/services/s0
.metadata.revision $revision
GET /v1/namespaces/default/services/s999
.metadata.revision $revision
POST /v1/apply
| {spoiled}
= 422
.errors[0].path "items[999].spec.ports[0].port"
.errors[1] -
POST /v1/apply
| {more}
= 413
~ 1000
GET /v1/namespaces/default/services/s0
.metadata.revision $revision
.spec.ports[0].port 80
GET /v1/namespaces/default/services/s1000
= 404
"#
    );
    world.play(&script).await;
}
