//! The benchmarks: the shipped programs, joined and with everything on, beside the peers that people know, in one run
//! on one machine. It prints both sides' configuration and ratios; it judges nothing that has no goal.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

mod certificates;
mod clock;
mod etcd;
mod peers;
mod proxy;
mod registry;
mod results;
mod usage;

/// Compares the mesh with its peers.
#[derive(Debug, Parser)]
#[command(name = "mesh-bench", version)]
struct Cli {
    /// What is compared
    what: What,
    /// Print the results as one line of JSON at the end
    #[arg(long)]
    json: bool,
    /// Interleaved rounds; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Three meshd beside three etcd
    Registry,
    /// A pair of proxies beside Envoy, HAProxy and nginx
    Proxy,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let results = match cli.what {
        What::Registry => registry::run(cli.rounds, cli.seconds).await,
        What::Proxy => proxy::run(cli.rounds, cli.seconds).await,
    };
    match results {
        Ok(results) => {
            results::print(&results, cli.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
