//! Against an agent of the tests' own, which holds blocking queries as the API's documentation says, refuses what it would
//! not understand, and misbehaves as told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use model::object::Parsed;
use model::resource::Resource;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::*;
use crate::{News, Source};

const TOKEN: &str = "5f2c-0001";

/// How the agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    /// As an agent that lost its servers.
    Failing,
    /// Ends connections in the middle of an answer.
    Halving,
    /// Takes requests and never answers.
    Hanging,
    /// Says no index.
    Blind,
}

#[derive(Debug)]
struct World {
    manner: Manner,
    /// The one that is asked for; `None` as in the edition that has none.
    namespace: Option<&'static str>,
    /// Service to instances, `node/id address port status`.
    services: BTreeMap<String, Vec<String>>,
    /// Each question, as path and index.
    asked: Vec<(String, u64)>,
}

/// An agent; it ends when dropped.
struct Agent {
    address: String,
    world: Arc<Mutex<World>>,
    index: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let world =
            World { manner: Manner::Well, namespace: None, services: BTreeMap::new(), asked: Vec::new() };
        let (world, (index, seen)) = (Arc::new(Mutex::new(world)), watch::channel(10));
        let shared = world.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone(), seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, world, index, task }
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().expect("nobody panics with it"));
        self.index.send_modify(|index| *index += 1);
    }

    fn put(&self, service: &str, instances: &[&str]) {
        let instances = instances.iter().map(|one| (*one).to_owned()).collect();
        self.change(|world| drop(world.services.insert(service.to_owned(), instances)));
    }

    fn behave(&self, manner: Manner) {
        self.world.lock().expect("nobody panics with it").manner = manner;
    }

    fn asked(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.world.lock().expect("nobody panics with it").asked)
    }
}

async fn serve(
    mut stream: TcpStream,
    world: Arc<Mutex<World>>,
    mut index: watch::Receiver<u64>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let (status, index_said, body) = answer(&String::from_utf8_lossy(&head), &world, &mut index).await;
        let manner = world.lock().expect("nobody panics with it").manner;
        if manner == Manner::Hanging {
            return std::future::pending().await;
        }
        let index_said =
            if manner == Manner::Blind { String::new() } else { format!("X-Consul-Index: {index_said}\r\n") };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{index_said}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if manner == Manner::Halving {
            return stream.write_all(&body.as_bytes()[..body.len() / 2]).await;
        }
        stream.write_all(body.as_bytes()).await?;
    }
}

/// One answer: as strict as the documentation.
async fn answer(
    head: &str,
    world: &Mutex<World>,
    index: &mut watch::Receiver<u64>,
) -> (&'static str, u64, String) {
    let target = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let token = format!("x-consul-token: {TOKEN}\r\n");
    if !head.to_ascii_lowercase().contains(&token) {
        return ("403 Forbidden", 0, "ACL not found".to_owned());
    }
    let wanted = query.get("index").map_or(0, |index| index.parse::<u64>().expect("a number"));
    assert!(query.get("dc") == Some(&"dc1"), "the datacenter is said: {target}");
    assert!(wanted > 0 || !query.contains_key("wait"), "a wait without an index: {target}");
    let (asked, own) = (query.get("ns").copied(), world.lock().expect("nobody panics with it").namespace);
    if asked.is_some() && own.is_none() {
        // As Consul 1.8.7 says it.
        return (
            "400 Bad Request",
            0,
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature".to_owned(),
        );
    }
    assert_eq!(asked, own, "the namespace is said: {target}");
    world.lock().expect("nobody panics with it").asked.push((path.to_owned(), wanted));
    if wanted > 0 {
        let wait = query["wait"].strip_suffix("ms").expect("a unit").parse().expect("a number");
        let changed =
            async { while *index.borrow_and_update() <= wanted && index.changed().await.is_ok() {} };
        // The wait of a blocking query: that it is over is no fault.
        let _ = tokio::time::timeout(Duration::from_millis(wait), changed).await;
    }
    let (now, world) = (*index.borrow(), world.lock().expect("nobody panics with it"));
    if world.manner == Manner::Failing {
        return ("500 Internal Server Error", 0, "No cluster leader".to_owned());
    }
    let body = match path.strip_prefix("/v1/health/service/") {
        Some(name) => {
            let instances = world.services.get(name).into_iter().flatten();
            json!(instances.map(|one| entry(name, one)).collect::<Vec<_>>())
        }
        None if path == "/v1/catalog/services" => {
            json!(
                world
                    .services
                    .keys()
                    .map(|name| (name.clone(), json!(["mesh"])))
                    .collect::<serde_json::Map<_, _>>()
            )
        }
        None => panic!("no such path: {path}"),
    };
    ("200 OK", now, body.to_string())
}

fn entry(service: &str, instance: &str) -> Value {
    let words: Vec<&str> = instance.split(' ').collect();
    let [id, address, port, status] = words[..] else { panic!("{instance}") };
    json!({"Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": null},
           "Service": {"ID": id, "Service": service, "Tags": ["mesh"], "Address": address,
                       "Port": port.parse::<u16>().expect("a port"), "Meta": {}, "Weights": {"Passing": 1, "Warning": 1}},
           "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "own", "Status": status}]})
}

/// A source of that agent.
fn source(agent: &Agent, folder: &std::path::Path, after: Duration) -> ConsulSource {
    source_in(None, agent, folder, after)
}

/// The same of a namespace.
fn source_in(
    namespace: Option<&str>,
    agent: &Agent,
    folder: &std::path::Path,
    after: Duration,
) -> ConsulSource {
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).expect("written");
    let mut consul =
        json!({"address": agent.address, "datacenter": "dc1", "tokenFile": folder.join("token")});
    namespace.iter().for_each(|namespace| consul["namespace"] = json!(namespace));
    let spec = json!({"type": "Consul", "consul": consul, "filter": {"tags": ["mesh"]}});
    let object = json!({"kind": "DiscoverySource", "metadata": {"name": "old"}, "spec": spec});
    let Resource::DiscoverySource(spec) = Parsed::from_input(&object, None).expect("valid").resource else {
        panic!("{object}")
    };
    let consul = spec.consul.clone().expect("it is there");
    open(&consul, spec, crate::beat(after), Files::default())
}

/// The next that is no sign of life.
async fn next(source: &mut ConsulSource) -> Result<String, String> {
    loop {
        let told = match source.next().await {
            Ok(News::Same | News::Silent(..) | News::Again(_)) => continue,
            Ok(News::Full(set)) => format!(
                "full {:?}",
                set.iter().map(|(key, found)| show(key, Some(found))).collect::<Vec<_>>()
            ),
            Ok(News::Changed(key, found)) => show(&key, found.as_ref()),
            Err(failure) => return Err(failure.to_string()),
        };
        return Ok(told);
    }
}

fn show(key: &FoundKey, found: Option<&Found>) -> String {
    let Some(found) = found else { return format!("{} gone", key.name) };
    let one = |(id, one): (&String, &crate::found::Instance)| {
        format!("{id}={}:{} {}", one.address, one.port.unwrap_or(0), one.health)
    };
    format!("{} {}", key.name, found.instances.iter().map(one).collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn all_is_told_once_and_then_what_changes() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    agent.put("web", &[]);
    let mut source = source(&agent, folder.path(), Duration::from_secs(30));
    assert_eq!(
        next(&mut source).await.expect("it is well"),
        r#"full ["orders n1/o1=10.0.0.2:8080 Healthy", "web "]"#
    );
    agent.put("orders", &["o1 10.0.0.2 8080 critical", "o2 10.0.0.3 8080 passing"]);
    assert_eq!(
        next(&mut source).await.expect("it is well"),
        "orders n1/o1=10.0.0.2:8080 Unhealthy, n1/o2=10.0.0.3:8080 Healthy"
    );
    agent.change(|world| drop(world.services.remove("web")));
    assert_eq!(next(&mut source).await.expect("it is well"), "web gone");
    agent.put("new", &["n 10.0.0.9 1 passing"]);
    assert_eq!(next(&mut source).await.expect("it is well"), "new n1/n=10.0.0.9:1 Healthy");
    let asked = agent.asked();
    let (first, waited) =
        (asked.iter().filter(|(_, index)| *index == 0), asked.iter().filter(|(_, index)| *index > 0));
    assert_eq!(first.count(), 4, "the catalog and three services are asked once without waiting: {asked:?}");
    assert!(waited.count() > 0);
}

#[tokio::test]
async fn an_index_that_goes_backwards_begins_anew_and_misses_nothing() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    let mut source = source(&agent, folder.path(), Duration::from_secs(3));
    next(&mut source).await.expect("it is well");
    // As after a restore of its servers: what it says then has a lower index than was seen.
    agent.put("orders", &["o1 10.0.0.7 8080 passing"]);
    agent.index.send_replace(3);
    assert_eq!(next(&mut source).await.expect("it is well"), "orders n1/o1=10.0.0.7:8080 Healthy");
    agent.put("orders", &["o1 10.0.0.8 8080 passing"]);
    assert_eq!(next(&mut source).await.expect("it is well"), "orders n1/o1=10.0.0.8:8080 Healthy");
}

#[tokio::test]
async fn faults_are_told_and_what_was_said_is_not_taken_for_less() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    for (manner, want) in [(Manner::Failing, "answers 500"), (Manner::Halving, "breaks off")] {
        agent.behave(manner);
        let mut source = source(&agent, folder.path(), Duration::from_secs(3));
        let failure = next(&mut source).await.expect_err("it fails");
        assert!(failure.contains(want), "{failure}");
        agent.behave(Manner::Well);
        let mut told = next(&mut source).await;
        while told.is_err() {
            told = next(&mut source).await;
        }
        assert_eq!(told.expect("it is well"), r#"full ["orders n1/o1=10.0.0.2:8080 Healthy"]"#);
        agent.behave(manner);
        let failure = next(&mut source).await.expect_err("it fails");
        assert!(failure.contains(want), "{failure}");
        agent.behave(Manner::Well);
        agent.put("orders", &[]);
        let mut told = next(&mut source).await;
        while told.is_err() {
            told = next(&mut source).await;
        }
        assert_eq!(told.expect("it is well"), "orders ");
        agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_told_in_time() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.behave(Manner::Hanging);
    let mut source = source(&agent, folder.path(), Duration::from_secs(30));
    let failure = next(&mut source).await.expect_err("it hangs");
    assert!(failure.ends_with("does not answer in time"), "{failure}");
}

#[tokio::test]
async fn an_agent_without_an_index_is_not_asked_in_a_loop() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    agent.behave(Manner::Blind);
    let mut source = source(&agent, folder.path(), Duration::from_secs(3));
    next(&mut source).await.expect("it is well");
    let from = crate::clock::now();
    agent.asked();
    for address in ["10.0.0.5", "10.0.0.6"] {
        agent.put("orders", &[&format!("o1 {address} 8080 passing")]);
        assert!(next(&mut source).await.expect("it is well").contains(address));
    }
    let (seconds, asked) = (crate::clock::now().duration_since(from).as_secs_f64(), agent.asked());
    assert!(asked.iter().all(|(_, index)| *index == 0), "{asked:?}");
    assert!(asked.len() as f64 <= 2.0 * (seconds / 0.75 + 1.0), "{} in {seconds} s", asked.len());
}

#[tokio::test]
async fn a_wrong_token_is_told() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    let mut source = source(&agent, folder.path(), Duration::from_secs(3));
    std::fs::write(folder.path().join("token"), "wrong\n").expect("written");
    let failure = next(&mut source).await.expect_err("it is refused");
    assert!(failure.contains("answers 403"), "{failure}");
    std::fs::write(folder.path().join("token"), TOKEN).expect("written");
    let mut told = next(&mut source).await;
    while told.is_err() {
        told = next(&mut source).await;
    }
    assert_eq!(told.expect("the token is read anew"), "full []");
}

#[tokio::test]
async fn a_namespace_is_asked_for_where_there_are_such_and_is_a_fault_elsewhere() {
    let (agent, folder) = (Agent::start().await, tempfile::tempdir().expect("a folder"));
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    let mut source = source_in(Some("shop"), &agent, folder.path(), Duration::from_secs(3));
    let failure = next(&mut source).await.expect_err("it has none");
    assert!(failure.ends_with(&format!("answers 400 Bad Request: {NO_NAMESPACES}")), "{failure}");
    agent.change(|world| world.namespace = Some("shop"));
    let told = loop {
        if let Ok(News::Full(set)) = source.next().await {
            break set;
        }
    };
    let keys: Vec<_> = told.into_keys().map(|key| (key.namespace, key.name)).collect();
    assert_eq!(keys, [(Some("shop".to_owned()), "orders".to_owned())]);
}

/// What a client that is not ours makes of this agent.
#[tokio::test]
async fn a_client_of_consul_s_takes_this_agent_for_one() {
    let agent = Agent::start().await;
    agent.put("orders", &["o1 10.0.0.2 8080 passing"]);
    let address = agent.address.strip_prefix("http://").expect("in plaintext");
    let (host, port) = address.split_once(':').expect("HOST:PORT");
    let program = include_str!("../../../tests/programs/consul_client.py");
    let said = mesh_tests::python::run(program, &[host, port, TOKEN]).await;
    assert_eq!(said.expect("it runs").trim(), "as it should be");
}
