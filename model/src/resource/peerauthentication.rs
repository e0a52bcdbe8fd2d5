//! Pure. PeerAuthentication: whether callers of a service must show who they are. Which of several counts is decided in
//! `traffic`.

use std::collections::BTreeSet;

use super::{Port, Rules, TargetRef};
use crate::{
    object::Metadata,
    shape::{Decoder, Path, choice, record},
};

choice! {
    /// How callers reach a port of a service.
    pub enum PeerAuthenticationMode {
        /// In plaintext: proxies, too, dial the application itself, and nobody's identity is known. Who still comes
        /// over mTLS is let in.
        Disabled = "Disabled",
        /// Over mTLS or in plaintext; whoever comes in plaintext has no identity.
        Permissive = "Permissive",
        /// Over mTLS only.
        Strict = "Strict",
    }
}

record! {
    /// The mode of one port.
    pub struct PortMode {
        /// The Service's port.
        "port" port: Port,
        /// Its mode.
        "mode" mode: PeerAuthenticationMode,
    }
}

record! {
    /// Whether callers of services must show who they are.
    pub struct PeerAuthenticationSpec {
        /// The services that it is for; if left out every service of the namespace, and in `mesh-system` of the mesh.
        "targetRefs" target_refs: Option<Vec<TargetRef>>,
        /// The mode of all ports that have none of their own; if left out, what a less specific one says.
        "mode" mode: Option<PeerAuthenticationMode>,
        /// Modes of single ports.
        "portModes" port_modes: Vec<PortMode>,
    }
}

impl PeerAuthenticationSpec {
    /// What it says of a port; `None` if nothing.
    pub fn mode_of(&self, port: u16) -> Option<PeerAuthenticationMode> {
        let own = self.port_modes.iter().find(|own| own.port.value() == u64::from(port));
        own.map(|own| own.mode).or(self.mode)
    }
}

impl Rules for PeerAuthenticationSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        if self.target_refs.as_ref().is_some_and(Vec::is_empty) {
            let targets_at = Path::Field(at, "targetRefs");
            decoder.report(&targets_at, "must name a Service, or be left out: then it is for all of them");
        }
        if self.mode.is_none() && self.port_modes.is_empty() {
            decoder.report(&Path::Field(at, "mode"), "is required where there are no portModes");
        }
        let (ports_at, mut ports) = (Path::Field(at, "portModes"), BTreeSet::new());
        for (index, own) in self.port_modes.iter().enumerate() {
            if !ports.insert(own.port.value()) {
                let port_at = Path::Index(&ports_at, index);
                decoder.report(&Path::Field(&port_at, "port"), "has a mode already");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::shape::{Mode, Shape, decode_at};

    fn decoded(spec: &Value) -> Result<PeerAuthenticationSpec, String> {
        let at = Path::Field(&Path::Root, "spec");
        let mut decoder = Decoder::new(Mode::Strict);
        let decoded = PeerAuthenticationSpec::decode(spec, &at, &mut decoder);
        if let Some(decoded) = &decoded {
            decoded.check(None, &at, &mut decoder);
        }
        decoder.finish().map_err(|invalid| invalid.to_string())?;
        decoded.ok_or_else(|| "it is not valid".to_owned())
    }

    #[test]
    fn a_port_s_own_mode_comes_before_that_of_all() {
        let spec = json!({"mode": "Strict", "portModes": [{"port": 9090, "mode": "Permissive"}]});
        let spec = decoded(&spec).expect("valid");
        let modes = [9090, 80].map(|port| spec.mode_of(port));
        assert_eq!(modes, [Some(PeerAuthenticationMode::Permissive), Some(PeerAuthenticationMode::Strict)]);
        let spec = json!({"portModes": [{"port": 9090, "mode": "Disabled"}]});
        let spec: PeerAuthenticationSpec = decode_at(&spec, &Path::Root, Mode::Strict).expect("valid");
        assert_eq!(spec.mode_of(80), None);
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (spec, want) in [
            (json!({}), "spec.mode: is required where there are no portModes"),
            (
                json!({"mode": "strict"}),
                "spec.mode: must be one of Disabled, Permissive, Strict; is \"strict\"",
            ),
            (
                json!({"mode": "Strict", "targetRefs": []}),
                "spec.targetRefs: must name a Service, or be left out: then it is for all of them",
            ),
            (
                json!({"portModes": [{"port": 1, "mode": "Strict"}, {"port": 1, "mode": "Disabled"}]}),
                "spec.portModes[1].port: has a mode already",
            ),
            (json!({"portModes": [{"port": 1}]}), "spec.portModes[0].mode: is required"),
        ] {
            let error = decoded(&spec).expect_err("it is wrong");
            assert!(error.contains(want), "{spec}: {error}");
        }
    }
}
