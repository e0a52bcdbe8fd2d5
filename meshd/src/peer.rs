//! Calls to the API of another server: by a stranger that holds a join token, and by a member that needs a signature.
//! Before anything secret is said, the other end has proved to be a member of the control plane.

use std::{sync::Arc, time::Duration};

use model::{
    answer,
    identity::TrustDomain,
    problem::Problem,
    token::JoinToken,
    trust::{Distrusted, TrustBundle},
};
use registry::State;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use svid::{Expect, Trust, TrustStore, pem};

use crate::{
    authority::{Authority, AuthorityError, fingerprint},
    clock,
};

/// How long one call may take: the other end may have to unseal the root, which is slow on purpose.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes: a bundle of eight roots, or some certificates.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// `POST /v1/ca/intermediate`: a member asks another to sign its next intermediate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntermediateRequest {
    /// A certificate request (PEM); only its key is taken.
    pub csr: String,
}

answer! {
    /// The answer to an [`IntermediateRequest`].
    #[derive(Debug)]
    pub struct IntermediateAnswer {
        /// The one certificate (PEM).
        "certificate" pub certificate: String,
    }
}

/// Why another server's API did not help.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached, is not who it should be, or broke off.
    #[error("{address}: {cause}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What went wrong.
        cause: String,
    },
    /// It refused.
    #[error("{address}: {problem}")]
    Refused {
        /// What was dialled.
        address: String,
        /// Why.
        problem: Box<Problem>,
    },
    /// The answer is not what it should be.
    #[error("{address}: unexpected answer: {problem}")]
    Answer {
        /// What was dialled.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The root that the token pins is not among those that the server shows.
    #[error(
        "{address} shows other root certificates than the one that the token pins; the secret was not sent. \
         Is this the right control plane?"
    )]
    Pin {
        /// What was dialled.
        address: String,
    },
}

/// A verified connection to another server's API.
#[derive(Debug)]
pub struct Peer {
    http: reqwest::Client,
    address: String,
}

impl Peer {
    /// A stranger's way in: the root that the token pins is looked for among those that the server shows to everybody;
    /// from then on only a member that this root vouches for is talked to. Sends nothing of the token.
    ///
    /// # Errors
    /// If the server cannot be reached or shows other roots.
    pub async fn pinned(address: &str, token: &JoinToken) -> Result<Self, PeerError> {
        let address = address.trim_end_matches('/').to_owned();
        let bundle = unverified(&address)?.bundle().await?;
        let pinned = bundle.roots.iter().filter_map(|root| pem::certificate(root).ok());
        let Some(root) = pinned.into_iter().find(|root| fingerprint(root) == token.pin) else {
            return Err(PeerError::Pin { address });
        };
        let trust = Trust::new(bundle.trust_domain, 0, vec![root], Distrusted::default());
        let trust = trust.map_err(|error| answer(&address, &error))?;
        let config =
            svid::client_config(None, TrustStore::new(trust), Expect::Meshd, &[b"http/1.1"], clock::tls());
        Self::with(address, config)
    }

    /// A member's way to another.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn member(authority: &Authority, address: &str) -> Result<Self, PeerError> {
        let (leaf, trust) = (authority.leaf().clone(), authority.trust().clone());
        let config = svid::client_config(Some(leaf), trust, Expect::Meshd, &[b"http/1.1"], clock::tls());
        Self::with(format!("https://{address}"), config)
    }

    fn with(address: String, config: rustls::ClientConfig) -> Result<Self, PeerError> {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
        let http = builder.no_proxy().http1_only().timeout(ANSWER_TIMEOUT).build();
        let http = http.map_err(|error| unreachable(&address, &error))?;
        Ok(Self { http, address })
    }

    /// Whom the server tells everybody to trust.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn bundle(&self) -> Result<TrustBundle, PeerError> {
        self.get("/v1/ca/bundle").await
    }

    /// Gets an answer.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, PeerError> {
        self.decode(self.http.get(format!("{}{path}", self.address)).send().await).await
    }

    /// Posts `body` and reads the answer.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, PeerError> {
        self.decode(self.http.post(format!("{}{path}", self.address)).json(body).send().await).await
    }

    /// Deletes what is at a path and reads the answer.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, PeerError> {
        self.decode(self.http.delete(format!("{}{path}", self.address)).send().await).await
    }

    async fn decode<T: DeserializeOwned>(
        &self,
        response: Result<reqwest::Response, reqwest::Error>,
    ) -> Result<T, PeerError> {
        let mut response = response.map_err(|error| unreachable(&self.address, &error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&self.address, &error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(answer(&self.address, &format!("longer than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| answer(&self.address, &error));
        }
        let problem: Result<Problem, _> = serde_json::from_slice(&body);
        let problem = problem.unwrap_or_else(|_| Problem::new(status.as_u16(), "no problem document", ""));
        Err(PeerError::Refused { address: self.address.clone(), problem: Box::new(problem) })
    }
}

/// Asks the other members, one after the other, to sign this member's next intermediate.
///
/// # Errors
/// If none does.
pub async fn ask_for_intermediate(
    authority: &Arc<Authority>,
    state: &State,
    csr: &str,
) -> Result<String, AuthorityError> {
    let request = IntermediateRequest { csr: csr.to_owned() };
    let mut refusals = Vec::new();
    for member in state.members().filter(|member| member.id != authority.member()) {
        let asked = match Peer::member(authority, &member.addresses.api) {
            Ok(peer) => peer.post::<IntermediateAnswer>("/v1/ca/intermediate", &request).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(answer) => return Ok(answer.certificate),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(AuthorityError::NobodySigned(refusals.join("; ")))
}

/// For the one call that comes before trust: what it brings is believed only where the pin confirms it.
fn unverified(address: &str) -> Result<Peer, PeerError> {
    let builder = reqwest::Client::builder().tls_danger_accept_invalid_certs(true);
    let http = builder.no_proxy().http1_only().timeout(ANSWER_TIMEOUT).build();
    let http = http.map_err(|error| unreachable(address, &error))?;
    Ok(Peer { http, address: address.to_owned() })
}

fn unreachable(address: &str, error: &reqwest::Error) -> PeerError {
    let mut cause = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !cause.contains(&text) {
            cause.push_str(if cause.is_empty() { "" } else { ": " });
            cause.push_str(&text);
        }
        next = error.source();
    }
    PeerError::Unreachable { address: address.to_owned(), cause }
}

fn answer(address: &str, problem: &dyn std::fmt::Display) -> PeerError {
    PeerError::Answer { address: address.to_owned(), problem: problem.to_string() }
}

/// The trust domain is fixed when a cluster is made; a server that joins with another in its file is told so.
///
/// # Errors
/// If they differ.
pub fn same_domain(ours: &TrustDomain, theirs: &TrustDomain) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!(
        "trust_domain is '{ours}' in the configuration, and the cluster's is '{theirs}'; set it to that"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_another_trust_domain_is_told_the_right_one() {
        let (ours, theirs) = ("a.example".parse().expect("a domain"), "b.example".parse().expect("a domain"));
        assert_eq!(same_domain(&ours, &ours), Ok(()));
        let told = same_domain(&ours, &theirs).expect_err("they differ");
        assert!(told.contains("'a.example'") && told.contains("the cluster's is 'b.example'"), "{told}");
    }
}
