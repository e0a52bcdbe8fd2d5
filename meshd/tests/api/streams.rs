//! Answers in HTTP/1.1 whose length nobody knows, byte by byte: hyper begins them, and others write them on.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{hostile::connect, script::World};

/// Less than a watch waits before it says something by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks, by a token, for a path; `more` goes out with it.
async fn ask(world: &World, token: &str, path: &str, more: &str) -> TlsStream<TcpStream> {
    let mut stream = connect(world).await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n{more}");
    stream.write_all(head.as_bytes()).await.expect("written");
    stream
}

/// What comes until it ends so; all of it where nothing does.
async fn until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while end.is_empty() || !all.ends_with(end.as_bytes()) {
            if stream.read_buf(&mut all).await.expect("the connection ends as TLS has it") == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("it comes");
    String::from_utf8_lossy(&all).into_owned()
}

/// The body of an answer in chunks (RFC 9112 §7.1), and what comes after it.
fn unchunked(answer: &str) -> (String, &str) {
    let (head, mut rest) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
    let mut body = String::new();
    loop {
        let (length, chunk) = rest.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a number");
        body += &chunk[..length];
        rest = chunk[length..].strip_prefix("\r\n").expect("a chunk ends");
        if length == 0 {
            return (body, rest);
        }
    }
}

const LAST: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_connection_goes_on_where_a_stream_ends() {
    let mut world = World::new().await;
    world
        .play("PUT /v1/accesstokens/t\n| {\"spec\":{\"roles\":[\"viewer\"]}}\n= 201\n$t .status.token")
        .await;
    // The next request comes with the first, and has to wait for it.
    let mut stream = ask(&world, world.name("t"), "/v1/watch?kinds=Service", LAST).await;
    let begun = until(&mut stream, "}\n\r\n").await;
    assert!(begun.contains("\"type\":\"bookmark\""), "{begun}");
    world.play("DELETE /v1/accesstokens/t\n= 200").await;
    let all = begun + &until(&mut stream, "").await;
    let (lines, next) = unchunked(&all);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.ends_with("\"status\":403,\"oldest\":0}\n"), "{lines}");
    assert!(next.starts_with("HTTP/1.1 200") && next.contains("connection: close"), "{next}");
    // One that ends by itself; the next request comes after it.
    let mut stream = ask(&world, &world.dev.token, "/v1/openapi.json", "").await;
    assert!(until(&mut stream, "}").await.starts_with("HTTP/1.1 404"), "an answer of known length");
    let head = format!("authorization: Bearer {}\r\n\r\n", world.dev.token);
    stream
        .write_all(format!("GET /v1/snapshot HTTP/1.1\r\nhost: x\r\n{head}").as_bytes())
        .await
        .expect("written");
    let saved = until(&mut stream, "\r\n0\r\n\r\n").await;
    assert!(saved.starts_with("HTTP/1.1 200") && saved.contains("transfer-encoding: chunked"), "{saved}");
    stream.write_all(LAST.as_bytes()).await.expect("written");
    assert!(until(&mut stream, "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn whoever_goes_away_is_noticed_and_who_stays_is_told_the_end() {
    let world = World::new().await;
    let mut gone = ask(&world, &world.dev.token, "/v1/watch?kinds=Service", "").await;
    until(&mut gone, "}\n\r\n").await;
    let mut stays = ask(&world, &world.dev.token, "/v1/watch?kinds=Service", "").await;
    let begun = until(&mut stays, "}\n\r\n").await;
    assert_eq!(open(&world).await, 2);
    drop(gone);
    let noticed = async {
        while open(&world).await > 1 {
            // Poll: the server hears of it by and by.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, noticed).await.expect("who went away is watched for no longer");
    let stop = CancellationToken::new();
    stop.cancel();
    let (ended, rest) = tokio::join!(world.dev.server.run_until(stop), until(&mut stays, ""));
    ended.expect("it ends");
    let all = begun + &rest;
    assert_eq!(unchunked(&all).1, "", "{all}");
}

/// Open watches.
async fn open(world: &World) -> u64 {
    let url = format!("http://{}/metrics", world.dev.metrics);
    let text = world.client.get(url).send().await.expect("metrics").text().await.expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix("meshd_watches ")?.parse().ok());
    line.unwrap_or_else(|| panic!("no watches in {text}"))
}
