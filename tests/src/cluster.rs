//! A control plane of real `meshd` processes, brought up by the commands that an operator would type.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use model::client::{Client, ClientError, Settings};
use serde_json::Value;

use crate::{
    binaries,
    loopback::Network,
    process::{Process, run},
    scratch::Said,
    wait::until,
};

/// How long a member may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A control plane.
#[derive(Debug)]
pub struct Cluster {
    /// The addresses of this mesh.
    pub network: Network,
    /// The members, in the order in which they came.
    pub members: Vec<Member>,
    /// The administrator's token.
    pub token: String,
    /// The file with the root certificate.
    pub cacert: PathBuf,
    /// The `meshd` that new members are started with.
    pub program: PathBuf,
    /// What stands in their configuration beside what all have.
    pub settings: String,
    folder: PathBuf,
    wrapper: Vec<String>,
    announce: fn(&str),
}

/// One `meshd`.
#[derive(Debug)]
pub struct Member {
    /// `cp1`, `cp2`, …
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its configuration.
    pub config: PathBuf,
    /// `None` while it is stopped.
    pub process: Option<Process>,
    /// A program and its arguments that start it; itself alone where this is empty.
    pub wrapper: Vec<String>,
    /// The `meshd` that it is started with.
    pub program: PathBuf,
    /// What it finds in its environment.
    pub environment: Vec<(String, String)>,
    folder: PathBuf,
}

impl Cluster {
    /// Starts `size` members in `folder`; each command that an operator would type is given to `announce`.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn start(folder: &Path, size: u8, announce: fn(&str)) -> anyhow::Result<Self> {
        Self::start_under(folder, size, Vec::new(), announce).await
    }

    /// The same, with each member started by `wrapper`, a program and its arguments.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn start_under(
        folder: &Path,
        size: u8,
        wrapper: Vec<String>,
        announce: fn(&str),
    ) -> anyhow::Result<Self> {
        Self::start_on(Network::claim(), folder, size, wrapper, announce).await
    }

    /// The same, on a network that was made before; `{n}` in the wrapper is the member's number.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn start_on(
        network: Network,
        folder: &Path,
        size: u8,
        wrapper: Vec<String>,
        announce: fn(&str),
    ) -> anyhow::Result<Self> {
        let mut cluster = Self::nobody(network, folder, announce)?;
        cluster.wrapper = wrapper;
        cluster.grown_to(size).await
    }

    /// The same with another `meshd`, or with further settings.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn start_with(
        folder: &Path,
        size: u8,
        program: PathBuf,
        settings: String,
        announce: fn(&str),
    ) -> anyhow::Result<Self> {
        let mut cluster = Self::nobody(Network::claim(), folder, announce)?;
        (cluster.program, cluster.settings) = (program, settings);
        cluster.grown_to(size).await
    }

    fn nobody(network: Network, folder: &Path, announce: fn(&str)) -> anyhow::Result<Self> {
        let folder = folder.to_path_buf();
        std::fs::write(folder.join("seal.key"), "a key for loopback and nothing else: 0123456789abcdef\n")?;
        restrict(&folder.join("seal.key"))?;
        let cacert = folder.join("ca.pem");
        let (members, token, wrapper) = (Vec::new(), String::new(), Vec::new());
        let (program, settings) = (binaries::path("meshd"), String::new());
        Ok(Self { network, members, token, cacert, program, settings, folder, wrapper, announce })
    }

    async fn grown_to(self, size: u8) -> anyhow::Result<Self> {
        let mut cluster = self;
        cluster.first().await?;
        for n in 2..=size {
            cluster.join(n).await?;
        }
        cluster.wait_for_voters(usize::from(size)).await?;
        Ok(cluster)
    }

    /// A client of the `index`th member.
    ///
    /// # Errors
    /// If the root certificate cannot be read.
    pub fn client(&self, index: usize) -> anyhow::Result<Client> {
        let roots = std::fs::read_to_string(&self.cacert)?;
        let token = Some(self.token.clone());
        Ok(Client::new(Settings { address: self.members[index].url(), token, roots: Some(roots) })?)
    }

    /// Runs `meshctl` against the first member.
    ///
    /// # Errors
    /// If it fails.
    pub async fn meshctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        (self.announce)(&format!("meshctl {}", arguments.join(" ")));
        let mut command = tokio::process::Command::new(binaries::path("meshctl"));
        command
            .args(arguments)
            .env("MESH_ADDR", self.members[0].url())
            .env("MESH_TOKEN", &self.token)
            .env("MESH_CACERT", &self.cacert);
        run(&mut command).await
    }

    /// Runs `meshctl` against the first member; what it said, also where it failed.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn said(&self, arguments: &[&str]) -> Said {
        self.said_at(0, arguments).await
    }

    /// Runs `meshctl` against the `index`th member; what it said, also where it failed.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn said_at(&self, index: usize, arguments: &[&str]) -> Said {
        (self.announce)(&format!("meshctl {}", arguments.join(" ")));
        let mut command = tokio::process::Command::new(binaries::path("meshctl"));
        command
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .env("MESH_ADDR", self.members[index].url())
            .env("MESH_TOKEN", &self.token)
            .env("MESH_CACERT", &self.cacert);
        command.output().await.expect("meshctl starts").into()
    }

    /// The index of the member that leads, as the running members see it.
    ///
    /// # Errors
    /// If there is no leader in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        until("a leader", READY_LIMIT, || self.ask_for_leader()).await
    }

    async fn ask_for_leader(&self) -> Result<usize, String> {
        let mut last = "no member runs".to_owned();
        for (index, _) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some()) {
            let client = self.client(index).map_err(|error| error.to_string())?;
            match client.json::<Value>(reqwest::Method::GET, "/v1/cluster", None).await {
                Ok(cluster) => match self.leader_in(&cluster) {
                    Some(leader) if self.members[leader].process.is_some() => return Ok(leader),
                    _ => last = format!("{cluster}"),
                },
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn leader_in(&self, cluster: &Value) -> Option<usize> {
        let leader = cluster["members"].as_array()?.iter().find(|member| member["leader"] == true)?;
        self.members.iter().position(|member| member.url().ends_with(leader["api"].as_str().unwrap_or("?")))
    }

    async fn first(&mut self) -> anyhow::Result<()> {
        let member = self.configure(1)?;
        (self.announce)(&format!("meshd init --config {}", member.config.display()));
        let printed = run(tokio::process::Command::new(&member.program)
            .arg("init")
            .arg("--config")
            .arg(&member.config))
        .await?;
        let token = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix("export MESH_TOKEN="))
            .context("init printed no admin token")?;
        self.token = token.to_owned();
        self.members.push(member);
        self.run(0).await?;
        let url = self.members[0].url();
        let bundle = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .build()?
            .get(format!("{url}/v1/ca/bundle"));
        let bundle: Value = serde_json::from_slice(&bundle.send().await?.error_for_status()?.bytes().await?)?;
        std::fs::write(&self.cacert, bundle["roots"][0].as_str().context("the bundle has no root")?)?;
        Ok(())
    }

    /// Lets one more member in, with its own token, and starts it.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn join(&mut self, n: u8) -> anyhow::Result<()> {
        let member = self.admit(n).await?;
        self.members.push(member);
        self.run(self.members.len() - 1).await
    }

    /// Lets one more member in, with its own token, and does not start it.
    ///
    /// # Errors
    /// If it is not let in.
    pub async fn admit(&self, n: u8) -> anyhow::Result<Member> {
        let name = format!("cp{n}");
        let token =
            self.meshctl(&["token", "join", &format!("server-{name}"), "--server", "--node", &name]).await?;
        let member = self.configure(n)?;
        let first = self.members[0].url();
        (self.announce)(&format!("meshd join {first} --token mesh1.… --config {}", member.config.display()));
        let mut command = tokio::process::Command::new(&member.program);
        run(command.args(["join", &first, "--token", token.trim(), "--config"]).arg(&member.config)).await?;
        Ok(member)
    }

    /// The folder and the configuration of the `n`th member.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn configure(&self, n: u8) -> anyhow::Result<Member> {
        let program = self.program.clone();
        let mut member = Member::configure(&self.folder, n, self.network, program, &self.settings)?;
        member.wrapper = numbered(&self.wrapper, n);
        Ok(member)
    }

    /// Starts the `index`th member (again) and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn run(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        (self.announce)(&format!("meshd run --config {}", member.config.display()));
        member.spawn()?;
        self.ready(index, READY_LIMIT).await
    }

    /// Waits until the `index`th member is ready.
    ///
    /// # Errors
    /// If it is not in time; the error has its log.
    pub async fn ready(&self, index: usize, within: Duration) -> anyhow::Result<()> {
        let member = &self.members[index];
        let url = format!("{}/readyz", member.url());
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build()?;
        let what = format!("{} is ready", member.name);
        let ready = until(&what, within, || async {
            http.get(&url)
                .send()
                .await
                .map_err(|error| format!("{error:?}"))?
                .error_for_status()
                .map_err(|error| error.to_string())
        });
        match ready.await {
            Ok(_) => Ok(()),
            Err(error) => anyhow::bail!("{error}\n{}", member.log()),
        }
    }

    /// Waits until so many members vote.
    ///
    /// # Errors
    /// If they do not in time.
    pub async fn wait_for_voters(&self, count: usize) -> anyhow::Result<()> {
        let client = self.client(0)?;
        until("all members vote", READY_LIMIT, || async {
            let cluster: Value = client
                .json(reqwest::Method::GET, "/v1/cluster", None)
                .await
                .map_err(|error: ClientError| error.to_string())?;
            let voters = cluster["members"]
                .as_array()
                .map_or(0, |members| members.iter().filter(|member| member["role"] == "voter").count());
            if voters == count { Ok(()) } else { Err(format!("{voters} of {count}: {cluster}")) }
        })
        .await
    }
}

impl Member {
    fn configure(
        folder: &Path,
        n: u8,
        network: Network,
        program: PathBuf,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let (name, address) = (format!("cp{n}"), network.address(n));
        let folder = folder.join(&name);
        std::fs::create_dir_all(&folder)?;
        let (data, seal) = (
            folder.join("data"),
            folder.parent().context("a member has the mesh's folder above it")?.join("seal.key"),
        );
        let config = folder.join("meshd.toml");
        let text = format!(
            "node = \"{name}\"\ndata_dir = {data:?}\n\n[listen]\napi = \"{address}:8443\"\nraft = \"{address}:8444\"\nmetrics = \"{address}:8480\"\n\n\
             [advertise]\napi = \"{address}:8443\"\nraft = \"{address}:8444\"\n\n[seal]\nkind = \"keyfile\"\npath = {seal:?}\n{settings}"
        );
        std::fs::write(&config, text)?;
        let (wrapper, environment) = (Vec::new(), Vec::new());
        Ok(Self { name, address, config, process: None, wrapper, program, environment, folder })
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("https://{}:8443", self.address)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Starts it, without waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let words: Vec<_> = self.wrapper.iter().map(PathBuf::from).chain([self.program.clone()]).collect();
        let mut command = Command::new(&words[0]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(&words[1..]).arg("run").arg("--config").arg(&self.config);
        self.process = Some(Process::spawn(&self.name, &self.folder, &mut command)?);
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

fn numbered(wrapper: &[String], n: u8) -> Vec<String> {
    wrapper.iter().map(|word| word.replace("{n}", &n.to_string())).collect()
}

fn restrict(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
}
