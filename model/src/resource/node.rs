//! Pure. Node: a host with its proxy.

use super::Rules;
use crate::{
    name::{Name, ServiceGlob, ServiceName},
    shape::record,
};

record! {
    /// What a host is, and what it may run.
    pub struct NodeSpec {
        /// The failure domain it stands in.
        "zone" zone: Option<Name>,
        /// The services that it may run, as `namespace/name` with globs; none if left out.
        "services" services: Vec<ServiceGlob>,
        /// Whether it is shut out: its endpoints are dropped, and it gets no certificates.
        "disabled" disabled: bool = false,
    }
}

impl Rules for NodeSpec {}

impl NodeSpec {
    /// Whether the host may run the service.
    pub fn grants(&self, service: &ServiceName) -> bool {
        !self.disabled && self.services.iter().any(|glob| glob.matches(service))
    }
}
