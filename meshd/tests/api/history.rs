//! What changed, and the way back.

use crate::script::World;

const TWO_VERSIONS: &str = r#"
PUT /v1/namespaces/default/services/a
| {"spec":{"ports":[{"port":80}]}}
= 201
$first .metadata.revision
PUT /v1/namespaces/default/services/a
| {"spec":{"ports":[{"port":81}]}}
= 200
$second .metadata.revision
"#;

#[tokio::test]
async fn the_versions_of_an_object_newest_first() {
    let mut world = World::new().await;
    world.play(TWO_VERSIONS).await;
    world
        .play(
            r#"
GET /v1/history?kind=Service&namespace=default&name=a&objects=true
= 200
.items[0].revision $second
.items[0].changes[0].change "replaced"
.items[0].changes[0].actor "token/admin"
.items[0].changes[0].before.spec.ports[0].port 80
.items[0].changes[0].after.spec.ports[0].port 81
.items[1].revision $first
.items[1].changes[0].change "created"
.items[1].changes[0].before null
.items[2] -
.metadata.continue ""
GET /v1/history?kind=Service&limit=1
= 200
.items[0].revision $second
.items[0].changes[0].after -
.items[1] -
.metadata.continue "$first"
GET /v1/history?kind=Service&limit=1&continue=$first
= 200
.items[0].revision $first
.metadata.continue ""
GET /v1/history?kind=Service&from=$first&to=$second
= 200
.items[0].revision $second
.items[1] -
GET /v1/history?kind=Gateway
= 422
.errors[0].path "kind"
GET /v1/history?names=a
= 422
PUT /v1/accesstokens/v
| {"spec":{"roles":["viewer"]}}
= 201
$viewer .status.token
PUT /v1/roles/few
| {"spec":{"rules":[{"kinds":["Namespace"],"verbs":["get","list"]}]}}
= 201
PUT /v1/accesstokens/f
| {"spec":{"roles":["few"]}}
= 201
$few .status.token
GET /v1/history?kind=Service
> token: $few
= 403
GET /v1/history?name=a
> token: $few
= 200
.items []
"#,
        )
        .await;
}

#[tokio::test]
async fn a_rollback_is_one_write_held_to_a_revision() {
    let mut world = World::new().await;
    world.play(TWO_VERSIONS).await;
    world
        .play(
            r#"
POST /v1/rollback
> if-match: "1"
| {"revision":$first}
= 412
~ the state is at revision $second
POST /v1/rollback
| {"revision":999999}
= 422
.errors[0].path "revision"
POST /v1/rollback
| {"revision":$first,"force":true}
= 422
POST /v1/rollback?dryRun=true
> if-match: "$second"
| {"revision":$first}
= 200
.changes[0] {"kind":"Service","namespace":"default","name":"a","change":"replaced"}
.revision $second
GET /v1/namespaces/default/services/a
= 200
.metadata.revision $second
POST /v1/rollback
> if-match: "$second"
| {"revision":$first}
= 200
.target $first
.changes[1] -
$third .revision
GET /v1/namespaces/default/services/a
= 200
.metadata.revision $third
.spec.ports[0].port 80
POST /v1/rollback
| {"revision":$first}
= 200
.changes []
.revision $third
PUT /v1/accesstokens/v
| {"spec":{"roles":["viewer"]}}
= 201
$viewer .status.token
POST /v1/rollback
> token: $viewer
| {"revision":$second}
= 403
~ needs write on Service in namespace default
"#,
        )
        .await;
}

/// A namespace cannot go while a host's Service stands in it: the whole of it is refused, object by object.
#[tokio::test]
async fn a_rollback_to_what_cannot_stand_is_refused_with_what_is_wrong() {
    let mut world = World::new().await;
    world.play(TWO_VERSIONS).await;
    world
        .play(
            r#"
PUT /v1/namespaces/shop
| {}
= 201
PUT /v1/namespaces/shop/services/made
| {"metadata":{"annotations":{"mesh/managed-by":"registration"}},"spec":{"ports":[{"port":1}]}}
= 201
$before .metadata.revision
POST /v1/rollback
| {"revision":$first}
= 422
~ Namespace shop
~ still holds
GET /v1/namespaces/shop
= 200
"#,
        )
        .await;
}

#[tokio::test]
async fn what_is_no_snapshot_is_refused_and_changes_nothing() {
    let mut world = World::new().await;
    world.play(TWO_VERSIONS).await;
    world
        .play(
            r#"
POST /v1/snapshot
| this is none
= 400
~ it is no snapshot of a mesh
POST /v1/snapshot
| MESHSAVE
= 400
GET /v1/namespaces/default/services/a
= 200
.metadata.revision $second
PUT /v1/accesstokens/v
| {"spec":{"roles":["operator"]}}
= 201
$operator .status.token
POST /v1/snapshot
> token: $operator
| MESHSAVE
= 403
GET /v1/snapshot
> token: $operator
= 403
"#,
        )
        .await;
}
