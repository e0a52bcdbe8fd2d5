//! `meshd join`: a new server is let in with a token. It proves that it talks to the right cluster before it says the
//! secret, and its keys never leave it. Tried again after a failure, it is the same server with the same key.

use std::path::Path;

use ca::Intermediate;
use model::{
    answer,
    identity::TrustDomain,
    name::Name,
    token::{JoinToken, TokenError},
    trust::TrustBundle,
};
use registry::{MemberId, folder::Folder as Member};
use serde::{Deserialize, Serialize};
use svid::KeyRequest;
use uuid::Uuid;

use crate::{
    authority::{AuthorityError, BUNDLE_FILE, Folder, INTERMEDIATE_FILE},
    home::{HomeError, authority_folder, vacant},
    peer::{Peer, PeerError, same_domain},
    settings::HostPort,
};

/// What a server that joins has drawn: kept until it is in.
const DRAFT_FILE: &str = "joining.json";

/// The body of `POST /v1/ca/join` for a server.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerJoinRequest {
    /// `mesh1.<id>.<secret>`, without the pin.
    pub token: String,
    /// What people call the server.
    pub node: Name,
    /// A certificate request (PEM) for its intermediate; only its key is taken.
    pub csr: String,
    /// Where it will be.
    pub server: ServerPlace,
}

/// Where a server will be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerPlace {
    /// `host:port` of its API.
    pub api: String,
    /// `host:port` for the other members.
    pub raft: String,
    /// Of its data folder.
    pub incarnation: Uuid,
}

answer! {
    /// What a server gets when it joined.
    #[derive(Debug)]
    pub struct ServerJoinAnswer {
        /// Its id.
        "member" pub member: MemberId,
        /// The cluster.
        "cluster" pub cluster: Uuid as String,
        /// Its intermediate (PEM).
        "certificate" pub certificate: String,
        /// Whom to trust.
        "bundle" pub bundle: TrustBundle,
    }
}

/// What a server joins with.
pub struct Joining<'a> {
    /// `https://HOST:8443` of any member.
    pub address: &'a str,
    /// The token, as it was printed.
    pub token: &'a str,
    /// What people call the server.
    pub node: Name,
    /// Where it will be: API, then registry.
    pub advertised: (HostPort, HostPort),
    /// Where it keeps everything.
    pub data_dir: &'a Path,
    /// As configured.
    pub trust_domain: &'a TrustDomain,
}

/// Why a server could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The data folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Keys and certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The other end.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The configuration does not fit the cluster.
    #[error("{0}")]
    Domain(String),
    /// An answer that cannot be used.
    #[error("the answer cannot be used: {0}")]
    Answer(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Draft {
    incarnation: Uuid,
    key: String,
    csr: String,
}

/// Joins, and leaves behind a data folder that `meshd run` starts from.
///
/// # Errors
/// Why it could not; trying again goes on with the same key.
pub async fn join(joining: Joining<'_>) -> Result<MemberId, JoinError> {
    let token: JoinToken = joining.token.parse()?;
    vacant(joining.data_dir)?;
    let folder = authority_folder(joining.data_dir).map_err(AuthorityError::from)?;
    let draft = draft(&folder)?;
    let peer = Peer::pinned(joining.address, &token).await?;
    same_domain(joining.trust_domain, &peer.bundle().await?.trust_domain).map_err(JoinError::Domain)?;
    let (api, raft) = &joining.advertised;
    let request = ServerJoinRequest {
        token: token.without_pin(),
        node: joining.node,
        csr: draft.csr,
        server: ServerPlace { api: api.to_string(), raft: raft.to_string(), incarnation: draft.incarnation },
    };
    let answer: ServerJoinAnswer = peer.post("/v1/ca/join", &request).await?;
    keep(&folder, &draft.key, &answer)?;
    // Last: from here on the folder holds a server.
    Member::prepare(joining.data_dir, answer.member, answer.cluster, draft.incarnation)
        .map_err(HomeError::from)?;
    Ok(answer.member)
}

/// The draft of an earlier try, or a new one.
fn draft(folder: &Folder) -> Result<Draft, AuthorityError> {
    if let Some(draft) = folder.read(DRAFT_FILE)?.and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(draft);
    }
    let key = KeyRequest::generate()?;
    let draft = Draft { incarnation: Uuid::new_v4(), key: key.key_pem, csr: key.csr_pem };
    folder.write(DRAFT_FILE, &serde_json::to_string(&draft).expect("it is made of texts"))?;
    Ok(draft)
}

fn keep(folder: &Folder, key: &str, answer: &ServerJoinAnswer) -> Result<(), JoinError> {
    let text = format!("{key}{}", answer.certificate);
    Intermediate::from_pem(&answer.bundle.trust_domain, &text, &text)
        .map_err(|error| JoinError::Answer(error.to_string()))?;
    let bundle = serde_json::to_string(&answer.bundle).expect("a bundle is made of texts and numbers");
    let written = folder.write(BUNDLE_FILE, &bundle).and_then(|()| folder.write(INTERMEDIATE_FILE, &text));
    Ok(written.map_err(AuthorityError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_try_goes_on_with_the_same_key() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(place.path()).expect("a folder");
        let first = draft(&folder).expect("drawn");
        let second = draft(&folder).expect("read");
        assert_eq!((first.incarnation, first.csr), (second.incarnation, second.csr));
        folder.write(DRAFT_FILE, "{").expect("written");
        assert_ne!(draft(&folder).expect("drawn anew").incarnation, first.incarnation);
    }
}
