//! `meshd`: reads the command line and hands over. Errors end it with exit code 1, wrong usage with 2.
#![allow(clippy::print_stdout, reason = "what a command answers belongs on standard output")]

use std::{
    ffi::c_long,
    io,
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use meshd::{
    authority::unlock::{SEAL_FILE, draw, unlock},
    dev, home,
    init::{self, Founding, Resuming},
    join::{self, Joining},
    run::{self, Plan, Server, Sockets},
    service,
    settings::{self, SealSource, Settings},
};
use model::name::Name;
use registry::Addresses;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// The control plane of a service mesh for virtual machines and bare metal.
#[derive(Parser)]
#[command(name = "meshd", version, arg_required_else_help = true)]
struct Cli {
    /// Run one server on loopback for development, in a temporary folder.
    #[arg(long)]
    dev: bool,
    /// With --dev: where the API listens.
    #[arg(long, requires = "dev", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// With --dev: keep everything in this folder, and go on from what is there.
    #[arg(long, requires = "dev", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run this server; it was initialised or has joined before.
    Run {
        #[command(flatten)]
        config: Config,
    },
    /// Make a new cluster with this server as its first member.
    Init {
        #[command(flatten)]
        config: Config,
        /// Go on from a saved snapshot, in a new cluster.
        #[arg(long, value_name = "FILE")]
        from_snapshot: Option<PathBuf>,
        /// A file with the recovery passphrase, where the snapshot's root was sealed with another secret than this server's.
        #[arg(long, value_name = "FILE", requires = "from_snapshot")]
        recovery_passphrase_file: Option<PathBuf>,
        /// Leave it to others to start the server.
        #[arg(long)]
        no_start: bool,
    },
    /// Make this server a member of a cluster that exists.
    Join {
        /// Any member: https://HOST:8443.
        address: String,
        /// A join token of role server: `meshctl token join cp2 --server`.
        #[arg(long, env = "MESH_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        #[command(flatten)]
        config: Config,
        /// Leave it to others to start the server.
        #[arg(long)]
        no_start: bool,
    },
    /// Work with snapshots without a running server.
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    Man {
        /// Where.
        folder: PathBuf,
    },
    /// Print a script that completes commands in a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum Snapshot {
    /// Save a snapshot from the data folder of a server that does not run.
    Export {
        /// The server's data folder.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/meshd")]
        data_dir: PathBuf,
        /// The file; it must not exist.
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct Config {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/mesh/meshd.toml")]
    config: PathBuf,
}

/// A write is taken apart and put together several times on its way through the log, on several threads; what that costs
/// with glibc's allocator and with this one stands in docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
/// What is freed goes back to the system after so many milliseconds; mimalloc itself keeps it for a second, and so the
/// most that any second needed.
const FREED_KEPT_MS: c_long = 10;
/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`), which its crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    let told = return_what_is_freed();
    let cli = Cli::parse();
    host::log::start("info,openraft=error");
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    let obeyed = runtime(&told).map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(obey(cli)));
    match obeyed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // An error's chain, on one line each: the first says what, the rest why.
            eprintln!("meshd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The allocator was told: without it nothing runs.
struct Told(());

fn return_what_is_freed() -> Told {
    #[expect(
        unsafe_code,
        reason = "mimalloc is told in C; it takes any number, of any option that it has, and leaves what the environment says"
    )]
    // SAFETY: it sets one integer, before there is a second thread.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, FREED_KEPT_MS);
    }
    Told(())
}

/// Half of the cores: a request passes from task to task, which costs least on one thread, and the log has threads of its
/// own.
fn runtime(_: &Told) -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(2, NonZero::get);
    Builder::new_multi_thread().worker_threads(cores.div_ceil(2)).enable_all().build()
}

async fn obey(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None if cli.dev => develop(cli.listen, cli.data_dir).await,
        None => Ok(Cli::command().print_help()?),
        Some(Verb::Run { config }) => serve(config.read()?).await,
        Some(Verb::Init { config, from_snapshot: None, no_start, .. }) => initialise(config, !no_start).await,
        Some(Verb::Init { config, from_snapshot: Some(file), recovery_passphrase_file, no_start }) => {
            resume(config, &file, recovery_passphrase_file, !no_start).await
        }
        Some(Verb::Snapshot { command: Snapshot::Export { data_dir, file } }) => {
            export(&data_dir, &file).await
        }
        Some(Verb::Join { address, token, config, no_start }) => {
            join_cluster(&address, &token, config, !no_start).await
        }
        Some(Verb::Man { folder }) => Ok(clap_mangen::generate_to(Cli::command(), folder)?),
        Some(Verb::Completion { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "meshd", &mut io::stdout());
            Ok(())
        }
    }
}

/// The contract: three lines on standard output, once everything answers.
async fn develop(listen: SocketAddr, data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let stop = stopped_by_signals()?;
    let dev = dev::start(listen, data_dir.as_deref()).await?;
    if stop.run_until_cancelled(dev.server.ready()).await == Some(true) {
        println!("MESH_ADDR={}", dev.address);
        println!("MESH_TOKEN={}", dev.token);
        println!("MESH_CACERT={}", dev.root_file.display());
        eprintln!("metrics: http://{}/metrics", dev.metrics);
    }
    let dev::Dev { server, .. } = &dev;
    server.run_until(stop).await?;
    Ok(())
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let stop = stopped_by_signals()?;
    let member = home::occupant(&settings.data_dir)?;
    let node = name_of(&settings)?;
    let (api, raft) = settings.advertised(node.as_str());
    let mut names = run::loopback_names();
    names.extend([node.to_string(), api.host.clone(), raft.host.clone()]);
    names.sort();
    names.dedup();
    let source = settings.seal.clone();
    // Without it the server still serves: another member signs its next intermediate.
    let unlock = match tokio::task::spawn_blocking(move || unlock(&source)).await? {
        Ok(unlock) => Some(unlock),
        Err(error) => {
            tracing::warn!(%error, "this server cannot unseal the root; others have to sign its intermediates");
            None
        }
    };
    let opening = meshd::authority::Opening {
        member: member.id,
        names,
        ttl: ca::Ttl::new(settings.certificate_ttl.duration())?,
        folder: home::authority_folder(&settings.data_dir)?,
        unlock,
    };
    let sockets = Sockets {
        api: run::bind(settings.listen.api, "listen.api").await?,
        raft: Some(run::bind(settings.listen.raft, "listen.raft").await?),
        metrics: run::bind(settings.listen.metrics, "listen.metrics").await?,
    };
    let addresses = Addresses { api: api.to_string(), raft: raft.to_string() };
    let mut registry =
        registry::Settings::new(settings.data_dir.clone(), member.id, member.cluster, addresses);
    registry.program = Some(run::program(node.to_string()));
    registry.history_revisions_max = settings.registry.history_revisions;
    (registry.snapshot_every, registry.log_kept) =
        (settings.registry.snapshot_every, settings.registry.log_kept);
    let Settings { snapshots, limits, seal, .. } = settings;
    let own_files = match seal {
        SealSource::Keyfile(file) | SealSource::Passphrase(Some(file)) => vec![file],
        SealSource::Credential => {
            std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).into_iter().collect()
        }
        SealSource::Passphrase(None) => Vec::new(),
    };
    let plan = Plan { registry, opening, sockets, snapshots, limits, own_files };
    let server = Server::start(plan).await?;
    service::answers();
    if stop.run_until_cancelled(server.ready()).await == Some(true) {
        service::has_caught_up();
        tracing::info!(member = member.id, api = %api, "ready");
    }
    server.run_until(stop).await?;
    Ok(())
}

async fn initialise(config: Config, start: bool) -> anyhow::Result<()> {
    let settings = config.read()?;
    let (api, raft) = settings.advertised(name_of(&settings)?.as_str());
    draw(&settings.seal)?;
    let unlock = unlock(&settings.seal)?;
    let founded = init::init(Founding {
        data_dir: &settings.data_dir,
        trust_domain: &settings.trust_domain,
        addresses: Addresses { api: api.to_string(), raft: raft.to_string() },
        unlock,
    });
    let founded = founded.await;
    service::give(&settings.data_dir)?;
    let founded = founded?;
    println!("The cluster {} is made; this server is its first member.", founded.cluster);
    println!();
    println!("Recovery passphrase: {}", founded.recovery.expose());
    println!("  It opens the root key when every other secret is lost. It is shown only now: write it down.");
    println!();
    println!("Administrator's token, also shown only now:");
    println!("  export MESH_ADDR=https://{api}");
    println!("  export MESH_TOKEN={}", founded.admin);
    println!("  export MESH_CACERT={}", founded.root_file.display());
    println!();
    config.start(start)?;
    println!("Next, with these three in the environment:");
    println!("  let a server join:    meshctl token join cp2 --server");
    println!("  and on it:            meshd join https://{api} --token TOKEN");
    println!("  let a host join:      meshctl token join host-a --service 'default/*'");
    println!("  and on it:            mesh-proxy join https://{api} --token TOKEN");
    if settings.seal == SealSource::Credential {
        println!("Servers that have a copy of {SEAL_FILE} can sign the intermediates of others, too.");
    }
    Ok(())
}

/// A new cluster that goes on from a snapshot.
async fn resume(config: Config, file: &Path, recovery: Option<PathBuf>, start: bool) -> anyhow::Result<()> {
    let settings = config.read()?;
    draw(&settings.seal)?;
    let (api, raft) = settings.advertised(name_of(&settings)?.as_str());
    let recovery = recovery.map(|path| -> anyhow::Result<_> {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(ca::Unlock::recovery(text.trim())?)
    });
    let resumed = init::resume(Resuming {
        file,
        data_dir: &settings.data_dir,
        trust_domain: &settings.trust_domain,
        addresses: Addresses { api: api.to_string(), raft: raft.to_string() },
        unlock: unlock(&settings.seal)?,
        recovery: recovery.transpose()?,
    });
    let resumed = resumed.await;
    service::give(&settings.data_dir)?;
    let resumed = resumed?;
    println!("The cluster {} goes on from revision {}.", resumed.cluster, resumed.revision);
    println!("This server is its first member, with id {}.", resumed.member);
    println!();
    println!(
        "Administrator's token {}, shown only now; those of the snapshot are valid too:",
        resumed.admin_name
    );
    println!("  export MESH_ADDR=https://{api}");
    println!("  export MESH_TOKEN={}", resumed.admin);
    println!("  export MESH_CACERT={}", resumed.root_file.display());
    println!();
    config.start(start)?;
    println!("Next, let servers join, each with an empty data folder:");
    println!("  meshctl token join cp2 --server");
    println!("  meshd join https://{api} --token TOKEN");
    println!("Hosts come back by themselves, if their `servers` name this address.");
    Ok(())
}

/// A snapshot from a folder whose server does not run.
async fn export(data_dir: &Path, file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!file.exists(), "{} exists; name another file", file.display());
    let exported = registry::raft::export(data_dir).await?;
    let (state, cluster) = (exported.state, exported.folder.cluster.to_string());
    let head = registry::saved::head(&state, &cluster, meshd::clock::wall());
    let path = file.to_owned();
    let saved = tokio::task::spawn_blocking(move || {
        meshd::backup::save(&state, &head, &path).map(|bytes| (bytes, head))
    });
    let (bytes, head) = saved.await??;
    println!("snapshot of revision {} saved to {} ({bytes} bytes)", head.revision, file.display());
    println!("  log time {}, {} objects, member {}", head.time, head.count(), exported.folder.id);
    if exported.unconfirmed_entries > 0 {
        println!("  with {} entries that a majority may not have had", exported.unconfirmed_entries);
    }
    Ok(())
}

async fn join_cluster(address: &str, token: &str, config: Config, start: bool) -> anyhow::Result<()> {
    let settings = config.read()?;
    let node = name_of(&settings)?;
    let member = join::join(Joining {
        address,
        token,
        advertised: settings.advertised(node.as_str()),
        node,
        data_dir: &settings.data_dir,
        trust_domain: &settings.trust_domain,
    });
    let member = member.await;
    service::give(&settings.data_dir)?;
    println!("This server is member {}. It votes as soon as it has caught up.", member?);
    config.start(start)
}

impl Config {
    /// Lets systemd run the server, or says how to run it.
    fn start(&self, start: bool) -> anyhow::Result<()> {
        if start && service::start(&self.config)? {
            println!("It runs, now and after each boot: systemctl status {}", service::UNIT);
        } else {
            println!("Start it: meshd run --config {}", self.config.display());
        }
        println!();
        Ok(())
    }

    fn read(&self) -> anyhow::Result<Settings> {
        let file = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config).with_context(|| file.clone())?;
        Ok(settings::parse(&text, &file)?)
    }
}

/// What people call this server.
fn name_of(settings: &Settings) -> anyhow::Result<Name> {
    if let Some(node) = &settings.node {
        return Ok(node.clone());
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let short = host.split('.').next().unwrap_or_default();
    short.parse().with_context(|| format!("the host is called '{host}', which is no name here: set `node`"))
}

/// Cancelled by SIGTERM and SIGINT.
fn stopped_by_signals() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopped.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_char, c_void};

    use super::{FREED_KEPT_MS, return_what_is_freed};

    #[expect(
        unsafe_code,
        reason = "mimalloc is asked in C, and by the names of its options: its crate has no such call"
    )]
    mod asked {
        use super::{CStr, c_char, c_void};

        unsafe extern "C" {
            fn mi_options_print_out(out: libmimalloc_sys::mi_output_fun, argument: *mut c_void);
        }

        unsafe extern "C" fn keep(text: *const c_char, argument: *mut c_void) {
            // SAFETY: mimalloc hands over a text that ends with a zero, and the argument that `options` gave it.
            let (text, kept) = unsafe { (CStr::from_ptr(text), &mut *argument.cast::<String>()) };
            kept.push_str(&text.to_string_lossy());
        }

        /// What is in force in this process, an option a line.
        pub(super) fn options() -> String {
            let mut kept = String::new();
            // SAFETY: it calls `keep` with `kept` while this call lasts, and not later.
            unsafe { mi_options_print_out(Some(keep), (&raw mut kept).cast()) };
            kept
        }
    }

    /// The option's number is not in the crate: another mimalloc may have another one there.
    #[test]
    fn the_allocator_says_that_it_returns_what_is_freed() {
        let kept_ms = |options: &str| {
            let line = options.lines().find_map(|line| line.strip_prefix("option 'purge_delay': "));
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or_else(|| panic!("no such option: {options}"))
        };
        let before: std::ffi::c_long = kept_ms(&asked::options());
        assert_ne!(before, FREED_KEPT_MS, "nothing needs to be said any more");
        let _told = return_what_is_freed();
        assert_eq!(kept_ms(&asked::options()), FREED_KEPT_MS);
    }
}
