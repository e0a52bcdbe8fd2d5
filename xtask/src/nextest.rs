//! nextest, with its summary held back so that it can end the log; plain `cargo test` where nextest cannot be had.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{announce, cargo, line};
use crate::install;

/// Runs all tests but doc tests. What is printed from the summary on goes to `ending` instead.
pub fn run(full: bool, ending: &mut String) -> Result<()> {
    let mut tests = match install::cargo_tool("cargo-nextest") {
        Ok(()) => cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--color", "never"]),
        Err(error) => {
            println!(
                "cargo-nextest cannot be had ({error:#}): going on with cargo test, without its time limits"
            );
            cargo(&["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"])
        }
    };
    tests.env("PATH", path_with_venv()?).env("MESH_VENV", install::venv());
    if full {
        tests.env("MESH_FULL", "1").env("NEXTEST_PROFILE", "full");
    }
    announce(&tests);
    split(&mut tests, ending)
}

/// Python services and callers find their packages.
fn path_with_venv() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(install::venv().join("bin")).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("PATH cannot take the folder of target/venv")
}

/// Passes stderr on line by line; from the summary on it is kept.
fn split(command: &mut Command, ending: &mut String) -> Result<()> {
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let stderr = child.stderr.take().context("stderr was piped")?;
    for text in BufReader::new(stderr).split(b'\n') {
        let text = String::from_utf8_lossy(&text?).into_owned();
        if !ending.is_empty() || text.trim_start().starts_with("Summary [") {
            ending.push_str(&text);
            ending.push('\n');
        } else {
            println!("{text}");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_held_back_and_the_exit_code_is_kept() {
        let mut ending = String::new();
        let script =
            "echo PASS a >&2; echo '     Summary [ 1.0s] 2 tests' >&2; echo '  FAIL b' >&2; exit 100";
        let error =
            split(Command::new("sh").args(["-c", script]), &mut ending).expect_err("it ended with 100");
        assert_eq!(ending, "     Summary [ 1.0s] 2 tests\n  FAIL b\n");
        assert!(error.to_string().contains("100"), "{error}");
    }
}
