//! The proxy's program: the command line, logs, signals. What it does is in the library.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use mesh_proxy::{
    capture::{self, TRIAL_MAX, keep_watch},
    doctor,
    handover::{self, Channel, Orders},
    listener::Sockets,
    run::{Surroundings, run},
    settings::{Settings, parse_proxy},
    supervisor::supervise,
};
use model::duration::Timespan;
use tokio::signal::unix::{SignalKind, signal};

mod membership;
mod pow;

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
    Join(membership::Join),
    /// Come back under the same name with a new key: when the certificate has expired or is distrusted, or the disk was
    /// lost. With a token that `meshctl token join NAME --node NODE --rejoin` made, or without one by an operator's approval:
    /// `meshctl ca approve`. What fails leaves all as it was.
    Rejoin(membership::Rejoin),
    /// Leave the mesh for good: end the proxy and its rules, have the control plane forget this host, and erase its
    /// identity here.
    Leave(membership::Leave),
    /// Run the proxy of a host that has joined. SIGTERM drains it, SIGHUP reads services.d again.
    Run {
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run the proxy under systemd, so that restarts and upgrades lose no call. SIGTERM leaves the worker to a successor,
    /// SIGUSR1 ends it, SIGHUP reads services.d again.
    Supervise {
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// What `supervise` runs.
    #[command(hide = true)]
    Worker {
        /// The proxy's settings.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    Man {
        /// Where.
        folder: PathBuf,
    },
    /// The kernel's rules by which calls of this host's programs come to the proxy.
    Capture {
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: Capture,
    },
    /// Look at this host and say what is wrong, and what to do about it. The exit code is 1 if something is.
    Doctor {
        /// The proxy's settings [default: /etc/mesh/proxy.toml, if it is there].
        #[arg(long)]
        config: Option<PathBuf>,
        /// How it is told.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the completions of a shell.
    Completion {
        /// Which.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum Capture {
    /// Print what would be loaded: a script for nft, and for ip in its remarks.
    Plan {
        /// How.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Load the rules, in place of those of before. Needs root.
    Apply {
        /// What stood before comes back unless `mesh-proxy capture confirm` comes within this time, such as 60s.
        #[arg(long, value_name = "TIME")]
        confirm: Option<Timespan>,
    },
    /// Keep the rules that were applied with --confirm.
    Confirm,
    /// Have the rules that stand follow modes and services, and change nothing else. Needs root; `mesh-capture.path` does it.
    Refresh,
    /// Take away all rules and routes. Needs root.
    Remove,
    /// Bring back what stood before, unless somebody confirms.
    #[command(hide = true)]
    Watch {
        #[arg(long)]
        trial: String,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        folder: PathBuf,
    },
}

/// How something is printed.
#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    host::log::start("info");
    match carry_out(arguments) {
        Ok(code) => code,
        Err(error) => {
            // A reader who has gone is no failure that could be told.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), folder)?,
        Command::Join(join) => membership::join(&runtime, join)?,
        Command::Rejoin(rejoin) => membership::rejoin(&runtime, rejoin)?,
        Command::Leave(leave) => membership::leave(&runtime, leave)?,
        Command::Run { config } => {
            let settings = settings(config.as_deref())?;
            let alone = async {
                let orders = signals(Orders::alone())?;
                let surroundings = Surroundings { orders, sockets: Sockets::default(), post: None };
                run(settings, surroundings).await.map_err(anyhow::Error::from)
            };
            runtime.block_on(alone)?;
        }
        Command::Supervise { config } => {
            let patience = settings(config.as_deref())?.handover_drain();
            let mut program = tokio::process::Command::new(std::env::current_exe()?);
            program.arg("worker").args(config.iter().flat_map(|path| [Path::new("--config"), path]));
            runtime.block_on(supervise(program, patience))?;
        }
        Command::Worker { config } => {
            let settings = settings(config.as_deref())?;
            runtime.block_on(work(settings))?;
        }
        Command::Capture { config, command } => capture_calls(&settings(config.as_deref())?, command)?,
        Command::Doctor { config, output } => {
            let findings = runtime.block_on(doctor::examine(&settings(config.as_deref())?));
            match output {
                Output::Text => write!(io::stdout(), "{}", doctor::text(&findings))?,
                Output::Json => writeln!(io::stdout(), "{:#}", serde_json::to_value(&findings)?)?,
            }
            return Ok(if doctor::is_ill(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "mesh-proxy", &mut io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn capture_calls(settings: &Settings, command: Capture) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match command {
        Capture::Plan { output } => {
            let plan = capture::plan(settings)?;
            match output {
                Output::Text => write!(out, "{plan}")?,
                Output::Json => writeln!(out, "{:#}", serde_json::to_value(plan)?)?,
            }
        }
        Capture::Apply { confirm: None } => {
            capture::apply(settings, None)?;
            writeln!(out, "the rules are loaded")?;
        }
        Capture::Apply { confirm: Some(patience) } => {
            if patience.duration() > TRIAL_MAX {
                bail!("--confirm: at most {} s", TRIAL_MAX.as_secs());
            }
            capture::apply(settings, Some(patience.duration()))?;
            writeln!(
                out,
                "the rules are loaded, for {patience}: keep them with `mesh-proxy capture confirm`"
            )?;
        }
        Capture::Confirm => {
            capture::confirm(settings)?;
            writeln!(out, "the rules stay")?;
        }
        Capture::Refresh => {
            let changed = capture::refresh(settings)?;
            writeln!(out, "{}", if changed { "the rules follow" } else { "nothing is to be changed" })?;
        }
        Capture::Remove => {
            capture::remove(settings)?;
            writeln!(out, "no rule of the mesh is left")?;
        }
        Capture::Watch { trial, seconds, folder } => {
            keep_watch(&folder, &trial, Duration::try_from_secs_f64(seconds)?)?;
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

/// Runs as a supervisor's worker: it speaks on standard input.
async fn work(settings: Settings) -> anyhow::Result<()> {
    let channel = Channel::adopt(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let channel = channel.context("a worker is started by `mesh-proxy supervise`")?;
    let (handed, orders) = (handover::receive(channel).await?, signals(Orders::default())?);
    let (sockets, post) = handed.listen(orders.clone());
    let sockets = Sockets::handed(sockets, post.clone());
    Ok(run(settings, Surroundings { orders, sockets, post: Some(post) }).await?)
}

/// Lets signals give orders.
fn signals(orders: Orders) -> io::Result<Orders> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = orders.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => told.reload.send_modify(|times| *times += 1),
                Some(()) = terminate.recv() => told.leave.cancel(),
                Some(()) = interrupt.recv() => told.leave.cancel(),
            }
        }
    });
    Ok(orders)
}
