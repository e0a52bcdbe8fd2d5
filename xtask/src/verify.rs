//! What must hold before a push, and what can be mended by a machine. `verify` writes nothing outside target.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run};
use crate::group::Groups;
use crate::tree::{self, Tree};
use crate::{install, tidy};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Format, lints, tests (tidy among them), documentation, dependencies.
pub fn verify() -> Result<ExitCode> {
    let mut groups = Groups::new();
    groups.run("format", minutes(1), || run(&mut cargo(&["fmt", "--all", "--check"])));
    groups.run("clippy", minutes(6), || {
        run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    });
    groups.run("docs", minutes(4), || run(&mut docs()));
    groups.run("deny", minutes(4), || {
        install::cargo_tool("cargo-deny")?;
        run(&mut cargo(&[
            "deny",
            "--offline",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]))
    });
    groups.run("tests", minutes(20), || run(&mut cargo(&["nextest", "run", "--workspace", "--locked"])));
    println!("\n{}", groups.table());
    Ok(if groups.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn docs() -> Command {
    let mut docs = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    docs
}

/// Writes: the table of limits, what clippy can mend, the format.
pub fn fix() -> Result<ExitCode> {
    write_limits()?;
    run(&mut cargo(&["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"]))?;
    run(&mut cargo(&["fmt", "--all"]))?;
    Ok(ExitCode::SUCCESS)
}

pub fn tidy(fix: bool) -> Result<ExitCode> {
    if fix {
        write_limits()?;
    }
    check_tidy()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints every finding; an error where there is one.
pub fn check_tidy() -> Result<()> {
    let tree = Tree::read(&tree::root())?;
    let found = tidy::findings(&tree);
    found.iter().for_each(|finding| println!("{finding}"));
    if !found.is_empty() {
        bail!("{} findings", found.len());
    }
    println!("{} files are tidy", tree.paths.len());
    Ok(())
}

fn write_limits() -> Result<()> {
    let root = tree::root();
    let page =
        tidy::limits::rewritten(&Tree::read(&root)?).context("docs/limits.md has no marks for its table")?;
    fs::write(root.join(tidy::limits::PAGE), page)?;
    Ok(())
}
