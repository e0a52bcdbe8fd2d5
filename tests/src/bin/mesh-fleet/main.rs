//! Thousands of simulated proxies on a control plane: held for a while, through a cold restart of all servers where it
//! starts them itself, with what that cost.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use mesh_tests::{
    cluster::Cluster,
    fleet::{Fleet, Settings, scenario},
    scratch::Scratch,
};

/// Simulates the proxies of many hosts: each with a certificate, TLS connections, a session and a stream of its own.
#[derive(Debug, Parser)]
#[command(name = "mesh-fleet", version)]
struct Cli {
    /// How many proxies
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    proxies: u32,
    /// API addresses of servers that run already, IP:PORT; three are started, and restarted, if left out
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',', requires = "cacert")]
    addr: Vec<SocketAddr>,
    /// Their root certificate
    #[arg(long, env = "MESH_CACERT", value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// An administrator's token
    #[arg(long, env = "MESH_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// Names of the nodes begin so; a second run on the same servers needs others
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// How long they are held
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    hold: Duration,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<model::duration::Timespan>().map(|span| span.duration()).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if cli.addr.is_empty() { own(&cli).await } else { others(&cli).await };
    match done {
        Ok(fine) => ExitCode::from(if fine { 0 } else { 2 }),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole scenario on servers of its own; whether nobody had to register anew and all were in sync in time.
async fn own(cli: &Cli) -> anyhow::Result<bool> {
    let scratch = Scratch::new("fleet");
    let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await?;
    let report = scenario::run(&mut cluster, cli.proxies as usize, cli.hold).await?;
    match cli.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{report:#?}"),
    }
    let restart = &report.restart;
    Ok(restart.counts.registrations == 0
        && report.held.counts.registrations == 0
        && restart.in_sync_seconds < scenario::IN_SYNC_LIMIT.as_secs_f64())
}

/// A fleet on somebody's servers, for as long as was asked; whether no session was lost.
async fn others(cli: &Cli) -> anyhow::Result<bool> {
    let cacert = cli.cacert.as_ref().context("--cacert is needed with --addr")?;
    let settings = Settings {
        servers: cli.addr.clone(),
        roots: std::fs::read_to_string(cacert).with_context(|| cacert.display().to_string())?,
        token: cli.token.clone(),
        proxies: cli.proxies as usize,
        prefix: cli.prefix.clone(),
    };
    let fleet = Fleet::join(&settings).await?;
    fleet.register();
    fleet.watch();
    // Pace: they are held for as long as was asked.
    tokio::time::sleep(cli.hold).await;
    let counts = fleet.counts();
    match cli.json {
        true => println!("{}", serde_json::to_string(&counts)?),
        false => println!("{counts:#?}"),
    }
    Ok(counts.lost == 0)
}
