//! Pure. What the log carries of a host that comes back without a token: its request, and what an operator says to it.

use model::name::Name;
use serde::{Deserialize, Serialize};

/// One step of a host's coming back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejoinStep {
    /// It asks. Asking again with the same key is the same request.
    File(Box<Filing>),
    /// An operator answers.
    Judge(Box<Judgement>),
}

/// A host that asks to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filing {
    /// Its name.
    pub node: Name,
    /// The key it asks for: SHA-256 over its SubjectPublicKeyInfo, lower-case hex.
    pub fingerprint: String,
    /// The certificate request (PEM), proven to be signed by that key.
    pub csr: String,
    /// The address that it came from.
    pub from: String,
    /// By what requests are counted: that address, or its network.
    pub network: String,
    /// The proxy's version.
    #[serde(default)]
    pub version: String,
}

/// What an operator says to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Of the request.
    pub id: String,
    /// Whose it is: for the audit, and held against the request.
    pub node: Name,
    /// The key that was judged: so, too.
    pub fingerprint: String,
    /// Whether the host may come back.
    pub approved: bool,
    /// Why not.
    #[serde(default)]
    pub reason: String,
    /// Who says so.
    pub actor: String,
}

impl RejoinStep {
    /// In a word, for the log engine's messages.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Self::File(_) => "file a rejoin request",
            Self::Judge(judgement) => judgement.word(),
        }
    }
}

impl Judgement {
    /// What it is called in the audit.
    pub(crate) fn word(&self) -> &'static str {
        if self.approved { "approve" } else { "deny" }
    }
}
