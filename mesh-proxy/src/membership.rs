//! The commands by which a host comes into a mesh, comes back, and leaves it. They are typed by root, for a proxy that runs
//! as a user of its own.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use mesh_proxy::{
    capture::{self, CaptureError},
    doctor,
    identity::{Identity, Keep, NodeFile, node_name},
    join::{
        self, JoinError,
        approval::{self, Anchor, ApprovalError, Asking, Progress},
    },
    leave::{Farewell, Leaver},
    settings::{Server, Settings},
};
use model::{
    duration::Timespan,
    name::Name,
    rejoin::{RejoinStatus, grouped, ungrouped},
    token::JoinToken,
};
use tokio::runtime::Runtime;

/// The unit of the packages.
const UNIT: &str = "mesh-proxy.service";
/// That of the kernel's rules.
const CAPTURE_UNIT: &str = "mesh-capture.service";

#[derive(Args)]
pub(crate) struct Join {
    #[command(flatten)]
    way: Way,
    /// Leave it to others to start the proxy.
    #[arg(long)]
    no_start: bool,
}

#[derive(Args)]
pub(crate) struct Rejoin {
    #[command(flatten)]
    way: Way,
    /// Without a token: believe servers whose root has this fingerprint, as `meshctl ca status` shows it [default: the roots that
    /// this host kept].
    #[arg(long, value_name = "SHA256", value_parser = pin, conflicts_with_all = ["token", "token_file"])]
    ca_pin: Option<String>,
    /// Without a token: believe servers of the roots in this file, as `meshctl ca bundle` prints them.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "token_file", "ca_pin"])]
    ca: Option<PathBuf>,
    /// Without a token: wait for the approval no longer than this, such as 10m; the request stays.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["token", "token_file"])]
    timeout: Option<Timespan>,
    /// Leave it to others to start the proxy anew.
    #[arg(long)]
    no_start: bool,
}

#[derive(Args)]
pub(crate) struct Leave {
    #[command(flatten)]
    home: Home,
    /// Tell nobody: for when no server answers. An operator then has to delete the Node.
    #[arg(long)]
    offline: bool,
}

/// Where the host's things are.
#[derive(Args)]
struct Home {
    /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the identity is kept [default: data_dir of the settings].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// How it comes in.
#[derive(Args)]
struct Way {
    /// A member of the control plane: https://HOST:PORT.
    server: Server,
    /// The join token, as `meshctl token` gave it.
    #[arg(long, env = "MESH_JOIN_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the join token; - is standard input.
    #[arg(long)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    home: Home,
    /// The host's name in the mesh [default: the one that it has, else node of the settings, else the host name].
    #[arg(long)]
    node: Option<Name>,
}

/// Joins, and starts the unit.
pub(crate) fn join(runtime: &Runtime, Join { way, no_start }: Join) -> anyhow::Result<()> {
    let (settings, token) = (way.home.settings()?, way.token()?);
    let node = way.node.clone().or(settings.node.clone()).map_or_else(host_name, Ok)?;
    let keep = Keep::open(&settings.data_dir)?;
    let joined = runtime.block_on(join::join(&way.server, &token, &node, &keep));
    let joined = kept(&settings, joined)?;
    tell(&settings, "joined", &joined)?;
    if !no_start && way.home.has_unit(&settings) {
        host::unit::start(UNIT)?;
        writeln!(io::stdout(), "it runs, now and after each boot: systemctl status {UNIT}")?;
    }
    Ok(())
}

/// Comes back under the same name, and starts the unit anew.
pub(crate) fn rejoin(runtime: &Runtime, rejoin: Rejoin) -> anyhow::Result<()> {
    let way = &rejoin.way;
    let settings = way.home.settings()?;
    let keep = Keep::open(&settings.data_dir)?;
    let known = keep.node()?;
    let named = way.node.clone().or(known.as_ref().map(|known| known.node.clone()));
    let node = named.or(settings.node.clone()).map_or_else(host_name, Ok)?;
    let joined = match way.has_token() {
        true => runtime.block_on(join::rejoin(&way.server, &way.token()?, &node, &keep)),
        false => {
            let asking = rejoin.asking(&settings, known.as_ref())?;
            let joined = runtime.block_on(until_interrupted(approval::rejoin(&asking, &node, &keep, show)));
            on_last_line("")?;
            joined
        }
    };
    let joined = kept(&settings, joined)?;
    tell(&settings, "rejoined", &joined)?;
    if rejoin.no_start || !way.home.has_unit(&settings) {
        writeln!(io::stdout(), "start mesh-proxy anew: one that runs has the old identity")?;
    } else {
        host::unit::restart(UNIT)?;
        writeln!(io::stdout(), "it runs with it, now and after each boot: systemctl status {UNIT}")?;
    }
    Ok(())
}

/// Leaves: first everything that may fail without harm, last the identity, without which nothing can be tried again.
pub(crate) fn leave(runtime: &Runtime, Leave { home, offline }: Leave) -> anyhow::Result<()> {
    let settings = home.settings()?;
    let Some((keep, node)) = identity_of(&settings)? else {
        writeln!(io::stdout(), "this host has not joined a mesh, or has left it: there is nothing to leave")?;
        return Ok(());
    };
    let leaver = match offline {
        true => None,
        false => Some(ready_to_leave(runtime, &settings, &keep)?),
    };
    end_proxy(runtime, &home, &settings)?;
    remove_rules(&settings)?;
    let heard = leaver.map(|leaver| runtime.block_on(leaver.say())).transpose();
    let heard = heard.context("the proxy has ended, and the identity is still there: leave again")?;
    keep.erase()?;
    let NodeFile { node, trust_domain, .. } = node;
    writeln!(
        io::stdout(),
        "node {node} has left {trust_domain}; its identity is erased from {}",
        settings.data_dir.display()
    )?;
    if heard != Some(Farewell::Heard) {
        writeln!(io::stdout(), "as long as `meshctl get node {node}` shows it: meshctl delete node {node}")?;
    }
    Ok(())
}

fn identity_of(settings: &Settings) -> anyhow::Result<Option<(Keep, NodeFile)>> {
    // A folder that is not there is not for us to make.
    if !settings.data_dir.is_dir() {
        return Ok(None);
    }
    let keep = Keep::open(&settings.data_dir)?;
    keep.settle()?;
    Ok(keep.node()?.map(|node| (keep, node)))
}

/// Whether it will be heard is found out before anything is changed.
fn ready_to_leave(runtime: &Runtime, settings: &Settings, keep: &Keep) -> anyhow::Result<Leaver> {
    let leaver = || -> anyhow::Result<Leaver> {
        let leaver = Leaver::new(settings, Identity::load(keep.clone())?);
        runtime.block_on(leaver.can_be_heard())?;
        Ok(leaver)
    };
    leaver().context("nothing was changed; `mesh-proxy leave --offline` leaves without telling anybody")
}

/// Lets what is under way end. A proxy that is not systemd's is for those who started it to end.
fn end_proxy(runtime: &Runtime, home: &Home, settings: &Settings) -> anyhow::Result<()> {
    if home.has_unit(settings) {
        host::unit::stop(UNIT)?;
        if host::unit::can_start(CAPTURE_UNIT) {
            host::unit::halt(CAPTURE_UNIT)?;
        }
    } else if runtime.block_on(doctor::runs(settings)) {
        bail!("nothing was changed: a proxy runs on this host; end it first (SIGTERM lets its calls end)");
    }
    Ok(())
}

/// Root alone could have loaded any.
fn remove_rules(settings: &Settings) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match capture::is_loaded() {
        Ok(false) | Err(CaptureError::Missing { .. }) => Ok(()),
        Ok(true) | Err(_) => Ok(capture::remove(settings)?),
    }
}

/// Whatever was written, the proxy's user has to be able to read it.
fn kept(settings: &Settings, joined: Result<NodeFile, JoinError>) -> anyhow::Result<NodeFile> {
    let folder = &settings.data_dir;
    host::owner::give_to_owner(folder).with_context(|| folder.display().to_string())?;
    Ok(joined?)
}

fn tell(settings: &Settings, done: &str, NodeFile { node, trust_domain, .. }: &NodeFile) -> io::Result<()> {
    let folder = settings.data_dir.display();
    writeln!(io::stdout(), "{done} as node {node} of {trust_domain}; the identity is in {folder}")
}

/// Ctrl-C ends the waiting; what was written by then is given to its owner as ever.
async fn until_interrupted(
    joined: impl Future<Output = Result<NodeFile, JoinError>>,
) -> Result<NodeFile, JoinError> {
    tokio::select! {
        joined = joined => joined,
        Ok(()) = tokio::signal::ctrl_c() => Err(ApprovalError::Interrupted.into()),
    }
}

/// A reader who has gone is no failure of the request.
fn show(progress: Progress<'_>) {
    drop(match progress {
        Progress::Filed(filed) => write!(io::stdout(), "{}", instructions(filed)),
        Progress::Waiting(since) => on_last_line(&format!(
            "waiting for an operator, {} by now ",
            Timespan::from_secs(since.as_secs())
        )),
        Progress::Trouble(error) => {
            on_last_line("").and_then(|()| writeln!(io::stderr(), "{error}; trying again"))
        }
    });
}

/// Takes the place of what stood there before; only where somebody looks at it.
fn on_last_line(text: &str) -> io::Result<()> {
    match io::stderr().is_terminal() {
        true => write!(io::stderr(), "\r\x1b[K{text}"),
        false => Ok(()),
    }
}

/// What two people need: one who sits here, one who has `meshctl`.
fn instructions(filed: &RejoinStatus) -> String {
    let RejoinStatus { id, node, expires_at, .. } = filed;
    let key = grouped(&filed.fingerprint);
    format!(
        "node {node} asks to come back\n  request      {id}\n  fingerprint  {key}\n\
         an operator who sees the same fingerprint approves it until {expires_at}:\n  \
         meshctl ca approve {id} --fingerprint '{key}'\n\
         this waits for it; Ctrl-C ends the waiting, not the request, and the same command goes on with it\n"
    )
}

/// A root's fingerprint, in any grouping.
fn pin(text: &str) -> Result<String, String> {
    ungrouped(text).ok_or_else(|| "must be the 64 hex digits of SHA-256 over a root certificate".to_owned())
}

fn host_name() -> anyhow::Result<Name> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    node_name(&host).with_context(|| format!("the host name {host:?} is no name for a node: use --node"))
}

impl Home {
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = crate::settings(self.config.as_deref())?;
        if let Some(folder) = &self.data_dir {
            settings.data_dir.clone_from(folder);
        }
        Ok(settings)
    }

    /// Whether the packages' unit runs on what stands here, and is ours to start and stop.
    fn has_unit(&self, settings: &Settings) -> bool {
        let of_it = self.config.is_none() && settings.data_dir == Settings::default().data_dir;
        of_it && host::unit::can_start(UNIT)
    }
}

impl Rejoin {
    /// Whom it asks without a token, and by what they are believed.
    fn asking(&self, settings: &Settings, known: Option<&NodeFile>) -> anyhow::Result<Asking> {
        let anchor = match (&self.ca_pin, &self.ca) {
            (Some(pin), _) => Anchor::Pins(vec![pin.clone()]),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                let roots = svid::pem::certificates(&text).with_context(|| path.display().to_string())?;
                Anchor::roots(&roots)
            }
            (None, None) => Anchor::Kept,
        };
        let (server, patience) = (self.way.server.clone(), self.timeout);
        let mut others = [settings.servers.clone(), known.map(Keep::servers).unwrap_or_default()].concat();
        others.retain(|other| *other != server);
        Ok(Asking { server, others, anchor, patience })
    }
}

impl Way {
    fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    fn token(&self) -> anyhow::Result<JoinToken> {
        let text = match (&self.token, self.token_file.as_deref()) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) if path == Path::new("-") => io::read_to_string(io::stdin())?,
            (None, Some(path)) => {
                std::fs::read_to_string(path).with_context(|| path.display().to_string())?
            }
            (None, None) => bail!("a join token is needed: --token, --token-file or MESH_JOIN_TOKEN"),
        };
        Ok(text.parse()?)
    }
}
