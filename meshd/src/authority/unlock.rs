//! Where the secret comes from that opens the sealed root: systemd, a file, or the operator's keyboard.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ca::{SealError, Unlock, seal::UnlockKind};
use uuid::Uuid;

use crate::settings::SealSource;

/// The name of the credential under `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "mesh-seal";
/// The file from which systemd loads the credential; a command that root types reads it itself.
pub const SEAL_FILE: &str = "/etc/mesh/seal.key";
/// What the unit's credential says where there is no such file.
const NO_SEAL: &[u8] = b"none";

/// Why there is no secret to unlock with.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// Not started by systemd with a credential.
    #[error(
        "there is no {SEAL_FILE}, from which systemd loads the seal (LoadCredential={CREDENTIAL}:{SEAL_FILE}): copy it from a server that has it"
    )]
    NoCredentials,
    /// The file cannot be read.
    #[error("{}: {cause}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nobody is there to be asked.
    #[error(
        "seal kind 'passphrase' without a file asks at the terminal, and there is none; name one in seal.file"
    )]
    NoTerminal,
    /// The secret is too weak.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Fetches the secret. Blocks; a passphrase may be asked for at the terminal.
///
/// # Errors
/// If it is not there, or too short to protect anything.
pub fn unlock(source: &SealSource) -> Result<Unlock, UnlockError> {
    let (kind, secret) = match source {
        SealSource::Credential => (UnlockKind::Credential, credential()?),
        SealSource::Keyfile(path) => (UnlockKind::Keyfile, read(path)?),
        SealSource::Passphrase(Some(path)) => (UnlockKind::Passphrase, read(path)?),
        SealSource::Passphrase(None) => (UnlockKind::Passphrase, ask()?),
    };
    Ok(Unlock::new(kind, secret.trim_ascii())?)
}

/// Draws the seal that systemd is to load, where there is none yet. Does nothing for other sources.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(source: &SealSource) -> Result<(), UnlockError> {
    if *source != SealSource::Credential || env::var_os("CREDENTIALS_DIRECTORY").is_some() {
        return Ok(());
    }
    draw_into(Path::new(SEAL_FILE))
}

fn draw_into(path: &Path) -> Result<(), UnlockError> {
    let secret = format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let drawn = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = drawn.and_then(|mut file| {
        file.write_all(secret.as_bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written.map_err(|cause| UnlockError::File { file: path.to_owned(), cause }),
    }
}

fn credential() -> Result<Vec<u8>, UnlockError> {
    let loaded = env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(CREDENTIAL));
    let secret = match read(&loaded.unwrap_or_else(|| SEAL_FILE.into())) {
        Err(UnlockError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => NO_SEAL.to_vec(),
        read => read?,
    };
    if secret.trim_ascii() == NO_SEAL { Err(UnlockError::NoCredentials) } else { Ok(secret) }
}

fn read(path: &Path) -> Result<Vec<u8>, UnlockError> {
    fs::read(path).map_err(|cause| UnlockError::File { file: path.to_owned(), cause })
}

fn ask() -> Result<Vec<u8>, UnlockError> {
    if !io::stdin().is_terminal() {
        return Err(UnlockError::NoTerminal);
    }
    let failed = |cause| UnlockError::File { file: PathBuf::from("terminal"), cause };
    let mut prompt = io::stderr();
    write!(prompt, "passphrase of the sealed root: ").and_then(|()| prompt.flush()).map_err(failed)?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line).map_err(failed)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_seal_is_drawn_once_and_is_for_its_owner_alone() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("seal.key");
        draw_into(&path).expect("drawn");
        let first = fs::read(&path).expect("there");
        assert!(first.len() > 60, "{first:?}");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        draw_into(&path).expect("it is there already");
        assert_eq!(fs::read(&path).expect("there"), first);
        assert!(draw_into(&place.path().join("none/seal.key")).is_err());
    }

    #[test]
    fn a_key_file_is_read_without_its_final_newline_and_must_be_long_enough() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("seal.key");
        let missing = unlock(&SealSource::Keyfile(path.clone())).expect_err("no file").to_string();
        assert!(missing.contains("seal.key: "), "{missing}");
        fs::write(&path, "short\n").expect("writable");
        let weak = unlock(&SealSource::Keyfile(path.clone())).expect_err("too short").to_string();
        assert!(weak.contains("has 5 bytes"), "{weak}");
        fs::write(&path, "long enough a secret\n").expect("writable");
        let sealed = ca::Sealed::seal(b"root", &[unlock(&SealSource::Keyfile(path.clone())).expect("right")]);
        fs::write(&path, "long enough a secret").expect("writable");
        let opened = sealed.expect("seals").open(&unlock(&SealSource::Keyfile(path)).expect("right"));
        assert_eq!(opened.expect("the same secret").as_slice(), b"root");
    }
}
