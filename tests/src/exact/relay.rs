//! A relay between a watcher and a real server that changes what the server says: a fault planted where a server's own
//! would be. Plain HTTP towards the watcher, which is what a test double may be.

use std::net::SocketAddr;

use anyhow::Context as _;
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The largest head of a request that is read, in bytes: a watcher's has a few hundred.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// What the relay does to the changes of each stream, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Nothing: the control.
    Nothing,
    /// Leaves one out.
    Drop,
    /// Tells one twice.
    Double,
    /// Tells two in the wrong order.
    Swap,
    /// Leaves out the last change of a revision that has several.
    Split,
    /// Claims with a bookmark that it told what it withholds.
    Bookmark,
}

/// Starts a relay to `server`; its address. It ends with the runtime.
///
/// # Errors
/// If there is no port.
pub async fn start(server: String, http: Client, plant: Plant) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (server, http) = (server.clone(), http.clone());
            tokio::spawn(async move {
                // A watcher that goes away ends it with an error; there is nobody to tell.
                let _ = relay(stream, &server, &http, plant).await;
            });
        }
    });
    Ok(address)
}

async fn relay(mut stream: TcpStream, server: &str, http: &Client, plant: Plant) -> anyhow::Result<()> {
    let head = head(&mut stream).await?;
    let path = head.split(' ').nth(1).context("no path")?;
    let mut request = http.get(format!("{server}{path}"));
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        if ["authorization", "accept", "last-event-id"].contains(&name.to_ascii_lowercase().as_str()) {
            request = request.header(name, value);
        }
    }
    let response = request.send().await?;
    let start = format!("HTTP/1.1 {}\r\nconnection: close\r\n\r\n", response.status());
    stream.write_all(start.as_bytes()).await?;
    lines(response, &mut stream, plant).await
}

async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < HEAD_BYTES_MAX, "a long head");
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

async fn lines(mut response: Response, stream: &mut TcpStream, plant: Plant) -> anyhow::Result<()> {
    let (mut held, mut editor) =
        (Vec::new(), Editor { plant, withheld: None, done: plant == Plant::Nothing });
    while let Some(chunk) = response.chunk().await? {
        held.extend_from_slice(&chunk);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            for line in editor.edit(line) {
                stream.write_all(&line).await?;
            }
        }
    }
    Ok(())
}

struct Editor {
    plant: Plant,
    withheld: Option<Vec<u8>>,
    done: bool,
}

impl Editor {
    /// What is told instead of a line.
    fn edit(&mut self, line: Vec<u8>) -> Vec<Vec<u8>> {
        let event: Value = serde_json::from_slice(&line).unwrap_or_default();
        let change = event["type"] == "put" || event["type"] == "delete";
        if self.done || !change {
            return vec![line];
        }
        let last = event["last"] == true;
        match (self.plant, self.withheld.take()) {
            (Plant::Drop, _) => self.told(vec![]),
            (Plant::Double, _) => self.told(vec![line.clone(), line]),
            (Plant::Bookmark, _) if last => self
                .told(vec![format!("{{\"type\":\"bookmark\",\"revision\":{}}}\n", event["revision"]).into()]),
            // Of two whole revisions, or the order would be nobody's matter.
            (Plant::Swap, None) if last => {
                self.withheld = Some(line);
                vec![]
            }
            (Plant::Swap, Some(before)) => self.told(vec![line, before]),
            (Plant::Split, Some(before)) if last => self.told(vec![before]),
            (Plant::Split, before) if !last => {
                self.withheld = Some(line);
                before.into_iter().collect()
            }
            (_, before) => before.into_iter().chain([line]).collect(),
        }
    }

    fn told(&mut self, lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.done = true;
        lines
    }
}
