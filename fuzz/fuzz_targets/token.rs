//! Tokens as texts: any text is a token or is refused, a token prints as it was read, and no error repeats a secret.
#![no_main]

use model::token::{AccessToken, JoinToken, TokenError};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<JoinToken>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text.trim());
            assert!(!format!("{token:?}").contains(&token.secret));
            let sent = token.without_pin();
            assert_eq!(JoinToken::parse_without_pin(&sent), Ok((token.id.as_str(), token.secret.as_str())));
        }
        Err(error) => keeps_the_secret(text, error),
    }
    match text.parse::<AccessToken>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text.trim());
            assert!(!format!("{token:?}").contains(&token.secret));
        }
        Err(error) => keeps_the_secret(text, error),
    }
    let _ = JoinToken::parse_without_pin(text);
});

fn keeps_the_secret(text: &str, error: TokenError) {
    let drawn = |secret: &&str| secret.len() > 16 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    let secret = text.split('.').nth(2).filter(drawn);
    assert!(secret.is_none_or(|secret| !error.to_string().contains(secret)));
}
