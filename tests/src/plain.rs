//! A plain client, as an application has it: HTTP/1.1 with kept connections, no TLS, no retries.

use std::{net::SocketAddr, sync::Mutex};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Connections to one address.
#[derive(Debug)]
pub struct Plain {
    address: SocketAddr,
    host: String,
    keeps: bool,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Plain {
    /// A client of `address`, where the service calls itself `host`.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), keeps: true, idle: Mutex::new(Vec::new()) }
    }

    /// One that dials anew for each call.
    pub fn dialling(address: SocketAddr, host: &str) -> Self {
        Self { keeps: false, ..Self::new(address, host) }
    }

    /// One call, once.
    ///
    /// # Errors
    /// If there is no answer, or it breaks off.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response<Bytes>> {
        self.with_fields(path, &[]).await
    }

    /// One call with these fields, once.
    ///
    /// # Errors
    /// If there is no answer, or it breaks off.
    pub async fn with_fields(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Response<Bytes>> {
        let mut connection = self.connection().await?;
        let request = Request::get(path).header("host", &self.host);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Empty::new())?;
        let (parts, body) = connection.send_request(request).await.context("no answer")?.into_parts();
        let body = body.collect().await.context("the answer broke off")?.to_bytes();
        if self.keeps {
            self.idle.lock().expect("nothing panics while it is held").push(connection);
        }
        Ok(Response::from_parts(parts, body))
    }

    async fn connection(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        while let Some(mut connection) = self.take() {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot dial {}", self.address))?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn take(&self) -> Option<SendRequest<Empty<Bytes>>> {
        self.idle.lock().expect("nothing panics while it is held").pop()
    }
}
