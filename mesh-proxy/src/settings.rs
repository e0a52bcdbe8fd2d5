//! Pure. `proxy.toml`: what one host's proxy is told. Every key is known, every value is checked while it is read, and
//! an error names file, line and key. Reading the file, and everything that follows from it, is done elsewhere.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use model::{
    duration::Timespan,
    name::{Name, ServiceName},
};
use serde::{Deserialize, Deserializer, de::Error as _};

mod binding;
mod place;
mod service;

pub use binding::{Binding, Cgroup, Fit, Unit};
pub use place::SettingsError;
pub use service::{
    CHECK_INTERVAL, CHECK_TIMEOUT, Check, CheckKind, ServiceFile, UPSTREAMS_MAX, Upstream, parse_service,
};

/// Runtime threads beyond this only compete with the applications of the host.
pub const THREADS_MAX: usize = 64;
/// Runtime threads where the file says nothing, if the host has as many cores.
pub const THREADS_DEFAULT: usize = 4;
/// The port of resolvers.
const DNS_PORT: u16 = 53;
/// How long calls in flight get to end after SIGTERM, where the file says nothing.
pub const DRAIN_DEFAULT: Timespan = Timespan::from_secs(10);

/// How long connections stay with the process before, after a restart, where the file says nothing: streams that nobody
/// can move elsewhere go on for as long.
pub const HANDOVER_DRAIN_DEFAULT: Timespan = Timespan::from_secs(600);

/// All of `proxy.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// This host's name in the mesh; the host name if left out.
    pub node: Option<Name>,
    /// The control plane's members, `https://HOST:PORT`; any of them will do.
    pub servers: Vec<Server>,
    /// Where keys, certificates and the last good configuration are kept.
    pub data_dir: PathBuf,
    /// Where the files of the local services are.
    pub services_dir: PathBuf,
    /// The address that other hosts dial; found out from the route to the control plane if left out.
    pub advertise: Option<IpAddr>,
    /// Runtime threads; the smaller of the host's cores and [`THREADS_DEFAULT`] if left out.
    #[serde(deserialize_with = "threads")]
    pub threads: Option<usize>,
    /// How long calls in flight get to end after SIGTERM.
    pub drain: Timespan,
    /// How long connections stay with the process before, after a restart or an upgrade.
    pub handover_drain: Timespan,
    /// In whose name the host router calls, where the host runs several services.
    pub host_router_identity: Option<ServiceName>,
    /// Who answers for names that are not of the mesh, where `listen.dns` is asked for such.
    pub dns_upstream: DnsUpstream,
    /// For which service those speak whom no file binds to one, on a host where something is bound.
    pub default_identity: Option<ServiceName>,
    /// The listeners.
    pub listen: Listen,
    /// The rules by which calls come to the listeners for captured ones.
    pub capture: Capture,
    /// The log of calls.
    pub access_log: AccessLog,
    /// Spans of calls.
    pub tracing: Tracing,
}

/// `[listen]`: where the proxy is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// mTLS from other proxies.
    pub inbound: Addresses,
    /// Captured plaintext from outside the mesh.
    pub inbound_plain: Addresses,
    /// Captured calls of local applications.
    pub outbound: Addresses,
    /// Calls of local applications, told apart by their Host.
    pub host_router: Addresses,
    /// Look-ups of names of the mesh, over UDP and TCP.
    pub dns: Addresses,
    /// Health, metrics, configuration; read-only.
    pub admin: Addresses,
}

/// `[capture]`: for `mesh-proxy capture`, which loads the rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// As whom the proxy runs: what it sends itself is let go.
    pub user: String,
    /// Whether look-ups of names are turned aside to `listen.dns`; where systemd-resolved does not run if left out.
    pub dns: Option<bool>,
    /// Where what stood before is kept while rules are on trial; root's alone, as root loads it again.
    pub run_dir: PathBuf,
}

/// `[access_log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// Where the lines go.
    pub output: Output,
}

/// `[tracing]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// A collector that takes OTLP/HTTP, such as `http://127.0.0.1:4318`; spans are kept only where there is one.
    pub collector: Option<Collector>,
    /// Of the traces that begin here, the share that is sampled, from 0 to 1. Who calls may have decided already.
    #[serde(deserialize_with = "share")]
    pub sample: f64,
}

/// Where spans go: a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(String);

/// Where the log of calls goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere: `""`.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// To the journal of systemd, with fields.
    Journal,
    /// Appended to a file.
    File(PathBuf),
}

/// One member of the control plane: `https://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// A DNS name or an IP address, as in the server's certificate.
    pub host: String,
    /// Its port; 8443 if left out.
    pub port: u16,
}

/// No address (`""`), one, or a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

/// Who answers for names that are not of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DnsUpstream {
    /// Nobody: `""`. Whoever asks is refused, and asks its next resolver.
    #[default]
    Nobody,
    /// The resolvers that `/etc/resolv.conf` names, whenever it does, but for ourselves: `"system"`.
    System,
    /// These.
    These(Vec<SocketAddr>),
}

/// Parses `proxy.toml`; `file` is how errors call it.
///
/// # Errors
/// The first key that is unknown, or whose value is wrong, with its line.
pub fn parse_proxy(text: &str, file: &str) -> Result<Settings, SettingsError> {
    toml::from_str(text).map_err(|error| SettingsError::locate(file, text, &error))
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: None,
            servers: Vec::new(),
            data_dir: "/var/lib/mesh-proxy".into(),
            services_dir: "/etc/mesh/services.d".into(),
            advertise: None,
            threads: None,
            drain: DRAIN_DEFAULT,
            handover_drain: HANDOVER_DRAIN_DEFAULT,
            host_router_identity: None,
            dns_upstream: DnsUpstream::default(),
            default_identity: None,
            listen: Listen::default(),
            capture: Capture::default(),
            access_log: AccessLog::default(),
            tracing: Tracing::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            inbound: Addresses(vec![SocketAddr::from(([0, 0, 0, 0], 15_008))]),
            inbound_plain: Addresses::default(),
            outbound: Addresses::default(),
            host_router: Addresses(vec![SocketAddr::from(([127, 0, 0, 1], 15_080))]),
            dns: Addresses::default(),
            admin: Addresses(vec![SocketAddr::from(([127, 0, 0, 1], 15_000))]),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self { user: "mesh-proxy".to_owned(), dns: None, run_dir: "/run/mesh-capture".into() }
    }
}

impl Settings {
    /// How many runtime threads to start on a host with so many cores.
    pub fn threads(&self, cores: usize) -> usize {
        self.threads.unwrap_or(cores.clamp(1, THREADS_DEFAULT))
    }

    /// How long calls in flight get to end after SIGTERM.
    pub fn drain(&self) -> Duration {
        self.drain.duration()
    }

    /// How long connections stay with the process before, after a restart or an upgrade.
    pub fn handover_drain(&self) -> Duration {
        self.handover_drain.duration()
    }
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let threads = usize::deserialize(deserializer)?;
    if (1..=THREADS_MAX).contains(&threads) {
        return Ok(Some(threads));
    }
    Err(D::Error::custom(format!("must be from 1 to {THREADS_MAX}, is {threads}")))
}

// === impl Server ===

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be https://HOST:PORT, is {text:?}");
        let authority = text.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
        let authority: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| wrong())?,
            None => 8_443,
        };
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

// === impl Tracing, Collector ===

impl Tracing {
    /// Where spans are sent (OTLP/HTTP, "OTLP/HTTP Request").
    pub fn traces_url(&self) -> Option<String> {
        let Collector(base) = self.collector.as_ref()?;
        Some(format!("{}/v1/traces", base.trim_end_matches('/')))
    }
}

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let url: Option<http::Uri> = text.parse().ok();
        let fits = url.is_some_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some()
                && url.query().is_none()
        });
        match fits {
            true => Ok(Self(text)),
            false => {
                Err(D::Error::custom(format!("must be a URL such as \"http://127.0.0.1:4318\", is {text:?}")))
            }
        }
    }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(D::Error::custom(format!("must be from 0 to 1, is {share}"))),
    }
}

// === impl Addresses, DnsUpstream, Output ===

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "must be an address such as \"127.0.0.1:15000\", a list of them, or \"\" for off"
)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn texts(self) -> Vec<String> {
        match self {
            Self::One(text) if text.is_empty() => Vec::new(),
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = |text: &str| format!("must be an address such as 127.0.0.1:15000, is {text:?}");
        let parse = |text: String| text.parse().map_err(|_| D::Error::custom(wrong(&text)));
        OneOrMany::deserialize(deserializer)?
            .texts()
            .into_iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for DnsUpstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = OneOrMany::deserialize(deserializer)?.texts();
        if texts == ["system"] {
            return Ok(Self::System);
        }
        let resolver = |text: String| {
            let alone = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
            let wrong = || format!("must be \"system\", \"\", or an address such as 192.0.2.1, is {text:?}");
            text.parse().or(alone).map_err(|_| D::Error::custom(wrong()))
        };
        let these = texts.into_iter().map(resolver).collect::<Result<Vec<_>, _>>()?;
        Ok(if these.is_empty() { Self::Nobody } else { Self::These(these) })
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            "journald" => Ok(Self::Journal),
            path if path.contains('/') => Ok(Self::File(path.into())),
            other => Err(D::Error::custom(format!(
                "must be \"stdout\", \"journald\" or a file's path, is {other:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
