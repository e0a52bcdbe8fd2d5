//! Pure. Where a DiscoverySource of type Consul is.

use super::directory::{absolute, address};
use crate::shape::{Decoder, Path, Text, record};

/// Elsewhere this stands for all namespaces.
const EVERY: &str = "*";

record! {
    /// A Consul agent, asked by its HTTP API.
    pub struct ConsulSource {
        /// Where it is: `https://HOST:PORT`, or `http://`, in plaintext.
        "address" address: Text<2048>,
        /// A file with an ACL token, on the servers, read anew for each question.
        "tokenFile" token_file: Option<Text<4096>>,
        /// A file with the certificates (PEM) that its own must come from; those that the system trusts if left out.
        "caFile" ca_file: Option<Text<4096>>,
        /// The datacenter that is asked for; the agent's own if left out.
        "datacenter" datacenter: Option<Text<255>>,
        /// The namespace that is asked for, of Consul Enterprise; the token's own if left out.
        "namespace" namespace: Option<Text<64>>,
        /// Whether a check that warns makes an instance unhealthy.
        "passingOnly" passing_only: bool = false,
    }
}

impl ConsulSource {
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        for (field, path) in [("tokenFile", &self.token_file), ("caFile", &self.ca_file)] {
            path.iter().for_each(|path| absolute(path, &Path::Field(at, field), decoder));
        }
        if self.namespace.as_ref().is_some_and(|namespace| namespace.as_str() == EVERY) {
            let at = Path::Field(at, "namespace");
            decoder.report(&at, "Consul lists the services of one: write a source for each");
        }
        let secret = self.token_file.is_some();
        address(self.address.as_str(), (false, secret), &Path::Field(at, "address"), decoder);
    }
}
