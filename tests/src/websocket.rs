//! A WebSocket as a program holds one open (RFC 6455): a frame goes out, and what it says comes back.

use std::{io, net::SocketAddr};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The largest answer to a handshake, in bytes.
const HEAD_BYTES_MAX: usize = 4_096;
/// The example of RFC 6455 §1.2, and what a server has to answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A text's only frame.
const TEXT: u8 = 0x81;
/// What is said is masked.
const MASKED: u8 = 0x80;

/// One that is open.
#[derive(Debug)]
pub struct WebSocket(TcpStream);

impl WebSocket {
    /// Opens one to a service that calls itself `host`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn open(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!(
            "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < HEAD_BYTES_MAX, "a head without an end");
            answer.push(stream.read_u8().await?);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPTED), "{answer}");
        Ok(Self(stream))
    }

    /// Says a word of less than 126 bytes, and hears it said back.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn says(&mut self, word: &str) -> io::Result<()> {
        let (length, mask) = (u8::try_from(word.len()).map_err(io::Error::other)?, [1, 2, 3, 4]);
        let mut frame = vec![TEXT, MASKED | length];
        frame.extend(mask);
        frame.extend(word.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await?;
        let mut heard = vec![0; 2 + word.len()];
        self.0.read_exact(&mut heard).await?;
        match heard.strip_prefix(&[TEXT, length]) {
            Some(said) if said == word.as_bytes() => Ok(()),
            _ => Err(io::Error::other(format!("{heard:?} for {word}"))),
        }
    }
}
