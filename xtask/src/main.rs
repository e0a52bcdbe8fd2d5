//! All automation of the project: `cargo xtask` lists it. It builds in seconds, knows no crate of ours, and never
//! hides what it does: each command that it runs is printed first.
#![allow(clippy::print_stdout, reason = "a command-line tool: its output is its product")]
#![allow(unreachable_pub, reason = "a binary: nothing is reachable from outside, and `pub` reads best")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod clock;
mod command;
mod dist;
mod fuzz;
mod group;
mod image;
mod install;
mod nextest;
mod previous;
mod release;
mod test;
mod tidy;
mod tree;
mod verify;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The mesh's automation", disable_help_subcommand = true)]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A whole mesh on loopback with traffic through it: three meshd, hosts, a shop of four services
    Demo {
        /// For mesh-demo, such as `--for 30s --json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// All tests; installs what they need
    Test {
        /// More rounds and longer runs (MESH_FULL=1)
        #[arg(long)]
        full: bool,
    },
    /// Packages for apt and dnf, with signed repositories, and the Terraform provider, in target/dist
    Dist {
        /// The profile of the binaries; `dev` is what tests install
        #[arg(long, default_value = "release")]
        profile: String,
        /// The gpg key that signs; a key for tests where none is named
        #[arg(long)]
        sign: Option<String>,
    },
    /// The root file system of the hosts that tests boot
    Image,
    /// Installs what tests and benches need beyond a Rust toolchain, and nothing that is there
    Install,
    /// What must hold before a push: format, lints, tests, docs, licences; writes nothing
    Verify,
    /// Formats, applies what clippy can mend, rewrites the table of limits
    Fix,
    /// The style that a machine can hold
    Tidy {
        /// Rewrite the table of limits from the constants first
        #[arg(long)]
        fix: bool,
    },
    /// Build the programs of the release before this one, for tests of both together
    Previous,
    /// Fuzz one target, or all
    Fuzz {
        /// A target of fuzz/fuzz_targets; all where none is named
        target: Option<String>,
        /// How long each target runs at least
        #[arg(long, default_value_t = fuzz::SECONDS_MIN)]
        seconds: u64,
    },
    /// Our release binaries beside the peers
    Bench {
        what: release::Bench,
        /// For mesh-bench, such as `--json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Xtask::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Demo { arguments } => release::demo(&arguments),
        Verb::Test { full } => test::run(full),
        Verb::Dist { profile, sign } => dist::Dist { profile, sign }.run().map(|()| ExitCode::SUCCESS),
        Verb::Image => image::make().map(|()| ExitCode::SUCCESS),
        Verb::Install => install::all().map(|()| ExitCode::SUCCESS),
        Verb::Verify => verify::verify(),
        Verb::Fix => verify::fix(),
        Verb::Tidy { fix } => verify::tidy(fix),
        Verb::Previous => previous::build().map(|()| ExitCode::SUCCESS),
        Verb::Fuzz { target, seconds } => {
            fuzz::run(target.as_deref(), seconds, fuzz::Search::Onward).map(|()| ExitCode::SUCCESS)
        }
        Verb::Bench { what, arguments } => release::bench(what, &arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn passed_on(line: &str) -> Vec<String> {
        let parsed = Xtask::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        match parsed.verb {
            Verb::Demo { arguments } | Verb::Bench { arguments, .. } => arguments,
            _ => panic!("{line} is neither demo nor bench"),
        }
    }

    #[test]
    fn demo_and_bench_pass_on_what_is_not_theirs() {
        assert_eq!(passed_on("xtask demo --for 30s --json"), ["--for", "30s", "--json"]);
        assert_eq!(passed_on("xtask bench registry --json"), ["--json"]);
        assert!(passed_on("xtask demo").is_empty());
    }
}
