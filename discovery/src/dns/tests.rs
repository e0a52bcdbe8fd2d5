//! Against a resolver of the tests' own, which answers as told over both sorts of sockets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record,
        rdata::{A, AAAA, SRV},
    },
};
use model::{object::Parsed, resource::Resource};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::*;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    /// As one that cannot reach whom it would have to ask.
    Failing,
    /// Takes questions and never answers.
    Silent,
    /// Answers that are not to the question come before each that is.
    Straying,
    /// No answer has room in a datagram.
    Full,
}

#[derive(Debug)]
struct World {
    manner: Manner,
    /// Asked for this name it is as [`Manner::Failing`].
    fails: Option<String>,
    /// `name sort` to seconds and data; what is not there does not exist.
    records: BTreeMap<String, (u32, Vec<String>)>,
    /// `udp orders.example A`.
    asked: Vec<String>,
}

/// A resolver; it ends when dropped.
struct Server {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = udp.local_addr().expect("bound");
            // What is free for one sort may be another program's for the other.
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("bound");
        let world = World { manner: Manner::Well, fails: None, records: BTreeMap::new(), asked: Vec::new() };
        let world = Arc::new(Mutex::new(world));
        let tasks =
            vec![tokio::spawn(serve_udp(udp, world.clone())), tokio::spawn(serve_tcp(tcp, world.clone()))];
        Self { address, world, tasks }
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().expect("nobody panics with it"));
    }

    fn put(&self, what: &str, seconds: u32, data: &[&str]) {
        let data = data.iter().map(|data| (*data).to_owned()).collect();
        self.change(|world| drop(world.records.insert(what.to_owned(), (seconds, data))));
    }

    fn behave(&self, manner: Manner) {
        self.change(|world| world.manner = manner);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().expect("nobody panics with it").asked)
    }
}

async fn serve_udp(socket: UdpSocket, world: Arc<Mutex<World>>) {
    let mut packet = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        for answer in answers(&packet[..length], "udp", &world) {
            socket.send_to(&answer, from).await.expect("sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, world: Arc<Mutex<World>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let Ok(length) = stream.read_u16().await else { continue };
        let mut packet = vec![0; length.into()];
        stream.read_exact(&mut packet).await.expect("a question");
        for answer in answers(&packet, "tcp", &world) {
            let length = u16::try_from(answer.len()).expect("it has room").to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).await.expect("sent");
        }
    }
}

fn answers(packet: &[u8], over: &str, world: &Mutex<World>) -> Vec<Vec<u8>> {
    let question = Message::from_vec(packet).expect("a question");
    let query = question.queries[0].clone();
    let what = format!("{} {}", query.name.to_ascii().trim_end_matches('.'), query.query_type);
    let mut world = world.lock().expect("nobody panics with it");
    world.asked.push(format!("{over} {what}"));
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_query(query.clone());
    answer.metadata.recursion_available = true;
    let (name, sort) = what.split_once(' ').expect("a name and a sort");
    let fails = world.manner == Manner::Failing || world.fails.as_deref() == Some(name);
    let exists = world.records.keys().any(|known| known.split(' ').next() == Some(name));
    answer.metadata.response_code = match world.manner {
        Manner::Silent => return Vec::new(),
        _ if fails => ResponseCode::ServFail,
        _ if exists => ResponseCode::NoError,
        _ => ResponseCode::NXDomain,
    };
    let (seconds, data) = world.records.get(&what).cloned().unwrap_or_default();
    if !fails {
        answer.add_answers(
            data.iter().map(|data| Record::from_rdata(query.name.clone(), seconds, rdata(sort, data))),
        );
    }
    let mut stray = answer.clone();
    stray.metadata.id = stray.metadata.id.wrapping_add(1);
    if world.manner == Manner::Full && over == "udp" {
        answer = answer.truncate();
    }
    let strays = (world.manner == Manner::Straying).then_some(stray);
    strays.into_iter().chain([answer]).map(|message| message.to_vec().expect("a packet")).collect()
}

fn rdata(sort: &str, data: &str) -> RData {
    let words: Vec<&str> = data.split(' ').collect();
    let number = |at: usize| words[at].parse().expect("a number");
    match sort {
        "A" => RData::A(A(data.parse().expect("an address"))),
        "AAAA" => RData::AAAA(AAAA(data.parse().expect("an address"))),
        "SRV" => RData::SRV(SRV::new(number(0), number(1), number(2), name(words[3]).expect("a name"))),
        other => panic!("{other}"),
    }
}

/// A source with these services, which asks these resolvers.
fn source(servers: &[SocketAddr], services: &Value, after: Duration) -> DnsSource {
    let dns = json!({"servers": servers, "services": services});
    let spec = json!({"type": "DNS", "dns": dns});
    let object = json!({"kind": "DiscoverySource", "metadata": {"name": "old"}, "spec": spec});
    let Resource::DiscoverySource(spec) = Parsed::from_input(&object, None).expect("valid").resource else {
        panic!("{object}")
    };
    let dns = spec.dns.expect("it is there");
    DnsSource::open(&dns, crate::beat(after), Files::default()).expect("names")
}

fn orders() -> Value {
    json!([{"name": "orders", "host": "orders.example", "port": 8_080}])
}

fn billing() -> Value {
    json!([{"name": "billing", "srv": "_billing._tcp.example"}])
}

/// The next that is no sign of life.
async fn next(source: &mut DnsSource) -> Result<String, String> {
    loop {
        return match source.next().await {
            Ok(News::Same | News::Silent(..) | News::Again(_)) => continue,
            Ok(News::Full(set)) => Ok(set.iter().map(|(key, found)| show(key, found)).collect()),
            Ok(News::Changed(key, found)) => Ok(show(&key, &found.expect("it is listed"))),
            Err(failure) => Err(failure.to_string()),
        };
    }
}

fn show(key: &FoundKey, found: &Found) -> String {
    let one = |one: &crate::found::Instance| {
        let port = one.port.expect("it listens");
        format!(" {} x{}", SocketAddr::new(one.address, port), one.weight)
    };
    let mut instances: Vec<_> = found.instances.values().map(one).collect();
    instances.sort();
    format!("{}:{}", key.name, instances.concat())
}

const AFTER: Duration = Duration::from_secs(3);

#[tokio::test]
async fn addresses_of_a_name_are_told_as_they_change_and_that_there_are_none() {
    let server = Server::start().await;
    server.put("orders.example A", 1, &["10.0.0.2", "10.0.0.1"]);
    server.put("orders.example AAAA", 1, &["fd00::1"]);
    let mut source = source(&[server.address], &orders(), AFTER);
    let told = next(&mut source).await;
    assert_eq!(told.as_deref(), Ok("orders: 10.0.0.1:8080 x1 10.0.0.2:8080 x1 [fd00::1]:8080 x1"));
    assert_eq!(source.next().await, Ok(News::Same), "a sign of life");
    server.put("orders.example A", 1, &["10.0.0.2"]);
    server.put("orders.example AAAA", 1, &[]);
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders: 10.0.0.2:8080 x1"));
    server.change(|world| world.records.clear());
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders:"), "there is no such name");
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.starts_with("udp orders.example A")), "{asked:?}");
}

#[tokio::test]
async fn srv_says_ports_weights_and_who_comes_first() {
    let server = Server::start().await;
    let records = ["10 60 9001 a.example", "10 0 9002 b.example", "20 5 9003 c.example", "10 1 0 a.example"];
    server.put("_billing._tcp.example SRV", 60, &records);
    for (host, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        server.put(&format!("{host}.example A"), 1, &[address]);
    }
    let mut source = source(&[server.address], &billing(), AFTER);
    let told = next(&mut source).await;
    assert_eq!(told.as_deref(), Ok("billing: 10.0.0.1:9001 x60 10.0.0.2:9002 x1"));
    server.change(|world| world.records.retain(|what, _| !what.starts_with("a.") && !what.starts_with("b.")));
    assert_eq!(next(&mut source).await.as_deref(), Ok("billing: 10.0.0.3:9003 x5"), "the next in line");
    server.put("_billing._tcp.example SRV", 1, &["0 0 1 ."]);
    assert_eq!(next(&mut source).await.as_deref(), Ok("billing:"), "decidedly none");
}

#[tokio::test]
async fn a_resolver_that_cannot_say_is_none_that_says_that_there_is_nothing() {
    let (first, second) = (Server::start().await, Server::start().await);
    for server in [&first, &second] {
        server.put("orders.example A", 1, &["10.0.0.1"]);
    }
    let mut source = source(&[first.address, second.address], &orders(), AFTER);
    next(&mut source).await.expect("it is well");
    second.asked();
    first.behave(Manner::Failing);
    second.put("orders.example A", 1, &["10.0.0.2"]);
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders: 10.0.0.2:8080 x1"), "the other one says it");
    second.behave(Manner::Failing);
    let failure = next(&mut source).await.expect_err("nobody can say");
    let address = second.address;
    assert!(failure.starts_with(&format!("resolver {address} answers ServFail, asked for ")), "{failure}");
    first.behave(Manner::Well);
    // It is as it was, to begin with: the first says otherwise than the second did.
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders: 10.0.0.1:8080 x1"));
}

#[tokio::test]
async fn one_name_that_cannot_be_looked_up_is_silent_for_itself() {
    let server = Server::start().await;
    server.put("orders.example A", 1, &["10.0.0.1"]);
    server.put("web.example A", 1, &["10.0.0.2"]);
    server.change(|world| world.fails = Some("web.example".to_owned()));
    let both = json!([orders()[0], {"name": "web", "host": "web.example", "port": 80}]);
    let mut source = source(&[server.address], &both, AFTER);
    let key = |name: &str| FoundKey { namespace: None, name: name.to_owned() };
    let mut until = async |wanted: &dyn Fn(&News) -> bool| {
        loop {
            let news = source.next().await.expect("the source is there");
            if wanted(&news) {
                return news;
            }
        }
    };
    let News::Full(set) = until(&|_| true).await else { panic!("all that is known comes first") };
    assert_eq!(set.into_keys().collect::<Vec<_>>(), [key("orders")]);
    let silent = until(&|news| matches!(news, News::Silent(..))).await;
    assert!(
        matches!(&silent, News::Silent(one, why) if *one == key("web") && why.to_string().contains("ServFail"))
    );
    server.put("orders.example A", 1, &["10.0.0.3"]);
    let changed = until(&|news| matches!(news, News::Changed(..))).await;
    assert!(matches!(changed, News::Changed(one, Some(_)) if one == key("orders")), "the other is followed");
    until(&|news| *news == News::Same).await;
    server.change(|world| world.fails = None);
    let changed = until(&|news| matches!(news, News::Changed(..))).await;
    assert!(
        matches!(changed, News::Changed(one, Some(_)) if one == key("web")),
        "it is told as soon as it is known"
    );
    server.change(|world| world.fails = Some("web.example".to_owned()));
    until(&|news| matches!(news, News::Silent(..))).await;
    server.change(|world| world.fails = None);
    assert_eq!(until(&|news| matches!(news, News::Again(_))).await, News::Again(key("web")));
}

#[tokio::test]
async fn silence_is_told_in_time_and_the_next_resolver_is_asked() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.behave(Manner::Silent);
    second.put("orders.example A", 1, &["10.0.0.1"]);
    let mut source = source(&[first.address, second.address], &orders(), AFTER);
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders: 10.0.0.1:8080 x1"));
    assert!(!first.asked().is_empty());
}

#[tokio::test]
async fn what_has_no_room_comes_over_tcp_and_strays_are_passed_over() {
    let server = Server::start().await;
    let many: Vec<_> = (0..200_u8).map(|n| IpAddr::from([10, 0, 1, n]).to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.put("orders.example A", 1, &many);
    server.behave(Manner::Full);
    let mut source = source(&[server.address], &orders(), AFTER);
    let told = next(&mut source).await.expect("it is well");
    assert_eq!(told.matches(" x1").count(), 200);
    assert!(server.asked().contains(&"tcp orders.example A".to_owned()));
    server.behave(Manner::Straying);
    server.put("orders.example A", 1, &["10.0.0.7"]);
    assert_eq!(next(&mut source).await.as_deref(), Ok("orders: 10.0.0.7:8080 x1"));
}

#[test]
fn a_name_rests_as_long_as_it_holds_but_says_each_beat_that_it_is_there() {
    let (beat, seconds) = (Duration::from_secs(10), Duration::from_secs);
    for (holds, want) in [(0, 1), (1, 1), (3, 3), (5, 5), (3_600, 5)] {
        assert_eq!(rest(seconds(holds), beat), seconds(want), "{holds}");
    }
    assert_eq!(rest(seconds(3_600), seconds(1)), seconds(1));
}
