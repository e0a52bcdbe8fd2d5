//! Programs that we did not write: from Debian packages, and Python ones from target/venv.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::net::TcpStream;

use crate::{process::Process, scratch::Said, wait::until};

/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command of a program that must be installed.
///
/// # Panics
/// If it is not, saying what installs it.
pub fn program(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = PathBuf::from("/usr/sbin");
    let found = std::env::split_paths(&path)
        .chain([sbin])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    Command::new(found.unwrap_or_else(|| panic!("{name} is missing: `cargo xtask test` installs it")))
}

/// A Python program of `tests/programs`, run by the interpreter with the packages that it needs.
///
/// # Panics
/// If the packages are missing, saying what installs them.
pub fn python(script: &str) -> Command {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = own.join("../target/venv/bin/python3");
    assert!(
        interpreter.exists(),
        "target/venv is missing: `cargo xtask test` makes it, with the Python packages that the tests need"
    );
    let mut command = Command::new(interpreter);
    command.arg("-u").arg(own.join("programs").join(script));
    command
}

/// A Python package that is a program, run by the interpreter that has it.
///
/// # Panics
/// If there is no interpreter, saying what installs it.
pub fn python_package(name: &str) -> Command {
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python3");
    assert!(interpreter.exists(), "target/venv is missing: `cargo xtask test` makes it");
    let mut command = Command::new(interpreter);
    command.args(["-u", "-m", name]);
    command
}

/// The linter of OpenAPI descriptions.
///
/// # Panics
/// If it is missing, saying what installs it.
pub fn spectral() -> Command {
    let linter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node/node_modules/.bin/spectral");
    assert!(
        linter.exists(),
        "target/node is missing: `cargo xtask test` makes it, where Node.js and npm are"
    );
    Command::new(linter)
}

/// Starts a program and waits until it listens on `port` of 127.0.0.1.
///
/// # Errors
/// If it does not; the error has its log.
pub async fn listening(
    name: &str,
    folder: &Path,
    command: &mut Command,
    port: u16,
) -> anyhow::Result<Process> {
    let mut process = Process::spawn(name, folder, command)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let what = format!("{name} listens on {address}");
    if let Err(error) = until(&what, PATIENCE, || TcpStream::connect(address)).await {
        anyhow::bail!("{error}; runs: {}\n{}", process.is_running(), process.log());
    }
    Ok(process)
}

/// Runs a command to its end, off the test's own thread.
///
/// # Panics
/// If it cannot be started.
pub async fn said(mut command: Command) -> Said {
    let run = move || command.output().expect("an installed program starts");
    tokio::task::spawn_blocking(run).await.expect("it does not panic").into()
}
