//! `demo` and `bench`: builds the release binaries and becomes the one that does the work.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::command::{announce, cargo, command, run};
use crate::{install, tree};

/// What is compared.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Bench {
    /// Three meshd beside three etcd
    Registry,
    /// A pair of proxies beside Envoy, HAProxy and nginx
    Proxy,
}

pub fn demo(arguments: &[String]) -> Result<ExitCode> {
    build("mesh-demo")?;
    become_program("mesh-demo", arguments.to_vec())
}

pub fn bench(what: Bench, arguments: &[String]) -> Result<ExitCode> {
    install::for_bench()?;
    build("mesh-bench")?;
    let what = match what {
        Bench::Registry => "registry",
        Bench::Proxy => "proxy",
    };
    become_program("mesh-bench", [&[what.to_owned()], arguments].concat())
}

/// What is shipped, and the program that drives it, side by side in target/release.
fn build(driver: &str) -> Result<()> {
    let shipped = ["meshd", "mesh-proxy", "meshctl"];
    let packages = shipped.iter().chain(&["mesh-tests", "registry"]).flat_map(|package| ["-p", package]);
    let drivers = ["state-cost", "proxy-cost", driver];
    let binaries = shipped.iter().chain(&drivers).flat_map(|binary| ["--bin", binary]);
    let arguments: Vec<&str> = ["build", "--release"].into_iter().chain(packages).chain(binaries).collect();
    run(&mut cargo(&arguments))
}

/// Replaces this process, so that signals and the exit code are the program's own.
fn become_program(name: &str, arguments: Vec<String>) -> Result<ExitCode> {
    let program = tree::root().join("target/release").join(name);
    let program = program.to_str().context("the checkout's path is not UTF-8")?.to_owned();
    let mut command = command(&program, &[]);
    command.args(arguments).env("MESH_VENV", install::venv());
    announce(&command);
    Err(command.exec()).with_context(|| format!("cannot start {program}"))
}
