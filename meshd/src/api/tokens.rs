//! Pure. Tokens as they are made and judged. The secret is drawn by the caller of [`draw`] and handed out once; only its
//! SHA-256 is kept.

use aws_lc_rs::{constant_time, digest};
use model::{
    duration::Millis,
    kind::Kind,
    name::Name,
    object::Key,
    resource::Resource,
    token::{AccessToken, JoinToken, SECRET_BYTES, hex},
};
use registry::{command::Credential, state::State};

use crate::{admit::rights_of, rights::Rights};

/// The bytes of a token's public half: enough that no two of a mesh's life are alike.
pub const ID_BYTES: usize = 8;

/// A new token: its text, once, and what is kept of it.
pub struct Drawn {
    /// What its holder presents.
    pub text: String,
    /// What the cluster keeps.
    pub credential: Credential,
}

/// The bearer of an access token.
#[derive(Debug, Clone, PartialEq)]
pub struct Bearer {
    /// The AccessToken's name.
    pub name: Name,
    /// The public half of its secret: by this it is found again.
    pub id: String,
    /// What its roles allow.
    pub rights: Rights,
}

/// Why there can be no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// A join token pins a root; there is none yet.
    #[error("the mesh has no root certificate yet, which a join token has to name")]
    NoRoot,
    /// The root cannot be read.
    #[error("the mesh's root certificate cannot be read: {0}")]
    Root(String),
    /// Not the text of a token.
    #[error("{0}")]
    Text(#[from] model::token::TokenError),
    /// Unknown, revoked, or with another secret: which, is not said.
    #[error("the token is not valid; was it revoked?")]
    Unknown,
    /// Its time is over.
    #[error("the token expired at {0}; make a new one")]
    Expired(Millis),
}

/// SHA-256 of a secret's text, as credentials keep it.
pub fn hash(secret: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, secret.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A token of `kind` (AccessToken or JoinToken) from the chance that is handed in.
///
/// # Errors
/// [`TokenFault::NoRoot`], [`TokenFault::Root`].
pub fn draw(
    state: &State,
    kind: Kind,
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
) -> Result<Drawn, TokenFault> {
    let (id, secret) = (hex(&id), hex(&secret));
    let credential = Credential { id: id.clone(), hash: hash(&secret) };
    let text = match kind {
        Kind::JoinToken => JoinToken { id, secret, pin: pin(state)? }.to_string(),
        _ => AccessToken { id, secret }.to_string(),
    };
    Ok(Drawn { text, credential })
}

/// SHA-256 of the root's DER, by which a host knows the true control plane: the newest one's, which outlives the others.
fn pin(state: &State) -> Result<String, TokenFault> {
    let trust = state.trust().ok_or(TokenFault::NoRoot)?;
    let root = trust.bundle.roots.last().ok_or(TokenFault::NoRoot)?;
    let der = svid::pem::certificate(root).map_err(|error| TokenFault::Root(error.to_string()))?;
    Ok(hex(digest::digest(&digest::SHA256, &der).as_ref()))
}

/// Who presents `text` at `now` (the wall clock; log time counts too, so that a slow clock revives nothing).
///
/// # Errors
/// Why it is nobody.
pub fn bearer(state: &State, text: &str, now: Millis) -> Result<Bearer, TokenFault> {
    let token: AccessToken = text.parse()?;
    let held = state.credential(&token.id).ok_or(TokenFault::Unknown)?;
    constant_time::verify_slices_are_equal(&held.hash, &hash(&token.secret))
        .map_err(|_| TokenFault::Unknown)?;
    current(state, &token.id, now)
}

/// The bearer of the token with this id, whose secret was seen before: whether it still counts, and for what.
///
/// # Errors
/// Why it does not.
pub fn current(state: &State, id: &str, now: Millis) -> Result<Bearer, TokenFault> {
    let held =
        state.credential(id).filter(|held| held.key.kind == Kind::AccessToken).ok_or(TokenFault::Unknown)?;
    let now = now.max(state.time());
    if !held.valid_at(now) {
        return Err(TokenFault::Expired(held.expires_at.unwrap_or(now)));
    }
    let rights = match roles(state, &held.key) {
        Some(roles) => rights_of(state, &roles),
        None => Rights::none(),
    };
    Ok(Bearer { name: held.key.name.clone(), id: id.to_owned(), rights })
}

/// The roles of an access token, if it is one.
pub(super) fn roles(state: &State, token: &Key) -> Option<Vec<Name>> {
    match state.get(token)?.resource() {
        Ok(Resource::AccessToken(spec)) => Some(spec.roles),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry::command::{Change, Expect};

    use super::*;
    use crate::api::testing::{THEN, delete, object, put, state, write};

    fn issue(state: &mut State, spec: &str) -> String {
        let drawn = draw(state, Kind::AccessToken, [1; ID_BYTES], [2; SECRET_BYTES]).expect("drawn");
        let object = object(&format!("AccessToken ci {spec}"));
        let change = Change::Put { object, expect: Expect::Absent, credential: Some(drawn.credential) };
        write(state, vec![change]).expect("written");
        drawn.text
    }

    #[test]
    fn a_token_is_worth_its_roles_until_it_ends() {
        let mut state = state();
        put(&mut state, r#"Role none {"rules":[]}"#);
        let text = issue(&mut state, r#"{"roles":["viewer","none"],"ttl":"1h"}"#);
        let bearer_at = |state: &State, now| bearer(state, &text, now).map(|bearer| bearer.name.to_string());
        assert_eq!(bearer_at(&state, THEN), Ok("ci".to_owned()));
        let end = THEN.after(Duration::from_secs(3_600));
        assert_eq!(bearer_at(&state, end), Err(TokenFault::Expired(end)));
        delete(&mut state, "AccessToken ci");
        assert_eq!(bearer_at(&state, THEN), Err(TokenFault::Unknown));
    }

    #[test]
    fn a_wrong_secret_is_nobody() {
        let mut state = state();
        let text = issue(&mut state, r#"{"roles":["viewer"]}"#);
        let wrong = text.replace("0202", "0203");
        assert_eq!(bearer(&state, &wrong, THEN).map(|bearer| bearer.id), Err(TokenFault::Unknown));
        assert!(matches!(bearer(&state, "mesha1.x", THEN), Err(TokenFault::Text(_))));
    }

    #[test]
    fn a_join_token_is_no_bearer_token_and_needs_a_root() {
        let mut state = state();
        let none = draw(&state, Kind::JoinToken, [1; ID_BYTES], [2; SECRET_BYTES]).map(|drawn| drawn.text);
        assert_eq!(none, Err(TokenFault::NoRoot));
        let credential = Credential { id: "k3f9".to_owned(), hash: hash(&"ab".repeat(32)) };
        let token = object("JoinToken hosts {}");
        let change = Change::Put { object: token, expect: Expect::Absent, credential: Some(credential) };
        write(&mut state, vec![change]).expect("written");
        let text = format!("mesha1.k3f9.{}", "ab".repeat(32));
        assert_eq!(bearer(&state, &text, THEN).map(|bearer| bearer.id), Err(TokenFault::Unknown));
    }
}
