//! Pure. Which ports of this host's applications callers from outside may reach, as the proxy tells it to whoever loads the
//! rules. That is root, to whom it is the word of another user: bounded, nothing but numbers, and heard only about
//! ports that the files of `services.d` name, which are root's own.

use std::collections::BTreeSet;

use model::resource::PeerAuthenticationMode;
use serde::{Deserialize, Serialize};
use traffic::snapshot::Snapshot;

/// Ports that are told of a kind: as many as files of `services.d` are read, several times over.
pub const PORTS_MAX: usize = 4_096;
/// The largest text of them that is read, in bytes: two full lists, at six bytes a port, with room to spare.
pub const PORTS_BYTES_MAX: usize = 64 * 1_024;
const _: () = assert!(PORTS_BYTES_MAX > 2 * PORTS_MAX * 6);

/// The ports of applications, by what their modes say of callers from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// They may come in.
    pub permissive: BTreeSet<u16>,
    /// They may not.
    pub strict: BTreeSet<u16>,
}

impl Ports {
    /// By what the registry says of what runs here. Where a port is of two services, the strict one counts.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut ports = Self::default();
        for service in snapshot.inbound().services() {
            for app in &service.apps {
                let list = match service.policies.mode(app.port) {
                    PeerAuthenticationMode::Strict => &mut ports.strict,
                    PeerAuthenticationMode::Permissive | PeerAuthenticationMode::Disabled => {
                        &mut ports.permissive
                    }
                };
                list.extend(app.targets.iter().map(|target| target.port()));
            }
        }
        ports.permissive = &ports.permissive - &ports.strict;
        ports
    }

    /// As it was told.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > PORTS_BYTES_MAX {
            return Err(format!("larger than {PORTS_BYTES_MAX} bytes"));
        }
        let ports: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        for list in [&ports.permissive, &ports.strict] {
            if list.len() > PORTS_MAX || list.contains(&0) {
                return Err(format!("must be at most {PORTS_MAX} ports of each kind, and none of them 0"));
            }
        }
        Ok(ports)
    }

    /// As it is told.
    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("lists of numbers")
    }

    /// Those of them that may be spoken of.
    pub(super) fn within(&self, named: &BTreeSet<u16>) -> Self {
        Self { permissive: &self.permissive & named, strict: &self.strict & named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_heard_and_nothing_but_ports_is() {
        let ports = Ports { permissive: [80, 8_080].into(), strict: [9_090].into() };
        assert_eq!(Ports::parse(&ports.text()), Ok(ports.clone()));
        for wrong in [
            "",
            "{}",
            "[80]",
            "{\"permissive\":[0],\"strict\":[]}",
            "{\"permissive\":[80],\"strict\":[65536]}",
            "{\"permissive\":[80],\"strict\":[\"9 accept\"]}",
            "{\"permissive\":[80],\"strict\":[],\"user\":0}",
        ] {
            assert!(Ports::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many = Ports { permissive: (1..=4_097).collect(), ..Ports::default() };
        assert!(Ports::parse(&many.text()).is_err());
        let mut long = ports.text();
        long.resize(PORTS_BYTES_MAX + 1, b' ');
        assert!(Ports::parse(&long).is_err());
    }

    #[test]
    fn nothing_is_heard_about_ports_that_no_file_names() {
        let ports = Ports { permissive: [80, 443].into(), strict: [22, 9_090].into() };
        let want = Ports { permissive: [80].into(), strict: [9_090].into() };
        assert_eq!(ports.within(&[80, 9_090, 7_000].into()), want);
    }
}
