//! Pure. The command line of `meshctl ca`.

use clap::Subcommand;
use model::name::Name;

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Show roots, intermediates and what is distrusted
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Print the root certificates (PEM)
    Bundle,
    /// Refuse a host, an identity or an intermediate from now on
    #[command(group(clap::ArgGroup::new("whom").required(true)))]
    Distrust {
        /// A host, by name
        #[arg(long, group = "whom")]
        node: Option<Name>,
        /// A SPIFFE id
        #[arg(long, group = "whom")]
        id: Option<String>,
        /// An intermediate, by the fingerprint that `ca status` shows
        #[arg(long, group = "whom")]
        intermediate: Option<String>,
    },
    /// Show the hosts that ask to come back without a token (`mesh-proxy rejoin`)
    ///
    /// Anybody can ask in the name of a host. Compare the fingerprint with the one that the host shows on its own terminal.
    Requests {
        #[command(flatten)]
        output: Output,
    },
    /// Let a host come back with the key that it asks for
    ///
    /// Whoever holds that key is the host from then on. Get the fingerprint from the host's own terminal, or from whoever
    /// sits there, and hand it on with --fingerprint: another key is then not approved.
    Approve {
        /// Id of the request, as `ca requests` and the host show it
        id: String,
        /// The fingerprint that the host shows, in any grouping
        #[arg(long, value_name = "FINGERPRINT")]
        fingerprint: Option<String>,
        /// Do not ask where no fingerprint is given
        #[arg(long)]
        yes: bool,
    },
    /// Do not let a host come back
    Deny {
        /// Id of the request, as `ca requests` and the host show it
        id: String,
        /// What the host is told
        #[arg(long)]
        reason: Option<String>,
    },
}
