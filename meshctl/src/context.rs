//! Saved connections: a TOML file of the user's own, readable by nobody else.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use model::client::{Client, Settings};
use serde::{Deserialize, Serialize};

use crate::cli::Connection;

/// All saved connections.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// The one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Saved>,
}

/// One saved connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Address of the API.
    pub(crate) addr: String,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// File of root certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cacert: Option<PathBuf>,
}

/// The client that flags, environment and saved connection ask for.
pub(crate) fn connect(connection: &Connection) -> anyhow::Result<Client> {
    let saved = saved(connection)?.unwrap_or_default();
    let address = connection.addr.clone().unwrap_or(saved.addr);
    let cacert = connection.cacert.clone().or(saved.cacert);
    if address.is_empty() {
        bail!(
            "no control plane is named: set MESH_ADDR, give --addr, or save one with `meshctl context set NAME --addr …`"
        );
    }
    let read = |path: PathBuf| {
        fs::read_to_string(&path).with_context(|| format!("cannot read root certificates {}", path.display()))
    };
    let roots = cacert.map(read).transpose()?;
    let token = connection.token.clone().or(saved.token);
    Ok(Client::new(Settings { address, token, roots })?)
}

fn saved(connection: &Connection) -> anyhow::Result<Option<Saved>> {
    let contexts = Contexts::load()?;
    match connection.context.as_ref().or(contexts.current.as_ref()) {
        Some(name) => match contexts.contexts.get(name) {
            Some(saved) => Ok(Some(saved.clone())),
            None => bail!("no saved connection {name:?}; `meshctl context list` shows them"),
        },
        None => Ok(None),
    }
}

impl Contexts {
    /// Reads the file; none is as good as an empty one.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let path = path()?;
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = path()?;
        write_private(&path, &toml::to_string(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

fn path() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    Ok(folder.context("neither XDG_CONFIG_HOME nor HOME is set")?.join("mesh/contexts.toml"))
}
