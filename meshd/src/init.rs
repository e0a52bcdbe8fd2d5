//! `meshd init`: a new cluster of one member, from nothing or from a saved snapshot. Draws and seals the root, or opens
//! the saved one, founds the log, and leaves behind a data folder that `meshd run` starts from.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ca::{RecoveryPassphrase, SealError, Unlock};
use futures_util::{FutureExt, future::BoxFuture};
use model::{identity::TrustDomain, token::AccessToken};
use registry::{Addresses, Dial, MemberId, Registry, RestoreError, Stream, saved::Saved};
use uuid::Uuid;

use crate::{
    authority::{
        AuthorityError,
        found::found,
        succeed::{Successor, succeed},
    },
    backup::{self, BackupError},
    clock,
    home::{HomeError, authority_folder, vacant},
    peer::same_domain,
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
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] BackupError),
    /// The snapshot is of another mesh than the configuration names.
    #[error("{0}")]
    Domain(String),
    /// The snapshot's root does not open.
    #[error("{0}; name a file with the recovery passphrase: --recovery-passphrase-file FILE")]
    Sealed(SealError),
    /// The log did not take the snapshot.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// What a cluster begins with that goes on from a snapshot.
pub struct Resuming<'a> {
    /// The snapshot's file.
    pub file: &'a Path,
    /// Where the first member keeps everything.
    pub data_dir: &'a Path,
    /// As configured: it must be the snapshot's.
    pub trust_domain: &'a TrustDomain,
    /// Where the first member is reached.
    pub addresses: Addresses,
    /// This server's seal.
    pub unlock: Unlock,
    /// The recovery passphrase, where the seal is another one than the snapshot's.
    pub recovery: Option<Unlock>,
}

/// What is shown once.
pub struct Resumed {
    /// A new administrator's.
    pub admin: AccessToken,
    /// The name of that token.
    pub admin_name: String,
    /// Where the roots' certificates stand.
    pub root_file: PathBuf,
    /// The cluster's id.
    pub cluster: Uuid,
    /// The first member's id.
    pub member: MemberId,
    /// The snapshot's revision.
    pub revision: u64,
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
    settled(&registry, FOUNDER).await;
    registry.shutdown().await;
    Ok(Founded { recovery: drawn.recovery, admin: drawn.admin, root_file, cluster })
}

/// Founds a cluster that goes on from a saved snapshot, under another id and another epoch.
///
/// # Errors
/// If the snapshot is damaged or of another mesh, its root does not open, the data folder is in use or the disk fails.
pub async fn resume(resuming: Resuming<'_>) -> Result<Resumed, InitError> {
    let Resuming { file, data_dir, trust_domain, addresses, unlock, recovery } = resuming;
    vacant(data_dir)?;
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || backup::read(&path)).await;
    let Saved { head, state } = read.map_err(|_| AuthorityError::CutOff)??;
    let theirs = head.trust_domain.as_ref().ok_or(BackupError::Empty)?;
    same_domain(trust_domain, theirs).map_err(InitError::Domain)?;
    let folder = authority_folder(data_dir).map_err(AuthorityError::from)?;
    let (cluster, epoch, member) = (Uuid::new_v4(), Uuid::new_v4(), state.next_member());
    let saved = state.clone();
    let drawn = tokio::task::spawn_blocking(move || {
        let successor = Successor { member, epoch, unlock, recovery, folder: &folder };
        succeed(&saved, successor, clock::unix())
    });
    let drawn = drawn.await.map_err(|_| AuthorityError::CutOff)?.map_err(|error| match error {
        AuthorityError::Seal(error @ (SealError::Wrong(_) | SealError::Kind { .. })) => {
            InitError::Sealed(error)
        }
        other => other.into(),
    })?;
    let root_file = data_dir.join(ROOT_FILE);
    std::fs::write(&root_file, &drawn.roots_pem).map_err(AuthorityError::from)?;
    let settings = registry::Settings::new(data_dir.to_owned(), member, cluster, addresses);
    let (registry, _) = Registry::open(settings, Arc::new(Nobody)).await.map_err(RunError::from)?;
    registry.found_from(&state, epoch, drawn.then).await?;
    settled(&registry, member).await;
    registry.shutdown().await;
    let (admin, admin_name) = (drawn.admin, drawn.admin_name);
    Ok(Resumed { admin, admin_name, root_file, cluster, member, revision: head.revision })
}

/// Waits until the log knows that its founder started: what is under way when a registry ends is complained about.
async fn settled(registry: &Registry, founder: MemberId) {
    let mut revisions = registry.revisions();
    let started = || registry.applied().member(founder).is_some_and(|member| member.boot > 0);
    let _ = tokio::time::timeout(SETTLE_TIMEOUT, revisions.wait_for(|_| started())).await;
}

/// A founder has nobody to dial.
struct Nobody;

impl Dial for Nobody {
    fn dial(&self, _: MemberId, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        async { Err(io::ErrorKind::NotConnected.into()) }.boxed()
    }
}
