//! A host: a real `mesh-proxy` with a loopback address of its own, joined by the commands that an operator would type.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    binaries,
    cluster::Cluster,
    process::{Process, run},
    wait::until,
};

/// How long a proxy may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A host of the mesh.
#[derive(Debug)]
pub struct Host {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// `None` while its proxy is stopped.
    pub proxy: Option<Process>,
    /// The `mesh-proxy` that is started.
    pub program: PathBuf,
    folder: PathBuf,
}

/// A service on a host, as its file in `services.d` says it.
#[derive(Debug, Clone)]
pub struct LocalService {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Where the application listens on 127.0.0.1.
    pub port: u16,
    /// What callers dial.
    pub service_port: u16,
    /// What it speaks.
    pub protocol: String,
    /// The label `version`, if any.
    pub version: Option<String>,
    /// The path of its HTTP check, if any; `tcp` for a TCP check, `grpc` and a service for one of gRPC.
    pub check: Option<String>,
    /// Explicit listeners: destination service, port there (`None`: its only one), own port here.
    pub upstreams: Vec<(String, u16)>,
}

impl LocalService {
    /// A service whose application listens on `port` of 127.0.0.1, without a check; callers dial `service_port`.
    pub fn new(name: &str, port: u16, service_port: u16, protocol: &str) -> Self {
        Self {
            name: name.to_owned(),
            port,
            service_port,
            protocol: protocol.to_owned(),
            version: None,
            check: None,
            upstreams: Vec::new(),
        }
    }

    /// With a TCP check.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.check = Some("tcp".to_owned());
        self
    }

    /// With a listener for another service at its host's own `port`.
    #[must_use]
    pub fn calling(mut self, service: &str, port: u16) -> Self {
        self.upstreams.push((service.to_owned(), port));
        self
    }

    /// The file's text, for a host of this address.
    fn toml(&self, address: Ipv4Addr) -> String {
        let Self { name, port, service_port, protocol, version, check, upstreams } = self;
        let mut text = format!(
            "[service]\nname = \"{name}\"\nport = {port}\nservice_port = {service_port}\nprotocol = \"{protocol}\"\n"
        );
        if let Some(version) = version {
            text += &format!("[service.labels]\nversion = \"{version}\"\n");
        }
        match check.as_deref() {
            Some("tcp") => text += "[service.check]\ntcp = true\ninterval = \"500ms\"\n",
            Some(check) if check.starts_with("grpc ") => {
                text +=
                    &format!("[service.check]\ngrpc = {:?}\ninterval = \"500ms\"\n", &check["grpc ".len()..])
            }
            Some(path) => text += &format!("[service.check]\nhttp = \"{path}\"\ninterval = \"500ms\"\n"),
            None => {}
        }
        for (service, port) in upstreams {
            text += &format!("[[upstream]]\nservice = \"{service}\"\nlisten = \"{address}:{port}\"\n");
        }
        text
    }
}

impl Host {
    /// Joins a host whose address is the network's `n`th, and starts its proxy.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(
        cluster: &Cluster,
        folder: &Path,
        name: &str,
        n: u8,
        services: &[LocalService],
        announce: fn(&str),
    ) -> anyhow::Result<Self> {
        let address = cluster.network.address(n);
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("services.d"))?;
        let host = Self {
            name: name.to_owned(),
            address,
            proxy: None,
            program: binaries::path("mesh-proxy"),
            folder,
        };
        let servers: Vec<_> = cluster.members.iter().map(|member| format!("{:?}", member.url())).collect();
        std::fs::write(host.config(), host.toml(&servers.join(", ")))?;
        for service in services {
            host.write_service(service)?;
        }
        host.join(cluster, services, announce).await?;
        let mut host = host;
        announce(&format!("mesh-proxy run --config {}", host.config().display()));
        host.run().await?;
        Ok(host)
    }

    /// Writes (again) the file of one service.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_service(&self, service: &LocalService) -> std::io::Result<()> {
        std::fs::write(
            self.folder.join(format!("services.d/{}.toml", service.name)),
            service.toml(self.address),
        )
    }

    async fn join(
        &self,
        cluster: &Cluster,
        services: &[LocalService],
        announce: fn(&str),
    ) -> anyhow::Result<()> {
        let token_name = format!("host-{}", self.name);
        let mut arguments = vec!["token", "join", &token_name, "--node", &self.name];
        let granted: Vec<_> = services.iter().map(|service| format!("default/{}", service.name)).collect();
        granted.iter().for_each(|service| arguments.extend(["--service", service.as_str()]));
        let token = cluster.meshctl(&arguments).await?;
        let server = cluster.members[0].url();
        announce(&format!("mesh-proxy join {server} --token mesh1.… --config {}", self.config().display()));
        let mut command = tokio::process::Command::new(&self.program);
        run(command.args(["join", &server, "--token", token.trim(), "--config"]).arg(self.config())).await?;
        Ok(())
    }

    /// Starts the proxy (again) and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        self.proxy = Some(Process::spawn(
            "mesh-proxy",
            &self.folder,
            command.arg("run").arg("--config").arg(self.config()),
        )?);
        let what = format!("{} is ready", self.name);
        match until(&what, READY_LIMIT, || self.admin("/healthz")).await {
            Ok(_) => Ok(()),
            Err(error) => anyhow::bail!("{error}\n{}", self.log()),
        }
    }

    /// The answer of the admin listener.
    ///
    /// # Errors
    /// If it does not answer with success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let response =
            reqwest::get(format!("http://{}:15000{path}", self.address)).await?.error_for_status()?;
        Ok(response.text().await?)
    }

    /// What the proxy wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("mesh-proxy.log")).unwrap_or_default()
    }

    /// What it wrote to its access log so far.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }

    /// Where its configuration, its data and its logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its configuration is.
    pub fn config(&self) -> PathBuf {
        self.folder.join("proxy.toml")
    }

    fn toml(&self, servers: &str) -> String {
        let Self { name, address, folder, .. } = self;
        let (data, services) = (folder.join("data"), folder.join("services.d"));
        format!(
            "node = \"{name}\"\nservers = [{servers}]\ndata_dir = {data:?}\nservices_dir = {services:?}\nadvertise = \"{address}\"\nthreads = 1\n\n\
             [listen]\ninbound = \"{address}:15008\"\ninbound_plain = \"{address}:15006\"\noutbound = []\nhost_router = \"{address}:15080\"\ndns = \"\"\nadmin = \"{address}:15000\"\n\n\
             [access_log]\noutput = {:?}\n",
            folder.join("access.log")
        )
    }
}
