//! Python programs of the tests, in the environment that `cargo xtask install` makes: clients that we did not write.

use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

/// How long one may run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a program, and answers with what it printed.
///
/// # Errors
/// If it fails, with what it said.
pub async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(program).args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it does not end")??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}
