//! Unary calls of gRPC: the application that answers them, with trailers, and the load.

use std::{convert::Infallible, net::Ipv4Addr, path::Path};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, process::Command};

use super::CORES;

/// A message of 100 bytes, with its prefix: not compressed, and its length.
const MESSAGE: [u8; 105] = {
    let mut message = [b'g'; 105];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 100);
    message
};

/// Answers every call on `port` with a message and `grpc-status: 0`.
pub(super) async fn application(port: u16) -> anyhow::Result<()> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = socket.accept().await?;
        stream.set_nodelay(true)?;
        let local = TokioIo::new(stream);
        let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(local, service_fn(answer));
        tokio::spawn(serving);
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from_static(&MESSAGE)), Frame::trailers(trailers)];
    let mut response = Response::new(StreamBody::new(stream::iter(frames.map(Ok))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// Calls that succeeded: 8 connections with 16 calls at once on each.
pub(super) async fn load(address: &str, folder: &Path, seconds: u64) -> anyhow::Result<f64> {
    let message = folder.join("message.bin");
    std::fs::write(&message, MESSAGE)?;
    let mut command = Command::new("taskset");
    command.args(["-c", CORES.1, "h2load", "-t1", "-c8", "-m16", "-D"]).arg(seconds.to_string());
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(&message);
    command.arg(format!("http://{address}/bench.Bench/Call"));
    succeeded(&mesh_tests::process::run(&mut command).await?)
}

/// Reads what h2load prints; a call that failed fails the measurement.
fn succeeded(printed: &str) -> anyhow::Result<f64> {
    let line =
        printed.lines().find(|line| line.starts_with("requests:")).context("h2load printed no count")?;
    let count = |what: &str| -> Option<f64> {
        let part =
            line.trim_start_matches("requests:").split(',').find(|part| part.trim().ends_with(what))?;
        part.split_whitespace().next()?.parse().ok()
    };
    let bad = count("failed").unwrap_or(1.0) + count("errored").unwrap_or(1.0);
    anyhow::ensure!(bad == 0.0, "h2load saw {}", line.trim());
    count("succeeded").context("h2load printed no success")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_failed_are_not_counted_as_speed() {
        let good =
            "requests: 128 total, 128 started, 120 done, 120 succeeded, 0 failed, 0 errored, 0 timeout";
        assert_eq!(succeeded(good).expect("good"), 120.0);
        assert!(succeeded(&good.replace("0 failed", "2 failed")).is_err());
        assert!(succeeded("nothing").is_err());
    }
}
