//! A real DNS server, with an address of its own: Debian's dnsmasq.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{process::Process, wait::until};

/// Where it listens.
const PORT: u16 = 5_353;
/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// It knows `hosts`, and names below `example` that it does not know there are not.
#[derive(Debug)]
pub struct Dnsmasq {
    address: Ipv4Addr,
    hosts: PathBuf,
    process: Process,
}

impl Dnsmasq {
    /// Starts one at `address`, with its log in `folder`; `more` are arguments of its.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(folder: &Path, address: Ipv4Addr, more: &[&str]) -> anyhow::Result<Self> {
        let hosts = folder.join("dnsmasq.hosts");
        std::fs::write(&hosts, "")?;
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
        command.args(["--log-facility=-", "--no-resolv", "--no-hosts", "--local=/example/", "--local-ttl=1"]);
        command.args([format!("--port={PORT}"), format!("--listen-address={address}")]);
        command.arg("--bind-interfaces").arg(format!("--addn-hosts={}", hosts.display())).args(more);
        let process = Process::spawn("dnsmasq", folder, &mut command)?;
        // Before, the signal by which it reads its hosts would end it.
        until("dnsmasq has read its hosts", PATIENCE, || async {
            let log = process.log();
            if log.contains("dnsmasq.hosts - 0 names") { Ok(()) } else { Err(log) }
        })
        .await?;
        Ok(Self { address, hosts, process })
    }

    /// `ADDRESS:PORT`.
    pub fn at(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    /// What it knows from now on.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn set(&self, hosts: &[(&str, Ipv4Addr)]) -> anyhow::Result<()> {
        let mut text = String::new();
        for (name, address) in hosts {
            writeln!(text, "{address} {name}")?;
        }
        std::fs::write(&self.hosts, text)?;
        self.process.signal(Signal::HUP);
        Ok(())
    }

    /// Stopped, it takes what comes and answers nothing.
    pub fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// As before.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }
}
