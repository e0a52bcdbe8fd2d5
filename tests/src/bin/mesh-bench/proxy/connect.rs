//! New connections, one request each, as fast as they come.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::clock::{now, since};

/// As many are opened side by side.
const WORKERS: usize = 16;
/// With HTTP/1.0 the application closes after its answer.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Connections that were opened, answered and closed.
pub(super) async fn run(address: &str, length: Duration) -> anyhow::Result<f64> {
    let started = now();
    let workers = (0..WORKERS).map(|_| async {
        let (mut count, mut answer) = (0.0, Vec::new());
        while since(started) < length {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(REQUEST).await?;
            answer.clear();
            stream.read_to_end(&mut answer).await?;
            anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "a connection was not answered");
            count += 1.0;
        }
        Ok(count)
    });
    let counts = futures_util::future::try_join_all(workers).await?;
    Ok(counts.iter().sum())
}
