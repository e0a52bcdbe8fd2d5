//! The files of `services.d`, read and read again: what this host runs, and whom its services call. A file that cannot
//! be used keeps what it said before, and spoils no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use model::{
    name::{Name, ServiceName},
    resource::{Port, Protocol},
};
use traffic::compile::LocalApp;

use crate::{
    caller::Table,
    disk,
    outbound::Entry,
    settings::{Check, ServiceFile, parse_service},
};

mod followed;

pub use followed::{Followed, LOOK_INTERVAL, QUIET, QUIET_MAX};

/// Files that are read; a host with more services than this has other troubles.
pub const SERVICE_FILES_MAX: usize = 512;

/// What this host runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    files: BTreeMap<PathBuf, ServiceFile>,
    problems: Vec<String>,
}

/// An application of this host that answers for a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The Endpoint's name.
    pub name: Name,
    /// The service.
    pub service: ServiceName,
    /// What callers dial.
    pub port: Port,
    /// Where it listens on this host.
    pub target: Port,
    /// What it speaks, by its file.
    pub protocol: Protocol,
    /// For subsets and selectors.
    pub labels: model::object::Labels,
    /// How its health is seen.
    pub check: Option<Check>,
}

impl Services {
    /// Reads the folder. `before` is what was read before, `uid` knows the users of this host.
    ///
    /// # Errors
    /// If the folder cannot be read; one that is not there holds nothing.
    pub fn read(folder: &Path, before: &Self, uid: impl Fn(&str) -> Result<u32, String>) -> io::Result<Self> {
        let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
        let mut paths = toml_files(folder)?;
        if paths.len() > SERVICE_FILES_MAX {
            problems.push(format!("{}: only the first {SERVICE_FILES_MAX} files are read", folder.display()));
            paths.truncate(SERVICE_FILES_MAX);
        }
        for path in paths {
            let text = disk::read(&path).map(Option::unwrap_or_default).map_err(|error| error.to_string());
            let parsed = text.and_then(|text| {
                parse_service(&text, &path.display().to_string(), &uid).map_err(|error| error.to_string())
            });
            match parsed {
                Ok(file) => drop(files.insert(path, file)),
                Err(problem) => {
                    problems.push(problem);
                    files.extend(before.files.get(&path).map(|file| (path, file.clone())));
                }
            }
        }
        Ok(Self { files, problems })
    }

    /// What could not be used, each with its file, line and key.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What the files say.
    pub fn files(&self) -> impl Iterator<Item = &ServiceFile> {
        self.files.values()
    }

    /// The services that need an identity: those that run here, and those in whose name something here calls.
    pub fn names(&self) -> BTreeSet<ServiceName> {
        self.files().map(|file| file.service.clone()).collect()
    }

    /// The services that are called from here.
    pub fn upstreams(&self) -> BTreeSet<ServiceName> {
        self.files().flat_map(|file| &file.upstreams).map(|upstream| upstream.service.clone()).collect()
    }

    /// The explicit listeners.
    pub fn entries(&self) -> Vec<(Entry, SocketAddr)> {
        let of = |file: &ServiceFile| {
            let (source, upstreams) = (file.service.clone(), file.upstreams.clone());
            upstreams.into_iter().flat_map(move |upstream| {
                let (destination, port) = (upstream.service, upstream.port);
                let entry = Entry::Upstream { source: source.clone(), destination, port };
                upstream.listen.into_iter().map(move |listen| (entry.clone(), listen))
            })
        };
        self.files().flat_map(of).collect()
    }

    /// The labels of the services that call from here; where a service has several files, those of the first.
    pub fn callers(&self) -> BTreeMap<ServiceName, model::object::Labels> {
        let mut callers = BTreeMap::new();
        for file in self.files() {
            callers.entry(file.service.clone()).or_insert_with(|| file.labels.clone());
        }
        callers
    }

    /// The applications that answer.
    pub fn instances(&self, node: &Name) -> Vec<Instance> {
        let of = |file: &ServiceFile| {
            let (target, port) = (file.target_port?, file.service_port?);
            Some(Instance {
                name: endpoint_name(&file.service, node, target.value()),
                service: file.service.clone(),
                port,
                target,
                protocol: file.protocol,
                labels: file.labels.clone(),
                check: file.check.clone(),
            })
        };
        self.files().filter_map(of).collect()
    }

    /// Whose connections speak for which service; `default` is for who is bound to none, if there is a file of it.
    pub fn table(&self, default: Option<&ServiceName>) -> Table {
        let mut table = Table::default();
        for file in self.files() {
            table.bind(&file.service, &file.binding);
            if file.shared {
                table.share(&file.service);
            }
        }
        table.set_default(default.filter(|default| self.names().contains(default)).cloned());
        table
    }

    /// The services that call by listeners of their own, and for which nobody speaks.
    pub fn silent(&self, table: &Table) -> BTreeSet<ServiceName> {
        let calls = self.files().filter(|file| !file.upstreams.is_empty()).map(|file| &file.service);
        calls.filter(|service| table.enforces() && !table.has(service)).cloned().collect()
    }

    /// In whose name the host router calls where nothing is bound: as the settings say, else the only local service.
    pub fn router_identity(&self, set: Option<&ServiceName>) -> Option<ServiceName> {
        let names = self.names();
        match set {
            Some(set) => names.contains(set).then(|| set.clone()),
            None if names.len() == 1 => names.into_iter().next(),
            None => None,
        }
    }
}

impl Instance {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let port = u16::try_from(self.target.value()).expect("a port");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// The number that callers dial.
    pub fn number(&self) -> u16 {
        u16::try_from(self.port.value()).expect("a port")
    }

    /// As the data path sees it; `known` is what the registry says the port speaks, for files that do not say.
    pub fn app(&self, known: Option<Protocol>) -> LocalApp {
        let protocol = match self.protocol {
            Protocol::Auto => known.unwrap_or(Protocol::Auto),
            said => said,
        };
        LocalApp { service: self.service.clone(), port: self.number(), protocol, target: self.address() }
    }
}

/// Where the application of each endpoint listens.
pub fn targets(instances: &[Instance]) -> HashMap<Name, SocketAddr> {
    instances.iter().map(|instance| (instance.name.clone(), instance.address())).collect()
}

/// `orders-host-a-8080`; where that is no label any more, it is cut and told apart by a hash.
fn endpoint_name(service: &ServiceName, node: &Name, port: u64) -> Name {
    let whole = format!("{}-{node}-{port}", service.name);
    whole.parse().unwrap_or_else(|_| {
        // FNV-1a: the same in every version, so that a host that is upgraded does not get new endpoints.
        let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{}-{hash:016x}", whole[..40].trim_end_matches('-'))
            .parse()
            .expect("label characters, 57 of them")
    })
}

fn toml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).expect("written");
    }

    fn user(name: &str) -> Result<u32, String> {
        if name == "orders" { Ok(1_001) } else { Err(format!("no {name}")) }
    }

    #[test]
    fn who_speaks_for_whom_is_taken_from_the_files_and_an_unknown_user_spoils_only_his() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        write(path, "a.toml", "[service]\nname = \"a\"\nuser = \"orders\"\n");
        write(path, "b.toml", "[service]\nname = \"b\"\nuser = \"nobody\"\n");
        write(path, "c.toml", "[service]\nname = \"c\"\nshared = true\n");
        let services = Services::read(path, &Services::default(), user).expect("read");
        let problems = services.problems();
        assert_eq!((services.names().len(), problems.len()), (2, 1), "{problems:?}");
        assert!(problems[0].ends_with("b.toml:3: service.user: no nobody"), "{problems:?}");
        let [a, b, c] = ["a", "b", "c"].map(|name| format!("default/{name}").parse().expect("a name"));
        let table = services.table(Some(&c));
        assert_eq!(table.bindings().map(|(service, _)| service).collect::<Vec<_>>(), [&a]);
        assert!(table.enforces() && table.shared().contains(&c));
        assert_eq!(table.default_identity(), Some(&c));
        assert_eq!(services.table(Some(&b)).default_identity(), None, "it has no file");
    }

    #[test]
    fn a_file_that_goes_bad_keeps_what_it_said_and_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        write(path, "a.toml", "[service]\nname = \"a\"\nport = 1\n");
        write(path, "b.toml", "[service]\nname = \"b\"\nprot = 1\n");
        write(path, "c.txt", "nothing");
        let first = Services::read(path, &Services::default(), user).expect("read");
        let problems = first.problems();
        let names =
            |services: &Services| services.names().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((names(&first), problems.len()), (vec!["default/a".to_owned()], 1));
        assert!(problems[0].contains("b.toml:3: service.prot"), "{problems:?}");
        write(path, "a.toml", "broken");
        write(path, "b.toml", "[service]\nname = \"b\"\n");
        let second = Services::read(path, &first, user).expect("read");
        assert_eq!((names(&second).len(), second.problems().len()), (2, 1));
        std::fs::remove_file(path.join("a.toml")).expect("removed");
        let third = Services::read(path, &second, user).expect("read");
        assert_eq!((names(&third), third.problems().len()), (vec!["default/b".to_owned()], 0));
        let none = Services::read(&path.join("none"), &third, user).expect("an absent folder is empty");
        assert_eq!(none, Services::default());
    }

    #[test]
    fn endpoints_are_named_by_service_host_and_port_within_a_label() {
        let node: Name = "host-a".parse().expect("a name");
        let service: ServiceName = "default/orders".parse().expect("a name");
        assert_eq!(endpoint_name(&service, &node, 8_080).as_str(), "orders-host-a-8080");
        let (long, longer) = ("x".repeat(60), "x".repeat(63));
        let name =
            |service: &str| endpoint_name(&format!("default/{service}").parse().expect("a name"), &node, 1);
        assert_eq!(name(&long).as_str().len(), 57);
        assert_ne!(name(&long), name(&longer));
    }

    #[test]
    fn the_host_router_calls_as_the_only_service_or_as_the_settings_say() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "a.toml", "[service]\nname = \"a\"\n");
        let one = Services::read(folder.path(), &Services::default(), user).expect("read");
        let (a, c) = ("default/a".parse().expect("a name"), "default/c".parse().expect("a name"));
        assert_eq!((one.router_identity(None), one.router_identity(Some(&c))), (Some(a), None));
        write(folder.path(), "b.toml", "[service]\nname = \"b\"\n");
        let two = Services::read(folder.path(), &Services::default(), user).expect("read");
        assert_eq!(two.router_identity(None), None);
        let b = "default/b".parse().expect("a name");
        assert_eq!(two.router_identity(Some(&b)), Some(b));
    }
}
