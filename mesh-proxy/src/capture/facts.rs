//! What is to be captured on this host: by its settings, and by the last good configuration on its disk, so that rules
//! are made at boot with nobody there to ask.

use std::path::Path;

use model::resource::PeerAuthenticationMode;
use traffic::compile::compile;

use super::{CaptureError, Inbound, Wanted, files_of, resolvers::resolvers, ssh::ports, text_of};
use crate::{
    caller,
    config::{cache::Cache, watch::inputs},
    identity::Keep,
    services::Services,
    settings::Settings,
};

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
        inbound: inbound(settings)?,
    })
}

/// What comes from outside: judged here only where the settings have a listener for it.
fn inbound(settings: &Settings) -> Result<Option<Inbound>, CaptureError> {
    let plain = settings.listen.inbound_plain.0.clone();
    if plain.is_empty() {
        return Ok(None);
    }
    let mut inbound = Inbound { plain, spared: spared(), ..Inbound::default() };
    // Before it has joined, a host has nothing to call; and its folder is not for root to make.
    if !settings.data_dir.is_dir() {
        return Ok(Some(inbound));
    }
    let Some(node) = Keep::open(&settings.data_dir)?.node()? else { return Ok(Some(inbound)) };
    let held = Cache::of(&settings.data_dir).load()?.unwrap_or_default();
    let read = Services::read(&settings.services_dir, &Services::default(), caller::uid);
    let services = read
        .map_err(|source| CaptureError::Io { what: settings.services_dir.display().to_string(), source })?;
    let snapshot = compile(None, &inputs(&held, &services, &node.node, node.trust_domain.clone(), 0));
    let snapshot = snapshot.map_err(|nack| CaptureError::Settings(nack.to_string()))?;
    for service in snapshot.inbound().services() {
        for app in &service.apps {
            let ports = match service.policies.mode(app.port) {
                PeerAuthenticationMode::Strict => &mut inbound.strict,
                PeerAuthenticationMode::Permissive | PeerAuthenticationMode::Disabled => {
                    &mut inbound.permissive
                }
            };
            ports.extend(app.targets.iter().map(|target| target.port()));
        }
    }
    Ok(Some(inbound))
}

/// The ports by which the host is administered: sshd's, and that of the session that one works in.
fn spared() -> std::collections::BTreeSet<u16> {
    let mut texts = vec![text_of(Path::new(SSHD_CONFIG))];
    texts.extend(files_of(Path::new(SSHD_CONFIG_FOLDER)).iter().map(|path| text_of(path)));
    ports(&texts, std::env::var("SSH_CONNECTION").ok().as_deref())
}
