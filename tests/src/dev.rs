//! `meshd --dev`, known by the three lines that it prints, and `meshctl` against it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use model::client::{Client, Settings};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{binaries, loopback::Network, process::Process, scratch::Said};

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane of one process.
#[derive(Debug)]
pub struct Dev {
    /// `MESH_ADDR`.
    pub addr: String,
    /// `MESH_TOKEN`.
    pub token: String,
    /// `MESH_CACERT`.
    pub cacert: PathBuf,
    /// The process.
    pub process: Process,
    home: PathBuf,
}

impl Dev {
    /// Starts one, with its log and its data in `folder`.
    ///
    /// # Errors
    /// If it does not print its lines in time.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let listen = format!("{}:8443", Network::claim().address(1));
        let mut command = Command::new(binaries::path("meshd"));
        command.args(["--dev", "--listen", &listen, "--data-dir"]).arg(folder.join("dev-data"));
        let (process, stdout) = Process::spawn_piped("meshd-dev", folder, &mut command)?;
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        let lines = tokio::time::timeout(PATIENCE, contract(stdout)).await;
        let lines = lines.with_context(|| format!("meshd --dev said too little:\n{}", process.log()))??;
        let value =
            |name: &str| lines.get(name).cloned().with_context(|| format!("meshd --dev printed no {name}"));
        let (addr, token, cacert) = (value("MESH_ADDR")?, value("MESH_TOKEN")?, value("MESH_CACERT")?.into());
        let home = folder.join("home");
        std::fs::create_dir_all(&home)?;
        Ok(Self { addr, token, cacert, process, home })
    }

    /// A client of it.
    ///
    /// # Errors
    /// If the root certificate cannot be read.
    pub fn client(&self) -> anyhow::Result<Client> {
        let roots = Some(std::fs::read_to_string(&self.cacert)?);
        Ok(Client::new(Settings { address: self.addr.clone(), token: Some(self.token.clone()), roots })?)
    }

    /// `meshctl` with the environment that the lines say, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.env("MESH_ADDR", &self.addr).env("MESH_TOKEN", &self.token).env("MESH_CACERT", &self.cacert);
        command
    }

    /// `meshctl` without any environment of the mesh.
    pub fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::path("meshctl"));
        command.args(arguments).env("XDG_CONFIG_HOME", &self.home);
        for variable in ["MESH_ADDR", "MESH_TOKEN", "MESH_CACERT", "MESH_CONTEXT"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs `meshctl` to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn meshctl(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("meshctl starts").into()
    }

    /// The folder that `XDG_CONFIG_HOME` names.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

/// The three lines, by name.
async fn contract(stdout: tokio::process::ChildStdout) -> anyhow::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let mut lines = BufReader::new(stdout).lines();
    while values.len() < 3 {
        let line = lines.next_line().await?.context("meshd --dev ended")?;
        let (name, value) = line.split_once('=').with_context(|| format!("not NAME=VALUE: {line:?}"))?;
        values.insert(name.to_owned(), value.to_owned());
    }
    Ok(values)
}
