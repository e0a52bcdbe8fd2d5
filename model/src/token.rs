//! Pure. Tokens as texts. Their hashes and uses are the registry's matter.
//!
//! A join token pins the cluster's root: whoever holds it can tell the true control plane before it sends the secret.

use std::{fmt, str::FromStr};

/// The bytes of a secret before encoding: 256 bits.
pub const SECRET_BYTES: usize = 32;
/// The longest text that is looked at as a token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// `mesh1.<id>.<secret>.<sha256 hex of the root certificate's DER>`: brings in a host or a server.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token in the registry; not secret. Lower-case letters and digits.
    pub id: String,
    /// The secret: 64 lower-case hex digits.
    pub secret: String,
    /// SHA-256 of the root certificate's DER, in lower-case hex.
    pub pin: String,
}

/// `mesha1.<id>.<secret>`: a bearer token for the API.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// Names the token in the registry; not secret. Lower-case letters and digits.
    pub id: String,
    /// The secret: 64 lower-case hex digits.
    pub secret: String,
}

/// Why a text is not a token. It never repeats the text, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a join token at all.
    #[error("a join token looks like mesh1.<id>.<secret>.<pin>; was it cut when it was copied?")]
    Join,
    /// Not an access token at all.
    #[error("an access token looks like mesha1.<id>.<secret>; was it cut when it was copied?")]
    Access,
    /// A part is not what it should be.
    #[error("the token's {0} is malformed; was it cut when it was copied?")]
    Part(&'static str),
}

impl JoinToken {
    /// The token without its pin, as it is sent: `mesh1.<id>.<secret>`.
    pub fn without_pin(&self) -> String {
        format!("mesh1.{}.{}", self.id, self.secret)
    }

    /// Takes the form that is sent apart: id and secret.
    ///
    /// # Errors
    /// If the text does not have the form of [`Self::without_pin`].
    pub fn parse_without_pin(text: &str) -> Result<(&str, &str), TokenError> {
        let parts = split::<3>(text).ok_or(TokenError::Join)?;
        let ["mesh1", id, secret] = parts else { return Err(TokenError::Join) };
        check(id, secret)?;
        Ok((id, secret))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts = split::<4>(text).ok_or(TokenError::Join)?;
        let ["mesh1", id, secret, pin] = parts else { return Err(TokenError::Join) };
        check(id, secret)?;
        if !is_hex(pin, 64) {
            return Err(TokenError::Part("pin"));
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), pin: pin.to_owned() })
    }
}

impl FromStr for AccessToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts = split::<3>(text).ok_or(TokenError::Access)?;
        let ["mesha1", id, secret] = parts else { return Err(TokenError::Access) };
        check(id, secret)?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

fn split<const N: usize>(text: &str) -> Option<[&str; N]> {
    let text = text.trim();
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    text.split('.').collect::<Vec<_>>().try_into().ok()
}

fn check(id: &str, secret: &str) -> Result<(), TokenError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
        return Err(TokenError::Part("id"));
    }
    if is_hex(secret, SECRET_BYTES * 2) { Ok(()) } else { Err(TokenError::Part("secret")) }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh1.{}.{}.{}", self.id, self.secret, self.pin)
    }
}

impl fmt::Display for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesha1.{}.{}", self.id, self.secret)
    }
}

/// Without the secret: tokens end up in logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

/// Without the secret: tokens end up in logs.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_print_as_they_parse_and_hide_their_secret() {
        let (secret, pin) = ("ab".repeat(32), "cd".repeat(32));
        let text = format!("mesh1.k3f9.{secret}.{pin}");
        let token: JoinToken = text.parse().expect("a token");
        assert_eq!(token.to_string(), text);
        assert_eq!(JoinToken::parse_without_pin(&token.without_pin()), Ok(("k3f9", secret.as_str())));
        assert!(!format!("{token:?}").contains(&secret));
        let access: AccessToken =
            format!("mesha1.x1.{secret}\n").parse().expect("a token with the shell's newline");
        assert_eq!(access.to_string(), format!("mesha1.x1.{secret}"));
        assert!(!format!("{access:?}").contains(&secret));
    }

    #[test]
    fn malformed_tokens_say_what_is_wrong_and_never_the_secret() {
        let (secret, pin) = ("ab".repeat(32), "cd".repeat(32));
        let wrong = |text: &str| text.parse::<JoinToken>().expect_err("malformed");
        assert_eq!(wrong("mesh2.a.b.c"), TokenError::Join);
        assert_eq!(wrong(&format!("mesh1.K.{secret}.{pin}")), TokenError::Part("id"));
        assert_eq!(wrong(&format!("mesh1.k.{}.{pin}", &secret[1..])), TokenError::Part("secret"));
        assert_eq!(wrong(&format!("mesh1.k.{secret}.{}", pin.to_uppercase())), TokenError::Part("pin"));
        assert_eq!(wrong(&"a".repeat(10_000)), TokenError::Join);
        assert_eq!("mesh1.k.s".parse::<AccessToken>(), Err(TokenError::Access));
    }

    #[test]
    fn hex_is_lower_case_with_both_digits() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
