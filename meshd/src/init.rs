//! `meshd init`: a new cluster of one member. Draws and seals the root, founds the log, and leaves behind a data folder
//! that `meshd run` starts from.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ca::{RecoveryPassphrase, Unlock};
use futures_util::{FutureExt, future::BoxFuture};
use model::{identity::TrustDomain, token::AccessToken};
use registry::{Addresses, Dial, MemberId, Registry, Stream};
use uuid::Uuid;

use crate::{
    authority::{AuthorityError, found::found},
    clock,
    home::{HomeError, authority_folder, vacant},
    run::{self, RunError},
};

/// The id of the member that founds a cluster.
pub const FOUNDER: MemberId = 1;
/// Nothing waits for this: the cluster is founded all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Where the root's certificate is put down for clients: `MESH_CACERT`.
pub const ROOT_FILE: &str = "ca.pem";

/// What a cluster begins with.
pub struct Founding<'a> {
    /// Where the first member keeps everything.
    pub data_dir: &'a Path,
    /// What all identities stand under.
    pub trust_domain: &'a TrustDomain,
    /// Where the first member is reached.
    pub addresses: Addresses,
    /// Seals the root.
    pub unlock: Unlock,
}

/// What is shown once.
pub struct Founded {
    /// Opens the root when all else is lost.
    pub recovery: RecoveryPassphrase,
    /// The first administrator's.
    pub admin: AccessToken,
    /// Where the root's certificate stands.
    pub root_file: PathBuf,
    /// The cluster's id.
    pub cluster: Uuid,
}

/// Why there is no new cluster.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Keys and certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The log.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Founds a cluster.
///
/// # Errors
/// If the data folder is in use or the disk fails.
pub async fn init(founding: Founding<'_>) -> Result<Founded, InitError> {
    let Founding { data_dir, trust_domain, addresses, unlock } = founding;
    vacant(data_dir)?;
    let folder = authority_folder(data_dir).map_err(AuthorityError::from)?;
    let (cluster, domain) = (Uuid::new_v4(), trust_domain.clone());
    // Sealing is slow on purpose.
    let drawn =
        tokio::task::spawn_blocking(move || found(&domain, cluster, FOUNDER, unlock, &folder, clock::unix()));
    let drawn = drawn.await.map_err(|_| AuthorityError::CutOff)??;
    let root_file = data_dir.join(ROOT_FILE);
    std::fs::write(&root_file, &drawn.root_pem).map_err(AuthorityError::from)?;
    let settings = registry::Settings::new(data_dir.to_owned(), FOUNDER, cluster, addresses);
    let (registry, _) = Registry::open(settings, Arc::new(Nobody)).await.map_err(RunError::from)?;
    run::found(&registry, drawn.genesis).await?;
    settled(&registry).await;
    registry.shutdown().await;
    Ok(Founded { recovery: drawn.recovery, admin: drawn.admin, root_file, cluster })
}

/// Waits until the log knows that its founder started: what is under way when a registry ends is complained about.
async fn settled(registry: &Registry) {
    let mut revisions = registry.revisions();
    let started = || registry.applied().member(FOUNDER).is_some_and(|member| member.boot > 0);
    let _ = tokio::time::timeout(SETTLE_TIMEOUT, revisions.wait_for(|_| started())).await;
}

/// A founder has nobody to dial.
struct Nobody;

impl Dial for Nobody {
    fn dial(&self, _: MemberId, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        async { Err(io::ErrorKind::NotConnected.into()) }.boxed()
    }
}
