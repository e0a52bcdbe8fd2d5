//! Pure. Texts within regular expressions.

/// An expression that fits this text alone.
pub(crate) fn escaped(text: &str) -> String {
    let special = |character: char| r"\.+*?()|[]{}^$#&-~".contains(character);
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if special(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_escaped() {
        assert_eq!(escaped("/a.b/(c)"), r"/a\.b/\(c\)");
        assert_eq!(escaped("/orders"), "/orders");
    }
}
