//! The server as a service of systemd: what systemd hears of it, and how a command that root types leaves one behind.

use std::{path::Path, time::Duration};

use host::{owner, unit};
use sd_notify::NotifyState;
use tokio::{sync::oneshot, time::interval};
use tokio_util::sync::CancellationToken;

/// The unit of the packages.
pub const UNIT: &str = "meshd.service";
/// The configuration that the unit runs with.
pub const UNIT_CONFIG: &str = "/etc/mesh/meshd.toml";

/// Why a command does not end well although its work is done.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The files stay root's, and the server may not read them.
    #[error("the files of {folder} cannot be given to its owner: {cause}")]
    Owner {
        /// Where.
        folder: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The unit.
    #[error(transparent)]
    Unit(#[from] unit::UnitError),
}

/// What a command made belongs to the folder's owner: the server runs as a user of its own.
///
/// # Errors
/// If it cannot be given away.
pub fn give(data_dir: &Path) -> Result<(), ServiceError> {
    let folder = data_dir.display().to_string();
    owner::give_to_owner(data_dir).map_err(|cause| ServiceError::Owner { folder, cause })
}

/// Starts the unit, now and at each boot; `false` if this host's systemd does not run this configuration.
///
/// # Errors
/// If it does not start.
pub fn start(config: &Path) -> Result<bool, ServiceError> {
    let ours = config == Path::new(UNIT_CONFIG) && unit::can_start(UNIT);
    if ours {
        unit::start(UNIT)?;
    }
    Ok(ours)
}

/// Says that the server answers.
pub fn answers() {
    tell(&[NotifyState::Ready, NotifyState::Status("waiting for a leader")]);
}

/// Says that it knows a leader, and has caught up.
pub fn has_caught_up() {
    tell(&[NotifyState::Status("ready")]);
}

/// Says that it ends.
pub fn ends() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd that the server is alive, for as long as `duties` still take work: the threads of the registry. To be
/// called on the runtime of the API.
pub async fn stay_alive(duties: tokio::runtime::Handle, stop: CancellationToken) {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    let mut beat = interval(every.min(Duration::from_secs(60)) / 3);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = stop.cancelled() => return,
        }
        let (there, answer) = oneshot::channel();
        duties.spawn(async move { there.send(()) });
        if answer.await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd is not told");
    }
}
