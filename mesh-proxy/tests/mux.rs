//! Streams that share connections between two proxies (`mesh/1`): none disturbs another, and whoever breaks the rules
//! is cut off alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::world::{
    client::{self, Http1},
    *,
};
use model::trust::Distrusted;
use rustls::pki_types::ServerName;
use svid::{Expect, IdentitySlot};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use traffic::mesh1::{
    ALPN, Code, Decoder, Farewell, Frame, Hello, Kind, Open, Piece, STREAMS_MAX, WINDOW_STREAM_BYTES,
};

/// A caller's proxy and the proxy of a TCP application, which speaks first.
async fn pair() -> (World, Proxy, Proxy, SocketAddr, app::App) {
    let app = app::tcp("hi ").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("db", 5_432, "tcp", app.address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "db", None);
    (world, caller, callee, upstream, app)
}

async fn greeted(upstream: SocketAddr) -> Http1 {
    let mut connection = Http1::connect(upstream).await;
    assert_eq!(connection.exactly(3).await, b"hi ");
    connection
}

async fn echoes(connection: &mut Http1, bytes: &[u8]) {
    connection.send(bytes).await;
    assert!(connection.exactly(bytes.len()).await == bytes, "{} bytes came back otherwise", bytes.len());
}

fn count(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is counted");
    line.trim().parse().expect("a number")
}

const MADE: &str = "mesh_mux_connections_total{direction=\"outbound\"}";
const OPENED: &str = "mesh_mux_streams_total{direction=\"outbound\"}";
const TAKEN: &str = "mesh_mux_streams_total{direction=\"inbound\"}";
const CUT: &str = "mesh_mux_cut_total";

#[tokio::test]
async fn many_streams_share_one_connection_and_each_ends_by_itself() {
    let (_world, caller, callee, upstream, _app) = pair().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(tokio::spawn(greeted(upstream)));
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let mut stream = stream.await.expect("it ran");
        echoes(&mut stream, format!("stream {n}").as_bytes()).await;
        if n % 2 == 0 {
            stream.0.get_mut().shutdown().await.expect("half closed");
            assert_eq!(stream.rest().await, b"bye");
        }
    }
    assert_eq!((count(&caller, MADE), count(&caller, OPENED), count(&callee, TAKEN)), (1, 100, 100));
    until("all are over", || (callee.shared.in_flight() == 0).then_some(())).await;
    assert_eq!(count(&callee, CUT), 0);
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once_whole() {
    let (_world, caller, _callee, upstream, _app) = pair().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut flows = Vec::new();
    for _ in 0..3 {
        let body = body.clone();
        flows.push(tokio::spawn(async move {
            let stream = greeted(upstream).await.0.into_inner();
            let (mut reader, mut writer) = stream.into_split();
            let sent = body.clone();
            let writing = tokio::spawn(async move {
                writer.write_all(&sent).await.expect("written");
                writer.shutdown().await.expect("half closed");
            });
            let mut back = Vec::new();
            timeout(PATIENCE, reader.read_to_end(&mut back)).await.expect("in time").expect("read");
            writing.await.expect("it ran");
            assert!(back.strip_suffix(b"bye").expect("the last word") == body, "{} bytes", back.len());
        }));
    }
    for flow in flows {
        flow.await.expect("whole");
    }
    assert_eq!(count(&caller, MADE), 1);
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_only_its_own_stream() {
    let (_world, caller, _callee, upstream, _app) = pair().await;
    let mut stuck = TcpStream::connect(upstream).await.expect("connected");
    let pump = tokio::spawn(async move {
        let piece = vec![7; 64 * 1_024];
        while stuck.write_all(&piece).await.is_ok() {}
    });
    let mut flowing = greeted(upstream).await;
    for _ in 0..40 {
        echoes(&mut flowing, &vec![9; 300_000]).await;
    }
    assert_eq!(count(&caller, MADE), 1, "both are on one connection");
    assert!(!pump.is_finished());
    pump.abort();
}

#[tokio::test]
async fn a_side_that_breaks_off_is_felt_on_the_other_and_nowhere_else() {
    let (_world, caller, callee, upstream, app) = pair().await;
    let (gone, mut stays) = (greeted(upstream).await, greeted(upstream).await);
    drop(gone);
    until("the callee hears of it", || (callee.shared.in_flight() == 1).then_some(())).await;
    echoes(&mut stays, b"still here").await;
    app.kill().await;
    assert_eq!(stays.rest().await, b"", "the application is gone");
    drop(stays);
    until("the caller hears of it", || (caller.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn what_an_application_cuts_off_does_not_look_whole_to_its_caller() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let address = listener.local_addr().expect("an address");
    let callee = world.proxy("host-b", &[], vec![local("db", 5_432, "tcp", address)]);
    world.publish(&[&caller, &callee]);
    let mut connection = Http1::connect(caller.upstream("web", "db", None)).await;
    let (mut taken, _) = timeout(PATIENCE, listener.accept()).await.expect("in time").expect("taken");
    taken.write_all(b"half").await.expect("written");
    assert_eq!(connection.exactly(4).await, b"half");
    taken.set_zero_linger().expect("ours");
    drop(taken);
    let end = timeout(PATIENCE, connection.0.read_to_end(&mut Vec::new())).await.expect("in time");
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    until("nothing is under way", || (caller.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn an_application_that_is_not_reached_is_named_in_the_caller_s_log() {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("db", 5_432, "tcp", nobody())]);
    world.publish(&[&caller, &callee]);
    let mut connection = Http1::connect(caller.upstream("web", "db", None)).await;
    assert_eq!(connection.rest().await, b"");
    let line = caller.log.line(|line| line["direction"] == "outbound").await;
    let reason = line["reason"].as_str().expect("text");
    assert!(reason.contains("the application was not reached"), "{reason}");
    assert_eq!(count(&callee, TAKEN), 1);
}

/// A caller's proxy and two proxies of an HTTP/1.1 application.
async fn shops(without: &[&[u8]]) -> (World, [Proxy; 3], SocketAddr, [app::App; 2]) {
    let apps = [app::http("one").await, app::http("two").await];
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let local = |n: usize| vec![local("orders", 80, "http", apps[n].address)];
    let first = world.proxy_without(without, "host-b", &[], local(0));
    let second = world.proxy_without(without, "host-c", &[], local(1));
    world.publish(&[&caller, &first, &second]);
    let upstream = caller.upstream("web", "orders", None);
    (world, [caller, first, second], upstream, apps)
}

async fn posts(upstream: SocketAddr, calls: usize) {
    let mut connection = Http1::connect(upstream).await;
    for n in 0..calls {
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hi"), "call {n}");
    }
}

#[tokio::test]
async fn requests_of_http_1_ride_on_streams_which_are_used_again() {
    let (_world, [caller, first, second], upstream, _apps) = shops(&[]).await;
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(posts(upstream, 10))).collect();
    for call in calls {
        call.await.expect("answered");
    }
    assert_eq!(count(&caller, MADE), 2, "one connection to each endpoint");
    let streams = count(&caller, OPENED);
    assert!(streams <= 40, "200 requests took {streams} streams");
    assert_eq!(count(&first, TAKEN) + count(&second, TAKEN), streams);
    let many: String = (0..90).map(|n| format!("X-{n}: {n}\n")).collect();
    let answer = client::call(upstream, &format!("GET /head HTTP/1.1\nHost: a\n{many}\n")).await;
    assert!(answer.status == 200 && answer.body.contains("\nx-89: 89\n"), "{answer:?}");
}

#[tokio::test]
async fn requests_to_proxies_of_the_version_before_go_over_http_2() {
    let (_world, [caller, first, _second], upstream, _apps) = shops(&[ALPN]).await;
    posts(upstream, 20).await;
    assert_eq!(count(&caller, MADE), 0);
    assert!(first.metrics().contains("protocol=\"http2\""), "{}", first.metrics());
}

#[tokio::test]
async fn a_proxy_that_drains_costs_no_request_that_rides_on_a_stream() {
    let (_world, [caller, _first, second], upstream, [_, two]) = shops(&[]).await;
    posts(upstream, 20).await;
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut connection = Http1::connect(upstream).await;
            connection.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
            held.push(connection);
        }
        held
    });
    let held = held.await.expect("it ran");
    until("all are under way", || (caller.shared.in_flight() == 8).then_some(())).await;
    second.shared.draining.cancel();
    posts(upstream, 40).await;
    drop(held);
    until("nothing is under way", || (second.shared.in_flight() == 0).then_some(())).await;
    let before = two.seen();
    posts(upstream, 20).await;
    assert_eq!(two.seen(), before, "nothing new goes there");
}

#[tokio::test]
async fn proxies_of_the_version_before_get_a_connection_for_each_stream() {
    let app = app::tcp("hi ").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy_without(&[ALPN], "host-b", &[], vec![local("db", 5_432, "tcp", app.address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "db", None);
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(tokio::spawn(greeted(upstream)));
    }
    for stream in streams {
        let mut stream = stream.await.expect("it ran");
        echoes(&mut stream, b"as ever").await;
        stream.0.get_mut().shutdown().await.expect("half closed");
        assert_eq!(stream.rest().await, b"bye");
    }
    assert_eq!((count(&caller, MADE), count(&caller, OPENED)), (0, 0));
}

#[tokio::test]
async fn a_proxy_that_drains_lets_its_streams_end_and_gets_no_new_ones() {
    let (one, two) = (app::tcp("hi ").await, app::tcp("hi ").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let first = world.proxy("host-b", &[], vec![local("db", 5_432, "tcp", one.address)]);
    let second = world.proxy("host-c", &[], vec![local("db", 5_432, "tcp", two.address)]);
    world.publish(&[&caller, &first, &second]);
    let upstream = caller.upstream("web", "db", None);
    let mut held = Vec::new();
    while one.seen() == 0 || two.seen() == 0 {
        held.push(greeted(upstream).await);
    }
    second.shared.draining.cancel();
    let before = two.seen();
    for _ in 0..10 {
        echoes(&mut greeted(upstream).await, b"new").await;
    }
    assert_eq!(two.seen(), before, "no new stream gets through, and none is lost");
    for stream in &mut held {
        echoes(stream, b"old").await;
    }
    drop(held);
    until("nothing is under way", || (second.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn distrust_ends_all_streams_of_a_connection() {
    let (world, _caller, callee, upstream, _app) = pair().await;
    let (mut one, mut two) = (greeted(upstream).await, greeted(upstream).await);
    let far = mesh_proxy::clock::unix().as_secs() + 1_000;
    let distrusted = Distrusted { ids: [(id("web"), far)].into(), ..Distrusted::default() };
    callee.believe(world.authority.trust(distrusted));
    for stream in [&mut one, &mut two] {
        let end = timeout(PATIENCE, stream.0.read_to_end(&mut Vec::new())).await.expect("in time");
        assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    }
    let mut refused = Http1::connect(upstream).await;
    assert_eq!(refused.rest().await, b"");
    until("nothing is under way", || (callee.shared.in_flight() == 0).then_some(())).await;
}

/// A peer of our own making on the callee's door, which has said hello.
async fn peer(world: &World, to: SocketAddr) -> TlsStream<TcpStream> {
    let trust = svid::TrustStore::new(world.authority.trust(Distrusted::default()));
    let svid = world.authority.svid(&id("web").to_string(), "host-a", Duration::from_secs(3_600));
    let clock = mesh_proxy::clock::tls();
    let config =
        svid::client_config(Some(IdentitySlot::new(svid)), trust, Expect::Id(id("db")), &[ALPN], clock);
    let name = ServerName::try_from("db.default.mesh").expect("a name");
    let tcp = TcpStream::connect(to).await.expect("connected");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
    let hello = Hello { streams: 1, window_stream: 1_000, window_connection: 1_000, http2: true };
    stream.write_all(&bytes(&[Frame::Hello(hello)])).await.expect("written");
    stream
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

fn open(id: u32) -> Frame {
    Frame::Open(id, Some(Open { kind: Kind::Tcp, port: 5_432 }))
}

/// The last word of the other side.
async fn farewell(stream: &mut TlsStream<TcpStream>) -> Farewell {
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 64 * 1_024]);
    loop {
        let length = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("read");
        assert_ne!(length, 0, "it was cut off without a word");
        let mut rest = &buffer[..length];
        while let Some(piece) = decoder.next(&mut rest).expect("frames") {
            if let Piece::Frame(Frame::GoAway(_, farewell)) = piece {
                return farewell;
            }
        }
    }
}

#[tokio::test]
async fn who_breaks_the_rules_is_told_why_and_cut_off_alone() {
    let (world, caller, callee, upstream, _app) = pair().await;
    let mut good = greeted(upstream).await;
    let too_many: Vec<Frame> = (1..=2 * STREAMS_MAX + 1).map(open).collect();
    let data = |length: usize| {
        let length_of = u32::try_from(length).expect("small").to_be_bytes();
        [&length_of[1..], &[3, 0, 0, 0, 1], &vec![0; length]].concat()
    };
    let mut beyond = bytes(&[open(1)]);
    beyond.extend((0..8).flat_map(|_| data(WINDOW_STREAM_BYTES as usize)));
    for (n, (sent, code, reason)) in [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Code::PROTOCOL, "a frame of type"),
        (bytes(&[open(1), open(1)]), Code::PROTOCOL, "stream 1 was opened after a later one"),
        (bytes(&too_many), Code::LIMIT, "too many streams: 4097 were refused"),
        (beyond, Code::WINDOW, "stream 1 sent more than its window"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bad = peer(&world, callee.address).await;
        // It may be cut off before all is written.
        drop(bad.write_all(&sent).await);
        let told = farewell(&mut bad).await;
        assert!(told.code == code && told.reason.starts_with(reason), "{told:?}");
        until("it is counted", || (count(&callee, CUT) == n as u64 + 1).then_some(())).await;
        echoes(&mut good, b"unmoved").await;
    }
    assert_eq!(count(&caller, MADE), 1, "the good one's connection was not touched");
}
