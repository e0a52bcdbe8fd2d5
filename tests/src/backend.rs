//! An application in the test's own process: plain HTTP/1.1, and each answer names who gave it.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

/// The header that names who called, as the mesh sets it.
const CALLER: &str = "x-forwarded-client-cert";

/// How long an answer to `/slow` takes.
const SLOW: Duration = Duration::from_millis(250);

/// A running application; it ends when dropped.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens, on 127.0.0.1 as a rule.
    pub port: u16,
    calls: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Starts one that answers `<name> for <caller>`, for `/slow` after a quarter of a second,
    /// for `/fail/<name>` with 500.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(name: &'static str) -> std::io::Result<Self> {
        Self::start_at(name, Ipv4Addr::LOCALHOST).await
    }

    /// The same at another address, or at all of them.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start_at(name: &'static str, address: Ipv4Addr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let calls = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(serve(listener, name, calls.clone()));
        Ok(Self { port, calls, task })
    }

    /// How many calls it answered, health checks left out.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: &'static str, calls: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let calls = calls.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (response, slow) = (answer(name, &calls, &request), request.uri().path() == "/slow");
                async move {
                    if slow {
                        // Pace: an application that takes its time.
                        tokio::time::sleep(SLOW).await;
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            // A connection that breaks is the caller's matter.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(name: &str, calls: &AtomicU64, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/healthz" {
        return Response::new(Full::from("ok"));
    }
    calls.fetch_add(1, Ordering::Relaxed);
    let caller = request.headers().get(CALLER).and_then(|value| value.to_str().ok()).unwrap_or("nobody");
    let mut response = Response::new(Full::from(format!("{name} for {caller}")));
    if request.uri().path().strip_prefix("/fail/") == Some(name) {
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}
