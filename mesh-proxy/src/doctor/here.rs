//! What stands on this host.

use std::{fs, io::ErrorKind, net::SocketAddr, path::Path};

use tokio::net::{TcpListener, TcpStream};

use super::finding::{self, Finding};
use crate::{
    caller::{Caller, Callers, cgroup_root},
    capture::{self, CaptureError},
    services::Services,
    settings::Settings,
};

pub(super) fn services(settings: &Settings, read: &std::io::Result<Services>) -> Vec<Finding> {
    let folder = settings.services_dir.display();
    let services = match read {
        Ok(services) => services,
        Err(error) => {
            let remedy = "let the proxy's user read it";
            return vec![Finding::wrong("services", format!("{folder}: {error}"), remedy)];
        }
    };
    let remedy = "mend that line; until then what the file said before holds, or nothing";
    let wrong = services.problems().iter().map(|problem| Finding::wrong("services", problem, remedy));
    let count = services.names().len();
    wrong.chain([Finding::fine("services", format!("{count} in {folder}"))]).collect()
}

/// Whether each port can be had, or is the running proxy's.
pub(super) async fn ports(settings: &Settings) -> Vec<Finding> {
    let listen = &settings.listen;
    let mut own: Vec<SocketAddr> = listen.inbound.0.clone();
    for more in [&listen.inbound_plain, &listen.outbound, &listen.host_router, &listen.dns, &listen.admin] {
        own.extend(&more.0);
    }
    let runs = runs(settings).await;
    own.into_iter().map(|address| port(address, runs)).collect()
}

/// Whether a proxy answers where this one's admin listener would.
pub async fn runs(settings: &Settings) -> bool {
    for address in &settings.listen.admin.0 {
        let answer = reqwest::Client::builder().no_proxy().build().expect("it has no settings");
        let answer = answer.get(format!("http://{address}/healthz")).send().await;
        if answer.is_ok_and(|answer| answer.headers().contains_key("content-type")) {
            return true;
        }
    }
    false
}

fn port(address: SocketAddr, runs: bool) -> Finding {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Finding::fine("port", format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && runs => {
            Finding::fine("port", format!("{address} is in use, and the proxy runs"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let remedy = format!(
                "end who has it (ss -ltnp 'sport = :{}'), or set another in [listen]",
                address.port()
            );
            Finding::wrong("port", format!("{address} is in use, and no proxy runs"), remedy)
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let remedy = "set an address of this host in [listen], or bring its link up first";
            Finding::wrong("port", format!("{address} is no address of this host"), remedy)
        }
        Err(error) => Finding::skipped("port", format!("{address}: {error}")),
    }
}

/// The links that are up, but for the host's own.
pub(super) fn links() -> Vec<Finding> {
    let word = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let (path, name) = (entry.path(), entry.file_name().into_string().ok()?);
        let up = word(&path.join("operstate")) == "up" && name != "lo";
        let bytes = word(&path.join("mtu")).parse().ok().filter(|_| up)?;
        Some(finding::mtu(&name, bytes))
    };
    let mut links: Vec<_> = entries.filter_map(link).collect();
    links.sort_by(|one, other| one.said.cmp(&other.said));
    if links.is_empty() { vec![Finding::skipped("mtu", "no link is up")] } else { links }
}

pub(super) fn conntrack() -> Finding {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?.trim().parse().ok()
    };
    match (number("count"), number("max")) {
        (Some(count), Some(limit)) => finding::conntrack(count, limit),
        _ => Finding::skipped("conntrack", "the kernel follows no connections here"),
    }
}

/// Whether somebody is asked for names of the mesh who can tell them.
pub(super) fn resolver(settings: &Settings) -> Finding {
    if settings.listen.dns.0.is_empty() {
        return Finding::skipped("resolver", "listen.dns is off: names of the mesh are not told here");
    }
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    match text.lines().any(|line| line.trim_start().starts_with("nameserver")) {
        true => Finding::fine("resolver", "/etc/resolv.conf names a server"),
        false => {
            let remedy =
                "name one in /etc/resolv.conf: without it no look-up is made that could be turned aside";
            Finding::wrong("resolver", "/etc/resolv.conf names no server", remedy)
        }
    }
}

/// Whether the kernel says whose a connection is: asked about one of our own.
pub(super) async fn callers() -> Finding {
    let remedy = "the kernel has to have inet_diag and tcp_diag (modprobe tcp_diag), and the unit has to let AF_NETLINK through: without it every call is refused where a file of services.d binds its service";
    match own_call().await {
        Err(error) => Finding::skipped("kernel", format!("no connection to look at: {error}")),
        Ok(Caller::Unknown(why)) => Finding::wrong("kernel", why.to_string(), remedy),
        Ok(Caller::Known(owner)) if owner.uid != rustix::process::geteuid().as_raw() => {
            Finding::wrong("kernel", format!("of a connection of our own it says: {owner}"), remedy)
        }
        Ok(Caller::Known(owner)) if owner.cgroup.is_none() => {
            let remedy = "unit and cgroup in services.d need Linux 5.8; bind by user instead";
            Finding::doubtful("kernel", "of a connection it says the user, and no cgroup", remedy)
        }
        Ok(Caller::Known(_)) => Finding::fine("kernel", "it says whose a connection is"),
    }
}

async fn own_call() -> std::io::Result<Caller> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let _call = TcpStream::connect(address).await?;
    let (stream, peer) = listener.accept().await?;
    Ok(Callers::default().of(&stream, peer, address))
}

pub(super) fn cgroups(services: &Services) -> Finding {
    let asks = services.table(None).asks_for_cgroups();
    match cgroup_root() {
        Some(root) => Finding::fine("cgroups", format!("version 2 at {}", root.display())),
        None if asks => {
            let remedy = "mount cgroup2, or bind by user: unit and cgroup in services.d fit no process here";
            Finding::wrong("cgroups", "none of version 2", remedy)
        }
        None => Finding::skipped("cgroups", "none of version 2, and nothing here asks for them"),
    }
}

/// Whether the rules are loaded that the settings ask for.
pub(super) fn rules(settings: &Settings) -> Finding {
    let listen = &settings.listen;
    let outbound = !listen.outbound.0.is_empty() || !listen.dns.0.is_empty();
    let remedy = "mesh-proxy capture apply --confirm 60s, as root";
    match capture::is_loaded() {
        Ok(true) => Finding::fine("capture", "the rules are loaded"),
        Ok(false) if outbound => {
            Finding::wrong("capture", "no rules are loaded: nothing is captured", remedy)
        }
        Ok(false) if !listen.inbound_plain.0.is_empty() => {
            Finding::doubtful("capture", "no rules of ours are loaded for listen.inbound_plain", remedy)
        }
        Ok(false) => Finding::skipped("capture", "nothing is to be captured"),
        Err(CaptureError::Missing { program, package }) if outbound => Finding::wrong(
            "capture",
            format!("{program} is missing"),
            format!("install the package {package}"),
        ),
        Err(error) => Finding::skipped("capture", format!("it cannot be seen (as root it can): {error}")),
    }
}
