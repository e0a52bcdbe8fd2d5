//! The pairs: ours, two hosts of a real mesh with everything on, and the peers', each with its configuration printed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use mesh_tests::{
    binaries,
    cluster::Cluster,
    host::{Host, LocalService},
    loopback::free_port,
    process::{Process, run as run_command},
    stranger::{Stranger, bundle},
    wait,
};

use super::{CORES, LOAD_CORE, grpc, handshakes::Door, pinned::on_core};
use crate::{
    certificates::Certificates,
    peers::{self, Ports, Side},
};

/// The answer of the application for large bodies, in bytes.
const BIG_BYTES: usize = 10 << 20;

/// A pair of proxies that carries traffic.
pub(super) struct Pair {
    pub(super) name: &'static str,
    pub(super) http: String,
    pub(super) tcp: String,
    /// `None` where the peer carries no gRPC between the two.
    pub(super) grpc: Option<String>,
    pub(super) pids: Vec<u32>,
    /// Where the called one takes mTLS.
    pub(super) door: Door,
    /// Held until the end.
    _processes: Vec<Process>,
}

/// What all pairs share.
pub(super) struct Bench {
    pub(super) folder: PathBuf,
    certificates: Certificates,
    app: u16,
    grpc: u16,
}

impl Bench {
    pub(super) fn new(folder: &Path) -> anyhow::Result<Self> {
        let certificates =
            Certificates::make(&folder.join("certificates"), &["a", "b"], &["b.mesh.test".to_owned()])?;
        std::fs::write(folder.join("big.bin"), vec![b'x'; BIG_BYTES])?;
        Ok(Self { folder: folder.to_path_buf(), certificates, app: free_port(), grpc: free_port() })
    }

    fn text(&self) -> String {
        self.folder.display().to_string()
    }

    fn ports(&self) -> Ports {
        Ports {
            a: free_port(),
            b: free_port(),
            a_tcp: free_port(),
            b_tcp: free_port(),
            a_grpc: free_port(),
            b_grpc: free_port(),
            app: self.app,
            grpc: self.grpc,
        }
    }

    /// Where the application answers without a proxy.
    pub(super) fn direct(&self) -> String {
        format!("127.0.0.1:{}", self.app)
    }

    /// The applications, on their core.
    pub(super) async fn start_applications(&self) -> anyhow::Result<Process> {
        let port = self.grpc;
        tokio::spawn(on_core(LOAD_CORE, move || grpc::application(port)));
        let config = self.folder.join("app.conf");
        std::fs::write(&config, peers::application(self.app, &self.text()))?;
        let mut command = pinned(CORES.1, "nginx");
        let process =
            Process::spawn("app", &self.folder, command.arg("-p").arg(&self.folder).arg("-c").arg(&config))?;
        listening(&self.direct()).await?;
        listening(&format!("127.0.0.1:{port}")).await?;
        Ok(process)
    }

    /// All of them, ours first.
    pub(super) async fn pairs(&self) -> anyhow::Result<Vec<Pair>> {
        let haproxy = |side, ports| (self.haproxy(side), peers::haproxy(side, ports, &self.certificates));
        let nginx =
            |side, ports| (self.nginx(side), peers::nginx(side, ports, &self.certificates, &self.text()));
        Ok(vec![
            self.ours().await?,
            self.envoy().await?,
            self.start("haproxy", haproxy).await?,
            // It speaks no HTTP/2 to what is behind it.
            Pair { grpc: None, ..self.start("nginx", nginx).await? },
        ])
    }

    async fn ours(&self) -> anyhow::Result<Pair> {
        self.ours_as(&self.folder, &binaries::path("mesh-proxy")).await
    }

    /// Our pair, run by `program` in `folder`: two hosts of a real mesh, joined, with everything on.
    pub(super) async fn ours_as(&self, folder: &Path, program: &Path) -> anyhow::Result<Pair> {
        std::fs::create_dir_all(folder)?;
        let cluster = Cluster::start(folder, 1, |_| ()).await?;
        let app = [
            LocalService::new("app", self.app, 80, "http"),
            LocalService::new("bytes", self.app, 81, "tcp"),
            LocalService::new("calls", self.grpc, 82, "grpc"),
        ];
        let mut b = Host::start(&cluster, folder, "host-b", 12, &app, |_| ()).await?;
        let upstreams = [("app", 9_000), ("bytes", 9_001), ("calls", 9_002)];
        let upstreams = upstreams.map(|(name, port)| (name.to_owned(), port)).to_vec();
        let load = LocalService { upstreams, ..LocalService::new("load", self.app, 80, "http") };
        let mut a = Host::start(&cluster, folder, "host-a", 11, &[load], |_| ()).await?;
        for host in [&mut a, &mut b].into_iter().filter(|host| host.program != program) {
            host.proxy = None;
            host.program = program.to_owned();
            host.run().await?;
        }
        println!(
            "mesh A:\n{}\nmesh B:\n{}",
            std::fs::read_to_string(a.config())?,
            std::fs::read_to_string(b.config())?
        );
        let [http, tcp, grpc] = [9_000, 9_001, 9_002].map(|port| format!("{}:{port}", a.address));
        let mut processes: Vec<_> = [a.proxy, b.proxy].into_iter().flatten().collect();
        let pids: Vec<_> = processes.iter().map(Process::id).collect();
        let caller = Stranger::join(&cluster, "host-c", &["default/load"]).await?;
        let papers = caller.certificate("default/load").await?;
        let trust = bundle(&cluster).await?;
        let door = Door::of_mesh(format!("{}:15008", b.address), &trust, &papers, pids[1])?;
        for pid in &pids {
            run_command(tokio::process::Command::new("taskset").args([
                "-a",
                "-c",
                "-p",
                CORES.0,
                &pid.to_string(),
            ]))
            .await?;
        }
        processes.extend(cluster.members.into_iter().filter_map(|member| member.process));
        answering(&http).await?;
        answering(&tcp).await?;
        Ok(Pair { name: "mesh", http, tcp, grpc: Some(grpc), pids, door, _processes: processes })
    }

    async fn envoy(&self) -> anyhow::Result<Pair> {
        let program = std::env::var("MESH_VENV")
            .map(PathBuf::from)
            .context("MESH_VENV names no folder: use `cargo xtask bench proxy`")?
            .join("bin/envoy");
        self.start("envoy", |side, ports| {
            let mut command = pinned(CORES.0, &program.display().to_string());
            let id = if side == Side::A { "71" } else { "72" };
            command
                .args(["--concurrency", "1", "--base-id", id, "-l", "error", "--disable-hot-restart", "-c"])
                .arg(self.config("envoy", side));
            (command, peers::envoy(side, ports, &self.certificates, &self.text()))
        })
        .await
    }

    fn config(&self, peer: &str, side: Side) -> PathBuf {
        // Envoy knows what a file holds by its ending.
        let ending = if peer == "envoy" { "json" } else { "conf" };
        self.folder.join(format!("{peer}-{}.{ending}", side.name()))
    }

    async fn start(
        &self,
        name: &'static str,
        make: impl Fn(Side, Ports) -> (Command, String),
    ) -> anyhow::Result<Pair> {
        let ports = self.ports();
        let mut processes = Vec::new();
        for side in [Side::B, Side::A] {
            let (mut command, config) = make(side, ports);
            println!("{name} {}:\n{config}", side.name().to_uppercase());
            std::fs::write(self.config(name, side), config)?;
            processes.push(Process::spawn(&format!("{name}-{}", side.name()), &self.folder, &mut command)?);
        }
        let [http, tcp, grpc] = [ports.a, ports.a_tcp, ports.a_grpc].map(|port| format!("127.0.0.1:{port}"));
        answering(&http).await.with_context(|| processes.iter().map(Process::log).collect::<String>())?;
        answering(&tcp).await?;
        let pids: Vec<_> = processes.iter().map(Process::id).collect();
        let door = Door::of_peer(ports.b, &self.certificates, pids[0])?;
        Ok(Pair { name, http, tcp, grpc: Some(grpc), pids, door, _processes: processes })
    }

    fn haproxy(&self, side: Side) -> Command {
        let mut command = pinned(CORES.0, "haproxy");
        command.args(["-db", "-f"]).arg(self.config("haproxy", side));
        command
    }

    fn nginx(&self, side: Side) -> Command {
        let mut command = pinned(CORES.0, "nginx");
        command.arg("-p").arg(&self.folder).arg("-c").arg(self.config("nginx", side));
        command
    }
}

fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

async fn listening(address: &str) -> anyhow::Result<()> {
    wait::until(&format!("{address} listens"), Duration::from_secs(10), || {
        tokio::net::TcpStream::connect(address)
    })
    .await
    .map(drop)
}

async fn answering(address: &str) -> anyhow::Result<()> {
    let url = format!("http://{address}/");
    wait::until(&format!("{url} answers"), Duration::from_secs(20), || async {
        reqwest::get(&url).await?.error_for_status()
    })
    .await
    .map(drop)
}
