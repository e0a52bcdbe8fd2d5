//! systemd-resolved, where it runs: it is told to ask us for names of the mesh, and everybody else for all others
//! (resolved.conf(5), `Domains=~mesh`). Gone with a reboot.

use std::{fs, io::ErrorKind, net::SocketAddr, path::Path, process::Command};

use serde::Serialize;

use super::{CaptureError, facts::RESOLVED};
use crate::disk::DiskError;

const DROP_IN: &str = "/run/systemd/resolved.conf.d/mesh.conf";

/// A file that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropIn {
    /// Where.
    pub path: String,
    /// What stands there.
    pub text: String,
}

/// That names of the mesh are asked for at these addresses; nothing where there is none, or it does not run.
pub(super) fn drop_in(dns: &[SocketAddr]) -> Option<DropIn> {
    let told = !dns.is_empty() && Path::new(RESOLVED).exists();
    told.then(|| DropIn { path: DROP_IN.to_owned(), text: text(dns) })
}

/// It is told this, or nothing any more.
pub(super) fn tell(drop_in: Option<&DropIn>) -> Result<(), CaptureError> {
    let Some(DropIn { path, text }) = drop_in else { return forget() };
    let path = Path::new(path);
    if fs::read_to_string(path).is_ok_and(|told| told == *text) {
        return Ok(());
    }
    let folder = path.parent().expect("it stands in one");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map_err(|source| DiskError { path: path.to_owned(), source })?;
    restart()
}

/// It is told nothing any more.
pub(super) fn forget() -> Result<(), CaptureError> {
    match fs::remove_file(DROP_IN) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DiskError { path: DROP_IN.into(), source }.into()),
        Ok(()) => restart(),
    }
}

fn text(dns: &[SocketAddr]) -> String {
    let servers: Vec<String> = dns.iter().map(SocketAddr::to_string).collect();
    format!("# Made by `mesh-proxy capture apply`.\n[Resolve]\nDNS={}\nDomains=~mesh\n", servers.join(" "))
}

/// It reads its configuration when it starts.
fn restart() -> Result<(), CaptureError> {
    let program = || "systemctl try-restart systemd-resolved".to_owned();
    let output = Command::new("systemctl").args(["try-restart", "systemd-resolved.service"]).output();
    let output = output.map_err(|source| CaptureError::Io { what: program(), source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(CaptureError::Refused {
            program: program(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_mesh_are_asked_for() {
        let dns = ["127.0.0.1:15053", "[::1]:15053"].map(|text| text.parse().expect("an address"));
        let text = text(&dns);
        assert!(text.ends_with("[Resolve]\nDNS=127.0.0.1:15053 [::1]:15053\nDomains=~mesh\n"), "{text}");
    }
}
