//! `GET /v1/watch` over the wire. What a feed holds is tested where it is made; here, that it streams.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use crate::script::World;

/// Longer than anything here takes, heartbeats included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream's lines, one at a time.
struct Lines {
    response: Response,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(world: &World, query: &str) -> Self {
        let url = format!("{}/v1/watch?{query}", world.dev.address);
        let response = world.client.get(url).bearer_auth(&world.dev.token).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { response, rest: Vec::new() }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("the stream is dead");
            self.rest.extend(chunk.expect("a stream")?);
        }
    }

    /// The next lines, each as `put Service a@3!` (`!` marks the last of a revision).
    async fn expect(&mut self, want: &[&str]) {
        for want in want {
            assert_eq!(word(&self.next().await.expect("a line")), *want);
        }
    }
}

fn word(line: &Value) -> String {
    let kind = line["type"].as_str().expect("a type");
    let last = if line["last"] == true { "!" } else { "" };
    match kind {
        "put" | "delete" => {
            let object = &line["object"];
            let name = object["metadata"]["name"].as_str().expect("a name");
            format!("{kind} {} {name}@{}{last}", object["kind"].as_str().expect("a kind"), line["revision"])
        }
        "error" => format!("error {}", line["status"]),
        _ => format!("{kind}@{}", line["revision"]),
    }
}

#[tokio::test]
async fn state_then_changes() {
    let mut world = World::new().await;
    world
        .play("PUT /v1/namespaces/default/services/a\n| {\"spec\":{\"ports\":[{\"port\":80}]}}\n= 201\n$a .metadata.revision")
        .await;
    let first = world.name("a").to_owned();
    let mut all = Lines::open(&world, "kinds=Service").await;
    all.expect(&[&format!("put Service a@{first}")]).await;
    assert!(word(&all.next().await.expect("a bookmark")).starts_with("bookmark@"));
    world
        .play(
            r#"
POST /v1/apply
| {"items":[{"kind":"Service","metadata":{"namespace":"default","name":"b"},"spec":{"ports":[{"port":80}]}},{"kind":"Node","metadata":{"name":"n"}},{"kind":"Service","metadata":{"namespace":"mesh-system","name":"c"},"spec":{"ports":[{"port":80}]}}]}
= 200
$second .metadata.revision
PUT /v1/namespaces/default/services/b
| {"metadata":{"labels":{"v":"2"}},"spec":{"ports":[{"port":80}]}}
= 200
$third .metadata.revision
DELETE /v1/namespaces/default/services/a
= 200
"#,
        )
        .await;
    let (second, third) = (world.name("second").to_owned(), world.name("third").to_owned());
    let made = [
        format!("put Service b@{second}"),
        format!("put Service c@{second}!"),
        format!("put Service b@{third}!"),
    ];
    all.expect(&made.each_ref().map(String::as_str)).await;
    let gone = word(&all.next().await.expect("a deletion"));
    assert!(gone.starts_with("delete Service a@") && gone.ends_with('!'), "{gone}");
    let mut again = Lines::open(&world, &format!("kinds=Service&namespace=default&from={first}")).await;
    again.expect(&[&format!("put Service b@{second}!"), &format!("put Service b@{third}!"), &gone]).await;
}

#[tokio::test]
async fn a_quiet_stream_gives_signs_of_life() {
    let world = World::new().await;
    let mut quiet = Lines::open(&world, "kinds=Role").await;
    for _ in 0..2 {
        let line = word(&quiet.next().await.expect("a line"));
        assert!(line.starts_with("bookmark@"), "{line}");
    }
}

#[tokio::test]
async fn a_revoked_token_watches_no_longer() {
    let mut world = World::new().await;
    world
        .play("PUT /v1/accesstokens/t\n| {\"spec\":{\"roles\":[\"viewer\"]}}\n= 201\n$t .status.token")
        .await;
    let url = format!("{}/v1/watch?kinds=Service", world.dev.address);
    let response = world.client.get(url).bearer_auth(world.name("t")).send().await.expect("an answer");
    let mut lines = Lines { response, rest: Vec::new() };
    assert!(word(&lines.next().await.expect("a line")).starts_with("bookmark"));
    world.play("DELETE /v1/accesstokens/t\n= 200").await;
    lines.expect(&["error 403"]).await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let mut world = World::new().await;
    world
        .play(
            r#"
GET /v1/watch?kinds=Service,Gateway
= 422
.errors[0].path "kinds"
GET /v1/watch?from=-1
= 422
.errors[0].path "from"
GET /v1/watch?from=999999
= 410
~ of another history
GET /v1/watch?kinds=Service
> last-event-id: seven
= 400
GET /v1/watch?from=1
> last-event-id: 999999
= 410
GET /v1/services?from=999999
= 410
~ of another history
GET /v1/services?wait=1s
= 422
.errors[0].path "from"
GET /v1/services?from=1&wait=121s
= 422
.errors[0].path "wait"
~ at most 120s
GET /v1/services?from=1&continue=1.default.a
= 422
.errors[0].path "continue"
GET /v1/watch?wait=30s
= 422
GET /v1/watch
> mesh-epoch: 00000000-0000-0000-0000-000000000000
= 410
"#,
        )
        .await;
}

/// The next server-sent event: its lines.
async fn event(response: &mut Response, rest: &mut String) -> Vec<String> {
    loop {
        if let Some((event, after)) = rest.split_once("\n\n") {
            let lines = event.lines().map(str::to_owned).collect();
            *rest = after.to_owned();
            return lines;
        }
        let chunk = timeout(PATIENCE, response.chunk()).await.expect("the stream is dead");
        rest.push_str(std::str::from_utf8(&chunk.expect("a stream").expect("it goes on")).expect("UTF-8"));
    }
}

/// `id event word`, without what has none.
fn told(event: &[String]) -> String {
    let field = |name: &str| event.iter().find_map(|line| line.strip_prefix(name));
    let data: Value = serde_json::from_str(field("data: ").expect("data")).expect("JSON");
    format!("{} {} {}", field("id: ").unwrap_or("-"), field("event: ").expect("a type"), word(&data))
}

#[tokio::test]
async fn server_sent_events_resume_by_their_id() {
    let mut world = World::new().await;
    let service = |name: &str| {
        format!(
            "{{\"kind\":\"Service\",\"metadata\":{{\"namespace\":\"default\",\"name\":\"{name}\"}},\"spec\":{{\"ports\":[{{\"port\":80}}]}}}}"
        )
    };
    let apply = |names: &[&str]| {
        let items: Vec<_> = names.iter().map(|name| service(name)).collect();
        format!("POST /v1/apply\n| {{\"items\":[{}]}}\n= 200\n$at .metadata.revision\n", items.join(","))
    };
    world.play(&apply(&["a"])).await;
    let first = world.name("at").to_owned();
    let open = |id: Option<&str>| {
        let request = world.client.get(format!("{}/v1/watch?kinds=Service", world.dev.address));
        let request = request.bearer_auth(&world.dev.token).header("accept", "text/event-stream");
        id.into_iter().fold(request, |request, id| request.header("last-event-id", id))
    };
    let mut stream = open(None).send().await.expect("an answer");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut rest = String::new();
    assert_eq!(event(&mut stream, &mut rest).await, ["retry: 1000"]);
    assert_eq!(told(&event(&mut stream, &mut rest).await), format!("- put put Service a@{first}"));
    let bookmark = told(&event(&mut stream, &mut rest).await);
    let at = bookmark.split(' ').next().expect("an id").to_owned();
    assert_eq!(bookmark, format!("{at} bookmark bookmark@{at}"));
    let again = open(Some(&at));
    world.play(&apply(&["b", "c"])).await;
    let second = world.name("at").to_owned();
    let both = [format!("- put put Service b@{second}"), format!("{second} put put Service c@{second}!")];
    for want in &both {
        assert_eq!(told(&event(&mut stream, &mut rest).await), *want);
    }
    let (mut stream, mut rest) = (again.send().await.expect("an answer"), String::new());
    event(&mut stream, &mut rest).await;
    for want in &both {
        assert_eq!(
            told(&event(&mut stream, &mut rest).await),
            *want,
            "what came after the id, and nothing else"
        );
    }
}

#[tokio::test]
async fn a_long_poll_answers_when_its_scope_changes_and_not_before() {
    let mut world = World::new().await;
    world
        .play(
            r#"
PUT /v1/namespaces/default/services/a
| {"metadata":{"labels":{"v":"1"}},"spec":{"ports":[{"port":80}]}}
= 201
$a .metadata.revision
PUT /v1/namespaces/mesh-system/services/b
| {"spec":{"ports":[{"port":80}]}}
= 201
$b .metadata.revision
GET /v1/services?from=0&wait=0s
= 200
.items[1].metadata.name "b"
.metadata {"revision":$b,"continue":""}
< mesh-revision: $b
GET /v1/services?from=$a&wait=0s
= 200
.items[0].metadata.name "a"
GET /v1/services?from=$b&wait=0s
= 304
< mesh-revision: $b
GET /v1/namespaces/default/services?from=$a&wait=0s
= 304
GET /v1/services?from=$a&wait=0s&labelSelector=v=1
= 304
GET /v1/services?from=0&wait=0s&labelSelector=v=1&limit=1
= 200
.items[1] -
GET /v1/roles?from=$a&wait=10ms
= 304
"#,
        )
        .await;
    let poll =
        world.client.get(format!("{}/v1/services?from={}&wait=60s", world.dev.address, world.name("b")));
    let poll = tokio::spawn(poll.bearer_auth(&world.dev.token).send());
    world.play("PUT /v1/nodes/n\n| {}\n= 201\nDELETE /v1/namespaces/default/services/a\n= 200").await;
    let answer = timeout(PATIENCE, poll).await.expect("it wakes").expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 200);
    let list: Value = serde_json::from_str(&answer.text().await.expect("a text")).expect("JSON");
    assert_eq!(
        (list["items"].as_array().map(Vec::len), &list["items"][0]["metadata"]["name"]),
        (Some(1), &Value::from("b"))
    );
}
