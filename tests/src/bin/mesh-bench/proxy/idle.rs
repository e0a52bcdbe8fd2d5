//! Connections that were used once and wait: what each costs a proxy, and whether many are still there afterwards.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Pair;
use crate::usage;

/// As many are counted on.
pub(super) const CONNECTIONS: usize = 1_000;
/// As many are to be held at once.
pub(super) const MANY: usize = 10_000;
/// Connections that are opened at once.
const OPENING: usize = 64;
/// Memory is read when what opening took has been given back.
const SETTLE: Duration = Duration::from_secs(2);
/// How long one answer may take while thousands of connections are opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// What the answer ends with, and how often.
const FILL: u8 = b'x';
const FILLED: usize = 1_024;

/// What each of [`CONNECTIONS`] costs the proxy that it costs more, in kB.
pub(super) async fn cost_kb(pair: &Pair, tcp: bool) -> anyhow::Result<f64> {
    let address = if tcp { &pair.tcp } else { &pair.http };
    let before: Vec<f64> = pair.pids.iter().map(|pid| usage::memory_mb(&[*pid])).collect();
    let held = open(address, CONNECTIONS).await?;
    // Pace: what is measured is rest.
    tokio::time::sleep(SETTLE).await;
    let grown = pair.pids.iter().zip(before).map(|(pid, before)| usage::memory_mb(&[*pid]) - before);
    let most = grown.fold(0.0, f64::max);
    drop(held);
    Ok(most * 1e3 / CONNECTIONS as f64)
}

/// How many of [`MANY`] connections answer a second time, after all of them have waited.
pub(super) async fn still_there(address: &str) -> anyhow::Result<f64> {
    let mut held = open(address, MANY).await?;
    // Pace: they are idle for a moment, all of them.
    tokio::time::sleep(SETTLE).await;
    let mut answered = 0.0;
    for stream in &mut held {
        if ask(stream).await.is_ok() {
            answered += 1.0;
        }
    }
    Ok(answered)
}

async fn open(address: &str, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let opening = stream::iter(0..count).map(|index| async move {
        let mut stream = TcpStream::connect(address).await?;
        ask(&mut stream).await.with_context(|| format!("connection {index} to {address}"))?;
        anyhow::Ok(stream)
    });
    opening.buffer_unordered(OPENING).try_collect().await
}

async fn ask(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(REQUEST).await?;
    timeout(ANSWER_TIMEOUT, whole_answer(stream)).await.context("no answer")?
}

async fn whole_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let (mut answer, mut piece) = (Vec::new(), [0; 4_096]);
    while answer.iter().rev().take_while(|byte| **byte == FILL).count() < FILLED {
        let count = stream.read(&mut piece).await?;
        anyhow::ensure!(count > 0, "closed after {} bytes", answer.len());
        answer.extend_from_slice(&piece[..count]);
    }
    Ok(())
}
