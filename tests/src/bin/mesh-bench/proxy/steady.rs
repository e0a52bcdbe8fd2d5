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

/// How long requests took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latencies {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl Latencies {
    /// Of requests that took so long; 0 where there is none.
    pub(super) fn of(took: &mut [Duration]) -> Self {
        took.sort_unstable();
        let at = |share: f64| {
            let place = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
            took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
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
    fn the_middle_is_the_middle_and_few_took_longer_than_the_highest() {
        let of = |micros: &[u64]| {
            let mut took: Vec<_> = micros.iter().copied().map(Duration::from_micros).collect();
            let Latencies { p50, p99, p999 } = Latencies::of(&mut took);
            [p50, p99, p999].map(f64::round)
        };
        assert_eq!(of(&[3, 1, 2]), [2.0, 3.0, 3.0]);
        assert_eq!(of(&[]), [0.0; 3]);
        assert_eq!(of(&(1..=2_000).rev().collect::<Vec<_>>()), [1_001.0, 1_981.0, 1_999.0]);
    }
}
