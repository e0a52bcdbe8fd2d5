//! What is to be captured on this host, by its settings, so that rules are made at boot with nobody there to ask.

use std::{collections::BTreeSet, path::Path};

use super::{CaptureError, Inbound, Wanted, files_of, resolvers::resolvers, ssh::ports, text_of};
use crate::{caller, settings::Settings};

/// Where systemd-resolved runs, it asks us itself for what is of the mesh.
pub(super) const RESOLVED: &str = "/run/systemd/resolve/stub-resolv.conf";
/// 1 where IPv6 is switched off; not there where the kernel has none.
const NO_V6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_FOLDER: &str = "/etc/ssh/sshd_config.d";

pub(super) fn wanted(settings: &Settings) -> Result<Wanted, CaptureError> {
    let user = &settings.capture.user;
    let uid = caller::uid(user).map_err(|message| {
        CaptureError::Settings(format!("capture.user: {message}: it is the user as whom the proxy runs"))
    })?;
    let dns = settings.capture.dns.unwrap_or_else(|| !Path::new(RESOLVED).exists());
    Ok(Wanted {
        uid,
        has_v6: text_of(Path::new(NO_V6)).trim() == "0",
        outbound: settings.listen.outbound.0.clone(),
        dns: if dns { settings.listen.dns.0.clone() } else { Vec::new() },
        resolvers: resolvers(&text_of(Path::new(RESOLV_CONF))),
        inbound: inbound(settings),
    })
}

/// What comes from outside: judged here only where the settings have a listener for it. Which ports it may reach is not
/// theirs to say.
fn inbound(settings: &Settings) -> Option<Inbound> {
    let plain = settings.listen.inbound_plain.0.clone();
    // What other proxies dial is no application's, whatever a file says.
    let own = settings.listen.inbound.0.iter().chain(&plain).map(|address| address.port());
    let spared = administered().into_iter().chain(own).collect();
    let inbound = Inbound { plain, spared, ..Inbound::default() };
    (!inbound.plain.is_empty()).then_some(inbound)
}

/// The ports by which the host is administered: sshd's, and that of the session that one works in.
pub(super) fn administered() -> BTreeSet<u16> {
    let mut texts = vec![text_of(Path::new(SSHD_CONFIG))];
    texts.extend(files_of(Path::new(SSHD_CONFIG_FOLDER)).iter().map(|path| text_of(path)));
    ports(&texts, std::env::var("SSH_CONNECTION").ok().as_deref())
}
