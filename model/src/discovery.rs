//! Pure. What a discovery file holds (DiscoverySource of type File): services with their endpoints, as YAML.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    invalid::Invalid,
    name::Name,
    object::Labels,
    resource::{EndpointPort, Health, Port, Rules, ServicePort, ServiceSpec},
    shape::{Decoder, Int, Mode, Path, Shape, Text, record},
};

/// The largest file, in bytes: ten thousand endpoints take some two million.
pub const FILE_BYTES_MAX: usize = 16 << 20;

record! {
    /// One running instance.
    pub struct ListedEndpoint {
        /// What it is known by, among those of its service; its address and port if left out.
        "id" id: Option<Text<255>>,
        /// Where it is dialled.
        "address" address: IpAddr,
        /// Where it listens, if its service has one port; that port's `targetPort` if left out.
        "targetPort" target_port: Option<Port>,
        /// Where it listens for each port of its service; those left out by the Service's own `targetPort`.
        "ports" ports: Vec<EndpointPort>,
        /// For subsets.
        "labels" labels: Labels,
        /// For `filter.tags`.
        "tags" tags: Vec<Text<255>>,
        /// The failure domain it stands in.
        "zone" zone: Option<Name>,
        /// Its share among its equals.
        "weight" weight: Int<0, 1_000_000> = Int::clamped(1),
        /// Whether it should get traffic.
        "health" health: Health = Health::Healthy,
    }
}

record! {
    /// A service.
    pub struct ListedService {
        /// Its name; one that is no label is made one, or renamed by the DiscoverySource.
        "name" name: Text<255>,
        /// For `namespaceMapping: {from: namespace}`.
        "namespace" namespace: Option<Text<255>>,
        /// What it answers; at least one.
        "ports" ports: Vec<ServicePort>,
        /// Labels of the Service.
        "labels" labels: Labels,
        /// For `filter.tags`: those of all its endpoints.
        "tags" tags: Vec<Text<255>>,
        /// Where it runs.
        "endpoints" endpoints: Vec<ListedEndpoint>,
    }
}

record! {
    /// A whole file.
    pub struct Listing {
        /// The services.
        "services" services: Vec<ListedService>,
    }
}

/// Reads a file. One that is no listing at all is not quoted: it may be anything, and errors are shown in a status.
///
/// # Errors
/// The line that is no YAML, or every wrong field.
pub fn listing(text: &str) -> Result<Listing, Invalid> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        Invalid::one(format_args!("line {line}"), "is not YAML")
    })?;
    if !matches!(value.get("services"), Some(Value::Array(_))) {
        return Err(Invalid::one("services", "is required, a list"));
    }
    let mut decoder = Decoder::new(Mode::Strict);
    let listing = Listing::decode(&value, &Path::Root, &mut decoder);
    let services_at = Path::Field(&Path::Root, "services");
    for (index, service) in listing.iter().flat_map(|listing| &listing.services).enumerate() {
        let spec = ServiceSpec { ports: service.ports.clone(), subsets: Vec::new() };
        spec.check(None, &Path::Index(&services_at, index), &mut decoder);
    }
    decoder.finish()?;
    listing.ok_or_else(|| Invalid::one("services", "is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_and_its_wrong_fields_are_named() {
        let text = "services:\n- name: orders\n  ports: [{port: 80}]\n  endpoints: [{address: 10.0.0.9, targetPort: 8080}]\n";
        let read = listing(text).expect("a listing");
        assert_eq!(read.services[0].endpoints[0].target_port.map(Int::value), Some(8_080));
        for (wrong, want) in [
            ("services:\n- name: a\n  prots: []\n  ports: []\n", "services[0].prots: unknown field"),
            ("services:\n- name: a\n  ports: [{port: 0}]\n", "services[0].ports[0].port: "),
            ("services:\n- name: a\n  ports: []\n", "services[0].ports: must have at least one port"),
            ("services:\n- {name: a, ports: [}\n", "line 2: is not YAML"),
        ] {
            let error = listing(wrong).expect_err("it is wrong").to_string();
            assert!(error.contains(want), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_no_listing_is_not_told_again() {
        for secret in ["s3cr3t", "token: s3cr3t", "services: s3cr3t", "[s3cr3t", "{services: s3cr3t"] {
            let error = listing(secret).expect_err("it is none").to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
