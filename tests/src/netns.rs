//! Hosts of a network of their own: a network namespace for each, and one with the bridge between them, where packets
//! are dropped by `nft` and held up by `tc`. Needs root, iproute2 and nftables. All of it is gone when the [`Field`] is
//! dropped; what a killed test left behind is removed by the next one.

use std::{
    io::Write,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::loopback::Network;

/// What the names of all namespaces begin with.
const PREFIX: &str = "meshtest";
/// The host from which clients call: it takes part in no fault.
const CLIENTS: u8 = 0;
/// As many hosts as a field has room for: the address after theirs is the clients' host's.
const HOSTS_MAX: u8 = CLIENTS_ADDRESS - 1;
/// The last octet of the clients' host: it has no number among the members.
const CLIENTS_ADDRESS: u8 = 200;

/// A network with hosts 1 to `hosts`, and the clients' host.
#[derive(Debug)]
pub struct Field {
    name: String,
    hosts: u8,
}

/// What happens to packets from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The sender.
    pub from: u8,
    /// Whom they are for.
    pub to: u8,
    /// How many of a hundred are lost.
    pub percent: u8,
}

/// Runs `body` on the clients' host of a field, in a thread of its own.
///
/// # Panics
/// If the field cannot be laid, or `body` panics.
pub fn inside<T: Send + 'static>(hosts: u8, body: impl AsyncFnOnce(&Field) -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let field = Field::lay(hosts).expect("root, iproute2 and nftables are there");
        field.enter().expect("its clients' host is there");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(body(&field))
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

static FIELDS: AtomicU32 = AtomicU32::new(0);

impl Field {
    /// Lays a network with that many hosts.
    ///
    /// # Errors
    /// If this is not root, or `ip` or `nft` refuses.
    pub fn lay(hosts: u8) -> anyhow::Result<Self> {
        if hosts > HOSTS_MAX {
            bail!("{hosts} hosts, at most {HOSTS_MAX}");
        }
        sweep()?;
        let number = FIELDS.fetch_add(1, Ordering::Relaxed);
        let field = Self { name: format!("{PREFIX}-{}-{number}", std::process::id()), hosts };
        ip(&["netns", "add", &field.switch()])?;
        field.in_switch("link add br0 type bridge forward_delay 0 stp_state 0\nlink set br0 up\n")?;
        for host in CLIENTS..=hosts {
            field.add(host)?;
        }
        Ok(field)
    }

    fn add(&self, host: u8) -> anyhow::Result<()> {
        let space = self.space(host);
        ip(&["netns", "add", &space])?;
        self.in_switch(&format!(
            "link add p{host} type veth peer name eth0 netns {space}\nlink set p{host} master br0\nlink set p{host} up\n"
        ))?;
        let address = self.address(host);
        let own = format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n");
        batch(&["-n", &space], &own)
    }

    /// The addresses of its hosts.
    pub fn network(&self) -> Network {
        Network::of_field()
    }

    /// A host's address.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        self.network().address(if host == CLIENTS { CLIENTS_ADDRESS } else { host })
    }

    /// What starts a program on the host of number `{n}`.
    pub fn wrapper(&self) -> Vec<String> {
        ["ip", "netns", "exec", &format!("{}-h{{n}}", self.name)].map(str::to_owned).to_vec()
    }

    /// Runs `body` on a host, in a thread of its own, beside what the caller does.
    ///
    /// # Panics
    /// In that thread, if the host is not there.
    pub fn beside<T: Send + 'static>(
        &self,
        host: u8,
        body: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let space = self.space(host);
        std::thread::spawn(move || {
            enter(&space).expect("the host is there");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(body())
        })
    }

    /// Moves the calling thread, and what it starts from now on, to the clients' host.
    ///
    /// # Errors
    /// If this is not root.
    pub fn enter(&self) -> anyhow::Result<()> {
        enter(&self.space(CLIENTS))
    }

    /// From now on these packets are dropped, and no others.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub fn drop_packets(&self, dropped: &[Dropped]) -> anyhow::Result<()> {
        let mut rules = String::new();
        for Dropped { from, to, percent } in dropped {
            let some =
                if *percent >= 100 { String::new() } else { format!("numgen random mod 100 < {percent} ") };
            rules += &format!("    iifname \"p{from}\" oifname \"p{to}\" {some}drop\n");
        }
        let table = format!(
            "table bridge fault\ndelete table bridge fault\ntable bridge fault {{\n  chain forward {{\n    type filter hook forward priority 0;\n{rules}  }}\n}}\n"
        );
        fed("ip", &["netns", "exec", &self.switch(), "nft", "-f", "-"], &table)
    }

    /// From now on what a host receives passes a narrow link: packets wait, and some are lost when too many do.
    ///
    /// # Errors
    /// If `tc` refuses.
    pub fn narrow(&self, host: u8, kilobits: Option<u32>) -> anyhow::Result<()> {
        let port = format!("p{host}");
        let in_switch = ["netns", "exec", &self.switch(), "tc", "qdisc"].map(str::to_owned);
        let rate = kilobits.map(|kilobits| format!("{kilobits}kbit"));
        let action: Vec<&str> = match &rate {
            Some(rate) => {
                vec!["replace", "dev", &port, "root", "tbf", "rate", rate, "burst", "8kb", "latency", "400ms"]
            }
            None => vec!["delete", "dev", &port, "root"],
        };
        ip(&in_switch.iter().map(String::as_str).chain(action).collect::<Vec<_>>())
    }

    fn in_switch(&self, commands: &str) -> anyhow::Result<()> {
        batch(&["-n", &self.switch()], commands)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// The network namespace of a host.
    pub fn space_of(&self, host: u8) -> String {
        self.space(host)
    }

    fn space(&self, host: u8) -> String {
        format!("{}-h{host}", self.name)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // With a namespace go its ends of cables, and so the others.
        let spaces = (CLIENTS..=self.hosts).map(|host| self.space(host)).chain([self.switch()]);
        for space in spaces {
            let _ = ip(&["netns", "delete", &space]);
        }
    }
}

fn enter(space: &str) -> anyhow::Result<()> {
    let space = std::fs::File::open(format!("/run/netns/{space}"))?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Removes the namespaces of tests that are no more.
fn sweep() -> anyhow::Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(&format!("{PREFIX}-")).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            // Another test may sweep at the same time.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    fed("ip", arguments, "")
}

fn batch(place: &[&str], commands: &str) -> anyhow::Result<()> {
    fed("ip", &[place, &["-batch", "-"]].concat(), commands)
}

/// Runs a program with this on its standard input.
fn fed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    child.stdin.take().context("a pipe was asked for")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
        time::Duration,
    };

    use super::*;

    /// Two fields beside each other, of which neither hears the other; faults that come and go; nothing left behind.
    #[test]
    fn packets_pass_as_they_are_told() {
        let (field, other) = (Field::lay(2).expect("root"), Field::lay(1).expect("root"));
        let name = field.name.clone();
        std::thread::spawn(move || {
            field.enter().expect("it is there");
            let udp = UdpSocket::bind((field.address(CLIENTS), 0)).expect("its own address");
            udp.set_read_timeout(Some(Duration::from_millis(300))).expect("a time");
            let mut serve = Command::new("ip");
            serve.args([
                "netns",
                "exec",
                &field.space(1),
                "python3",
                "-c",
                ECHO,
                &field.address(1).to_string(),
            ]);
            let mut echo = serve.spawn().expect("it starts");
            let hears =
                || udp.send_to(b"x", (field.address(1), 7)).is_ok() && udp.recv_from(&mut [0; 8]).is_ok();
            assert!((0..100).any(|_| hears()), "it answers once it is up");
            let cut = Dropped { from: 1, to: CLIENTS, percent: 100 };
            field.drop_packets(&[cut]).expect("a rule");
            assert!(!hears(), "its answers are dropped");
            field.drop_packets(&[]).expect("no rules");
            assert!((0..10).any(|_| hears()));
            field.narrow(1, Some(64)).expect("a narrow link");
            field.narrow(1, None).expect("a link");
            assert!((0..10).any(|_| hears()));
            echo.kill().and_then(|()| echo.wait()).expect("it ends");
        })
        .join()
        .expect("no panic");
        let left = std::fs::read_dir("/run/netns").expect("a folder").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert!(!left.iter().any(|space| space.starts_with(&name)), "{left:?}");
        drop(other);
        // The thread of this test never went anywhere.
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address: SocketAddr = listener.local_addr().expect("an address");
        TcpStream::connect(address).expect("loopback");
    }

    const ECHO: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7))
while True:
    data, who = s.recvfrom(8)
    s.sendto(data, who)
";
}
