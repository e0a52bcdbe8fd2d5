//! `meshd --dev`: one server on loopback, ready within a second, whose data goes with it unless a folder is named. The
//! same security as everywhere: TLS, tokens, a sealed root; only the key that seals it lies beside it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ca::{Ttl, Unlock, seal::UnlockKind};
use model::token::hex;
use registry::Addresses;
use tempfile::TempDir;

use crate::{
    authority::{AuthorityError, Folder, Opening},
    clock,
    home::{HomeError, authority_folder, occupant},
    init::{Founding, InitError, ROOT_FILE, init},
    load::Limits,
    run::{Plan, RunError, Server, Sockets, bind},
};

/// The administrator's token, kept for the next start in the same folder.
const TOKEN_FILE: &str = "token";
/// What seals the root.
const SEAL_FILE: &str = "seal.key";

/// A server for development.
pub struct Dev {
    /// The server.
    pub server: Server,
    /// `https://127.0.0.1:8443`.
    pub address: String,
    /// The administrator's token.
    pub token: String,
    /// The root's certificate.
    pub root_file: PathBuf,
    /// Where metrics are.
    pub metrics: SocketAddr,
    /// Removed when the server is gone.
    _place: Option<TempDir>,
}

/// Why there is no server for development.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its keys.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The new cluster.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The server.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The folder holds a server of another kind.
    #[error("{0} is the folder of a server that was not made with --dev")]
    NotDev(String),
}

/// Starts one, in `data_dir` or a temporary folder. Its state is kept where the folder is named.
///
/// # Errors
/// If the port or the folder cannot be used.
pub async fn start(listen: SocketAddr, data_dir: Option<&Path>) -> Result<Dev, DevError> {
    let place = match data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("meshd-dev-").tempdir().map_err(HomeError::from)?),
    };
    let data_dir = data_dir.or(place.as_ref().map(TempDir::path)).expect("one of both is there").to_owned();
    let api = bind(listen, "API").await?;
    let metrics = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "metrics").await?;
    let at = api.local_addr().map_err(HomeError::from)?;
    let metrics_at = metrics.local_addr().map_err(HomeError::from)?;
    let addresses = Addresses { api: at.to_string(), raft: at.to_string() };
    let folder = Folder::open(&data_dir).map_err(HomeError::from)?;
    let unlock = unlock(&folder)?;
    let token = token(&data_dir, &folder, &addresses).await?;
    let member = occupant(&data_dir)?;
    let opening = Opening {
        member: member.id,
        names: names(at),
        ttl: Ttl::default(),
        folder: authority_folder(&data_dir).map_err(HomeError::from)?,
        unlock: Some(unlock),
    };
    let mut registry = registry::Settings::new(data_dir.clone(), member.id, member.cluster, addresses);
    registry.program = Some(crate::run::program("dev".to_owned()));
    let sockets = Sockets { api, raft: None, metrics };
    let limits = Limits::default();
    let own_files = Vec::new();
    let plan = Plan { registry, opening, sockets, snapshots: None, limits, own_files };
    let server = Server::start(plan).await?;
    Ok(Dev {
        server,
        address: format!("https://{at}"),
        token,
        root_file: data_dir.join(ROOT_FILE),
        metrics: metrics_at,
        _place: place,
    })
}

/// The administrator's token: that of the cluster in the folder, which is founded if there is none.
async fn token(data_dir: &Path, folder: &Folder, addresses: &Addresses) -> Result<String, DevError> {
    if occupant(data_dir).is_ok() {
        let kept = folder.read(TOKEN_FILE).map_err(HomeError::from)?;
        return kept.ok_or_else(|| DevError::NotDev(data_dir.display().to_string()));
    }
    let trust_domain = &crate::settings::Settings::default().trust_domain;
    let (addresses, unlock) = (addresses.clone(), unlock(folder)?);
    let founded = init(Founding { data_dir, trust_domain, addresses, unlock }).await?;
    let token = founded.admin.to_string();
    folder.write(TOKEN_FILE, &token).map_err(HomeError::from)?;
    Ok(token)
}

fn unlock(folder: &Folder) -> Result<Unlock, DevError> {
    let kept = folder.read(SEAL_FILE).map_err(HomeError::from)?;
    let secret = kept.unwrap_or_else(|| hex(&clock::random::<32>()));
    folder.write(SEAL_FILE, &secret).map_err(HomeError::from)?;
    Ok(Unlock::new(UnlockKind::Keyfile, secret.as_bytes()).map_err(AuthorityError::from)?)
}

fn names(at: SocketAddr) -> Vec<String> {
    let mut names = crate::run::loopback_names();
    let own = at.ip().to_string();
    if !at.ip().is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    names
}
