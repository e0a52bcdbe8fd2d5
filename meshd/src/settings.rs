//! Pure. What meshd.toml says. Unknown keys are refused; every fault is told with its file, line and key.
//! Nothing else configures a server: where its peers are it learns from the log.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use model::{
    duration::Timespan,
    identity::TrustDomain,
    name::{Name, NameError},
};
use toml::de::DeTable;

use self::table::{Faults, Table};
use super::load::Limits;

mod table;

/// The shortest and the longest life of a certificate for a host or service.
pub const CERTIFICATE_TTL: (Timespan, Timespan) = (Timespan::from_secs(3_600), Timespan::from_secs(604_800));
/// The fewest and the most revisions that a server can be told to keep for watchers: fewer than a busy second's would cut
/// off whoever blinks; the bytes of what is kept are bounded apart from this.
pub const HISTORY_REVISIONS: (i64, i64) = (100, 1_000_000);
/// The fewest and the most entries between two snapshots: each costs as much as the state is large, and a restart
/// replays as many.
pub const SNAPSHOT_EVERY: (i64, i64) = (100, 1_000_000);
/// The fewest and the most entries that stay in the log behind a snapshot.
pub const LOG_KEPT: (i64, i64) = (0, 1_000_000);
/// The port of the API where none is named.
pub const API_PORT: u16 = 8_443;
/// The least and the longest time between two scheduled snapshots.
pub const SNAPSHOTS_EVERY: (Timespan, Timespan) = (Timespan::from_secs(1), Timespan::from_secs(2_592_000));
/// As many scheduled snapshots may be kept, at least and at most: a year of daily ones.
const SNAPSHOTS_KEPT: (i64, i64) = (1, 366);
/// The fewest and the most requests under way that a server can be told to take at once: with fewer, the least important
/// class would have next to nothing.
const REQUESTS: (i64, i64) = (64, 1_048_576);
/// The least and the most that requests and answers may be told to hold at once, in MiB: with less, two lists would fill
/// their part.
const HELD_MIB: (i64, i64) = (128, 65_536);
/// The fewest and the most requests a second that one identity may be told to have.
const PER_SECOND: (i64, i64) = (10, 1_000_000);
/// The port of the registry where none is named.
pub const RAFT_PORT: u16 = 8_444;

/// One server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What people call this server; the host's name if left out.
    pub node: Option<Name>,
    /// Where everything is kept that must survive a restart.
    pub data_dir: PathBuf,
    /// What all identities stand under; fixed when the cluster is made.
    pub trust_domain: TrustDomain,
    /// Where this server listens.
    pub listen: Listen,
    /// Where others dial it.
    pub advertise: Advertise,
    /// Where the key comes from that opens the sealed root.
    pub seal: SealSource,
    /// How long certificates for hosts and services live.
    pub certificate_ttl: Timespan,
    /// How much log the registry keeps.
    pub registry: LogSettings,
    /// Snapshots that this server saves by itself; none, if left out.
    pub snapshots: Option<Schedule>,
    /// How much this server takes on at once.
    pub limits: Limits,
}

/// How much log the registry keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot.
    pub log_kept: u64,
    /// Revisions kept for watchers that come back.
    pub history_revisions: usize,
}

/// Snapshots that a server saves by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// How long from one to the next.
    pub every: Timespan,
    /// As many are kept; older ones are removed.
    pub keep: usize,
    /// Where they stand; better on another disk than `data_dir`.
    pub folder: PathBuf,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The API.
    pub api: SocketAddr,
    /// The registry: other members only.
    pub raft: SocketAddr,
    /// Metrics and health, without TLS: for this host.
    pub metrics: SocketAddr,
}

/// Where others dial a server; the server's name with the port it listens on, if left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertise {
    /// The API.
    pub api: Option<HostPort>,
    /// The registry.
    pub raft: Option<HostPort>,
}

/// A host name or address, and a port: `cp1:8443`, `10.0.0.1:8444`, `[::1]:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
}

/// Where the key comes from that opens the sealed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealSource {
    /// systemd's `$CREDENTIALS_DIRECTORY/mesh-seal`.
    Credential,
    /// A file that only meshd may read.
    Keyfile(PathBuf),
    /// A passphrase, read from a file, or asked for when the server starts.
    Passphrase(Option<PathBuf>),
}

/// A text that is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// The file, as it was named.
    pub file: String,
    /// Everything that is wrong with it.
    pub faults: Vec<Fault>,
}

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The key, with its tables; empty where the text is no TOML.
    pub key: String,
    /// What would be right.
    pub message: String,
}

/// Reads a configuration; `file` is only named in errors.
///
/// # Errors
/// Everything that is wrong, each with line and key.
pub fn parse(text: &str, file: &str) -> Result<Settings, SettingsError> {
    let mut faults = Faults::new(text);
    let settings = match DeTable::parse(text) {
        Ok(table) => read(Table::whole(table.get_ref()), &mut faults),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            faults.report(at, String::new(), error.message());
            Settings::default()
        }
    };
    if faults.found.is_empty() {
        return Ok(settings);
    }
    faults.found.sort_by_key(|fault| fault.line);
    Err(SettingsError { file: file.to_owned(), faults: faults.found })
}

fn read<'t>(mut whole: Table<'_, 't>, faults: &mut Faults<'t>) -> Settings {
    let default = Settings::default();
    let settings = Settings {
        node: whole.parsed("node", faults),
        data_dir: whole.parsed("data_dir", faults).unwrap_or(default.data_dir),
        trust_domain: whole.parsed("trust_domain", faults).unwrap_or(default.trust_domain),
        listen: listen(whole.table("listen", faults), default.listen, faults),
        advertise: advertise(whole.table("advertise", faults), faults),
        seal: seal(whole.table("seal", faults), faults).unwrap_or(default.seal),
        certificate_ttl: certificate_ttl(whole.table("certificates", faults), faults)
            .unwrap_or(default.certificate_ttl),
        registry: log(whole.table("registry", faults), default.registry, faults),
        snapshots: schedule(whole.table("snapshots", faults), faults),
        limits: limits(whole.table("limits", faults), default.limits, faults),
    };
    whole.finish(faults);
    settings
}

fn listen<'t>(mut table: Table<'_, 't>, default: Listen, faults: &mut Faults<'t>) -> Listen {
    let listen = Listen {
        api: table.parsed("api", faults).unwrap_or(default.api),
        raft: table.parsed("raft", faults).unwrap_or(default.raft),
        metrics: table.parsed("metrics", faults).unwrap_or(default.metrics),
    };
    table.finish(faults);
    listen
}

fn advertise<'t>(mut table: Table<'_, 't>, faults: &mut Faults<'t>) -> Advertise {
    let advertise = Advertise { api: table.parsed("api", faults), raft: table.parsed("raft", faults) };
    table.finish(faults);
    advertise
}

fn log<'t>(mut table: Table<'_, 't>, default: LogSettings, faults: &mut Faults<'t>) -> LogSettings {
    let mut number = |key, bounds| table.number(key, bounds, faults);
    let entries = |number: i64| u64::try_from(number).ok();
    let log = LogSettings {
        history_revisions: number("history_revisions", HISTORY_REVISIONS)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default.history_revisions),
        snapshot_every: number("snapshot_every", SNAPSHOT_EVERY)
            .and_then(entries)
            .unwrap_or(default.snapshot_every),
        log_kept: number("log_kept", LOG_KEPT).and_then(entries).unwrap_or(default.log_kept),
    };
    table.finish(faults);
    log
}

fn seal<'t>(mut table: Table<'_, 't>, faults: &mut Faults<'t>) -> Option<SealSource> {
    let kind = table.parsed::<SealKind>("kind", faults);
    let source = match kind {
        None => None,
        Some(SealKind::Credential) => Some(SealSource::Credential),
        Some(SealKind::Passphrase) => Some(SealSource::Passphrase(table.parsed("file", faults))),
        Some(SealKind::Keyfile) => {
            let path = table.parsed("path", faults);
            if path.is_none() {
                faults.report(table.at("kind"), table.name("path"), "is required with kind = \"keyfile\"");
            }
            path.map(SealSource::Keyfile)
        }
    };
    table.finish(faults);
    source
}

fn certificate_ttl<'t>(mut table: Table<'_, 't>, faults: &mut Faults<'t>) -> Option<Timespan> {
    let ttl = table.parsed::<Timespan>("ttl", faults);
    let (least, most) = CERTIFICATE_TTL;
    if ttl.is_some_and(|ttl| ttl < least || ttl > most) {
        faults.report(table.at("ttl"), table.name("ttl"), format!("must be between {least} and {most}"));
    }
    table.finish(faults);
    ttl
}

fn schedule<'t>(mut table: Table<'_, 't>, faults: &mut Faults<'t>) -> Option<Schedule> {
    let every = table.parsed::<Timespan>("every", faults);
    let keep = table.number("keep", SNAPSHOTS_KEPT, faults).and_then(|keep| usize::try_from(keep).ok());
    let folder = table.parsed("folder", faults);
    let (least, most) = SNAPSHOTS_EVERY;
    if every.is_some_and(|every| every < least || every > most) {
        let what = format!("must be between {least} and {most}");
        faults.report(table.at("every"), table.name("every"), what);
    }
    table.finish(faults);
    Some(Schedule {
        every: every?,
        keep: keep.unwrap_or(28),
        folder: folder.unwrap_or_else(|| PathBuf::from("/var/lib/meshd/backups")),
    })
}

fn limits<'t>(mut table: Table<'_, 't>, default: Limits, faults: &mut Faults<'t>) -> Limits {
    let mut number = |key, bounds, default| {
        let number = table.number(key, bounds, faults);
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    };
    let limits = Limits {
        places: number("requests", REQUESTS, default.places),
        held_mib: number("held_mib", HELD_MIB, default.held_mib),
        per_second: number("per_second", PER_SECOND, default.per_second),
    };
    table.finish(faults);
    limits
}

impl Settings {
    /// Where others dial this server, which is called `node`: API, then registry.
    pub fn advertised(&self, node: &str) -> (HostPort, HostPort) {
        let own = |port: u16| HostPort { host: node.to_owned(), port };
        (
            self.advertise.api.clone().unwrap_or_else(|| own(self.listen.api.port())),
            self.advertise.raft.clone().unwrap_or_else(|| own(self.listen.raft.port())),
        )
    }
}

/// The contract's defaults; a server is reachable from everywhere but for its metrics.
impl Default for Settings {
    fn default() -> Self {
        Self {
            node: None,
            data_dir: PathBuf::from("/var/lib/meshd"),
            trust_domain: "mesh.internal".parse().expect("a valid trust domain"),
            listen: Listen {
                api: SocketAddr::from(([0, 0, 0, 0], API_PORT)),
                raft: SocketAddr::from(([0, 0, 0, 0], RAFT_PORT)),
                metrics: SocketAddr::from(([127, 0, 0, 1], 8_480)),
            },
            advertise: Advertise::default(),
            seal: SealSource::Credential,
            certificate_ttl: Timespan::from_secs(72 * 3_600),
            registry: LogSettings {
                snapshot_every: registry::raft::settings::SNAPSHOT_EVERY,
                log_kept: registry::raft::settings::LOG_KEPT,
                history_revisions: registry::state::HISTORY_REVISIONS_MAX,
            },
            snapshots: None,
            limits: Limits::default(),
        }
    }
}

enum SealKind {
    Credential,
    Keyfile,
    Passphrase,
}

impl FromStr for SealKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "credential" => Ok(Self::Credential),
            "keyfile" => Ok(Self::Keyfile),
            "passphrase" => Ok(Self::Passphrase),
            _ => Err("must be credential, keyfile or passphrase"),
        }
    }
}

/// Why a text is no [`HostPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host name or address and a port, such as cp1:8443 or [::1]:8443")]
pub struct HostPortError;

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        let port = port.parse().ok().filter(|&port: &u16| port != 0).ok_or(HostPortError)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().map_err(|_| HostPortError)?.to_string(),
            None => dns_name(host)?,
        };
        Ok(Self { host, port })
    }
}

/// Labels of letters, digits and `-` (RFC 1123 §2.1), or an IPv4 address; an unspecified address is dialled by nobody.
fn dns_name(host: &str) -> Result<String, HostPortError> {
    let label = |label: &str| label.parse::<Name>();
    let lower = host.to_ascii_lowercase();
    let labels: Result<Vec<Name>, NameError> = lower.split('.').map(label).collect();
    match labels {
        Ok(_) if lower.len() <= 253 && lower != "0.0.0.0" => Ok(lower),
        _ => Err(HostPortError),
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: ", self.file, fault.line)?;
            if !fault.key.is_empty() {
                write!(f, "{}: ", fault.key)?;
            }
            f.write_str(&fault.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
