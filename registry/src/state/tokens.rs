//! Pure. Tokens' secrets, hashed, apart from the objects that say what the tokens allow.

use std::time::Duration;

use model::{
    duration::Millis,
    join::{JoinRecord, JoinRole},
    kind::Kind,
    object::{Key, Object},
    resource::{JoinRole as SpecRole, JoinTokenSpec, Resource},
};
use serde::{Deserialize, Serialize};

use super::{State, catalog::resource};
use crate::command::{Credential, Refusal};

/// A token's secret as it is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The AccessToken or JoinToken that it is the secret of.
    pub key: Key,
    /// SHA-256 of the secret's text.
    pub hash: [u8; 32],
    /// From this moment of log time on it is worth nothing; `None`: until the token is deleted.
    pub expires_at: Option<Millis>,
}

impl Held {
    /// Whether it still counts at `now`.
    pub fn valid_at(&self, now: Millis) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl State {
    /// Keeps a token's secret, or what its changed spec means for the secret it has.
    pub(super) fn hold(&mut self, token: &Object, credential: Option<Credential>) -> Result<(), Refusal> {
        let key = token.key();
        let had = self.credential_of(&key);
        let Some(credential) = credential.or_else(|| had.clone()) else { return Ok(()) };
        if let Some(taken) = self.credentials.get(&credential.id).filter(|held| held.key != key) {
            let message = format!("its id is that of {}", taken.key);
            return Err(Refusal::Conflict { key, with: Some(taken.key.clone()), message });
        }
        let resource = resource(token)?;
        let spent = had.filter(|had| had.id == credential.id);
        if spent.is_none() {
            self.revoke(&key);
        }
        let ttl = match &resource {
            Resource::AccessToken(spec) => spec.ttl,
            Resource::JoinToken(spec) => Some(spec.ttl),
            _ => None,
        };
        let expires_at = ttl.map(|ttl| token.metadata.created_at.after(ttl.duration()));
        if let Resource::JoinToken(spec) = resource {
            let bound = spent
                .and_then(|had| self.joins.get(&had.id))
                .map(|record| record.bound.clone())
                .unwrap_or_default();
            let mut record = join_record(&spec, &credential.hash, expires_at.unwrap_or_default());
            record.uses_left =
                record.uses_left.saturating_sub(u32::try_from(bound.len()).unwrap_or(u32::MAX));
            record.bound = bound;
            self.joins.insert(credential.id.clone(), record);
        }
        self.credentials.insert(credential.id, Held { key, hash: credential.hash, expires_at });
        self.touched = true;
        Ok(())
    }

    /// Drops the secret of a token that is gone.
    pub(super) fn revoke(&mut self, token: &Key) {
        let Some(credential) = self.credential_of(token) else { return };
        self.credentials.remove(&credential.id);
        self.joins.remove(&credential.id);
        self.touched = true;
    }

    /// Tokens are few (people and hosts being set up), so that a walk costs less than an index.
    fn credential_of(&self, token: &Key) -> Option<Credential> {
        let (id, held) = self.credentials.iter().find(|(_, held)| held.key == *token)?;
        Some(Credential { id: id.clone(), hash: held.hash })
    }

    /// How long ago a token's time ended; `None` if it has not, or never does.
    pub fn expired_since(&self, held: &Held) -> Option<Duration> {
        let end = held.expires_at.filter(|end| self.time >= *end)?;
        Some(Duration::from_millis(self.time.0 - end.0))
    }
}

fn join_record(spec: &JoinTokenSpec, hash: &[u8; 32], expires_at: Millis) -> JoinRecord {
    let any = || vec!["*".parse().expect("'*' is a pattern")];
    JoinRecord {
        hash: hex(hash),
        role: match spec.role {
            SpecRole::Host => JoinRole::Host,
            SpecRole::Server => JoinRole::Server,
        },
        uses_left: u32::try_from(spec.uses.value()).unwrap_or(u32::MAX),
        expires_at: expires_at.0,
        nodes: if spec.nodes.is_empty() { any() } else { spec.nodes.clone() },
        rejoin: spec.rejoin,
        bound: Vec::new(),
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a kind's objects have secrets.
pub(super) fn has_secret(kind: Kind) -> bool {
    matches!(kind, Kind::AccessToken | Kind::JoinToken)
}
