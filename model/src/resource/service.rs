//! Pure. Service: the ports that it answers, and its subsets.

use std::collections::{BTreeMap, BTreeSet};

use super::Rules;
use crate::{
    name::Name,
    object::{LABEL_VALUE_BYTES_MAX, LabelKey, Labels, Metadata},
    shape::{Decoder, Int, Path, Text, choice, record},
};

/// A TCP port.
pub type Port = Int<1, 65_535>;

choice! {
    /// What a port speaks.
    pub enum Protocol {
        /// HTTP/1.1, or HTTP/2 where the client offers it.
        Http = "http",
        /// HTTP/2 with prior knowledge.
        Http2 = "http2",
        /// gRPC, which is HTTP/2 with prior knowledge.
        Grpc = "grpc",
        /// Bytes.
        Tcp = "tcp",
        /// TLS that the application speaks itself; passed through as bytes.
        Tls = "tls",
        /// Found out from the first bytes of each connection.
        Auto = "auto",
    }
}

impl Protocol {
    /// Whether requests can be told apart, so that routes for HTTP apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
}

record! {
    /// A port of a service.
    pub struct ServicePort {
        /// For people and references; may be left out where there is one port.
        "name" name: Option<Name>,
        /// What callers dial.
        "port" port: Port,
        /// Where the application listens; `port` if left out.
        "targetPort" target_port: Option<Port>,
        /// What it speaks.
        "protocol" protocol: Protocol = Protocol::Auto,
    }
}

record! {
    /// A part of a service's endpoints, chosen by their labels.
    pub struct Subset {
        /// Its name, for routes.
        "name" name: Name,
        /// An endpoint belongs to it if it has all of these labels.
        "labels" labels: Labels,
    }
}

record! {
    /// What a service answers to.
    pub struct ServiceSpec {
        /// The ports that it answers; at least one.
        "ports" ports: Vec<ServicePort>,
        /// Parts of its endpoints, for routes.
        "subsets" subsets: Vec<Subset>,
    }
}

impl ServiceSpec {
    /// With every default filled in.
    pub fn effective(&self) -> Self {
        let mut effective = self.clone();
        for port in &mut effective.ports {
            port.target_port = Some(port.target());
        }
        effective
    }

    /// The port that callers dial as `number`.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number() == number)
    }

    /// The subset of that name.
    pub fn subset(&self, name: &Name) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == *name)
    }
}

impl ServicePort {
    /// What callers dial.
    pub fn number(&self) -> u16 {
        self.port.value() as u16
    }

    /// Where the application listens.
    pub fn target(&self) -> Port {
        self.target_port.unwrap_or(self.port)
    }
}

impl Subset {
    /// Whether an endpoint with these labels belongs to it.
    pub fn selects(&self, labels: &BTreeMap<LabelKey, Text<LABEL_VALUE_BYTES_MAX>>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Rules for ServiceSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        let ports_at = Path::Field(at, "ports");
        if self.ports.is_empty() {
            decoder.report(&ports_at, "must have at least one port");
        }
        let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, port) in self.ports.iter().enumerate() {
            let at = Path::Index(&ports_at, index);
            if !numbers.insert(port.port) {
                decoder.report(&Path::Field(&at, "port"), format_args!("{} stands twice", port.port));
            }
            match &port.name {
                Some(name) if !names.insert(name) => {
                    decoder.report(&Path::Field(&at, "name"), format_args!("{name} stands twice"));
                }
                None if self.ports.len() > 1 => {
                    decoder.report(&Path::Field(&at, "name"), "is required where there are several ports");
                }
                _ => {}
            }
        }
        check_subsets(&self.subsets, &Path::Field(at, "subsets"), decoder);
    }
}

fn check_subsets(subsets: &[Subset], at: &Path<'_>, decoder: &mut Decoder) {
    let mut names = BTreeSet::new();
    for (index, subset) in subsets.iter().enumerate() {
        let at = Path::Index(at, index);
        if !names.insert(&subset.name) {
            decoder.report(&Path::Field(&at, "name"), format_args!("{} stands twice", subset.name));
        }
        if subset.labels.is_empty() {
            decoder.report(&Path::Field(&at, "labels"), "must have at least one label");
        }
    }
}
