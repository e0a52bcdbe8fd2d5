//! HTTP/2 at both ends: what applications take at once, how they end, and what some say that speak it badly; and streams that
//! leave it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use http::{Request, Response};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Barrier, Notify},
};

use super::{data, pair, pieces};
use crate::world::{
    World, app,
    client::{full, h2, h2_call},
    local,
};

/// An application that takes so many calls at once, and answers none of them before as many are there; how many it had at
/// most.
async fn narrow(at_once: u32) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let all = Arc::new(Barrier::new(usize::try_from(at_once).expect("few")));
    let (has, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let says = most.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let (all, has, most) = (all.clone(), has.clone(), most.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (all, has, most) = (all.clone(), has.clone(), most.clone());
                async move {
                    if request.uri().path() != "/first" {
                        most.fetch_max(has.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        all.wait().await;
                        has.fetch_sub(1, Ordering::SeqCst);
                    }
                    Ok::<_, Infallible>(Response::new(pieces(vec![Ok(data("done"))])))
                }
            });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(at_once);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, says)
}

#[tokio::test]
async fn calls_wait_where_an_application_takes_few_at_once() {
    let (app, most) = narrow(2).await;
    let (_world, _caller, _callee, upstream) = pair(app);
    let sender = h2(upstream).await;
    let call = |path: &str| {
        let request = Request::post(format!("http://shop{path}")).body(full("now")).expect("a request");
        let mut sender = sender.clone();
        async move { h2_call(&mut sender, request).await }
    };
    // By it they learn how many it takes.
    assert_eq!(call("/first").await.0.status(), 200);
    for (head, text, _) in join_all((0..12).map(|_| call("/"))).await {
        assert_eq!((head.status().as_u16(), &text[..]), (200, &b"done"[..]));
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

/// An application that answers the first call of each connection, says that it takes no more there, and answers the
/// second when `go` rings.
async fn leaving(begun: Arc<Notify>, go: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let (begun, go) = (begun.clone(), go.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    if request.uri().path() == "/slow" {
                        connection.graceful_shutdown();
                        begun.notify_one();
                        let go = go.clone();
                        // The connection moves on while the answer waits.
                        tokio::spawn(async move {
                            go.notified().await;
                            let mut body =
                                answer.send_response(Response::new(()), false).expect("it is open");
                            body.send_data("slow".into(), true).expect("it is open");
                        });
                    } else {
                        let mut body = answer.send_response(Response::new(()), false).expect("it is open");
                        body.send_data("quick".into(), true).expect("it is open");
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn what_is_under_way_goes_on_when_an_application_takes_no_more() {
    let (begun, go) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let app = leaving(begun.clone(), go.clone()).await;
    let (_world, _caller, _callee, upstream) = pair(app);
    let sender = h2(upstream).await;
    let ask = |path: &str| Request::get(format!("http://shop{path}")).body(full("")).expect("a request");
    let call = |path: &str| {
        let (mut sender, request) = (sender.clone(), ask(path));
        async move { h2_call(&mut sender, request).await }
    };
    assert_eq!(call("/first").await.1, "quick");
    let slow = tokio::spawn(call("/slow"));
    begun.notified().await;
    for _ in 0..5 {
        let (head, text, _) = call("/next").await;
        assert_eq!((head.status().as_u16(), &text[..]), (200, &b"quick"[..]), "on another connection");
    }
    go.notify_one();
    let (head, text, _) = slow.await.expect("it ran");
    assert_eq!((head.status().as_u16(), &text[..]), (200, &b"slow"[..]));
}

/// An application that says these bytes to whoever dials it, once it has heard the first of a request.
async fn saying(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let bytes = bytes.clone();
            tokio::spawn(async move {
                // The preface, settings, a window and the beginning of a head.
                let mut heard = [0; 24 + 33 + 13 + 9];
                stream.read_exact(&mut heard).await.expect("it asks");
                stream.write_all(&bytes).await.expect("it listens");
                // It hears whatever comes until the other side has enough.
                while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
            });
        }
    });
    address
}

#[tokio::test]
async fn an_application_that_breaks_the_rules_is_a_bad_gateway() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let answers: [(&[u8], &str); 5] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame is larger than what is read"),
        (&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "it does not begin with its settings"),
        (&[&settings[..], &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0xbf]].concat(), "a number stands for no field"),
        (&[&settings[..], &[0, 0, 1, 0, 1, 0, 0, 0, 1, 0]].concat(), "DATA comes before its head"),
        (&[&settings[..], &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0, 0, 0]].concat(), "a name has what none may have"),
    ];
    for (said, why) in answers {
        let (_world, _caller, callee, upstream) = pair(saying(said.to_vec()).await);
        let mut sender = h2(upstream).await;
        // It is not tried again.
        let request = Request::post("http://shop/").body(full("")).expect("a request");
        assert_eq!(h2_call(&mut sender, request).await.0.status(), 502, "{why}");
        let line = callee.log.line(|line| line["direction"] == "inbound").await;
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(why), "{reason}: {why}");
    }
}

/// RFC 9113 §8.5: a stream of HTTP/2 that becomes a stream of bytes, among others that do not.
#[tokio::test]
async fn a_stream_of_http_2_leaves_it_by_connect() {
    let (orders, db) = (app::h2("orders").await, app::tcp("db ").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = vec![local("orders", 80, "http2", orders.address), local("db", 5432, "tcp", db.address)];
    let callee = world.proxy("host-b", &[], locals);
    world.publish(&[&caller, &callee]);
    let mut sender = h2(caller.host_router()).await;
    let connect = Request::connect("db.default.mesh:5432").body(full("")).expect("a request");
    let answer = sender.send_request(connect).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.expect("it left"));
    let mut greeting = [0; 3];
    tunnel.read_exact(&mut greeting).await.expect("it speaks first");
    assert_eq!(&greeting, b"db ");
    let beside = Request::get("http://orders.default.mesh/").body(full("")).expect("a request");
    assert_eq!(h2_call(&mut sender, beside).await.0.status(), 200);
    // More than the stream's window, both ways.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reads, mut writes) = tokio::io::split(tunnel);
    let echoed = async {
        let mut came = vec![0; sent.len()];
        reads.read_exact(&mut came).await.expect("all of it");
        came
    };
    let (wrote, came) = tokio::join!(writes.write_all(&sent), echoed);
    wrote.expect("it is taken");
    assert!(came == sent);
    writes.shutdown().await.expect("it is taken");
    let mut rest = Vec::new();
    reads.read_to_end(&mut rest).await.expect("it ends well");
    assert_eq!(rest, b"bye");
    let nobody = Request::connect("nobody.default.mesh:1").body(full("")).expect("a request");
    assert_eq!(sender.send_request(nobody).await.expect("an answer").status(), 404);
}
