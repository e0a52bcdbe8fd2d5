//! Watches, each on a TLS connection of its own and read as what comes out of TLS: no library takes apart what was told, of
//! either system, as a client's work would count for both alike and hide what the servers take.

use std::{io, net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, ensure};
use http::Request;
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::system::connect;

/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 8_192;

/// A watch, after the head of its answer.
pub(super) struct Watching {
    stream: TlsStream<TcpStream>,
    /// What has come with the head.
    begun: Vec<u8>,
}

/// A watch that is not opened yet.
pub(super) struct Ask {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) request: Spoken,
}

/// What is asked, in the protocol in which it is.
pub(super) enum Spoken {
    /// The head of a request, as proxies send it.
    Http1(String),
    /// A request of gRPC, whose stream stays open.
    Http2(Box<Request<Bytes>>),
}

impl Watching {
    /// Opens it.
    pub(super) async fn open(ask: Ask) -> anyhow::Result<Self> {
        let stream = connect(ask.address, ask.port, &ask.tls).await?;
        match ask.request {
            Spoken::Http1(head) => Self::http1(stream, &head).await,
            Spoken::Http2(request) => Self::http2(stream, &request).await,
        }
    }

    async fn http1(mut stream: TlsStream<TcpStream>, head: &str) -> anyhow::Result<Self> {
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        let mut begun = Vec::new();
        let end = loop {
            ensure!(stream.read_buf(&mut begun).await? > 0, "it ends before its answer");
            let end = begun.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => ensure!(begun.len() < HEAD_BYTES_MAX, "an endless head"),
            }
        };
        let line = String::from_utf8_lossy(&begun[..end]).lines().next().unwrap_or_default().to_owned();
        ensure!(line.starts_with("HTTP/1.1 200"), "a watch was refused: {line}");
        begun.drain(..end);
        Ok(Self { stream, begun })
    }

    /// By RFC 9113. What comes fits into the windows that hold at the start, so that none is ever opened.
    async fn http2(mut stream: TlsStream<TcpStream>, request: &Request<Bytes>) -> anyhow::Result<Self> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut bytes, SETTINGS, 0, 0, &[])?;
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &fields(request)?)?;
        frame(&mut bytes, DATA, 0, 1, request.body())?;
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        // The first that comes are the server's settings.
        let mut begun = Vec::new();
        stream.read_buf(&mut begun).await?;
        ensure!(begun.get(3) == Some(&SETTINGS), "no HTTP/2: {begun:?}");
        bytes.clear();
        frame(&mut bytes, SETTINGS, ACK, 0, &[])?;
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        Ok(Self { stream, begun })
    }

    /// Adds what comes next to `bytes`; says how much it is, 0 at the end.
    pub(super) async fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        if !self.begun.is_empty() {
            bytes.append(&mut self.begun);
            return Ok(bytes.len());
        }
        self.stream.read_buf(bytes).await
    }
}

// Types of frames and their flags: RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> anyhow::Result<()> {
    let length = u32::try_from(payload.len()).context("a short payload")?.to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(())
}

/// The request's fields as HPACK has them without a table (RFC 7541, section 6.2.2 and appendix A).
fn fields(request: &Request<Bytes>) -> anyhow::Result<Vec<u8>> {
    // `:method: POST`, `:scheme: https`.
    let mut bytes = vec![0x83, 0x87];
    let authority = request.uri().authority().context("an authority")?.as_str();
    // `:path` and `:authority` are the table's entries 4 and 1.
    for (name, value) in [(0x04, request.uri().path()), (0x01, authority)] {
        bytes.push(name);
        text(&mut bytes, value)?;
    }
    for (name, value) in request.headers() {
        bytes.push(0);
        text(&mut bytes, name.as_str())?;
        text(&mut bytes, value.to_str()?)?;
    }
    Ok(bytes)
}

fn text(bytes: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).context("a short text")?;
    bytes.push(length);
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_as_the_papers_have_them() {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, ACK, 0, &[]).expect("short");
        assert_eq!(bytes, [0, 0, 0, 4, 1, 0, 0, 0, 0]);
        let request = Request::post("https://a:1/p").header("te", "trailers").body(Bytes::new());
        let fields = fields(&request.expect("a request")).expect("short texts");
        assert_eq!(fields, b"\x83\x87\x04\x02/p\x01\x03a:1\x00\x02te\x08trailers");
    }
}
