//! Pure. DiscoverySource: a directory outside the mesh from which Services and Endpoints come.

use std::collections::BTreeSet;

use super::Rules;
use crate::{
    duration::{Millis, Timespan},
    name::{Name, NameGlob},
    object::Metadata,
    shape::{Decoder, Path, Text, choice, record},
};

mod consul;
mod directory;
mod dns;
mod eureka;
mod file;
mod kubernetes;
mod nomad;
mod tls;

pub use consul::ConsulSource;
pub use directory::is_own_host;
pub use dns::{DnsService, DnsSource, resolver};
pub use eureka::EurekaSource;
pub use file::FileSource;
pub use kubernetes::KubernetesSource;
pub use nomad::NomadSource;
pub use tls::DiscoveryTls;

/// The shortest `stalePolicy.after`: sources are asked at least three times as often.
const AFTER_MIN: Timespan = Timespan::from_secs(3);
/// The longest error in a source's status, in bytes: a sentence or two.
const ERROR_BYTES_MAX: usize = 1_024;

choice! {
    /// What sort of directory it is.
    pub enum DiscoveryType {
        /// A YAML file on the servers.
        File = "File",
        /// A Consul agent.
        Consul = "Consul",
        /// Names of DNS.
        Dns = "DNS",
        /// A Kubernetes cluster.
        Kubernetes = "Kubernetes",
        /// A Nomad agent.
        Nomad = "Nomad",
        /// A Eureka server.
        Eureka = "Eureka",
    }
}

choice! {
    /// Whose namespace a service comes to.
    pub enum OwnNamespace {
        /// The one that the source itself says; `default` where it says none.
        Namespace = "namespace",
    }
}

record! {
    /// Into which namespace services come.
    pub struct NamespaceMapping {
        /// All into this one. Either this or `from`.
        "to" to: Option<Name>,
        /// Each into the one that its source says. Either this or `to`.
        "from" from: Option<OwnNamespace>,
    }
}

record! {
    /// What is taken over.
    pub struct DiscoveryFilter {
        /// Only instances that have all of these tags, themselves or by their service.
        "tags" tags: Vec<Text<255>>,
        /// Only services whose name, as the source says it, fits one of these; all if left out.
        "services" services: Vec<NameGlob>,
    }
}

record! {
    /// Another name for a service.
    pub struct Renamed {
        /// As the source calls it.
        "from" from: Text<255>,
        /// As the mesh calls it.
        "to" to: Name,
    }
}

record! {
    /// What becomes of endpoints while nothing is heard of their source.
    pub struct StalePolicy {
        /// Silence after which they are marked stale; at least 3s.
        "after" after: Timespan = Timespan::from_secs(30),
        /// How long they are kept after that; then they go.
        "keep" keep: Timespan = Timespan::from_secs(3_600),
    }
}

impl Default for StalePolicy {
    fn default() -> Self {
        Self { after: Timespan::from_secs(30), keep: Timespan::from_secs(3_600) }
    }
}

impl DiscoverySourceSpec {
    /// With every default filled in.
    pub fn effective(&self) -> Self {
        Self { stale_policy: Some(self.stale()), ..self.clone() }
    }

    /// What becomes of endpoints while nothing is heard of it.
    pub fn stale(&self) -> StalePolicy {
        self.stale_policy.clone().unwrap_or_default()
    }

    /// The one namespace into which its services come; `None` if it is the source that says.
    pub fn namespace(&self) -> Option<Name> {
        let default = || Some("default".parse().expect("a label"));
        match &self.namespace_mapping {
            None => default(),
            Some(mapping) => mapping.to.clone(),
        }
    }
}

record! {
    /// A directory outside the mesh.
    pub struct DiscoverySourceSpec {
        /// What sort it is: the field of the same name says where it is.
        "type" r#type: DiscoveryType,
        /// For type File.
        "file" file: Option<FileSource>,
        /// For type Consul.
        "consul" consul: Option<ConsulSource>,
        /// For type DNS.
        "dns" dns: Option<DnsSource>,
        /// For type Kubernetes.
        "kubernetes" kubernetes: Option<KubernetesSource>,
        /// For type Nomad.
        "nomad" nomad: Option<NomadSource>,
        /// For type Eureka.
        "eureka" eureka: Option<EurekaSource>,
        /// Into which namespace services come; `default` if left out.
        "namespaceMapping" namespace_mapping: Option<NamespaceMapping>,
        /// What is taken over; all if left out.
        "filter" filter: Option<DiscoveryFilter>,
        /// Other names for some services; those left out keep theirs, as far as it is a label.
        "rename" rename: Vec<Renamed>,
        /// Its endpoints that have no proxy are called over TLS; in plaintext if left out.
        "tls" tls: Option<DiscoveryTls>,
        /// What becomes of endpoints while nothing is heard of the source.
        "stalePolicy" stale_policy: Option<StalePolicy>,
    }
}

choice! {
    /// How a source stands.
    pub enum DiscoveryState {
        /// Nothing was heard of it yet.
        Pending = "Pending",
        /// What it says stands in the mesh.
        Synced = "Synced",
        /// It fell silent: what it said last is kept, marked stale.
        Stale = "Stale",
        /// It was silent for too long: what it brought is gone.
        Lost = "Lost",
    }
}

record! {
    /// What the mesh says of a source.
    pub struct DiscoverySourceStatus {
        /// How it stands.
        "state" state: DiscoveryState = DiscoveryState::Pending,
        /// When it became so.
        "since" since: Option<Millis>,
        /// When it was last known to be heard: not told at each time, but when something becomes another.
        "lastSync" last_sync: Option<Millis>,
        /// What is wrong; empty if nothing.
        "error" error: Text<ERROR_BYTES_MAX> = Text::new("").expect("an empty text"),
    }
}

/// An error as a status has it: cut, and in one line.
pub fn status_error(error: &str) -> Text<ERROR_BYTES_MAX> {
    let error: String = error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = error.len().min(ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    Text::new(&error[..end]).expect("it was cut, and has no control characters")
}

impl Rules for DiscoverySourceSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        for (kind, field, is_there) in [
            (DiscoveryType::File, "file", self.file.is_some()),
            (DiscoveryType::Consul, "consul", self.consul.is_some()),
            (DiscoveryType::Dns, "dns", self.dns.is_some()),
            (DiscoveryType::Kubernetes, "kubernetes", self.kubernetes.is_some()),
            (DiscoveryType::Nomad, "nomad", self.nomad.is_some()),
            (DiscoveryType::Eureka, "eureka", self.eureka.is_some()),
        ] {
            match (self.r#type == kind, is_there) {
                (true, false) => {
                    decoder.report(&Path::Field(at, field), format_args!("is required for type {kind}"));
                }
                (false, true) => {
                    let message = format_args!("is for type {kind}, not {}", self.r#type);
                    decoder.report(&Path::Field(at, field), message);
                }
                _ => {}
            }
        }
        self.file.iter().for_each(|file| file.check(&Path::Field(at, "file"), decoder));
        self.consul.iter().for_each(|consul| consul.check(&Path::Field(at, "consul"), decoder));
        self.dns.iter().for_each(|dns| dns.check(&Path::Field(at, "dns"), decoder));
        self.kubernetes.iter().for_each(|cluster| cluster.check(&Path::Field(at, "kubernetes"), decoder));
        self.nomad.iter().for_each(|nomad| nomad.check(&Path::Field(at, "nomad"), decoder));
        self.eureka.iter().for_each(|eureka| eureka.check(&Path::Field(at, "eureka"), decoder));
        self.tls.iter().for_each(|tls| tls.check(&Path::Field(at, "tls"), decoder));
        if self.r#type == DiscoveryType::Dns && self.filter.iter().any(|filter| !filter.tags.is_empty()) {
            let filter_at = Path::Field(at, "filter");
            decoder.report(&Path::Field(&filter_at, "tags"), "names of DNS have no tags");
        }
        if self.namespace_mapping.as_ref().is_some_and(|one| one.to.is_some() == one.from.is_some()) {
            decoder.report(&Path::Field(at, "namespaceMapping"), "must have either to or from");
        }
        let (rename_at, mut known) = (Path::Field(at, "rename"), BTreeSet::new());
        for (index, renamed) in self.rename.iter().enumerate() {
            if !known.insert(renamed.from.as_str()) {
                let at = Path::Index(&rename_at, index);
                decoder.report(&Path::Field(&at, "from"), "has another name already");
            }
        }
        if self.stale().after < AFTER_MIN {
            let stale_at = Path::Field(at, "stalePolicy");
            decoder.report(&Path::Field(&stale_at, "after"), format_args!("must be at least {AFTER_MIN}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::shape::{Mode, Shape};

    fn decoded(spec: &Value) -> Result<DiscoverySourceSpec, String> {
        let at = Path::Field(&Path::Root, "spec");
        let mut decoder = Decoder::new(Mode::Strict);
        let decoded = DiscoverySourceSpec::decode(spec, &at, &mut decoder);
        if let Some(decoded) = &decoded {
            decoded.check(None, &at, &mut decoder);
        }
        decoder.finish().map_err(|invalid| invalid.to_string())?;
        decoded.ok_or_else(|| "it is not valid".to_owned())
    }

    #[track_caller]
    fn check(spec: &Value, want: &str) {
        let error = decoded(spec).expect_err("it is wrong");
        assert!(error.contains(want), "{spec}: {error}");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spec =
            decoded(&json!({"type": "File", "file": {"path": "/etc/mesh/legacy.yaml"}})).expect("valid");
        assert_eq!(spec.namespace().expect("one").as_str(), "default");
        assert_eq!(spec.effective().stale_policy, Some(StalePolicy::default()));
        let own = json!({"type": "File", "file": {"path": "/a"}, "namespaceMapping": {"from": "namespace"}});
        assert_eq!(decoded(&own).expect("valid").namespace(), None);
    }

    #[test]
    fn the_sample_of_a_consul_is_taken() {
        let spec = json!({
            "type": "Consul",
            "consul": {"address": "https://consul.example:8501", "tokenFile": "/etc/mesh/consul.token", "datacenter": "dc1"},
            "namespaceMapping": {"to": "legacy"},
            "filter": {"tags": ["mesh"]},
            "stalePolicy": {"after": "30s", "keep": "1h"},
        });
        assert_eq!(decoded(&spec).expect("valid").namespace().expect("one").as_str(), "legacy");
    }

    #[test]
    fn every_wrong_field_is_named() {
        let with = |field: &str, value: Value| {
            let mut spec = json!({"type": "File", "file": {"path": "/a"}});
            spec[field] = value;
            spec
        };
        for (spec, want) in [
            (json!({"type": "File"}), "spec.file: is required for type File"),
            (json!({"type": "LDAP"}), "spec.type: must be one of"),
            (
                json!({"type": "Kubernetes", "kubernetes": {}}),
                "spec.kubernetes: must have either address or kubeconfig",
            ),
            (with("file", json!({"path": "a"})), "spec.file.path: must be an absolute path, is \"a\""),
            (json!({"type": "Consul"}), "spec.consul: is required for type Consul"),
            (with("consul", json!({"address": "http://a"})), "spec.consul: is for type Consul, not File"),
            (with("consul", json!({"address": "a:8500"})), "spec.consul.address: must be https://HOST:PORT"),
            (
                with("consul", json!({"address": "http://u@a"})),
                "spec.consul.address: must be https://HOST:PORT",
            ),
            (
                with("consul", json!({"address": "http://a:8500", "tokenFile": "/t"})),
                "spec.consul.address: must be https:// where a token is sent to another host",
            ),
            (
                with("consul", json!({"address": "https://a", "caFile": "ca"})),
                "spec.consul.caFile: must be an absolute",
            ),
            (
                with("consul", json!({"address": "https://a", "namespace": "*"})),
                "spec.consul.namespace: Consul lists the services of one",
            ),
            (with("namespaceMapping", json!({})), "spec.namespaceMapping: must have either to or from"),
            (
                with("namespaceMapping", json!({"from": "x"})),
                "spec.namespaceMapping.from: must be one of namespace",
            ),
            (with("stalePolicy", json!({"after": "1s"})), "spec.stalePolicy.after: must be at least 3s"),
            (
                with("rename", json!([{"from": "A", "to": "a"}, {"from": "A", "to": "b"}])),
                "spec.rename[1].from: has another name already",
            ),
            (with("filter", json!({"services": ["A b"]})), "spec.filter.services[0]: "),
        ] {
            check(&spec, want);
        }
    }

    #[test]
    fn every_wrong_field_of_directories_is_named() {
        for (kind, field, spec, want) in [
            ("Nomad", "nomad", json!({"address": "nomad:4646"}), "address: must be https://HOST:PORT"),
            (
                "Nomad",
                "nomad",
                json!({"address": "http://nomad:4646", "tokenFile": "/t"}),
                "address: must be https:// where a token is sent to another host",
            ),
            (
                "Nomad",
                "nomad",
                json!({"address": "https://n", "certFile": "/c"}),
                "keyFile: is required with",
            ),
            (
                "Nomad",
                "nomad",
                json!({"address": "https://n", "keyFile": "/k"}),
                "certFile: is required with",
            ),
            (
                "Nomad",
                "nomad",
                json!({"address": "https://n", "keyFile": "k"}),
                "keyFile: must be an absolute",
            ),
            ("Kubernetes", "kubernetes", json!({"address": "k:6443"}), "address: must be https://HOST:PORT"),
            ("Kubernetes", "kubernetes", json!({"kubeconfig": "k"}), "kubeconfig: must be an absolute path"),
            (
                "Kubernetes",
                "kubernetes",
                json!({"kubeconfig": "/k", "caFile": "/c"}),
                "caFile: is said by the kubeconfig",
            ),
            (
                "Kubernetes",
                "kubernetes",
                json!({"address": "https://k", "context": "a"}),
                "context: is of a kubeconfig, and there is none",
            ),
            (
                "Kubernetes",
                "kubernetes",
                json!({"address": "https://k", "certFile": "/c"}),
                "keyFile: is required with certFile",
            ),
            ("Eureka", "eureka", json!({"address": "https:///eureka"}), "address: must be https://HOST:PORT"),
            (
                "Eureka",
                "eureka",
                json!({"address": "http://e:8761/eureka", "passwordFile": "/p"}),
                "address: must be https:// where a token is sent to another host",
            ),
            (
                "Eureka",
                "eureka",
                json!({"address": "https://e/eureka", "every": "0s"}),
                "every: must be at least",
            ),
        ] {
            check(&json!({"type": kind, field: spec}), &format!("spec.{field}.{want}"));
        }
    }

    #[test]
    fn every_wrong_field_of_names_is_named() {
        let dns = |dns: Value| json!({"type": "DNS", "dns": dns});
        for (spec, want) in [
            (json!({"type": "DNS"}), "spec.dns: is required for type DNS"),
            (dns(json!({"services": []})), "spec.dns.services: must have at least one"),
            (dns(json!({"servers": ["ns.example"]})), "spec.dns.servers[0]: must be ADDRESS or ADDRESS:PORT"),
            (
                dns(json!({"services": [{"name": "a", "host": "a.example"}]})),
                "spec.dns.services[0]: must have either srv, or host and port",
            ),
            (
                dns(
                    json!({"services": [{"name": "a", "host": "a.example", "port": 1, "srv": "_a._tcp.example"}]}),
                ),
                "spec.dns.services[0]: must have either srv, or host and port",
            ),
            (
                dns(json!({"services": [{"name": "a", "srv": "_a..example"}]})),
                "spec.dns.services[0].srv: must be a name of DNS",
            ),
            (
                dns(json!({"services": [{"name": "a", "host": "a b", "port": 1}]})),
                "spec.dns.services[0].host: must be a name of DNS",
            ),
            (
                dns(json!({"services": [{"name": "a", "srv": "a"}, {"name": "a", "srv": "b"}]})),
                "spec.dns.services[1].name: stands twice",
            ),
            (
                json!({"type": "DNS", "dns": {"services": [{"name": "a", "srv": "a"}]}, "filter": {"tags": ["x"]}}),
                "spec.filter.tags: names of DNS have no tags",
            ),
        ] {
            check(&spec, want);
        }
    }
}
