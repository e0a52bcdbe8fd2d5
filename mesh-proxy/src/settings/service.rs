//! Pure. `services.d/*.toml`: one local service, how its health is seen, and whom it calls. Each file stands for
//! itself: what is wrong in one spoils no other.

use std::net::SocketAddr;

use model::{
    duration::Timespan,
    name::{Name, ServiceName},
    object::{LABEL_VALUE_BYTES_MAX, LabelKey, Labels},
    resource::{Port, Protocol},
    shape::Text,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Addresses, Binding, Cgroup, SettingsError, Unit};

/// As many upstreams as one service may declare: each is a listener on every runtime thread.
pub const UPSTREAMS_MAX: usize = 128;
/// How often a check runs where the file says nothing.
pub const CHECK_INTERVAL: Timespan = Timespan::from_secs(5);
/// How long a check may take where the file says nothing.
pub const CHECK_TIMEOUT: Timespan = Timespan::from_secs(1);
/// A check more often than this is a load of its own.
const CHECK_INTERVAL_MIN: Timespan = Timespan::from_millis(50);

/// One file of `services.d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFile {
    /// The service that the host runs, or in whose name it calls.
    pub service: ServiceName,
    /// Where the application listens; none for one that only calls.
    pub target_port: Option<Port>,
    /// What callers dial; the target port if left out.
    pub service_port: Option<Port>,
    /// What the application speaks.
    pub protocol: Protocol,
    /// For subsets and selectors.
    pub labels: Labels,
    /// How its health is seen; healthy for as long as it is registered if left out.
    pub check: Option<Check>,
    /// The services for which it has listeners of its own.
    pub upstreams: Vec<Upstream>,
    /// Whose connections speak for the service.
    pub binding: Binding,
    /// Whoever reaches its listeners speaks for it.
    pub shared: bool,
}

/// How a local service's health is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// From one check's start to the next.
    pub interval: Timespan,
    /// A check that takes longer has failed.
    pub timeout: Timespan,
    /// So many failures in a row make a healthy service unhealthy.
    pub unhealthy_threshold: u32,
    /// So many successes in a row make an unhealthy service healthy.
    pub healthy_threshold: u32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// GET of this path; 200 to 399 is health.
    Http(String),
    /// A connection that comes about is health.
    Tcp,
    /// gRPC's own check of this service, the empty name being the whole server; `SERVING` is health.
    Grpc(String),
    /// A program with its arguments; exit code 0 is health.
    Command(Vec<String>),
}

/// An explicit listener for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Who is called.
    pub service: ServiceName,
    /// At which of its ports; its only one, or the first that speaks HTTP, if left out.
    pub port: Option<u16>,
    /// Where the local service calls it.
    pub listen: Vec<SocketAddr>,
}

/// Parses one file of `services.d`; `file` is how errors call it, `uid` knows the users of this host.
///
/// # Errors
/// The first key that is unknown, or whose value is wrong, with its line.
pub fn parse_service(
    text: &str,
    file: &str,
    uid: impl Fn(&str) -> Result<u32, String>,
) -> Result<ServiceFile, SettingsError> {
    let raw: Raw = toml::from_str(text).map_err(|error| SettingsError::locate(file, text, &error))?;
    let wrong = |key: &str, message: String| SettingsError::about(file, text, key, message);
    let user = raw.service.user.as_deref().map(uid).transpose();
    let binding = Binding {
        uid: user.map_err(|message| wrong("service.user", message))?,
        unit: raw.service.unit,
        cgroup: raw.service.cgroup,
    };
    if raw.service.shared && !binding.is_empty() {
        let message = "lets everybody speak for the service: leave unit, user and cgroup out, or this";
        return Err(wrong("service.shared", message.to_owned()));
    }
    if raw.upstream.len() > UPSTREAMS_MAX {
        let message = format!("at most {UPSTREAMS_MAX} may be declared, here are {}", raw.upstream.len());
        return Err(wrong("upstream", message));
    }
    if raw.service.port.is_none() && (raw.service.service_port.is_some() || raw.service.check.is_some()) {
        let message = "is required where service_port or check is given".to_owned();
        return Err(wrong("service.port", message));
    }
    let check = raw.service.check.map(RawCheck::check).transpose();
    let check = check.map_err(|message| wrong("service.check", message))?;
    let namespace = raw.service.namespace;
    let upstream = |raw: RawUpstream| Upstream {
        service: raw.service.in_namespace(&namespace),
        port: raw.port.map(|Number(port)| port),
        listen: raw.listen.0,
    };
    Ok(ServiceFile {
        upstreams: raw.upstream.into_iter().map(upstream).collect(),
        service: ServiceName::new(namespace, raw.service.name),
        target_port: raw.service.port.map(Number::port),
        service_port: raw.service.service_port.or(raw.service.port).map(Number::port),
        protocol: raw.service.protocol.unwrap_or(Protocol::Auto),
        labels: raw.service.labels.0,
        check,
        binding,
        shared: raw.service.shared,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    service: RawService,
    #[serde(default)]
    upstream: Vec<RawUpstream>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Name,
    #[serde(default = "default_namespace")]
    namespace: Name,
    port: Option<Number>,
    service_port: Option<Number>,
    #[serde(default, deserialize_with = "protocol")]
    protocol: Option<Protocol>,
    unit: Option<Unit>,
    user: Option<String>,
    cgroup: Option<Cgroup>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    labels: RawLabels,
    check: Option<RawCheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpstream {
    service: ShortName,
    port: Option<Number>,
    listen: Addresses,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    http: Option<HttpPath>,
    tcp: Option<bool>,
    grpc: Option<String>,
    command: Option<Vec<String>>,
    #[serde(default = "default_interval")]
    interval: Timespan,
    #[serde(default = "default_timeout")]
    timeout: Timespan,
    #[serde(default = "default_unhealthy")]
    unhealthy_threshold: u32,
    #[serde(default = "default_healthy")]
    healthy_threshold: u32,
}

fn default_namespace() -> Name {
    "default".parse().expect("it is a label")
}

fn default_interval() -> Timespan {
    CHECK_INTERVAL
}

fn default_timeout() -> Timespan {
    CHECK_TIMEOUT
}

fn default_unhealthy() -> u32 {
    3
}

fn default_healthy() -> u32 {
    2
}

impl RawCheck {
    fn check(self) -> Result<Check, String> {
        let http = self.http.map(|HttpPath(path)| CheckKind::Http(path));
        let tcp = self.tcp.filter(|&on| on).map(|_| CheckKind::Tcp);
        let command = self.command.map(CheckKind::Command);
        let grpc = self.grpc.map(CheckKind::Grpc);
        let mut kinds = [http, tcp, grpc, command].into_iter().flatten();
        let (Some(kind), None) = (kinds.next(), kinds.next()) else {
            return Err("needs one of http = \"/path\", tcp = true, grpc = \"\", command = [\"program\", …]"
                .to_owned());
        };
        if kind == CheckKind::Command(Vec::new()) {
            return Err("command must name a program".to_owned());
        }
        if self.interval < CHECK_INTERVAL_MIN || self.timeout.duration().is_zero() {
            return Err(format!("interval must be at least {CHECK_INTERVAL_MIN}, timeout above 0"));
        }
        if self.unhealthy_threshold == 0 || self.healthy_threshold == 0 {
            return Err("thresholds must be at least 1".to_owned());
        }
        Ok(Check {
            kind,
            interval: self.interval,
            timeout: self.timeout,
            unhealthy_threshold: self.unhealthy_threshold,
            healthy_threshold: self.healthy_threshold,
        })
    }
}

/// A port number; the model's own type takes all whole numbers from serde.
#[derive(Clone, Copy)]
struct Number(u16);

impl Number {
    fn port(self) -> Port {
        Port::clamped(u64::from(self.0))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => Err(D::Error::custom(format!("must be a port from 1 to 65535, is {number}"))),
        }
    }
}

/// `payments`, or `shop/payments`.
enum ShortName {
    Here(Name),
    There(ServiceName),
}

impl ShortName {
    fn in_namespace(self, namespace: &Name) -> ServiceName {
        match self {
            Self::Here(name) => ServiceName::new(namespace.clone(), name),
            Self::There(service) => service,
        }
    }
}

impl<'de> Deserialize<'de> for ShortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = match text.contains('/') {
            true => text.parse().map(Self::There),
            false => text.parse().map(Self::Here),
        };
        parsed.map_err(D::Error::custom)
    }
}

fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Protocol>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = [
        ("http", Protocol::Http),
        ("http2", Protocol::Http2),
        ("grpc", Protocol::Grpc),
        ("tcp", Protocol::Tcp),
        ("tls", Protocol::Tls),
        ("auto", Protocol::Auto),
    ];
    match known.iter().find(|(name, _)| *name == text) {
        Some((_, protocol)) => Ok(Some(*protocol)),
        None => Err(D::Error::custom(format!("must be http, http2, grpc, tcp, tls or auto, is {text:?}"))),
    }
}

#[derive(Default)]
struct RawLabels(Labels);

impl<'de> Deserialize<'de> for RawLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        let label = |(key, value): (String, String)| {
            let key: LabelKey = key.parse().map_err(D::Error::custom)?;
            let wrong =
                || D::Error::custom(format!("must have at most {LABEL_VALUE_BYTES_MAX} bytes, is {value:?}"));
            let value = Text::new(&value).ok_or_else(wrong)?;
            Ok((key, value))
        };
        raw.into_iter().map(label).collect::<Result<_, _>>().map(Self)
    }
}

struct HttpPath(String);

impl<'de> Deserialize<'de> for HttpPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        match path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok() {
            true => Ok(Self(path)),
            false => Err(D::Error::custom(format!("must be a path such as /healthz, is {path:?}"))),
        }
    }
}
