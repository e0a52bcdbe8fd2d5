//! How a mesh goes on in a new cluster: the saved root signs for its first member, and another administrator comes in.
//! Hosts notice nothing: the root that they trust is the same.

use ca::{Intermediate, Root, SealError, Sealed, Unlock, token};
use model::token::AccessToken;
use registry::{Command, Credential, MemberId, State, TrustChange};
use rustls_pki_types::UnixTime;
use svid::KeyRequest;
use uuid::Uuid;

use super::{
    AuthorityError, Folder, INTERMEDIATE_FILE, SEALED_FILE, found::administrator, keep_trust, read_csr,
    serial,
};
use crate::clock;

/// What the new cluster's first entry holds beside the saved state.
pub struct Succession {
    /// For the log, in this order.
    pub then: Vec<Command>,
    /// The roots' certificates: PEM.
    pub roots_pem: String,
    /// Shown once.
    pub admin: AccessToken,
    /// The name of that token.
    pub admin_name: String,
}

/// Who succeeds.
pub struct Successor<'a> {
    /// The first member.
    pub member: MemberId,
    /// The new history.
    pub epoch: Uuid,
    /// This server's seal. If it is not the one that the root was sealed with, the root is sealed with it too.
    pub unlock: Unlock,
    /// The recovery passphrase, for when the seal is another one.
    pub recovery: Option<Unlock>,
    /// Where the member's keys go.
    pub folder: &'a Folder,
}

/// Draws the first member's keys and signs for them with the saved root. Slow on purpose (unsealing): not for the async
/// runtime's threads.
///
/// # Errors
/// If nothing at hand opens the root, or the disk fails.
pub fn succeed(saved: &State, successor: Successor<'_>, now: UnixTime) -> Result<Succession, AuthorityError> {
    let Successor { member, epoch, unlock, recovery, folder } = successor;
    let trust = saved.trust().ok_or(AuthorityError::NoRoot)?;
    let domain = &trust.bundle.trust_domain;
    let root_pem = trust.bundle.roots.first().ok_or(AuthorityError::NoRoot)?;
    let sealed: Sealed = serde_json::from_slice(&trust.sealed_root)
        .map_err(|error| AuthorityError::SealedRoot(error.to_string()))?;
    let (sealed, secret) = opened(sealed, &unlock, recovery.as_ref())?;
    let root = Root::from_parts(domain, root_pem, &secret)?;
    let blob = serde_json::to_vec(&sealed).expect("a sealed key is made of numbers and bytes");
    folder.write(SEALED_FILE, &String::from_utf8_lossy(&blob))?;
    let key = KeyRequest::generate()?;
    let pem = root.sign_intermediate(&read_csr(&key.csr_pem)?, member, serial(), now)?;
    Intermediate::from_pem(domain, &pem, &key.key_pem)?;
    folder.write(INTERMEDIATE_FILE, &format!("{}{pem}", key.key_pem))?;
    let mut bundle = trust.bundle.clone();
    bundle.epoch = epoch.to_string();
    keep_trust(folder, &bundle)?;
    let drawn = token::draw(clock::random());
    let admin = AccessToken { id: drawn.id.clone(), secret: drawn.secret };
    let admin_name = format!("admin-{}", &epoch.simple().to_string()[..8]);
    let credential = Credential { id: drawn.id, hash: drawn.hash };
    let then = vec![
        Command::Trust(TrustChange::SealRoot { blob }),
        Command::Trust(TrustChange::SetIntermediate { member, pem }),
        administrator(&admin_name, credential),
    ];
    Ok(Succession { then, roots_pem: trust.bundle.roots.concat(), admin, admin_name })
}

/// The root's key, and the blob that this server's seal opens.
fn opened(
    sealed: Sealed,
    unlock: &Unlock,
    recovery: Option<&Unlock>,
) -> Result<(Sealed, impl std::ops::Deref<Target = Vec<u8>> + use<>), AuthorityError> {
    match (sealed.open(unlock), recovery) {
        (Ok(secret), _) => Ok((sealed, secret)),
        (Err(SealError::Wrong(_) | SealError::Kind { .. }), Some(recovery)) => {
            let sealed = sealed.also(recovery, unlock)?;
            let secret = sealed.open(unlock)?;
            Ok((sealed, secret))
        }
        (Err(error), _) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use ca::seal::UnlockKind;
    use model::duration::Millis;
    use registry::Entry;

    use super::*;
    use crate::authority::found::found;

    fn keyfile(secret: &str) -> Unlock {
        Unlock::new(UnlockKind::Keyfile, secret.as_bytes()).expect("long enough")
    }

    #[test]
    fn another_seal_needs_the_recovery_passphrase_and_opens_the_root_from_then_on() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("a folder");
        let domain = "mesh.internal".parse().expect("a domain");
        let seal = keyfile("the first cluster's secret");
        let founded = found(&domain, Uuid::from_u128(1), 1, seal, &folder, clock::unix()).expect("founded");
        let mut state = State::new();
        for command in founded.genesis {
            state.apply(Entry { at: Millis(1), command });
        }
        let successor = |recovery| Successor {
            member: 2,
            epoch: Uuid::from_u128(2),
            unlock: keyfile("the new server's secret"),
            recovery,
            folder: &folder,
        };
        let refused = succeed(&state, successor(None), clock::unix());
        assert!(matches!(refused, Err(AuthorityError::Seal(SealError::Wrong(_)))));
        let recovery = Unlock::recovery(founded.recovery.expose()).expect("as it was printed");
        let drawn = succeed(&state, successor(Some(recovery)), clock::unix()).expect("it opens the root");
        let Some(Command::Trust(TrustChange::SealRoot { blob })) = drawn.then.first() else {
            panic!("the root is sealed first")
        };
        let sealed: Sealed = serde_json::from_slice(blob).expect("a sealed key");
        assert!(sealed.open(&keyfile("the new server's secret")).is_ok());
        assert_eq!(drawn.roots_pem, founded.root_pem, "the root is the same");
    }
}
