//! Pure. The command line: what can be said, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use model::{
    kind::Kind,
    name::Name,
    read::{Consistency, Freshness},
};

mod ca;
mod explain;
mod import;
mod rollout;

pub(crate) use ca::Ca;
pub(crate) use explain::Explain;
pub(crate) use import::{Import, ImportOptions, ManifestFormat};
pub(crate) use rollout::RolloutOptions;

/// Steers the mesh through its REST API.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the API is. Flags win over the environment, the environment over the context.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Address of the API, https://HOST:8443
    #[arg(long, env = "MESH_ADDR", global = true, value_name = "URL")]
    pub(crate) addr: Option<String>,
    /// Bearer token; better in the environment than on the command line
    #[arg(long, env = "MESH_TOKEN", global = true, hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// File of root certificates (PEM) to trust
    #[arg(long, env = "MESH_CACERT", global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// The saved connection to use instead of the current one
    #[arg(long, env = "MESH_CONTEXT", global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people and manifests.
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// How fresh what is read must be.
#[derive(Debug, Args)]
pub(crate) struct Read {
    /// linearizable, leased (without a round of messages), or stale (what this server has; needs no leader)
    #[arg(long, default_value_t, value_name = "HOW", hide_possible_values = true)]
    pub(crate) consistency: Consistency,
    /// Not without this revision: waits for it a moment, or fails
    #[arg(long, value_name = "REVISION")]
    pub(crate) min_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Namespace of the objects [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Kind, such as service, services or httproute
    #[arg(value_parser = parse_kind)]
    pub(crate) kind: Kind,
    /// Name of the object
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or change objects from manifests, all or nothing
    Apply {
        /// Manifest files (YAML or JSON); - for standard input
        #[arg(short, long = "filename", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        rollout: RolloutOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Show objects
    Get {
        /// Kind, such as service, services or httproute
        #[arg(value_parser = parse_kind)]
        kind: Kind,
        /// Name of one object; all if left out
        name: Option<Name>,
        #[command(flatten)]
        place: Place,
        /// Of all namespaces
        #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
        all_namespaces: bool,
        /// Only with these labels: app=web,tier!=db
        #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
        selector: Option<String>,
        #[command(flatten)]
        read: Read,
        #[command(flatten)]
        output: Output,
    },
    /// Show one object with all that the mesh says of it
    Describe {
        #[command(flatten)]
        target: Target,
    },
    /// Remove objects: one by kind and name, or those of manifests
    Delete {
        /// Kind, such as service, services or httproute
        #[arg(value_parser = parse_kind, required_unless_present = "files")]
        kind: Option<Kind>,
        /// Name of the object
        #[arg(required_unless_present = "files")]
        name: Option<Name>,
        /// Manifest files that name the objects; - for standard input
        #[arg(short, long = "filename", value_name = "FILE", conflicts_with_all = ["kind", "name"])]
        files: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Follow changes until interrupted
    Watch {
        /// Kinds, separated by commas
        #[arg(value_parser = parse_kind, value_delimiter = ',', required = true)]
        kinds: Vec<Kind>,
        /// Only of this namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<Name>,
        /// After this revision; current state first if left out
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Show whether the mesh is well: members, proxies, services
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Show the proxies and the revision that each runs
    Proxies {
        #[command(flatten)]
        output: Output,
    },
    /// Make tokens
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Show and change the members of the control plane
    Cluster {
        #[command(subcommand)]
        command: Cluster,
    },
    /// Show the certificate authority, distrust what is lost, let hosts come back
    Ca {
        #[command(subcommand)]
        command: Ca,
    },
    /// Save the state of the control plane, prove a saved one, or bring it back
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
    /// Show what changed: newest first
    History {
        /// Only of this kind
        #[arg(value_parser = parse_kind)]
        kind: Option<Kind>,
        /// Only of this object: its versions
        name: Option<Name>,
        #[command(flatten)]
        place: Place,
        /// Only after this revision
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        /// As many revisions
        #[arg(long, default_value_t = 50)]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Show what manifests would change, or what changed between two revisions
    Diff {
        /// Manifest files (YAML or JSON); - for standard input
        #[arg(short, long = "filename", value_name = "FILE", required_unless_present = "from")]
        files: Vec<PathBuf>,
        /// What changed after this revision
        #[arg(long, value_name = "REVISION", conflicts_with = "files")]
        from: Option<u64>,
        /// Up to this revision; up to now if left out
        #[arg(long, value_name = "REVISION", requires = "from")]
        to: Option<u64>,
    },
    /// Let operators' objects stand as at an earlier revision, in one write
    Rollback {
        /// The revision to go back to
        revision: u64,
        /// Show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show what would become of a call, and why; with -f as if manifests were applied
    Explain(Explain),
    /// Turn what another mesh is told into objects, and list what does not come over
    Import {
        #[command(subcommand)]
        command: Import,
    },
    /// Save connections, and choose one
    Context {
        #[command(subcommand)]
        command: Context,
    },
    /// Print a shell's completion script
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page (roff)
    #[command(hide = true)]
    Man {
        /// Write the pages of all commands into this folder
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a join token and print it: it is shown once
    Join {
        /// Name of the token object
        name: Name,
        /// Brings in a member of the control plane, not a host
        #[arg(long)]
        server: bool,
        /// How many may join with it
        #[arg(long, default_value_t = 1)]
        uses: u64,
        /// How long it is valid
        #[arg(long, default_value = "1h")]
        ttl: String,
        /// Names that may join (repeatable, globs allowed); any new one if left out
        #[arg(long = "node", value_name = "GLOB")]
        nodes: Vec<String>,
        /// Services that the hosts may run (repeatable, globs allowed): default/orders, shop/*
        #[arg(long = "service", value_name = "NS/NAME")]
        services: Vec<String>,
        /// Lets the one host named by --node come back with a new key
        #[arg(long)]
        rejoin: bool,
    },
    /// Make an access token and print it: it is shown once
    Access {
        /// Name of the token object
        name: Name,
        /// Roles whose rights it has (repeatable): admin, operator, viewer, or a Role
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// How long it is valid; until it is deleted if left out
        #[arg(long)]
        ttl: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the members
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Hand leadership over
    Transfer {
        /// Id of the member that shall lead
        to: u64,
    },
    /// Remove a member for ever
    Remove {
        /// Id of the member
        id: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Write a snapshot to a file, and prove it; it holds secrets
    Save {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Prove a file by itself, and show what is in it; asks no server
    Verify {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Bring operators' objects back from a file; the cluster goes on under another epoch
    Restore {
        /// The file
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Let the control plane prove the file, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// Save the connection of --addr, --token and --cacert under a name, and use it
    Set {
        /// The name
        name: String,
    },
    /// Use a saved connection
    Use {
        /// The name
        name: String,
    },
    /// Show the saved connections
    List,
    /// Forget a saved connection
    Delete {
        /// The name
        name: String,
    },
}

impl Read {
    /// As the client takes it.
    pub(crate) fn freshness(&self) -> Freshness {
        Freshness { consistency: self.consistency, min_revision: self.min_revision }
    }
}

/// A kind by any of its names: `Service`, `service`, `services`, `svc`.
fn parse_kind(text: &str) -> Result<Kind, String> {
    let lower = text.to_ascii_lowercase();
    let short = match lower.as_str() {
        "ns" => "namespaces",
        "svc" => "services",
        "ep" => "endpoints",
        "route" | "routes" => "httproutes",
        other => other,
    };
    let fits = |kind: &&Kind| kind.plural() == short || kind.as_str().eq_ignore_ascii_case(short);
    let known = || Kind::ALL.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(", ");
    Kind::ALL.iter().find(fits).copied().ok_or_else(|| format!("unknown kind; known are {}", known()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_have_several_names() {
        for text in ["Service", "service", "services", "svc"] {
            assert_eq!(parse_kind(text), Ok(Kind::Service));
        }
        assert_eq!(parse_kind("HTTPRoute"), Ok(Kind::HTTPRoute));
        assert!(parse_kind("gateway").expect_err("unknown").contains("httproutes"));
    }
}
