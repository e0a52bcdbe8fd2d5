//! What the rules that stand were made from: root's own word, kept beside them. Rules that are refreshed by themselves
//! differ from it in nothing but ports of applications: neither settings that were changed since nor what the proxy says
//! can do more.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{CaptureError, Wanted, facts, ports::Ports, told};
use crate::{
    caller,
    disk::{self, DiskError},
    services::Services,
    settings::Settings,
};

/// Its file in `capture.run_dir`, which goes with the rules when the host is booted.
const FILE: &str = "capture-applied.json";

/// What the rules that stand were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    /// What they are for.
    pub(super) wanted: Wanted,
    /// Where the proxy tells of ports.
    data_dir: PathBuf,
    /// Where root does.
    services_dir: PathBuf,
}

impl Applied {
    /// What the settings say now.
    pub(super) fn by(settings: &Settings) -> Result<Self, CaptureError> {
        let wanted = facts::wanted(settings)?;
        let (data_dir, services_dir) = (settings.data_dir.clone(), settings.services_dir.clone());
        let applied = Self { wanted, data_dir, services_dir };
        // What the proxy says must not keep root from loading rules.
        applied.refreshed().or_else(|error| match error {
            CaptureError::Disk(DiskError { path, source }) => {
                tracing::warn!(path = %path.display(), %source, "nothing is known of modes: calls from outside are let alone");
                Ok(applied.clone())
            }
            error => Err(error),
        })
    }

    /// The same, with the ports as they are now. Those by which the host is administered become more, never fewer.
    pub(super) fn refreshed(&self) -> Result<Self, CaptureError> {
        let mut now = self.clone();
        let Some(inbound) = &mut now.wanted.inbound else { return Ok(now) };
        let told = told::read(&self.data_dir, self.wanted.uid)?.unwrap_or_default();
        let before = &inbound.permissive | &inbound.strict;
        let Ports { permissive, strict } = told.within(&named(&self.services_dir, before)?);
        (inbound.permissive, inbound.strict) = (permissive, strict);
        inbound.spared.append(&mut facts::administered());
        Ok(now)
    }

    pub(super) fn read(folder: &Path) -> Result<Option<Self>, CaptureError> {
        let text = disk::read(&folder.join(FILE))?;
        // One of another version refreshes nothing, until rules are applied again.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps it, or that there is nothing.
    pub(super) fn keep(applied: Option<&Self>, folder: &Path) -> Result<(), CaptureError> {
        let path = folder.join(FILE);
        let Some(applied) = applied else { return Ok(disk::remove(&path)?) };
        Ok(disk::write(&path, &serde_json::to_vec(applied).expect("numbers, texts and lists"))?)
    }
}

/// The ports of applications that the files of this host name; those of `before` too, where a file has gone bad: it keeps
/// what it said.
fn named(services_dir: &Path, before: BTreeSet<u16>) -> Result<BTreeSet<u16>, CaptureError> {
    let read = Services::read(services_dir, &Services::default(), caller::uid);
    let services =
        read.map_err(|source| CaptureError::Io { what: services_dir.display().to_string(), source })?;
    let ports = services.files().filter_map(|file| u16::try_from(file.target_port?.value()).ok());
    let kept = before.into_iter().filter(|_| !services.problems().is_empty());
    Ok(ports.chain(kept).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Inbound;
    use super::*;

    fn applied(folder: &Path) -> Applied {
        let inbound = Inbound { spared: [4_022].into(), ..Inbound::default() };
        let uid = rustix::process::getuid().as_raw();
        let wanted = Wanted { uid, inbound: Some(inbound), ..Wanted::default() };
        Applied { wanted, data_dir: folder.to_owned(), services_dir: folder.to_owned() }
    }

    #[test]
    fn what_is_refreshed_are_ports_that_files_name_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        file("orders.toml", "[service]\nname = \"orders\"\nport = 8081\n");
        file("ports.json", "{\"permissive\":[8081,443],\"strict\":[5432]}");
        let before = applied(folder.path());
        let now = before.refreshed().expect("refreshed");
        let inbound = now.wanted.inbound.clone().expect("as before");
        assert_eq!((inbound.permissive, inbound.strict), ([8_081].into(), [].into()));
        assert!(inbound.spared.is_superset(&[22, 4_022].into()), "{:?}", inbound.spared);
        let with = |inbound| Wanted { inbound, ..now.wanted.clone() };
        assert_eq!(with(None), Wanted { inbound: None, ..before.wanted });
        file("orders.toml", "broken");
        assert_eq!(now.refreshed().expect("refreshed"), now, "a file that goes bad keeps what it said");
        file("ports.json", "{\"permissive\":[8081");
        assert!(now.refreshed().is_err(), "what cannot be read changes nothing");
    }

    #[test]
    fn it_is_kept_and_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = applied(folder.path());
        assert_eq!(Applied::read(folder.path()).expect("read"), None);
        Applied::keep(Some(&own), folder.path()).expect("kept");
        assert_eq!(Applied::read(folder.path()).expect("read"), Some(own));
        Applied::keep(None, folder.path()).expect("forgotten");
        assert_eq!(Applied::read(folder.path()).expect("read"), None);
    }
}
