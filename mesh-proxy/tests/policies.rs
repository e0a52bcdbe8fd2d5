//! AuthorizationPolicies at two proxies: who is let in, what a refusal looks like to the caller and to the operator, and
//! what becomes of calls that are under way when a policy comes.

use crate::world::{
    client::{Http1, call, get},
    *,
};
use serde_json::{Value, json};

fn policy(name: &str, spec: Value) -> model::object::Object {
    let metadata = json!({"namespace": "default", "name": name});
    object(json!({"kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}))
}

/// The proxy of the callers `web` and `bot`, and that of the application.
fn pair(
    protocol: &'static str,
    app: &app::App,
    policies: Vec<model::object::Object>,
) -> (World, Proxy, Proxy) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web", "bot"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, protocol, app.address)]);
    world.routes = policies;
    world.publish(&[&caller, &callee]);
    (world, caller, callee)
}

fn from(service: &str) -> Value {
    json!([{"services": [format!("default/{service}")]}])
}

/// The status of `GET <path>`, as written.
async fn status(upstream: std::net::SocketAddr, path: &str) -> u16 {
    call(upstream, &format!("GET {path} HTTP/1.1\nHost: a\n\n")).await.status
}

#[tokio::test]
async fn callers_are_let_in_by_name_and_paths_are_closed_however_they_are_written() {
    let app = app::http("orders").await;
    let reads = json!({"name": "reads", "from": from("web"), "to": [{"methods": ["GET"]}]});
    let policies = vec![
        policy("callers", json!({"targetRefs": [{"name": "orders"}], "rules": [reads]})),
        policy("closed", json!({"action": "Deny", "rules": [{"to": [{"paths": [{"value": "/admin"}]}]}]})),
    ];
    let (_world, caller, callee) = pair("http", &app, policies);
    let [web, bot] = ["web", "bot"].map(|source| caller.upstream(source, "orders", None));
    assert_eq!((status(web, "/head").await, status(bot, "/head").await), (200, 403));
    for closed in ["/admin", "/admin/x", "//admin", "/a/../admin", "/%61dmin", "/./admin/", "/x/%2e%2e/admin"]
    {
        assert_eq!(status(web, closed).await, 403, "{closed}");
    }
    for ambiguous in ["/x%2f..%2fadmin", "/admin;x", "/a%5cadmin"] {
        assert_eq!(status(web, ambiguous).await, 400, "{ambiguous}");
    }
    assert_eq!(call(web, "POST /echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n").await.status, 403);
    assert_eq!(app.seen(), 1, "what was refused never came to the application");
    let metrics = callee.metrics();
    for line in [
        r#"mesh_policy_decisions_total{destination="default/orders",rule="default/closed/0",decision="denied"} 7"#,
        r#"mesh_policy_decisions_total{destination="default/orders",rule="only-allowed",decision="denied"} 2"#,
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_refusal_has_an_id_by_which_the_log_tells_its_rule() {
    let app = app::http("orders").await;
    let deny = json!({"action": "Deny", "rules": [{"name": "no-bots", "from": from("bot")}]});
    let (_world, caller, callee) = pair("http", &app, vec![policy("p", deny)]);
    let answer = get(caller.upstream("bot", "orders", None), "/head?a=1").await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (403, &"application/problem+json".parse().expect("a value"))
    );
    let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((&problem["status"], &problem["title"]), (&403.into(), &"Forbidden".into()));
    assert!(!answer.body.contains("no-bots"), "a stranger is not told the rule: {}", answer.body);
    let line = callee.log.line(|line| line["refusal"] == problem["id"]).await;
    let edge = (&line["source"], &line["destination"], &line["code"]);
    assert_eq!(edge, (&"default/bot".into(), &"default/orders".into(), &403.into()));
    assert_eq!(line["rule"], "default/p/no-bots");
    assert_eq!(line["reason"], "rule default/p/no-bots: it denies the call");
}

#[tokio::test]
async fn what_is_rehearsed_or_audited_is_told_and_refuses_nothing() {
    let app = app::http("orders").await;
    let policies = vec![
        policy("next", json!({"dryRun": true, "rules": [{"from": from("web")}]})),
        policy("seen", json!({"action": "Audit", "rules": [{"to": [{"paths": [{"value": "/head"}]}]}]})),
    ];
    let (_world, caller, callee) = pair("http", &app, policies);
    for (source, want) in [
        ("web", json!(["audited default/seen/0"])),
        ("bot", json!(["audited default/seen/0", "would-deny only-allowed"])),
    ] {
        assert_eq!(status(caller.upstream(source, "orders", None), "/head").await, 200, "{source}");
        let line = callee.log.line(|line| line["source"] == format!("default/{source}")).await;
        assert_eq!((&line["remarks"], &line["rule"]), (&want, &Value::Null), "{line}");
    }
    let metric = r#"mesh_policy_decisions_total{destination="default/orders",rule="only-allowed",decision="would-deny"} 1"#;
    assert!(callee.metrics().contains(metric), "{}", callee.metrics());
}

#[tokio::test]
async fn a_policy_that_comes_ends_streams_of_whom_it_refuses_and_of_nobody_else() {
    let app = app::tcp("welcome ").await;
    let (mut world, caller, callee) = pair("tcp", &app, Vec::new());
    let mut streams = Vec::new();
    for source in ["web", "bot"] {
        let mut stream = Http1::connect(caller.upstream(source, "orders", None)).await;
        assert_eq!(stream.exactly(8).await, b"welcome ", "{source}");
        streams.push(stream);
    }
    // What a stream cannot show saves nobody from a rule that denies.
    let deny = json!({"action": "Deny", "rules": [{"from": from("bot"), "to": [{"methods": ["POST"]}]}]});
    world.routes = vec![policy("no-bots", deny)];
    world.publish(&[&caller, &callee]);
    let [mut web, mut bot] = streams.try_into().ok().expect("two");
    assert_eq!(bot.broken().await, b"", "nothing more comes");
    let line = callee.log.line(|line| line["rule"] == "default/no-bots/0").await;
    assert_eq!((&line["source"], &line["protocol"]), (&"default/bot".into(), &"tcp".into()));
    web.send(b"ping").await;
    assert_eq!(web.exactly(4).await, b"ping", "the other goes on");
    let mut again = Http1::connect(caller.upstream("bot", "orders", None)).await;
    assert_eq!(again.rest().await, b"", "nor does a new one come in");
    let refused = caller
        .log
        .line(|line| {
            line["source"] == "default/bot"
                && line["reason"].as_str().is_some_and(|reason| reason.contains("(refusal "))
        })
        .await;
    assert!(refused["reason"].as_str().expect("a text").contains("the policies of the service"), "{refused}");
}

#[tokio::test]
async fn a_policy_that_comes_ends_upgraded_requests_and_the_connections_of_whom_nothing_is_left_to() {
    let app = app::http("orders").await;
    let (mut world, caller, callee) = pair("http", &app, Vec::new());
    let [web, bot] = ["web", "bot"].map(|source| caller.upstream(source, "orders", None));
    let mut sockets = Vec::new();
    for path in ["/upgrade", "/upgrade?private"] {
        let mut socket = Http1::connect(web).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Room: {path}\r\n\r\n"
        );
        socket.send(request.as_bytes()).await;
        assert_eq!(socket.head().await.0, 101);
        sockets.push(socket);
    }
    let mut held = Http1::connect(bot).await;
    held.send(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    until("all are under way", || (app.seen() == 3).then_some(())).await;
    let room = json!([{"header": "x-room", "values": ["/upgrade?private"]}]);
    let deny = json!({"action": "Deny", "rules": [{"name": "room", "when": room}, {"name": "bot", "from": from("bot")}]});
    world.routes = vec![policy("p", deny)];
    world.publish(&[&caller, &callee]);
    let [mut open, mut private] = sockets.try_into().ok().expect("two");
    assert_eq!(private.broken().await, b"", "it is cut off");
    callee.log.line(|line| line["rule"] == "default/p/room" && line["code"] == 101).await;
    assert_eq!(held.answer().await.status, 502, "nothing is left to the bot: its connection is cut off");
    open.send(b"hello").await;
    assert_eq!(open.exactly(5).await, b"hello", "what is still let in goes on");
    assert_eq!(get(bot, "/").await.status, 403);
}
