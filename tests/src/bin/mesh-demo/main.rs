//! The demo: a shop on a real mesh. Three `meshd`, a `mesh-proxy` for each host, four services behind them, steady
//! traffic, weights that change, an endpoint and the leader killed; and no call may fail.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

mod app;
mod faults;
mod load;
mod report;
mod shop;
mod stats;
mod table;
mod weights;

/// Runs a shop on a mesh of real processes, on loopback.
#[derive(Debug, Parser)]
#[command(name = "mesh-demo", version)]
struct Cli {
    /// End after so long; until Ctrl-C if left out
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    limit: Option<Duration>,
    /// Print one JSON object as the last line, and no table
    #[arg(long)]
    json: bool,
    /// Calls per second that come in
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the shop's services (started by the demo)
    #[command(hide = true)]
    App(app::Arguments),
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<model::duration::Timespan>().map(|span| span.duration()).map_err(|error| error.to_string())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::App(arguments)) => app::run(arguments).await.map(|()| true),
        None => shop::run(cli.limit, cli.json, cli.rate).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
