//! How Terraform and a provider find each other (go-plugin's handshake): Terraform starts the program with its certificate
//! in the environment, the program says on stdout where it listens and shows its own, and both speak gRPC over mutual TLS.
//! It ends when Terraform says so, or is gone.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Pid;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::provider::Provider;

mod calls;
mod papers;

/// What Terraform sets so that nobody starts a provider by mistake.
const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");
/// The version of go-plugin's own protocol, and that of Terraform's.
const VERSIONS: (u8, u8) = (1, 6);
/// How long a handshake may take: who does not finish it holds up nobody else.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether Terraform is still there, while it is not connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves until Terraform has enough of it.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable(COOKIE.0).as_deref() != Some(COOKIE.1) {
        bail!(crate::USAGE);
    }
    let versions = variable("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
    if !versions.split(',').any(|version| version.trim().parse() == Ok(VERSIONS.1)) {
        bail!(
            "this Terraform speaks protocol {versions}, this provider {}; use Terraform 1.0 or newer",
            VERSIONS.1
        );
    }
    let client = variable("PLUGIN_CLIENT_CERT");
    let client = client.context(
        "Terraform showed no certificate (PLUGIN_CLIENT_CERT): without, nobody could be told from it",
    )?;
    // Before anybody can know of us: whoever is killed after that is missed.
    let terraform = rustix::process::getppid();
    let papers = papers::draw(&client)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on loopback")?;
    let port = listener.local_addr()?.port();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}|{}|tcp|127.0.0.1:{port}|grpc|{}", VERSIONS.0, VERSIONS.1, papers.shown)?;
    stdout.flush()?;
    accept(listener, TlsAcceptor::from(Arc::new(papers.tls)), terraform).await;
    Ok(())
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, terraform: Option<Pid>) {
    let (provider, ending) = (Arc::new(Provider::new()), CancellationToken::new());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = ending.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let calls = calls::Calls { provider: provider.clone(), ending: ending.clone() };
                    connections.spawn(carry(stream, tls.clone(), calls));
                }
                // No descriptors left, perhaps: others end and give theirs back.
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            },
            Some(_) = connections.join_next() => {}
            // Idle connections are closed and opened again; a Terraform that was killed does not come back.
            () = tokio::time::sleep(LOOK_EVERY), if connections.is_empty() => {
                if rustix::process::getppid() != terraform {
                    break;
                }
            }
        }
    }
    // The answer to the last call is still on its way.
    while connections.join_next().await.is_some() {}
}

/// One connection, until its end or ours.
async fn carry(stream: TcpStream, tls: TlsAcceptor, calls: calls::Calls) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await else { return };
    let ending = calls.ending.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let calls = calls.clone();
        async move { Ok::<_, std::convert::Infallible>(calls.answer(request).await) }
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            _ = tokio::time::timeout(HANDSHAKE_LIMIT, connection).await;
        }
    }
}
