//! Look-ups over real sockets: datagrams and streams, names of the mesh and names that another resolver has to answer for.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::world::{Authority, nobody, object, until};
use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{Name, RData, Record},
};
use mesh_proxy::{
    dns::{Dns, QUERY_BYTES_MAX, forward::Upstream},
    listener::Sockets,
    shared::{Config, Shared},
    telemetry::{Counts, Facts},
};
use model::{object::Object, trust::Distrusted};
use serde_json::json;
use svid::{Identities, TrustStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;
use traffic::compile::{Inputs, compile};

/// A resolver of names of the mesh, in which `orders` is.
struct Resolver {
    shared: Arc<Shared>,
    counts: Arc<Counts>,
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

/// Sockets of both kinds at one port: what is free for one kind may be another program's for the other.
async fn one_port() -> (std::net::UdpSocket, TcpListener) {
    let any = "127.0.0.1:0".parse().expect("an address");
    loop {
        let socket = Sockets::default().datagrams(any, any, 1).expect("bound").remove(0);
        if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("bound")).await {
            return (socket, listener);
        }
    }
}

impl Resolver {
    async fn start() -> Self {
        let (domain, trust) = ("mesh.internal", Authority::new().trust(Distrusted::default()));
        let (_, changes) = watch::channel(0);
        let domain = domain.parse().expect("a domain");
        let (shared, _) = Shared::new(domain, Identities::new(), TrustStore::new(trust), changes);
        let (counts, stop) = (Arc::<Counts>::default(), CancellationToken::new());
        let dns = Dns::new(shared.clone(), counts.dns());
        let (socket, listener) = one_port().await;
        let address = socket.local_addr().expect("bound");
        tokio::spawn(
            dns.clone().serve_datagrams(UdpSocket::from_std(socket).expect("a socket"), stop.clone()),
        );
        tokio::spawn(dns.serve_streams(listener, stop.clone()));
        let resolver = Self { shared, counts, address, _stop: stop.drop_guard() };
        let orders = object(json!({
            "kind": "Service", "metadata": {"namespace": "default", "name": "orders"},
            "spec": {"ports": [{"port": 80, "protocol": "http"}]},
            "status": {"virtualIPs": ["240.0.0.7", "fd6d:6573:6800::7"]},
        }));
        resolver.publish(1, Some(orders));
        resolver
    }

    fn publish(&self, revision: u64, service: Option<Object>) {
        let inputs = Inputs {
            revision,
            domain: "mesh.internal".parse().expect("a domain"),
            trust_generation: 1,
            objects: service.into_iter().map(|service| (service.key(), Arc::new(service))).collect(),
            local: Vec::new(),
            callers: BTreeMap::new(),
        };
        self.shared.swap(Config::new(Arc::new(compile(None, &inputs).expect("it compiles"))));
    }

    async fn by_datagram(&self, query: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        socket.send_to(&bytes(query), self.address).await.expect("sent");
        let mut answer = vec![0; 65_536];
        let (length, from) = socket.recv_from(&mut answer).await.expect("answered");
        assert_eq!(from, self.address);
        Message::from_vec(&answer[..length]).expect("it is read")
    }

    fn metrics(&self) -> String {
        Counts::text([&self.counts].into_iter(), &Facts::default())
    }
}

fn query(id: u16, name: &str) -> Message {
    let mut query = Message::query();
    (query.metadata.id, query.metadata.recursion_desired) = (id, true);
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), "A".parse().expect("a type")));
    query
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it is written")
}

fn on_stream(messages: &[Message]) -> Vec<u8> {
    let frame = |message: &Message| {
        let message = bytes(message);
        [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], &message].concat()
    };
    messages.iter().flat_map(frame).collect()
}

async fn read(stream: &mut TcpStream) -> Message {
    let length = stream.read_u16().await.expect("an answer");
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.expect("all of it");
    Message::from_vec(&answer).expect("it is read")
}

/// Its number, code and first address.
fn said(answer: &Message) -> (u16, ResponseCode, Option<String>) {
    let first = answer.answers.first().map(|record| record.data.to_string());
    (answer.metadata.id, answer.metadata.response_code, first)
}

/// What another resolver answers, by number and question.
fn foreign(packet: &[u8]) -> Vec<u8> {
    let mut answer = Message::from_vec(packet).expect("a query");
    answer.metadata.message_type = MessageType::Response;
    let owner = answer.queries[0].name.clone();
    let ip: std::net::IpAddr = [192, 0, 2, 1].into();
    answer.answers.push(Record::from_rdata(owner, 7, RData::from(ip)));
    bytes(&answer)
}

/// Another resolver: over both transports at one address; over TCP it answers only when `go` says so.
async fn another(go: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let socket = UdpSocket::bind(address).await.expect("bound");
    tokio::spawn(async move {
        let mut packet = vec![0; 4_096];
        while let Ok((length, client)) = socket.recv_from(&mut packet).await {
            // What is no answer to the question is passed over.
            let mut wrong = foreign(&packet[..length]);
            wrong[1] ^= 1;
            socket.send_to(&wrong, client).await.expect("sent");
            socket.send_to(&foreign(&packet[..length]), client).await.expect("sent");
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let go = go.clone();
            tokio::spawn(async move {
                let length = stream.read_u16().await.expect("a query");
                let mut packet = vec![0; usize::from(length)];
                stream.read_exact(&mut packet).await.expect("all of it");
                go.notified().await;
                let answer = foreign(&packet);
                stream.write_u16(u16::try_from(answer.len()).expect("short")).await.expect("taken");
                stream.write_all(&answer).await.expect("taken");
            });
        }
    });
    address
}

#[tokio::test]
async fn names_of_the_mesh_are_answered_over_both_transports_and_change_with_it() {
    let resolver = Resolver::start().await;
    let answer = resolver.by_datagram(&query(7, "orders.default.mesh.")).await;
    assert_eq!(said(&answer), (7, ResponseCode::NoError, Some("240.0.0.7".to_owned())));
    // Several queries at once on one connection, of which the client's side is closed already.
    let mut stream = TcpStream::connect(resolver.address).await.expect("dialled");
    let two = [query(1, "orders.default.mesh."), query(2, "nobody.default.mesh.")];
    stream.write_all(&on_stream(&two)).await.expect("taken");
    stream.shutdown().await.expect("said");
    assert_eq!(said(&read(&mut stream).await).0, 1);
    assert_eq!(said(&read(&mut stream).await), (2, ResponseCode::NXDomain, None));
    assert_eq!(stream.read(&mut [0]).await.expect("closed in order"), 0);
    // Another configuration is another answer at once.
    resolver.publish(2, None);
    let answer = resolver.by_datagram(&query(8, "orders.default.mesh.")).await;
    assert_eq!(said(&answer), (8, ResponseCode::NXDomain, None));
    let metrics = resolver.metrics();
    for (outcome, count) in [("found", 2), ("nxdomain", 2)] {
        let line = format!("mesh_dns_queries_total{{type=\"A\",outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn what_is_no_query_costs_its_sender_the_connection_and_nobody_else_anything() {
    let resolver = Resolver::start().await;
    let mut long = TcpStream::connect(resolver.address).await.expect("dialled");
    let claimed = u16::try_from(QUERY_BYTES_MAX + 1).expect("it fits");
    long.write_all(&claimed.to_be_bytes()).await.expect("taken");
    assert_eq!(long.read(&mut [0]).await.expect("closed"), 0);
    let mut odd = TcpStream::connect(resolver.address).await.expect("dialled");
    odd.write_all(&[0, 3, 1, 2, 3]).await.expect("taken");
    assert_eq!(odd.read(&mut [0]).await.expect("closed"), 0);
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket.send_to(&[0; 3], resolver.address).await.expect("sent");
    // A header that promises a question: there is none.
    socket.send_to(&[9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], resolver.address).await.expect("sent");
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).await.expect("answered");
    assert_eq!(&answer[..length], [9, 9, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let answer = resolver.by_datagram(&query(7, "orders.default.mesh.")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test(start_paused = true)]
async fn the_host_s_resolvers_are_followed_but_for_ourselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.1\n").expect("written");
    let upstream = Arc::new(Upstream::default());
    let following = tokio::spawn({
        let (upstream, file) = (upstream.clone(), file.clone());
        async move { upstream.follow(&file, &["127.0.0.1:53".parse().expect("an address")]).await }
    });
    until("it is read", || upstream.is_any().then_some(())).await;
    std::fs::write(&file, "nameserver 127.0.0.1\n").expect("written");
    until("it is read again", || (!upstream.is_any()).then_some(())).await;
    following.abort();
}

#[tokio::test]
async fn other_names_are_refused_or_another_resolver_s() {
    let resolver = Resolver::start().await;
    let refused = resolver.by_datagram(&query(7, "example.com.")).await;
    assert_eq!(said(&refused), (7, ResponseCode::Refused, None));
    let go = Arc::new(Notify::new());
    // The first one is not there.
    resolver.shared.upstream.set(vec![nobody(), another(go.clone()).await]);
    let answer = resolver.by_datagram(&query(7, "example.com.")).await;
    assert_eq!(said(&answer), (7, ResponseCode::NoError, Some("192.0.2.1".to_owned())));
    // On a connection, what another has to answer holds up nothing.
    let mut stream = TcpStream::connect(resolver.address).await.expect("dialled");
    let two = [query(1, "example.com."), query(2, "orders.default.mesh.")];
    stream.write_all(&on_stream(&two)).await.expect("taken");
    assert_eq!(said(&read(&mut stream).await), (2, ResponseCode::NoError, Some("240.0.0.7".to_owned())));
    go.notify_one();
    assert_eq!(said(&read(&mut stream).await), (1, ResponseCode::NoError, Some("192.0.2.1".to_owned())));
    // A question that comes back to us, as where all look-ups are turned aside to the proxy, ours too, goes no second round.
    resolver.shared.upstream.set(vec![resolver.address]);
    let circular = resolver.by_datagram(&query(7, "example.com.")).await;
    assert_eq!(said(&circular), (7, ResponseCode::ServFail, None));
    let mut stream = TcpStream::connect(resolver.address).await.expect("dialled");
    stream.write_all(&on_stream(&[query(7, "example.com.")])).await.expect("taken");
    assert_eq!(said(&read(&mut stream).await), (7, ResponseCode::ServFail, None));
    // Where nobody answers, that is said.
    resolver.shared.upstream.set(vec![nobody()]);
    let failed = resolver.by_datagram(&query(7, "example.com.")).await;
    assert_eq!((said(&failed), failed.queries.len()), ((7, ResponseCode::ServFail, None), 1));
    let metrics = resolver.metrics();
    for (outcome, count) in [("refused", 1), ("forwarded", 3), ("failed", 3)] {
        let line = format!("mesh_dns_queries_total{{type=\"A\",outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// A proxy that has started knows whom it knew before. Who is called by an address of later than that is not refused before
/// the control plane has said all that there is, or has been silent for too long.
#[tokio::test(start_paused = true)]
async fn a_virtual_ip_that_nobody_has_yet_is_waited_for_until_all_is_known() {
    let (resolver, patience) = (Resolver::start().await, std::time::Duration::from_secs(3));
    let ip = |last: u8| std::net::IpAddr::from([240, 0, 0, last]);
    let asked = async |last: u8| {
        let config = resolver.shared.introduced(ip(last), patience).await;
        config.snapshot.by_virtual_ip(ip(last)).is_some()
    };
    let at_once = async |last: u8| tokio::time::timeout(patience / 2, asked(last)).await.ok();
    assert_eq!(at_once(7).await, Some(true), "one of before is known at once");
    assert_eq!(at_once(8).await, None, "it may be one that is to be told of yet");
    assert!(!asked(8).await, "nobody has told of it in time");
    let later = object(json!({
        "kind": "Service", "metadata": {"namespace": "default", "name": "later"},
        "spec": {"ports": [{"port": 80}]}, "status": {"virtualIPs": ["240.0.0.8"]},
    }));
    let published = async { resolver.publish(2, Some(later)) };
    assert_eq!(tokio::join!(at_once(8), published).0, Some(true), "it is told of meanwhile");
    resolver.shared.in_sync.cancel();
    assert_eq!(at_once(9).await, Some(false), "all is known: nobody has it");
}
