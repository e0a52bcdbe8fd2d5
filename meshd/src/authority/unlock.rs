//! Where the secret comes from that opens the sealed root: systemd, a file, or the operator's keyboard.

use std::{
    env, fs,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use ca::{SealError, Unlock, seal::UnlockKind};

use crate::settings::SealSource;

/// The name of the credential under `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "mesh-seal";

/// Why there is no secret to unlock with.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// Not started by systemd with a credential.
    #[error(
        "seal kind 'credential' needs $CREDENTIALS_DIRECTORY (systemd: LoadCredential={CREDENTIAL}:FILE)"
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
        SealSource::Credential => {
            let folder = env::var_os("CREDENTIALS_DIRECTORY").ok_or(UnlockError::NoCredentials)?;
            (UnlockKind::Credential, read(&Path::new(&folder).join(CREDENTIAL))?)
        }
        SealSource::Keyfile(path) => (UnlockKind::Keyfile, read(path)?),
        SealSource::Passphrase(Some(path)) => (UnlockKind::Passphrase, read(path)?),
        SealSource::Passphrase(None) => (UnlockKind::Passphrase, ask()?),
    };
    Ok(Unlock::new(kind, secret.trim_ascii())?)
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
    use super::*;

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
