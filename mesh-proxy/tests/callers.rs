//! Whose connection it is, by every kind of listener: real processes of several users call, and only those who are bound
//! to a service speak for it. Needs root, to be several users and to make a cgroup.

use std::{io::Read, net::SocketAddr, path::PathBuf, process::Output};

use crate::world::{client::Http1, *};
use mesh_proxy::{
    caller::{Bindings, Table, cgroup_root},
    settings::{Binding, parse_service},
};
use rustix::{process::Uid, thread::set_thread_res_uid};
use serde_json::Value;
use tokio::process::Command;

const WEB: u32 = 64_201;
const SHOP: u32 = 64_202;
const NOBODY: u32 = 64_203;

/// Two services that call, each of a user, on one host; and what they call.
struct Host {
    caller: Proxy,
    http: SocketAddr,
    tcp: SocketAddr,
    router: SocketAddr,
    _world: World,
    _callee: Proxy,
    _apps: [app::App; 2],
}

impl Host {
    async fn new(table: Table) -> Self {
        let apps = [app::http("orders").await, app::tcp("hello ").await];
        let mut world = World::new();
        let caller = world.proxy("host-a", &["web", "shop"], Vec::new());
        let locals =
            vec![local("orders", 80, "http", apps[0].address), local("lines", 7_000, "tcp", apps[1].address)];
        let callee = world.proxy("host-b", &[], locals);
        world.publish(&[&caller, &callee]);
        caller.shared.bind(Bindings::new(table));
        let (http, tcp) = (caller.upstream("web", "orders", None), caller.upstream("web", "lines", None));
        let router = caller.host_router();
        Self { caller, http, tcp, router, _world: world, _callee: callee, _apps: apps }
    }

    /// The source of the last call that was carried.
    async fn source(&self, path: &str) -> Value {
        self.caller.log.line(|line| line["path"] == path && line["code"] == 200).await["source"].clone()
    }

    /// That a call was refused, with an id by which the log says why.
    async fn refused(&self, (status, body): (u16, String), why: &str) {
        let problem: Value = serde_json::from_str(&body).expect("a problem");
        let detail = "this process may not call in the name of a service of this host";
        assert_eq!((status, problem["detail"].as_str()), (403, Some(detail)), "{body}");
        let line = self.caller.log.line(|line| line["refusal"] == problem["id"]).await;
        assert!(line["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{line}");
    }
}

fn user(uid: u32) -> Binding {
    Binding { uid: Some(uid), ..Binding::default() }
}

fn two_users() -> Table {
    let mut table = Table::default();
    table.bind(&service("web"), &user(WEB));
    table.bind(&service("shop"), &user(SHOP));
    table
}

async fn curl(uid: u32, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20"]).args(arguments).uid(uid);
    command.output().await.expect("curl is there")
}

/// The status and the body of an answer.
async fn get(uid: u32, url: &str, more: &[&str]) -> (u16, String) {
    let output = curl(uid, &[&["--write-out", "\n%{http_code}", url], more].concat()).await;
    let said = String::from_utf8(output.stdout).expect("text");
    let (body, status) = said.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// What a stream says to whoever says nothing to it.
async fn stream(uid: u32, at: SocketAddr) -> String {
    let dial = move || {
        let user = Uid::from_raw(uid);
        // Of this thread alone: what it opens is that user's.
        std::thread::spawn(move || {
            set_thread_res_uid(user, user, user).expect("this test is root's");
            let mut stream = std::net::TcpStream::connect(at).expect("dialled");
            let mut said = String::new();
            // Who is refused may be told so by a reset.
            drop(stream.shutdown(std::net::Shutdown::Write).and_then(|()| stream.read_to_string(&mut said)));
            said
        })
        .join()
        .expect("no panic")
    };
    tokio::task::spawn_blocking(dial).await.expect("no panic")
}

const ORDERS: [&str; 2] = ["--header", "Host: orders.default.mesh"];

#[tokio::test]
async fn an_upstream_is_for_the_processes_of_its_service() {
    let host = Host::new(two_users()).await;
    let url = format!("http://{}/own", host.http);
    assert_eq!(get(WEB, &url, &[]).await, (200, "orders".to_owned()));
    assert_eq!(host.source("/own").await, "default/web");
    host.refused(get(SHOP, &url, &[]).await, "default/web is not bound to the calling process (uid 64202")
        .await;
    host.refused(get(NOBODY, &url, &[]).await, "(uid 64203").await;
    // Where no status can be said, there is nothing but the end.
    assert_eq!(
        (stream(WEB, host.tcp).await, stream(SHOP, host.tcp).await),
        ("hello bye".to_owned(), String::new())
    );
    host.caller
        .log
        .line(|line| {
            line["protocol"] == "tcp"
                && line["destination"] == "default/lines"
                && line["reason"].as_str().is_some_and(|reason| reason.contains("(uid 64202"))
        })
        .await;
    let counted = "mesh_callers_refused_total{reason=\"other\"} 3";
    until(counted, || host.caller.metrics().lines().any(|line| line == counted).then_some(())).await;
}

#[tokio::test]
async fn the_host_router_calls_in_the_name_of_whose_process_it_is() {
    let host = Host::new(two_users()).await;
    for (uid, path, source) in [(WEB, "/web", "default/web"), (SHOP, "/shop", "default/shop")] {
        let answer = get(uid, &format!("http://{}{path}", host.router), &ORDERS).await;
        assert_eq!((answer, host.source(path).await), ((200, "orders".to_owned()), source.into()));
    }
    let url = format!("http://{}/", host.router);
    host.refused(get(NOBODY, &url, &ORDERS).await, "no service of this host is bound").await;
    // By a tunnel it is no different.
    let proxy = format!("http://{}", host.router);
    let tunnel = ["--proxytunnel", "--proxy", &proxy];
    let through = "http://orders.default.mesh/tunnel";
    assert_eq!(get(SHOP, through, &tunnel).await, (200, "orders".to_owned()));
    assert_eq!(host.source("/tunnel").await, "default/shop");
    let failed = curl(NOBODY, &[&tunnel[..], &["--write-out", "%{http_connect}", through]].concat()).await;
    assert!(String::from_utf8(failed.stdout).expect("text").ends_with("403"), "no tunnel for it");
}

#[tokio::test]
async fn a_default_is_for_the_unbound_and_a_shared_service_s_listener_for_all() {
    let mut table = Table::default();
    table.bind(&service("shop"), &user(SHOP));
    table.share(&service("web"));
    table.set_default(Some(service("web")));
    let host = Host::new(table).await;
    let (shared, router) = (format!("http://{}/shared", host.http), format!("http://{}/router", host.router));
    for uid in [SHOP, NOBODY] {
        assert_eq!(get(uid, &shared, &[]).await.0, 200);
    }
    assert_eq!(get(NOBODY, &router, &ORDERS).await.0, 200);
    assert_eq!(host.source("/router").await, "default/web");
}

/// What binds later binds connections that are open, too.
#[tokio::test]
async fn a_binding_holds_for_the_next_request_of_an_open_connection() {
    let host = Host::new(Table::default()).await;
    let mut kept = Http1::connect(host.http).await;
    let mut ask = async || {
        kept.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        kept.answer().await.status
    };
    assert_eq!(ask().await, 200, "without a binding nothing changes");
    host.caller.shared.bind(Bindings::new(two_users()));
    assert_eq!(ask().await, 403, "this test is root's");
    let mut table = two_users();
    table.bind(&service("web"), &user(0));
    host.caller.shared.bind(Bindings::new(table));
    assert_eq!(ask().await, 200);
}

/// A cgroup as systemd makes them for a unit, and its way to go.
struct Unit(PathBuf, String);

impl Unit {
    fn new() -> Self {
        let slice = format!("meshtest{}.slice", std::process::id());
        let name = format!("meshtest{}.service", std::process::id());
        let path = cgroup_root().expect("cgroups of version 2").join(slice).join(&name);
        std::fs::create_dir_all(path.join("worker")).expect("root may make cgroups");
        Self(path, name)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for path in [self.0.join("worker"), self.0.clone(), self.0.parent().expect("a slice").to_owned()] {
            // A process that is still ending keeps it; the next run does not mind.
            let _ = std::fs::remove_dir(path);
        }
    }
}

#[tokio::test]
async fn a_unit_is_known_by_its_cgroup_and_what_is_below_it() {
    let unit = Unit::new();
    let text = format!("[service]\nname = \"web\"\nunit = \"{}\"\n", unit.1);
    let file = parse_service(&text, "web.toml", |_| Err(String::new())).expect("valid");
    let mut table = Table::default();
    table.bind(&service("web"), &file.binding);
    let host = Host::new(table).await;
    let get_in = async |folder: PathBuf, url: String| {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' \"$1\"";
        let mut command = Command::new("sh");
        let output = command.args(["-c", script]).arg(folder).arg(url).output().await.expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    };
    let url = format!("http://{}/unit", host.http);
    assert_eq!(get_in(unit.0.clone(), url.clone()).await, "200");
    assert_eq!(get_in(unit.0.join("worker"), url.clone()).await, "200");
    assert_eq!(get_in(unit.0.parent().expect("a slice").to_owned(), url.clone()).await, "403");
    host.refused(get(WEB, &url, &[]).await, "(uid 64201, cgroup ").await;
}
