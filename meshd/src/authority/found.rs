//! How a mesh begins: its root, drawn and sealed; the first member's intermediate and leaf; the first administrator.

use ca::{Intermediate, RecoveryPassphrase, Root, Sealed, Unlock, token};
use model::{
    identity::TrustDomain,
    kind::Kind,
    object::{Key, Object},
    token::AccessToken,
    trust::{Distrusted, TrustBundle},
};
use registry::{Change, Command, Credential, Expect, MemberId, TrustChange, Write};
use rustls_pki_types::UnixTime;
use serde_json::json;
use svid::KeyRequest;
use uuid::Uuid;

use super::{AuthorityError, Folder, INTERMEDIATE_FILE, SEALED_FILE, keep_trust, read_csr, serial};
use crate::clock;

/// The name of the first administrator's token.
pub const ADMIN: &str = "admin";

/// What a new mesh begins with.
pub struct Founded {
    /// For the log, in this order.
    pub genesis: Vec<Command>,
    /// The root's certificate: PEM.
    pub root_pem: String,
    /// Shown once.
    pub recovery: RecoveryPassphrase,
    /// Shown once.
    pub admin: AccessToken,
}

/// Draws everything that a mesh begins with; the first member's keys go into `folder`. Slow on purpose (sealing):
/// not for the async runtime's threads.
///
/// # Errors
/// If randomness or the disk fails.
pub fn found(
    domain: &TrustDomain,
    epoch: Uuid,
    member: MemberId,
    unlock: Unlock,
    folder: &Folder,
    now: UnixTime,
) -> Result<Founded, AuthorityError> {
    let root = Root::generate(domain, serial(), now)?;
    let recovery = RecoveryPassphrase::generate(clock::random());
    let sealed = Sealed::seal(&root.secret(), &[unlock, Unlock::recovery(recovery.expose())?])?;
    let blob = serde_json::to_vec(&sealed).expect("a sealed key is made of numbers and bytes");
    folder.write(SEALED_FILE, &String::from_utf8_lossy(&blob))?;
    let key = KeyRequest::generate()?;
    let pem = root.sign_intermediate(&read_csr(&key.csr_pem)?, member, serial(), now)?;
    Intermediate::from_pem(domain, &pem, &key.key_pem)?;
    folder.write(INTERMEDIATE_FILE, &format!("{}{pem}", key.key_pem))?;
    let bundle = TrustBundle {
        trust_domain: domain.clone(),
        epoch: epoch.to_string(),
        generation: 0,
        roots: vec![root.certificate_pem()],
        distrusted: Distrusted::default(),
    };
    keep_trust(folder, &bundle)?;
    let drawn = token::draw(clock::random());
    let admin = AccessToken { id: drawn.id.clone(), secret: drawn.secret };
    let genesis = vec![
        Command::Trust(TrustChange::Found { domain: domain.clone(), epoch }),
        Command::Trust(TrustChange::AddRoot { pem: root.certificate_pem() }),
        Command::Trust(TrustChange::SealRoot { blob }),
        Command::Trust(TrustChange::SetIntermediate { member, pem }),
        administrator(ADMIN, Credential { id: drawn.id, hash: drawn.hash }),
        // Whoever is first has virtual IPs from the start.
        Command::Number(Vec::new()),
    ];
    Ok(Founded { genesis, root_pem: root.certificate_pem(), recovery, admin })
}

/// An access token of that name which may do everything.
pub(super) fn administrator(name: &str, credential: Credential) -> Command {
    let key = Key::mesh_wide(Kind::AccessToken, name.parse().expect("a valid name"));
    let spec = json!({"roles": ["admin"]});
    let object = Object::new(key, spec.as_object().expect("an object").clone());
    let change = Change::Put { object, expect: Expect::Absent, credential: Some(credential) };
    Command::Write(Write { actor: "meshd init".to_owned(), changes: vec![change] })
}
