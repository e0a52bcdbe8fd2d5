//! What would become of a call.

use crate::script::World;

#[tokio::test]
async fn a_call_is_explained_as_it_is_and_as_it_would_be() {
    let mut world = World::new().await;
    world
        .play(
            r#"
POST /v1/apply
| {"items":[{"kind":"Service","metadata":{"namespace":"default","name":"orders"},"spec":{"ports":[{"name":"http","port":80,"protocol":"http"},{"name":"db","port":5432,"protocol":"tcp"}]}}]}
= 200
$revision .metadata.revision
POST /v1/explain
| {"from":"default/web","to":"default/orders","method":"GET","path":"/api/./x"}
= 200
.revision $revision
.changed false
.request.path "/api/x"
.route.rule "default"
.backends[0].name "default/orders:80"
.backends[0].endpointsTotal 0
.backends[0].verdict.allowed true
.backends[0].verdict.rule "mesh-peers"
.notes[0] "no host runs default/web, as far as is known"
POST /v1/explain
| {"from":"default/web","to":"default/orders","path":"/api/x","headers":{"x-user":"7"},"change":{"items":[
|  {"kind":"HTTPRoute","metadata":{"namespace":"default","name":"r"},"spec":{"parentRefs":[{"name":"orders"}],"rules":[{"name":"seven","matches":[{"headers":[{"name":"x-user","value":"7"}]}],"backendRefs":[{"name":"orders","port":80}]}]}},
|  {"kind":"AuthorizationPolicy","metadata":{"namespace":"default","name":"closed"},"spec":{"rules":[]}}]}}
= 200
.changed true
.route.rule "default/r/seven"
.route.because[1] "header x-user 7"
.backends[0].verdict.allowed false
.backends[0].verdict.rule "only-allowed"
GET /v1/namespaces/default/httproutes/r
= 404
POST /v1/explain
| {"from":"default/web","to":"default/orders","port":5432}
= 200
.port.protocol "tcp"
.request -
"#,
        )
        .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_named() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/orders
| {"spec":{"ports":[{"port":80}]}}
= 201
POST /v1/explain
| {"from":"web","port":0,"colour":"red"}
= 422
.errors[0].path "colour"
.errors[1].path "from"
.errors[2].path "to"
.errors[3].path "port"
POST /v1/explain
| {"from":"default/web","to":"default/lost"}
= 422
.errors[0].path "to"
~ there is no Service default/lost
POST /v1/explain
| {"from":"default/web","to":"default/orders","port":81}
= 422
.errors[0].path "port"
~ it has 80
POST /v1/explain
| {"from":"default/web","to":"default/orders","change":{"items":[{"kind":"Service","metadata":{"namespace":"default","name":"x"},"spec":{"ports":[{"port":0}]}}]}}
= 422
.errors[0].path "change.items[0].spec.ports[0].port"
POST /v1/explain
| {"from":"default/web","to":"default/orders","change":{"kind":"AuthorizationPolicy","metadata":{"namespace":"default","name":"x"},"spec":{"rules":[{"when":[{"claim":"a","values":["b"]}]}]}}}
= 422
.errors[0].path "change.items[0].spec.rules[0].when[0].claim"
POST /v1/explain?colour=red
| {"from":"default/web","to":"default/orders"}
= 422
"#,
        )
        .await;
}

#[tokio::test]
async fn it_takes_the_right_to_ask_or_to_read_and_to_write_what_is_proposed() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/orders
| {"spec":{"ports":[{"port":80}]}}
= 201
PUT /v1/roles/asker
| {"spec":{"rules":[{"kinds":["*"],"verbs":["explain"],"namespaces":["default"]}]}}
= 201
PUT /v1/roles/lister
| {"spec":{"rules":[{"kinds":["Service"],"verbs":["get"],"namespaces":["default"]}]}}
= 201
PUT /v1/accesstokens/asker
| {"spec":{"roles":["asker"]}}
= 201
$asker .status.token
PUT /v1/accesstokens/lister
| {"spec":{"roles":["lister"]}}
= 201
$lister .status.token
POST /v1/explain
> token: $asker
| {"from":"default/web","to":"default/orders"}
= 200
POST /v1/explain
> token: $asker
| {"from":"default/web","to":"shop/orders"}
= 403
~ needs explain on Service in namespace shop
POST /v1/explain
> token: $asker
| {"from":"default/web","to":"default/orders","change":{"kind":"Service","metadata":{"namespace":"default","name":"x"},"spec":{"ports":[{"port":1}]}}}
= 403
~ needs write on Service in namespace default
POST /v1/explain
> token: $lister
| {"from":"default/web","to":"default/orders"}
= 403
~ needs explain on Endpoint in namespace default
"#,
        )
        .await;
}
