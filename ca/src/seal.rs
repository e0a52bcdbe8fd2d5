//! The root's key at rest: an opaque blob that every member keeps and only an unlocking secret opens.
//!
//! The key is sealed with a random data key (AES-256-GCM), and the data key once for each way to unlock it, under a
//! key derived by argon2id. Everything in the blob is authenticated: a flipped bit anywhere opens nothing. It never
//! decides who may open it, and never keeps an opened key.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    rand,
};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The format of the blob; another one is refused, not guessed at.
const VERSION: u16 = 1;
/// Memory of one derivation, in KiB: 64 MiB, thrice what OWASP asks at least, as it is done once per start.
const MEMORY_KIB: u32 = 64 * 1_024;
/// Passes over that memory.
const PASSES: u32 = 3;
/// The most memory, in KiB, that a blob may demand of a derivation: it comes from the log, and could be forged.
const MEMORY_KIB_MAX: u32 = 256 * 1_024;
/// The most passes that a blob may demand of a derivation, for the same reason.
const PASSES_MAX: u32 = 10;
/// Ways to unlock one blob: one for each member's kind, and the recovery passphrase, with room to change them.
pub const UNLOCKS_MAX: usize = 8;
/// The shortest secret that seals anything, in bytes.
pub const SECRET_BYTES_MIN: usize = 12;

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// Where an unlocking secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlockKind {
    /// A systemd credential.
    Credential,
    /// A file that the operator guards.
    Keyfile,
    /// What the operator types.
    Passphrase,
    /// The passphrase that was printed once.
    Recovery,
}

/// A secret that unlocks.
pub struct Unlock {
    kind: UnlockKind,
    secret: SecretSlice<u8>,
}

/// A sealed secret. Opaque, safe to replicate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    version: u16,
    unlocks: Vec<Wrapped>,
    nonce: [u8; NONCE_BYTES],
    sealed: Vec<u8>,
}

/// The data key, sealed for one way to unlock.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wrapped {
    kind: UnlockKind,
    salt: [u8; SALT_BYTES],
    memory_kib: u32,
    passes: u32,
    nonce: [u8; NONCE_BYTES],
    key: Vec<u8>,
}

/// Why something cannot be sealed, or a blob not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A secret that could be guessed.
    #[error("the {kind:?} secret has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed")]
    Weak {
        /// Which one.
        kind: UnlockKind,
        /// How long it is.
        bytes: usize,
    },
    /// No way to unlock, or too many.
    #[error("a sealed key has 1 to {UNLOCKS_MAX} ways to unlock it, not {0}")]
    Unlocks(usize),
    /// No text of a recovery passphrase.
    #[error("a recovery passphrase has 32 letters and digits in groups of four, this has {0}")]
    Recovery(usize),
    /// Made by another release.
    #[error("the sealed key has format {0}; this release reads {VERSION}")]
    Version(u16),
    /// Nothing in the blob is for this kind of secret.
    #[error("the sealed key cannot be unlocked by a {asked:?}, only by {sealed:?}")]
    Kind {
        /// What was tried.
        asked: UnlockKind,
        /// What it is sealed for.
        sealed: Vec<UnlockKind>,
    },
    /// The blob demands a derivation beyond all reason.
    #[error("the sealed key demands {memory_kib} KiB and {passes} passes to unlock; it was tampered with")]
    Demand {
        /// Memory, in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
    },
    /// The secret is not the one it was sealed with, or that part of the blob was changed.
    #[error(
        "the {0:?} secret does not unlock the sealed key: it is not the one it was sealed with, or the blob is damaged"
    )]
    Wrong(UnlockKind),
    /// The secret is right, and the blob is not what was sealed.
    #[error("the sealed key is damaged: its parts do not belong together")]
    Tampered,
    /// The system gave no randomness or no memory.
    #[error("sealing failed: no randomness or memory")]
    System,
}

impl Unlock {
    /// What unlocks, and of which kind it is.
    pub fn new(kind: UnlockKind, secret: &[u8]) -> Result<Self, SealError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SealError::Weak { kind, bytes: secret.len() });
        }
        Ok(Self { kind, secret: SecretSlice::from(secret.to_vec()) })
    }

    /// The recovery passphrase, as it was printed or typed: groups, spaces and case do not matter.
    pub fn recovery(text: &str) -> Result<Self, SealError> {
        Self::new(UnlockKind::Recovery, RecoveryPassphrase::normalise(text)?.as_bytes())
    }

    /// The key that this secret gives for one wrapped data key.
    fn derive(&self, wrapped: &Wrapped) -> Result<RandomizedNonceKey, SealError> {
        let (memory_kib, passes) = (wrapped.memory_kib, wrapped.passes);
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
            return Err(SealError::Demand { memory_kib, passes });
        }
        let params = Params::new(memory_kib, passes, 1, Some(KEY_BYTES));
        let params = params.map_err(|_| SealError::Demand { memory_kib, passes })?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        argon
            .hash_password_into(self.secret.expose_secret(), &wrapped.salt, &mut *key)
            .map_err(|_| SealError::System)?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).map_err(|_| SealError::System)
    }
}

impl Sealed {
    /// Seals `secret` so that each of `unlocks` opens it.
    pub fn seal(secret: &[u8], unlocks: &[Unlock]) -> Result<Self, SealError> {
        if unlocks.is_empty() || unlocks.len() > UNLOCKS_MAX {
            return Err(SealError::Unlocks(unlocks.len()));
        }
        let data_key = Zeroizing::new(random::<KEY_BYTES>()?);
        let unlocks = unlocks.iter().map(|unlock| wrap(unlock, &data_key)).collect::<Result<Vec<_>, _>>()?;
        Self::finish(unlocks, &data_key, secret)
    }

    /// Opens the blob with one of the secrets that it was sealed for.
    pub fn open(&self, unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let data_key = self.data_key(unlock)?;
        self.secret(&data_key)
    }

    /// The same secret, which `new` opens too. One of the kind of `new` is replaced.
    pub fn also(&self, unlock: &Unlock, new: &Unlock) -> Result<Self, SealError> {
        let data_key = self.data_key(unlock)?;
        let secret = self.secret(&data_key)?;
        let kept = self.unlocks.iter().filter(|wrapped| wrapped.kind != new.kind).cloned();
        let unlocks: Vec<Wrapped> = kept.chain([wrap(new, &data_key)?]).collect();
        Self::finish(unlocks, &data_key, &secret)
    }

    /// The kinds of secrets that open it.
    pub fn kinds(&self) -> Vec<UnlockKind> {
        self.unlocks.iter().map(|wrapped| wrapped.kind).collect()
    }

    fn finish(unlocks: Vec<Wrapped>, data_key: &[u8; KEY_BYTES], secret: &[u8]) -> Result<Self, SealError> {
        let (nonce, sealed) = encrypt(&aes(data_key)?, &context(VERSION, &unlocks), secret)?;
        Ok(Self { version: VERSION, unlocks, nonce, sealed })
    }

    fn data_key(&self, unlock: &Unlock) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        if self.version != VERSION {
            return Err(SealError::Version(self.version));
        }
        if self.unlocks.len() > UNLOCKS_MAX {
            return Err(SealError::Unlocks(self.unlocks.len()));
        }
        let mine = self.unlocks.iter().filter(|wrapped| wrapped.kind == unlock.kind);
        let mut refused = SealError::Kind { asked: unlock.kind, sealed: self.kinds() };
        for wrapped in mine {
            match unwrap_key(unlock, wrapped) {
                Ok(key) => return Ok(key),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn secret(&self, data_key: &[u8; KEY_BYTES]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let context = context(self.version, &self.unlocks);
        decrypt(&aes(data_key)?, &context, self.nonce, &self.sealed).ok_or(SealError::Tampered)
    }
}

fn wrap(unlock: &Unlock, data_key: &[u8; KEY_BYTES]) -> Result<Wrapped, SealError> {
    let mut wrapped = Wrapped {
        kind: unlock.kind,
        salt: random()?,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        nonce: [0; NONCE_BYTES],
        key: Vec::new(),
    };
    let context = wrapped.context();
    (wrapped.nonce, wrapped.key) = encrypt(&unlock.derive(&wrapped)?, &context, data_key)?;
    Ok(wrapped)
}

fn unwrap_key(unlock: &Unlock, wrapped: &Wrapped) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
    let key = decrypt(&unlock.derive(wrapped)?, &wrapped.context(), wrapped.nonce, &wrapped.key);
    let key = key.ok_or(SealError::Wrong(unlock.kind))?;
    let key: [u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| SealError::Tampered)?;
    Ok(Zeroizing::new(key))
}

impl Wrapped {
    /// What its encryption is bound to.
    fn context(&self) -> Vec<u8> {
        let numbers = [self.memory_kib.to_be_bytes(), self.passes.to_be_bytes()].concat();
        [b"mesh data key 1 ", self.kind.label().as_bytes(), &self.salt, &numbers].concat()
    }
}

/// What the encryption of the secret is bound to: the format, and all the ways to unlock it.
fn context(version: u16, unlocks: &[Wrapped]) -> Vec<u8> {
    let parts =
        unlocks.iter().flat_map(|wrapped| [wrapped.context(), wrapped.nonce.to_vec(), wrapped.key.clone()]);
    let parts: Vec<u8> =
        parts.flat_map(|part| [(part.len() as u64).to_be_bytes().to_vec(), part].concat()).collect();
    [b"mesh sealed key ", version.to_be_bytes().as_slice(), digest(&SHA256, &parts).as_ref()].concat()
}

fn encrypt(
    key: &RandomizedNonceKey,
    context: &[u8],
    plain: &[u8],
) -> Result<([u8; NONCE_BYTES], Vec<u8>), SealError> {
    let mut sealed = Zeroizing::new(plain.to_vec());
    let nonce =
        key.seal_in_place_append_tag(Aad::from(context), &mut *sealed).map_err(|_| SealError::System)?;
    Ok((*nonce.as_ref(), sealed.to_vec()))
}

fn decrypt(
    key: &RandomizedNonceKey,
    context: &[u8],
    nonce: [u8; NONCE_BYTES],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length =
        key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

fn aes(key: &[u8; KEY_BYTES]) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::System)
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SealError::System)?;
    Ok(bytes)
}

impl UnlockKind {
    fn label(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Keyfile => "keyfile",
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery",
        }
    }
}

/// The passphrase that is printed once, for the day on which all else is lost: 160 random bits.
pub struct RecoveryPassphrase(Zeroizing<String>);

impl RecoveryPassphrase {
    /// Crockford's base 32: no letter that could be another.
    const ALPHABET: &'static [u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    const CHARACTERS: usize = 32;
    const GROUP: usize = 4;

    /// Draws one from random bytes.
    pub fn generate(dice: [u8; 20]) -> Self {
        let letter = |n: usize| {
            let (byte, bit) = (n * 5 / 8, n * 5 % 8);
            let pair = u16::from_be_bytes([dice[byte], dice.get(byte + 1).copied().unwrap_or(0)]);
            char::from(Self::ALPHABET[usize::from(pair << bit >> 11)])
        };
        let dash = |n: usize| (n > 0 && n.is_multiple_of(Self::GROUP)).then_some('-');
        Self(Zeroizing::new(
            (0..Self::CHARACTERS).flat_map(|n| dash(n).into_iter().chain([letter(n)])).collect(),
        ))
    }

    /// The text to print: eight groups of four.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As [`Self::expose`] without dashes, from whatever a tired person types.
    fn normalise(text: &str) -> Result<Zeroizing<String>, SealError> {
        let same = |letter: char| match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let known = |letter: &char| u8::try_from(*letter).is_ok_and(|byte| Self::ALPHABET.contains(&byte));
        let plain: Zeroizing<String> = Zeroizing::new(text.chars().map(same).filter(known).collect());
        if plain.len() == Self::CHARACTERS { Ok(plain) } else { Err(SealError::Recovery(plain.len())) }
    }
}

/// Without the secret.
impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unlock").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Without the secret.
impl fmt::Debug for RecoveryPassphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryPassphrase")
    }
}

/// Short: a blob in a log helps nobody.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("version", &self.version)
            .field("kinds", &self.kinds())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
