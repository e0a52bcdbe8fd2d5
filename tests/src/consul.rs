//! A real Consul agent, with an address of its own. Debian's last release has it; `cargo xtask install` fetches it from there.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{binaries, process::Process, scratch::Said, wait::until};

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that is its own server, without a disk: what it knows ends with it.
#[derive(Debug)]
pub struct Consul {
    address: Ipv4Addr,
    folder: PathBuf,
    process: Option<Process>,
}

impl Consul {
    /// Starts one at `address`, with its log in `folder`.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(folder: &Path, address: Ipv4Addr) -> anyhow::Result<Self> {
        let mut consul = Self { address, folder: folder.to_owned(), process: None };
        consul.run().await?;
        Ok(consul)
    }

    /// Starts it (again).
    ///
    /// # Errors
    /// If it does not come up.
    ///
    /// # Panics
    /// If there is no Consul.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let program = program();
        assert!(program.exists(), "{} is missing: run `cargo xtask install`", program.display());
        let address = self.address.to_string();
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-node", "n1", "-bind", &address, "-client", &address]);
        command.args(["-dns-port=-1", "-grpc-port=-1", "-disable-host-node-id"]);
        self.process = Some(Process::spawn("consul", &self.folder, &mut command)?);
        until("Consul has a leader", PATIENCE, || async {
            let leader = reqwest::get(format!("{}/v1/status/leader", self.url())).await?.text().await?;
            anyhow::ensure!(leader.contains(&address), "the leader is {leader}");
            anyhow::Ok(())
        })
        .await
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://{}:8500", self.address)
    }

    /// Tells it something.
    ///
    /// # Errors
    /// If it does not take it.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = reqwest::Client::new().put(format!("{}{path}", self.url()));
        request.json(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Tells it something that it gives a name.
    ///
    /// # Errors
    /// If it does not take it.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = reqwest::Client::new().post(format!("{}{path}", self.url()));
        request.json(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// What it says.
    ///
    /// # Errors
    /// If it says nothing.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(reqwest::get(format!("{}{path}", self.url())).await?.error_for_status()?.json().await?)
    }

    /// Its own command, asking it.
    ///
    /// # Panics
    /// If it does not start.
    pub fn command(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(program());
        command.args(arguments).env("CONSUL_HTTP_ADDR", self.url());
        command.output().expect("consul starts").into()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

fn program() -> PathBuf {
    binaries::target().join("consul/usr/bin/consul")
}
