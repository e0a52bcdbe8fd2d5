//! Access tokens, join tokens, roles: what they are worth, and that nobody hands on more than they have.

use crate::script::World;

/// A token with the given role's rights; `role` is the YAML of its rules.
async fn with_role(world: &mut World, name: &str, rules: &str) {
    world.keep("role", name);
    world.keep("rules", rules);
    world
        .play(
            r#"
PUT /v1/roles/$role
| {"spec":{"rules":$rules}}
= 201
PUT /v1/accesstokens/$role
| {"spec":{"roles":["$role"]}}
= 201
$made .status.token
"#,
        )
        .await;
    let token = world.name("made").to_owned();
    world.keep(name, &token);
}

#[tokio::test]
async fn a_token_is_shown_once_and_speaks_for_its_roles() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/accesstokens/viewer
| {"spec":{"roles":["viewer"],"ttl":"1h"}}
= 201
$viewer .status.token
$ends .status.expiresAt
.status.effective.roles ["viewer"]
GET /v1/accesstokens/viewer
> token: $viewer
= 200
.status.token -
.status.expiresAt "$ends"
GET /v1/accesstokens
= 200
.items[0].status.token -
PUT /v1/accesstokens/viewer
| {"spec":{"roles":["viewer"],"ttl":"1h"}}
= 200
.status.token -
PUT /v1/accesstokens/viewer
| {"spec":{"roles":["admin"],"ttl":"1h"}}
= 409
~ delete it and create it anew
PUT /v1/nodes/a
> token: $viewer
| {}
= 403
~ needs write on Node
DELETE /v1/accesstokens/viewer
= 200
.status.token -
GET /v1/services
> token: $viewer
= 401
< www-authenticate: Bearer realm="mesh"
"#,
        )
        .await;
    assert!(world.name("viewer").starts_with("mesha1."), "{}", world.name("viewer"));
}

#[tokio::test]
async fn an_expired_token_is_worth_nothing() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/accesstokens/short
| {"spec":{"roles":["viewer"],"ttl":"1ms"}}
= 201
$short .status.token
PUT /v1/nodes/a
| {}
= 201
GET /v1/services
> token: $short
= 401
~ expired
"#,
        )
        .await;
}

#[tokio::test]
async fn rights_end_at_the_namespace() {
    let mut world = World::new().await;
    world.play("PUT /v1/namespaces/shop\n| {}\n= 201").await;
    let rules = r#"[{"kinds":["Service","HTTPRoute"],"verbs":["get","list","watch","write","delete"],"namespaces":["shop"]}]"#;
    with_role(&mut world, "shop", rules).await;
    world
        .play(
            r#"
PUT /v1/namespaces/shop/services/web
> token: $shop
| {"spec":{"ports":[{"port":80}]}}
= 201
GET /v1/services?namespace=shop
> token: $shop
= 200
.items[0].metadata.name "web"
GET /v1/services
> token: $shop
= 403
~ needs list on Service in all namespaces
PUT /v1/namespaces/default/services/web
> token: $shop
| {"spec":{"ports":[{"port":80}]}}
= 403
.detail "needs write on Service in namespace default; token shop does not have it"
GET /v1/nodes
> token: $shop
= 403
~ needs list on Node
PUT /v1/namespaces/shop/httproutes/r
> token: $shop
| {"spec":{"parentRefs":[{"name":"web"}],"rules":[{"backendRefs":[{"namespace":"default","name":"web","port":80}]}]}}
= 403
~ needs write on HTTPRoute in namespace default
GET /v1/watch?kinds=Service,HTTPRoute,Node&namespace=shop
> token: $shop
= 403
~ needs watch on Node
GET /v1/audit
> token: $shop
= 403
~ needs admin
POST /v1/apply
> token: $shop
| {"items":[{"kind":"Service","metadata":{"namespace":"shop","name":"a"},"spec":{"ports":[{"port":80}]}},{"kind":"Service","metadata":{"namespace":"default","name":"a"},"spec":{"ports":[{"port":80}]}}]}
= 403
~ items[1]: needs write on Service in namespace default
GET /v1/namespaces/shop/services/a
= 404
DELETE /v1/namespaces/shop/services/web
> token: $shop
= 200
"#,
        )
        .await;
}

#[tokio::test]
async fn nobody_hands_on_more_than_they_have() {
    let mut world = World::new().await;
    let rules = r#"[{"kinds":["Role","AccessToken","JoinToken"],"verbs":["write","get"]},{"kinds":["Service"],"verbs":["write"],"namespaces":["default"]}]"#;
    with_role(&mut world, "hr", rules).await;
    world
        .play(
            r#"
PUT /v1/roles/boss
> token: $hr
| {"spec":{"rules":[{"kinds":["*"],"verbs":["*"],"namespaces":["*"]}]}}
= 403
PUT /v1/accesstokens/boss
> token: $hr
| {"spec":{"roles":["admin"]}}
= 403
PUT /v1/accesstokens/later
> token: $hr
| {"spec":{"roles":["later"]}}
= 422
.errors[0].path "spec.roles[0]"
PUT /v1/roles/writer
> token: $hr
| {"spec":{"rules":[{"kinds":["Service"],"verbs":["write"],"namespaces":["default"]}]}}
= 201
PUT /v1/accesstokens/writer
> token: $hr
| {"spec":{"roles":["writer","hr"]}}
= 201
PUT /v1/jointokens/servers
> token: $hr
| {"spec":{"role":"server"}}
= 403
~ needs admin
PUT /v1/jointokens/hosts
> token: $hr
| {"spec":{"services":["shop/*"]}}
= 403
~ needs write on Service in namespace shop
PUT /v1/jointokens/hosts
> token: $hr
| {"spec":{"services":["default/*"]}}
= 201
PUT /v1/roles/viewer
| {"spec":{"rules":[]}}
= 409
~ built-in
"#,
        )
        .await;
}

#[tokio::test]
async fn a_join_token_pins_the_root() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/jointokens/hosts
| {"spec":{"uses":2,"ttl":"1h","nodes":["host-*"],"services":["default/*"]}}
= 201
.status.usesLeft 2
$id .status.id
$join .status.token
GET /v1/jointokens/hosts
= 200
.status.token -
.status.id "$id"
GET /v1/ca/bundle
> token: -
= 200
$root .roots[0]
"#,
        )
        .await;
    let token: model::token::JoinToken = world.name("join").parse().expect("a join token");
    let root = svid::pem::certificate(world.name("root")).expect("a certificate");
    let print = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root);
    assert_eq!((token.id.as_str(), token.pin), (world.name("id"), model::token::hex(print.as_ref())));
}
