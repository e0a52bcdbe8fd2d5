//! A real Consul agent, with an address of its own. Debian's last release has it; `cargo xtask install` fetches it from there.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::{binaries, process::Process, scratch::Said, wait::until};

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who may do everything at an agent with access control.
const MANAGER: &str = "11111111-2222-3333-4444-555555555555";
/// Who may read services and nodes there.
pub const READER: &str = "22222222-2222-3333-4444-555555555555";

/// An agent that is its own server, without a disk: what it knows ends with it.
#[derive(Debug)]
pub struct Consul {
    address: Ipv4Addr,
    folder: PathBuf,
    process: Option<Process>,
    /// The certificate that its own comes from, where it has one; it asks for tokens then, too.
    ca: Option<PathBuf>,
}

impl Consul {
    /// Starts one at `address`, with its log in `folder`.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(folder: &Path, address: Ipv4Addr) -> anyhow::Result<Self> {
        let mut consul = Self { address, folder: folder.to_owned(), process: None, ca: None };
        consul.run().await?;
        Ok(consul)
    }

    /// The same with access control, where [`READER`] may read, and with TLS, by a certificate of an authority of its own.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_closed(folder: &Path, address: Ipv4Addr) -> anyhow::Result<Self> {
        let ca = papers(folder, address)?;
        let mut consul = Self { address, folder: folder.to_owned(), process: None, ca: Some(ca) };
        consul.run().await?;
        let rules = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";
        // Access control is up some time after there is a leader.
        let policy = json!({"Name": "reader", "Rules": rules});
        until("Consul takes policies", PATIENCE, || consul.put("/v1/acl/policy", &policy)).await?;
        let reader = json!({"SecretID": READER, "Policies": [{"Name": "reader"}]});
        consul.put("/v1/acl/token", &reader).await?;
        Ok(consul)
    }

    /// The certificate that its own comes from.
    ///
    /// # Panics
    /// If it has none.
    pub fn ca(&self) -> &Path {
        self.ca.as_deref().expect("it was started with TLS")
    }

    /// Where its API is, over TLS.
    pub fn https(&self) -> String {
        format!("https://{}:8501", self.address)
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
        if self.ca.is_some() {
            command.arg("-config-file").arg(self.folder.join("consul.json"));
        }
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
        request.header("X-Consul-Token", MANAGER).json(body).send().await?.error_for_status()?;
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

/// The agent's configuration with its certificate; answers with the file of the authority's.
fn papers(folder: &Path, address: Ipv4Addr) -> anyhow::Result<PathBuf> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let root = authority.self_signed(&root_key)?.pem();
    let issuer = Issuer::new(authority, root_key);
    let certificate = CertificateParams::new(vec![address.to_string()])?.signed_by(&key, &issuer)?.pem();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    let config = json!({
        "acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": MANAGER, "agent": MANAGER}},
        "ports": {"https": 8_501},
        "cert_file": write("consul.pem", certificate)?, "key_file": write("consul.key", key.serialize_pem())?,
    });
    write("consul.json", config.to_string())?;
    Ok(write("consul-ca.pem", root)?)
}

fn program() -> PathBuf {
    binaries::target().join("consul/usr/bin/consul")
}
