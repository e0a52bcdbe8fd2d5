//! What systemd keeps for us from one start to the next, and what it is told (sd_notify(3)). Without systemd nothing is
//! kept and nobody is told.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    time::Duration,
};

use rustix::process::Pid;
use sd_notify::NotifyState;

use crate::handover::{Channel, SocketName};

/// What the name of the descriptor begins with by which a worker is reached; its process id follows.
const WORKER: &str = "ctl-";

/// What the supervisor before this one left in the store.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) sockets: Vec<(SocketName, OwnedFd)>,
    pub(super) workers: Vec<(Pid, OwnedFd)>,
}

/// Takes what is in the store; what nobody knows is taken out of it.
///
/// # Errors
/// If what systemd says of it makes no sense.
#[expect(
    unsafe_code,
    reason = "only a number says which descriptors systemd left; each is made an owner of once"
)]
pub(super) fn adopt() -> io::Result<Left> {
    let mut left = Left::default();
    for (number, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: systemd opened it for this process alone (LISTEN_PID was checked), and it is adopted only here.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        let worker = name.strip_prefix(WORKER).and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        match (worker, name.parse()) {
            (Some(pid), _) => left.workers.push((pid, descriptor)),
            (None, Ok(socket)) => left.sockets.push((socket, descriptor)),
            (None, Err(_)) => {
                tracing::warn!(name, "a descriptor that nobody knows is dropped");
                forget(&name);
            }
        }
    }
    Ok(left)
}

/// The next supervisor is to get this socket.
pub(super) fn keep(name: SocketName, socket: &impl AsFd) {
    store(&name.to_string(), socket);
}

/// The next supervisor is to reach this worker; systemd drops it when the worker is gone.
pub(super) fn keep_worker(pid: Pid, channel: &Channel) {
    store(&format!("{WORKER}{}", pid.as_raw_nonzero()), channel);
}

fn store(name: &str, descriptor: &impl AsFd) {
    let state = [NotifyState::FdStore, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify_with_fds(&state, &[descriptor.as_fd()]) {
        tracing::error!(%error, name, "not kept: the next restart may lose calls");
    }
}

/// Nobody is to get what has this name.
pub(super) fn forget(name: &str) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// The worker serves.
pub(super) fn ready(pid: Pid) {
    let status = format!("worker {} serves, version {}", pid.as_raw_nonzero(), env!("CARGO_PKG_VERSION"));
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The worker answers.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The proxy ends for good.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// How often systemd wants to hear from us, if it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd is not told");
    }
}
