//! The proxy's program: the command line, logs, signals. What it does is in the library.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser, Subcommand};
use mesh_proxy::{
    identity::{Keep, node_name},
    join::join,
    run::{Signals, run},
    settings::{Server, Settings, parse_proxy},
};
use model::{name::Name, token::JoinToken};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Where the settings are if nothing is said.
const CONFIG: &str = "/etc/mesh/proxy.toml";

/// One host's proxy of the mesh: carries the traffic of its services over mutual TLS.
#[derive(Parser)]
#[command(name = "mesh-proxy", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join this host to a mesh, once. Its key is made here and stays here.
    Join {
        /// A member of the control plane: https://HOST:PORT.
        server: Server,
        /// The join token, as `meshctl token` gave it.
        #[arg(long, env = "MESH_JOIN_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
        token: Option<String>,
        /// A file that holds the join token; - is standard input.
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where the identity is kept [default: data_dir of the settings].
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// The host's name in the mesh [default: node of the settings, else the host name].
        #[arg(long)]
        node: Option<Name>,
    },
    /// Run the proxy of a host that has joined. SIGTERM drains it, SIGHUP reads services.d again.
    Run {
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print the completions of a shell.
    Completion {
        /// Which.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    match carry_out(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader who has gone is no failure that could be told.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Command::Join { server, token, token_file, config, data_dir, node } => {
            let settings = settings(config.as_deref())?;
            let token = token_text(token, token_file.as_deref())?.parse::<JoinToken>()?;
            let node = node.or(settings.node).map_or_else(host_name, Ok)?;
            let folder = data_dir.unwrap_or(settings.data_dir);
            let keep = Keep::open(&folder)?;
            let joined = runtime.block_on(join(&server, &token, &node, &keep))?;
            let (node, domain) = (joined.node, joined.trust_domain);
            writeln!(
                io::stdout(),
                "joined as node {node} of {domain}; the identity is in {}",
                folder.display()
            )?;
        }
        Command::Run { config } => {
            let settings = settings(config.as_deref())?;
            runtime.block_on(async { run(settings, signals()?).await.map_err(anyhow::Error::from) })?;
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "mesh-proxy", &mut io::stdout());
        }
    }
    Ok(())
}

/// The file that is named must be there; the usual one may be missing.
fn settings(file: Option<&Path>) -> anyhow::Result<Settings> {
    let path = file.unwrap_or(Path::new(CONFIG));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse_proxy(&text, &path.display().to_string())?),
        Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn token_text(token: Option<String>, file: Option<&Path>) -> anyhow::Result<String> {
    match (token, file) {
        (Some(token), _) => Ok(token),
        (None, Some(path)) if path == Path::new("-") => Ok(io::read_to_string(io::stdin())?),
        (None, Some(path)) => std::fs::read_to_string(path).with_context(|| path.display().to_string()),
        (None, None) => bail!("a join token is needed: --token, --token-file or MESH_JOIN_TOKEN"),
    }
}

fn host_name() -> anyhow::Result<Name> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    node_name(&host).with_context(|| format!("the host name {host:?} is no name for a node: use --node"))
}

fn signals() -> io::Result<Signals> {
    let (raise, reload) = watch::channel(0_u64);
    let leave = CancellationToken::new();
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = leave.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => raise.send_modify(|times| *times += 1),
                Some(()) = terminate.recv() => told.cancel(),
                Some(()) = interrupt.recv() => told.cancel(),
            }
        }
    });
    Ok(Signals { reload, leave })
}

/// Logs on standard error; MESH_LOG sets the level.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MESH_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    log.with_env_filter(filter).init();
}
