//! The benchmarks: the shipped programs, joined and with everything on, beside the peers that people know, in one run
//! on one machine. It prints both sides' configuration and ratios; it judges nothing that has no goal.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::{path::PathBuf, process::ExitCode};

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
    /// Registry: how often the leader is killed, and how often it is stopped
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    kills: u32,
    /// Registry: only these parts, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<registry::Part>,
    /// Proxy: only these parts, separated by commas
    #[arg(long, value_delimiter = ',')]
    parts: Vec<proxy::Part>,
    /// Proxy: keep what callgrind wrote of our pair in this folder, for callgrind_annotate
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rounds: u32,
    seconds: u64,
    kills: u32,
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
    if let Err(error) = usage::allow_many_files() {
        eprintln!("open files stay limited: {error}");
    }
    let before = usage::load();
    let results = match cli.what {
        What::Registry => {
            registry::run(&cli.only, Pace { rounds: cli.rounds, seconds: cli.seconds, kills: cli.kills })
                .await
        }
        What::Proxy => proxy::run(&cli.parts, cli.rounds, cli.seconds, cli.keep.as_deref()).await,
    };
    match results {
        Ok(results) => {
            results::print(&results, cli.json);
            println!("load of the machine (1 min), before and after: {before:.2}, {:.2}", usage::load());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
