//! Requests that two readers could read in two ways, through two proxies: the application, which reads with another
//! parser than we do, sees exactly what was logged, and whoever sends the rest is told so and cut off.

#[path = "../../traffic/tests/http1/corpus.rs"]
mod corpus;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crate::world::*;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Whole requests that came, as the corpus writes them, and the path of each.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

async fn answer(seen: Seen, request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let (head, body) = request.into_parts();
    if let Ok(body) = body.collect().await {
        let host =
            head.headers.get(header::HOST).map(|host| host.to_str().expect("text")).unwrap_or_default();
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let whole = format!("{} {} {host} {body}", head.method, head.uri);
        seen.lock().expect("whole").push((whole, head.uri.to_string()));
    }
    Response::new(Full::default())
}

/// An application that keeps what it sees.
async fn application() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (address, seen) = (listener.local_addr().expect("an address"), Seen::default());
    let kept = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let kept = kept.clone();
            let service = service_fn(move |request| {
                let kept = kept.clone();
                async move { Ok::<_, Infallible>(answer(kept, request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, seen)
}

/// Sends it, and reads so many answers, or until the connection ends: their statuses, and whether it ended.
async fn exchange(to: SocketAddr, bytes: &[u8], answers: usize) -> (Vec<u16>, bool) {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut text = Vec::new();
        loop {
            let statuses = statuses(&text);
            if statuses.len() >= answers {
                return (statuses, false);
            }
            match reader.read_buf(&mut text).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return (statuses, true),
            }
        }
    };
    // It may be cut off before all is written.
    let (read, _) = tokio::join!(timeout(PATIENCE, read), writer.write_all(bytes));
    read.unwrap_or_else(|_| panic!("no end of {}", bytes.escape_ascii()))
}

/// The statuses of the answers in `text`, but for those that are only on the way. None has a body that looks like one.
fn statuses(text: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(text);
    let lines = text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    lines.filter(|status| *status >= 200).collect()
}

#[tokio::test]
async fn the_application_sees_exactly_what_was_logged_and_the_rest_is_refused() {
    let (address, seen) = application().await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    let mut all = Vec::new();
    // What speaks HTTP/2 is spoken to likewise.
    for case in
        corpus::cases().iter().filter(|case| !case.bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    {
        let answers = case.forwarded.len() + if case.refused { 2 } else { 0 };
        let (statuses, ended) = exchange(upstream, &case.bytes, answers).await;
        let (fine, wrong) = statuses.split_at(case.forwarded.len().min(statuses.len()));
        assert!(
            fine.len() == case.forwarded.len() && fine.iter().all(|status| *status == 200),
            "{}: {statuses:?}",
            case.name
        );
        if case.refused {
            assert!(ended && matches!(wrong, [400..=431]), "{}: {statuses:?}, ended: {ended}", case.name);
        }
        let came = std::mem::take(&mut *seen.lock().expect("whole"));
        assert_eq!(
            came.iter().map(|(whole, _)| whole).collect::<Vec<_>>(),
            case.forwarded.iter().collect::<Vec<_>>(),
            "{}",
            case.name
        );
        all.extend(came.into_iter().map(|(_, target)| target));
    }
    for log in [&caller.log, &callee.log] {
        let logged = || {
            log.lines()
                .into_iter()
                .filter(|line| line["code"] == 200)
                .map(|line| line["path"].as_str().expect("a path").to_owned())
        };
        until("all are logged", || (logged().count() >= all.len()).then_some(())).await;
        assert_eq!(logged().collect::<Vec<_>>(), all);
    }
}
