//! Power cuts under whole clusters: three or five real `meshd`, each on an ext4 image of its own, all cut off within
//! milliseconds while writers write, again and again. Whatever was acknowledged before a cut must be there after it.
//!
//! What a cut takes: the page cache and the journal's transactions that are not on the disk yet. What it does not model:
//! a drive that lies about its own cache. Needs root, ext4 and loop devices; it goes into a mount namespace of its own.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::{os::unix::process::CommandExt, process::ExitCode};

use clap::Parser;

mod chance;
mod disk;
mod ledger;
mod trial;
mod writers;

/// Cuts the power of a whole cluster, and looks what is left.
#[derive(Debug, Parser)]
#[command(name = "mesh-powercut", version)]
struct Cli {
    /// Members of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    members: u8,
    /// As many cuts
    #[arg(long, default_value_t = 20)]
    cuts: u32,
    /// But no longer than so many seconds
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Repeats the dice (not the machine's timing)
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A program that starts each meshd, such as `eatmydata`, with which acknowledged writes must get lost
    #[arg(long, value_name = "PROGRAM")]
    wrapper: Vec<String>,
    /// The mount namespace is made already
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.inside {
        let own = std::env::current_exe().expect("a running program has a path");
        let arguments = std::env::args_os().skip(1);
        let error = std::process::Command::new("unshare")
            .arg("--mount")
            .arg(own)
            .args(arguments)
            .arg("--inside")
            .exec();
        eprintln!("error: unshare (util-linux): {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.expect("threads can be started").block_on(trial::run(&cli)) {
        Ok(summary) => {
            println!("{}", serde_json::to_string(&summary).expect("plain fields"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
