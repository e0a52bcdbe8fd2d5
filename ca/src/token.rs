//! Pure. Secrets of join and access tokens: drawn, hashed, compared. What a join token allows is `model::join`'s rule.
//!
//! A secret has 256 random bits, so one SHA-256 keeps it: there is no dictionary to slow down, which is what argon2
//! and its kin are for, and every API call would pay for them.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use model::token::{SECRET_BYTES, hex};

/// Random bytes that one token needs: its id, then its secret.
pub const TOKEN_DICE_BYTES: usize = ID_BYTES + SECRET_BYTES;

const ID_BYTES: usize = 5;

/// A new token, before it is given away.
#[derive(Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Names the token; not secret.
    pub id: String,
    /// The secret, lower-case hex. Shown once, kept nowhere.
    pub secret: String,
    /// What is kept of the secret.
    pub hash: [u8; 32],
}

/// Draws a token from random bytes.
pub fn draw(dice: [u8; TOKEN_DICE_BYTES]) -> Drawn {
    let (id, secret) = dice.split_at(ID_BYTES);
    let secret = hex(secret);
    Drawn { id: hex(id), hash: hash(&secret), secret }
}

/// What is kept of a secret: SHA-256 over its text.
pub fn hash(secret: &str) -> [u8; 32] {
    digest(&SHA256, secret.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether `secret` is the one of which `kept` was kept; takes the same time wherever they differ.
pub fn matches(secret: &str, kept: &[u8; 32]) -> bool {
    verify_slices_are_equal(&hash(secret), kept).is_ok()
}

/// Without the secret: tokens end up in logs.
impl std::fmt::Debug for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawn").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use model::token::JoinToken;

    use super::*;

    #[test]
    fn a_drawn_token_is_well_formed_and_known_again() {
        let drawn = draw(std::array::from_fn(|n| u8::try_from(n).expect("37 bytes")));
        assert_eq!(drawn.id, "0001020304");
        let text = JoinToken { id: drawn.id.clone(), secret: drawn.secret.clone(), pin: "ab".repeat(32) }
            .to_string();
        let parsed: JoinToken = text.parse().expect("a token");
        assert!(matches(&parsed.secret, &drawn.hash));
        assert!(!matches(&parsed.secret.replace('0', "1"), &drawn.hash));
        assert!(!matches("", &drawn.hash));
        assert!(!format!("{drawn:?}").contains(&drawn.secret));
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        assert_eq!(hex(&hash("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
