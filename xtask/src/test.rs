//! `cargo xtask test`: everything that CI runs, in groups with budgets, nextest last so that its summary ends the log.
//! Lints and licences are `verify`'s: they need a second build of everything.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::{cargo, run as run_command};
use crate::fuzz::{self, Search};
use crate::group::Groups;
use crate::{dist, image, install, nextest, previous, verify};

// Budgets for two cores from a clean clone. Their sum stays under the 35 minutes that a run may take.
const INSTALL: Duration = Duration::from_secs(50);
const TIDY: Duration = Duration::from_secs(10);
const GRAPH: Duration = Duration::from_secs(10);
const FUZZ: Duration = Duration::from_secs(370);
// The first that builds has to compile what others wrote.
const PREVIOUS: Duration = Duration::from_secs(145);
const BUILD: Duration = Duration::from_secs(310);
const DOC_TESTS: Duration = Duration::from_secs(10);
// Packages of what was built, and the root file system of the hosts that install them.
const PACKAGES: Duration = Duration::from_secs(70);
const TESTS: Duration = Duration::from_secs(1_115);

/// Runs all groups, whatever fails; the exit code says whether all went well.
pub fn run(full: bool) -> Result<ExitCode> {
    let mut groups = Groups::new();
    groups.run("install", INSTALL, install::for_tests);
    groups.run("tidy", TIDY, verify::check_tidy);
    groups.run("graph", GRAPH, no_banned_crate);
    groups.run("fuzz", FUZZ, || {
        fuzz::run(None, fuzz::SECONDS_MIN, if full { Search::Onward } else { Search::Repeated })
    });
    groups.run("previous", PREVIOUS, previous::build);
    groups.run("build", BUILD, build);
    groups.run("packages", PACKAGES, || {
        let dist = dist::Dist { profile: "dev".to_owned(), sign: None };
        dist.run()?;
        dist.compare()?;
        image::make()
    });
    groups.run("doc tests", DOC_TESTS, || {
        run_command(&mut cargo(&["test", "--workspace", "--locked", "--quiet", "--doc"]))
    });
    let mut ending = String::new();
    groups.run("tests", TESTS, || nextest::run(full, &mut ending));
    println!("\n{}\n\n{ending}", groups.table());
    Ok(if groups.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Binaries, libraries and tests in one resolution, so that nothing is compiled twice.
fn build() -> Result<()> {
    run_command(&mut cargo(&["build", "--workspace", "--all-targets", "--locked"]))
}

/// One TLS stack with one provider: what deny.toml bans is not compiled, asked of cargo itself, since the lock file
/// also names crates behind features that nobody turns on.
fn no_banned_crate() -> Result<()> {
    let output = cargo(&[
        "tree",
        "--workspace",
        "--locked",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "-e",
        "normal,build,dev",
    ])
    .output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    match banned(&String::from_utf8_lossy(&output.stdout)) {
        Some(line) => {
            bail!("{line} is compiled: cargo tree -i {}", line.split(' ').next().unwrap_or_default())
        }
        None => Ok(()),
    }
}

const BANNED_CRATES: &[&str] = &["ring", "openssl-sys", "native-tls", "bincode"];

fn banned(graph: &str) -> Option<&str> {
    graph.lines().find(|line| BANNED_CRATES.iter().any(|name| line.split(' ').next() == Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_in_the_graph_is_found() {
        assert_eq!(banned("rustls v0.23.46\nring v0.17.14\n"), Some("ring v0.17.14"));
        assert_eq!(banned("rustls v0.23.46\nstring v1.0.0\n"), None);
    }

    #[test]
    fn the_budgets_fit_into_what_a_run_may_take() {
        let sum = INSTALL + TIDY + GRAPH + FUZZ + PREVIOUS + BUILD + PACKAGES + DOC_TESTS + TESTS;
        assert!(sum < Duration::from_secs(35 * 60), "{sum:?}");
    }
}
