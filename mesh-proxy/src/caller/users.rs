//! The users of this host, by name; what names them is the system's matter.

use nix::unistd::User;

/// The number of a user, by its name or as a number.
///
/// # Errors
/// If there is no such user, in the words of an error about a key.
pub fn uid(name: &str) -> Result<u32, String> {
    let found =
        User::from_name(name).map_err(|error| format!("the users of this host cannot be read: {error}"))?;
    let number = || name.parse().ok();
    found
        .map(|user| user.uid.as_raw())
        .or_else(number)
        .ok_or_else(|| format!("must be a user of this host, which has no {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number() {
        assert_eq!((uid("root"), uid("4711")), (Ok(0), Ok(4_711)));
        let error = uid("nobody-of-that-name").expect_err("there is none");
        assert!(error.contains("which has no \"nobody-of-that-name\""), "{error}");
        assert!(uid("a\0b").is_err());
    }
}
