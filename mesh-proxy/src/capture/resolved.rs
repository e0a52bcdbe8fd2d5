//! systemd-resolved, where it runs: it is told to ask us for names of the mesh, and everybody else for all others
//! (resolved.conf(5), `Domains=~mesh`). Gone with a reboot.

use std::{fs, io::ErrorKind, net::SocketAddr, path::Path, process::Command};

use super::{CaptureError, facts::RESOLVED};
use crate::disk::DiskError;

const DROP_IN: &str = "/run/systemd/resolved.conf.d/mesh.conf";

/// Names of the mesh are asked for at these addresses; nowhere, if there is none.
pub(super) fn tell(dns: &[SocketAddr]) -> Result<(), CaptureError> {
    if dns.is_empty() || !Path::new(RESOLVED).exists() {
        return forget();
    }
    let (path, text) = (Path::new(DROP_IN), drop_in(dns));
    if fs::read_to_string(path).is_ok_and(|told| told == text) {
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

fn drop_in(dns: &[SocketAddr]) -> String {
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
        let text = drop_in(&dns);
        assert!(text.ends_with("[Resolve]\nDNS=127.0.0.1:15053 [::1]:15053\nDomains=~mesh\n"), "{text}");
    }
}
