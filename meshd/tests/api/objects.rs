//! One object at a time.

use crate::script::World;

const PORTS: &str = r#"{"spec":{"ports":[{"port":80}]}}"#;

#[tokio::test]
async fn an_object_is_made_shown_replaced_and_removed() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/orders
| {"apiVersion":"mesh/v1","kind":"Service","metadata":{"name":"orders","namespace":"default","labels":{"team":"shop"}},
|  "spec":{"ports":[{"port":80}]},"status":{"hostname":"mine"}}
= 201
.kind "Service"
.metadata.labels {"team":"shop"}
.spec {"ports":[{"port":80}]}
.status.effective.ports[0] {"port":80,"targetPort":80,"protocol":"auto"}
.status.hostname "orders.default.mesh"
.status.virtualIPs ["240.0.0.1","fd6d:6573:6800::1"]
.status.endpoints {"ready":0,"total":0}
.status.conditions []
$made .metadata.revision
$createdAt .metadata.createdAt
< etag: "$made"
< mesh-revision: $made

GET /v1/namespaces/default/services/orders
= 200
.metadata.revision $made
< etag: "$made"

PUT /v1/namespaces/default/services/orders
| {"metadata":{"labels":{"team":"shop"}},"spec":{"ports":[{"port":80}]}}
= 200
.metadata.revision $made

PUT /v1/namespaces/default/services/orders
| {"spec":{"ports":[{"port":81}]}}
= 200
.metadata.createdAt "$createdAt"
.metadata.labels -
.spec.ports[0].port 81
$changed .metadata.revision
< etag: "$changed"

DELETE /v1/namespaces/default/services/orders
= 200
.spec.ports[0].port 81

GET /v1/namespaces/default/services/orders
= 404
< content-type: application/problem+json
.detail "Service default/orders does not exist"
DELETE /v1/namespaces/default/services/orders
= 404
"#,
        )
        .await;
    assert_ne!(world.name("made"), world.name("changed"));
}

#[tokio::test]
async fn names_in_the_path_and_in_the_body_agree() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/orders
| {"kind":"Node","metadata":{"name":"other","namespace":"shop"},"spec":{"ports":[{"port":80}]}}
= 422
.errors[0] {"path":"metadata.name","message":"must be orders, as in the path; is \"other\""}
.errors[1] {"path":"metadata.namespace","message":"must be default, as in the path; is \"shop\""}
.errors[2].path "kind"
PUT /v1/nodes/host-a
| {"metadata":{"namespace":"default"}}
= 422
.errors[0].path "metadata.namespace"
PUT /v1/nodes/Host_A
| {}
= 422
.errors[0].path "metadata.name"
GET /v1/nodes/Host_A
= 404
PUT /v1/nodes/host-a
= 400
PUT /v1/nodes/host-a
| {}
= 201
.status.session.state "None"
PUT /v1/nodes/host-a
| []
= 422
"#,
        )
        .await;
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/httproutes/r
| {"spec":{"parentRefs":[{"name":"web","port":0}],"rules":[{"backendRefs":[{"name":"web","port":80},{"name":"web","port":80,"weight":-1}],"matchs":[]}]},"extra":1}
= 422
.title "Invalid"
.detail "4 fields are wrong"
.errors[0].path "extra"
.errors[1].path "spec.parentRefs[0].port"
.errors[2].path "spec.rules[0].matchs"
.errors[3].path "spec.rules[0].backendRefs[1].weight"
PUT /v1/namespaces/default/httproutes/r
| {"spec":{"parentRefs":[{"name":"web"}],"rules":[{"matches":[{"path":{"type":"RegularExpression","value":"/(a"}}]}]}}
= 422
.errors[0].path "spec.rules[0].matches[0].path.value"
PUT /v1/namespaces/nowhere/services/s
| {"spec":{"ports":[{"port":80}]}}
= 422
.errors[0] {"path":"metadata.namespace","message":"namespace nowhere does not exist"}
"#,
        )
        .await;
}

#[tokio::test]
async fn preconditions_hold_or_are_412() {
    let mut world = World::new().await;
    world.keep("ports", PORTS);
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/s
> if-match: *
| $ports
= 412
PUT /v1/namespaces/default/services/s
> if-match: "7"
| $ports
= 412
PUT /v1/namespaces/default/services/s
> if-none-match: *
| $ports
= 201
$first .metadata.revision
PUT /v1/namespaces/default/services/s
> if-none-match: *
| $ports
= 412
PUT /v1/namespaces/default/services/s
> if-match: "$first"
| {"spec":{"ports":[{"port":81}]}}
= 200
$second .metadata.revision
PUT /v1/namespaces/default/services/s
> if-match: "$first"
| {"spec":{"ports":[{"port":82}]}}
= 412
.detail "Service default/s has revision $second, not $first"
PATCH /v1/namespaces/default/services/s
> if-match: "$first"
| {"spec":{"ports":[{"port":82}]}}
= 412
DELETE /v1/namespaces/default/services/s
> if-match: "$first"
= 412
DELETE /v1/namespaces/default/services/s
> if-match: "$second"
= 200
PUT /v1/namespaces/default/services/s
> if-match: W/"1"
| $ports
= 400
"#,
        )
        .await;
}

#[tokio::test]
async fn a_patch_merges_into_what_was_written() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PATCH /v1/nodes/host-a
| {"spec":{"zone":"b"}}
= 404
PUT /v1/nodes/host-a
| {"metadata":{"labels":{"rack":"r7","old":"x"}},"spec":{"zone":"a","services":["default/orders"]}}
= 201
PATCH /v1/nodes/host-a
> content-type: application/merge-patch+json
| {"metadata":{"labels":{"old":null,"new":"y"}},"spec":{"zone":"b","disabled":true},"status":{"session":"no"}}
= 200
.metadata.labels {"rack":"r7","new":"y"}
.spec {"zone":"b","services":["default/orders"],"disabled":true}
$revision .metadata.revision
PATCH /v1/nodes/host-a
| {"spec":{"zone":"b"}}
= 200
.metadata.revision $revision
PATCH /v1/nodes/host-a
| {"spec":{"zone":7}}
= 422
.errors[0].path "spec.zone"
PATCH /v1/nodes/host-a
| {"metadata":{"name":"host-b"}}
= 422
.errors[0].path "metadata.name"
PATCH /v1/nodes/host-a
> content-type: application/json-patch+json
| []
= 415
"#,
        )
        .await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let mut world = World::new().await;
    world.keep("ports", PORTS);
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/s?dryRun=true
| $ports
= 201
.spec.ports[0].port 80
.status.hostname "s.default.mesh"
GET /v1/namespaces/default/services/s
= 404
PUT /v1/namespaces/default/services/s?dryRun=false
| $ports
= 201
PATCH /v1/namespaces/default/services/s?dryRun=true
| {"spec":{"ports":[{"port":81}]}}
= 200
.spec.ports[0].port 81
DELETE /v1/namespaces/default/services/s?dryRun=true
= 200
GET /v1/namespaces/default/services/s
= 200
.spec.ports[0].port 80
PUT /v1/accesstokens/t?dryRun=true
| {"spec":{"roles":["viewer"]}}
= 201
.status.token -
PUT /v1/namespaces/nowhere/services/s?dryRun=true
| $ports
= 422
DELETE /v1/namespaces/default/services/none?dryRun=true
= 404
PUT /v1/namespaces/default/services/s?dryRun=maybe
| $ports
= 422
.errors[0].path "dryRun"
"#,
        )
        .await;
}

#[tokio::test]
async fn namespaces_go_only_when_empty_and_two_of_them_never() {
    let mut world = World::new().await;
    world.keep("ports", PORTS);
    world
        .play(
            r#"
GET /v1/namespaces/default
= 200
PUT /v1/namespaces/shop
| {"spec":{"description":"of the shop"}}
= 201
PUT /v1/namespaces/shop/services/web
| $ports
= 201
DELETE /v1/namespaces/shop
= 409
~ Service shop/web
DELETE /v1/namespaces/shop/services/web
= 200
DELETE /v1/namespaces/shop
= 200
DELETE /v1/namespaces/default
= 409
DELETE /v1/namespaces/mesh-system
= 409
"#,
        )
        .await;
}

#[tokio::test]
async fn endpoints_are_read_only() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/endpoints/e
| {"spec":{"service":"s","address":"10.0.0.1"}}
= 405
< allow: GET,HEAD
~ services.d
PATCH /v1/namespaces/default/endpoints/e
| {}
= 405
DELETE /v1/namespaces/default/endpoints/e
= 405
GET /v1/namespaces/default/endpoints
= 200
.items []
"#,
        )
        .await;
}

#[tokio::test]
async fn routes_may_come_before_what_they_name() {
    let mut world = World::new().await;
    world.keep("ports", PORTS);
    world
        .play(
            r#"
PUT /v1/namespaces/default/httproutes/r
| {"spec":{"parentRefs":[{"name":"web"}],"rules":[{"backendRefs":[{"name":"web","port":80}]}]}}
= 201
.status.conditions[0] {"type":"Accepted","status":"False","reason":"NoMatchingParent","message":"Service default/web does not exist"}
.status.conditions[1].status "False"
.status.effective.rules[0].matches[0].path {"type":"PathPrefix","value":"/"}
PUT /v1/namespaces/default/services/web
| $ports
= 201
GET /v1/namespaces/default/httproutes/r
= 200
.status.conditions[0].status "True"
.status.conditions[1].status "True"
PUT /v1/namespaces/default/httproutes/r2
| {"spec":{"parentRefs":[{"name":"web"}],"rules":[{"backendRefs":[{"namespace":"mesh-system","name":"web","port":80}]}]}}
= 201
"#,
        )
        .await;
}

#[tokio::test]
async fn reads_are_as_fresh_as_is_asked_and_say_so() {
    let mut world = World::new().await;
    world
        .play(
            r#"
GET /v1/namespaces/default?consistency=linearizable
= 200
GET /v1/namespaces/default?consistency=leased
= 200
GET /v1/namespaces/default?consistency=stale&minRevision=1
= 200
GET /v1/namespaces?consistency=stale&minRevision=1
= 200
GET /v1/proxies?consistency=leased
= 200
GET /v1/namespaces/default?consistency=eventual
= 422
.errors[0] {"path":"consistency","message":"must be linearizable, leased or stale, is 'eventual'"}
GET /v1/namespaces?minRevision=soon
= 422
.errors[0].path "minRevision"
GET /v1/namespaces/default?consistency=stale&minRevision=1000000
= 503
< retry-after: 1
~ not yet 1000000
GET /v1/namespaces?limit=1
= 200
$next .metadata.continue
PUT /v1/namespaces/later
| {}
= 201
$revision .metadata.revision
GET /v1/namespaces?minRevision=$revision
= 200
GET /v1/namespaces?continue=$next&minRevision=$revision
= 422
.errors[0].path "minRevision"
PUT /v1/nodes/a?wait=acked
| {}
= 422
.errors[0].path "wait"
GET /v1/namespaces/default?nonsense=1
= 422
.errors[0].path "nonsense"
"#,
        )
        .await;
}
