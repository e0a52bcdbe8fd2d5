//! A load that does not go as fast as it can: so many requests per second over kept connections, whatever the answers take.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::{now, since};

/// Requests per second, all connections together.
const PER_SECOND: u32 = 1_000;
/// Connections.
const CONNECTIONS: u32 = 16;

/// How long each request took that was answered with success, all of them.
pub(super) async fn run(address: &str, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let connections = (0..CONNECTIONS).map(|index| connection(address, index, length));
    Ok(futures_util::future::try_join_all(connections).await?.concat())
}

/// The middle one, in microseconds; 0 where there is none.
pub(super) fn p50_micros(took: &mut [Duration]) -> f64 {
    took.sort_unstable();
    took.get(took.len() / 2).map_or(0.0, |middle| middle.as_secs_f64() * 1e6)
}

async fn connection(address: &str, index: u32, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let beat = Duration::from_secs(1) * CONNECTIONS / PER_SECOND;
    let started = now();
    // Pace: connections start one after the other, so that their requests do not come in bursts.
    tokio::time::sleep(beat * index / CONNECTIONS).await;
    let mut tick = tokio::time::interval(beat);
    let mut took = Vec::new();
    while since(started) < length {
        tick.tick().await;
        let sent = now();
        sender.ready().await?;
        let answer =
            sender.send_request(Request::get("/").header("host", address).body(Empty::new())?).await?;
        anyhow::ensure!(answer.status().is_success(), "answered {}", answer.status());
        answer.into_body().collect().await.context("the answer broke off")?;
        took.push(since(sent));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_middle() {
        assert_eq!(p50_micros(&mut [3, 1, 2].map(Duration::from_micros)), 2.0);
        assert_eq!(p50_micros(&mut []), 0.0);
    }
}
