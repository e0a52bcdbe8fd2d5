//! Lists: scopes, selectors, pages.

use std::collections::BTreeMap;

use reqwest::{Client, Method};
use serde_json::{Value, json};

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

/// What services stood, each at its revision.
type Standing = BTreeMap<String, u64>;

struct Asking {
    client: Client,
    url: String,
    token: String,
}

impl Asking {
    async fn ask(&self, method: Method, rest: &str, body: Option<Value>) -> (u16, u64, Value) {
        let mut request = self.client.request(method, format!("{}{rest}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let revision = response.headers()["mesh-revision"].to_str().expect("digits").parse();
        (status, revision.expect("a number"), response.json().await.expect("JSON"))
    }

    /// Writes and removes services, one after the other, and notes after each what stands: nobody else writes.
    async fn write(&self, rounds: u64) -> BTreeMap<u64, Standing> {
        let (mut standing, mut journal) = (Standing::new(), BTreeMap::new());
        for round in 0..rounds {
            let name = format!("s{:02}", round * 7 % 30);
            let path = format!("/v1/namespaces/default/services/{name}");
            if round % 3 == 2 && standing.remove(&name).is_some() {
                let (status, revision, _) = self.ask(Method::DELETE, &path, None).await;
                assert_eq!(status, 200);
                journal.insert(revision, standing.clone());
            } else {
                let spec = json!({"spec": {"ports": [{"port": 1 + round}]}});
                let (status, _, written) = self.ask(Method::PUT, &path, Some(spec)).await;
                assert!(status == 200 || status == 201, "{written}");
                let revision = written["metadata"]["revision"].as_u64().expect("a revision");
                standing.insert(name, revision);
                journal.insert(revision, standing.clone());
            }
        }
        journal
    }

    /// All pages of one list: of which revision, and what was on them.
    async fn pages(&self, limit: usize) -> (u64, Standing) {
        let (mut listed, mut next, mut of) = (Standing::new(), String::new(), None);
        loop {
            let path = format!("/v1/services?limit={limit}&continue={next}");
            let (status, _, page) = self.ask(Method::GET, &path, None).await;
            assert_eq!(status, 200, "{page}");
            let revision = page["metadata"]["revision"].as_u64().expect("a revision");
            assert_eq!(*of.get_or_insert(revision), revision, "all pages are of one revision");
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= limit);
            for item in items {
                let name = item["metadata"]["name"].as_str().expect("a name").to_owned();
                let before = listed.insert(name, item["metadata"]["revision"].as_u64().expect("a revision"));
                assert_eq!(before, None, "no object is on two pages");
            }
            next = page["metadata"]["continue"].as_str().expect("a text").to_owned();
            if next.is_empty() {
                return (revision, listed);
            }
        }
    }
}

#[tokio::test]
async fn pages_show_what_stood_at_their_revision_while_others_write() {
    let world = World::new().await;
    let asking = |client: &Client| Asking {
        client: client.clone(),
        url: world.dev.address.clone(),
        token: world.dev.token.clone(),
    };
    let (writer, reader) = (asking(&world.client), asking(&world.client));
    let written = async { writer.write(300).await };
    let mut lists = Vec::new();
    let reading = async {
        loop {
            lists.push(reader.pages(1 + lists.len() % 5).await);
        }
    };
    let journal = tokio::select! {
        journal = written => journal,
        never = reading => never,
    };
    let mut between = 0;
    for (revision, listed) in &lists {
        let stood = journal.range(..=revision).next_back();
        assert_eq!(
            Some(listed),
            stood.map(|(_, standing)| standing).or(Some(&Standing::new())),
            "at {revision}"
        );
        between += usize::from(stood.is_some());
    }
    let revisions: std::collections::BTreeSet<_> = lists.iter().map(|(revision, _)| revision).collect();
    eprintln!("{} lists page by page, of {} revisions, {between} amid writes", lists.len(), revisions.len());
    assert!(revisions.len() > 3, "lists and writes overlapped");
}
