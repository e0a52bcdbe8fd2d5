//! How the local applications are: each is checked in a task of its own, as `traffic`'s step function says.

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{name::Name, resource::Health};
use tokio::{
    net::TcpStream,
    process::Command,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use traffic::endpoint::health::Plan;

mod grpc;
pub mod memory;

use crate::{
    checker, heads,
    services::{Instance, Services},
    settings::{Check, CheckKind},
};

/// The longest answer to a check of gRPC that is read, in bytes: it has seven.
const GRPC_ANSWER_BYTES_MAX: usize = 1_024;

/// Checks what `services` say, and tells `health`, for as long as it is polled.
pub async fn run(
    node: Name,
    mut services: watch::Receiver<Arc<Services>>,
    health: watch::Sender<BTreeMap<Name, Health>>,
) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<Name, (Instance, AbortHandle)> = BTreeMap::new();
    loop {
        let instances = services.borrow_and_update().instances(&node);
        let checked: Vec<Instance> =
            instances.into_iter().filter(|instance| instance.check.is_some()).collect();
        running.retain(|name, (instance, task)| {
            let stays = checked.contains(instance);
            if !stays {
                task.abort();
                health.send_if_modified(|health| health.remove(name).is_some());
            }
            stays
        });
        for instance in checked {
            if let Some(check) = instance.check.clone().filter(|_| !running.contains_key(&instance.name)) {
                let task = tasks.spawn(watch_one(instance.clone(), check, health.clone()));
                running.insert(instance.name.clone(), (instance, task));
            }
        }
        if services.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_one(instance: Instance, check: Check, health: watch::Sender<BTreeMap<Name, Health>>) {
    let plan = Plan {
        interval: check.interval.duration(),
        timeout: check.timeout.duration(),
        healthy_after: check.healthy_threshold,
        unhealthy_after: check.unhealthy_threshold,
    };
    let look = || {
        let (instance, kind) = (instance.clone(), check.kind.clone());
        async move { make(&instance, &kind).await }
    };
    let tell = |result: Result<(), String>| match result {
        Ok(()) => tell(&health, &instance, Health::Healthy, ""),
        Err(reason) => tell(&health, &instance, Health::Unhealthy, &reason),
    };
    checker::watch(plan, look, tell).await;
}

fn tell(health: &watch::Sender<BTreeMap<Name, Health>>, instance: &Instance, now: Health, reason: &str) {
    tracing::info!(endpoint = %instance.name, service = %instance.service, health = ?now, reason, "health changed");
    health.send_modify(|health| {
        health.insert(instance.name.clone(), now);
    });
}

/// One check; the step function says when it has taken too long.
async fn make(instance: &Instance, kind: &CheckKind) -> Result<(), String> {
    match kind {
        CheckKind::Tcp => {
            TcpStream::connect(instance.address()).await.map(drop).map_err(|error| error.to_string())
        }
        CheckKind::Http(path) => get(instance, path).await,
        CheckKind::Grpc(service) => call(instance, service).await,
        CheckKind::Command(command) => run_command(command).await,
    }
}

/// gRPC's own check.
async fn call(instance: &Instance, service: &str) -> Result<(), String> {
    let text = |error: hyper::Error| error.to_string();
    let stream = TcpStream::connect(instance.address()).await.map_err(|error| error.to_string())?;
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(text)?;
    let request = Request::post(format!("http://{}{}", instance.service.hostname(), grpc::METHOD))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("mesh-proxy/", env!("CARGO_PKG_VERSION"), " check"))
        .body(Full::new(Bytes::from(grpc::request(service))))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, GRPC_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers.get(heads::GRPC_STATUS).or(head.headers.get(heads::GRPC_STATUS));
        match status.map(|status| status.as_bytes()) {
            Some(b"0") => grpc::answer(&body.to_bytes()),
            Some(status) => Err(format!("gRPC status {}", String::from_utf8_lossy(status))),
            None => Err(format!("answered {} without a gRPC status", head.status)),
        }
    };
    tokio::select! {
        done = exchange => done,
        ended = connection => Err(ended.map_or_else(text, |()| "the connection was closed".to_owned())),
    }
}

async fn get(instance: &Instance, path: &str) -> Result<(), String> {
    let stream = TcpStream::connect(instance.address()).await.map_err(|error| error.to_string())?;
    let shaken = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(header::HOST, instance.service.hostname())
        .header(header::USER_AGENT, concat!("mesh-proxy/", env!("CARGO_PKG_VERSION"), " check"))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // A connection that ends has handed its answer over, or will never have one.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    let status = answer.map_err(|error| error.to_string())?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {status}")) }
}

async fn run_command(command: &[String]) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let status = command.status().await.map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}
