//! Pure. The index of a blocking query: what to ask for next, by the rules that Consul states and Nomad shares. One that goes backwards, is 0, or is
//! missing means that the next question must not wait for it.

/// The index to wait for after an answer that had this one, when `before` was waited for; 0: not to wait.
pub(super) fn next(before: u64, answered: Option<&str>) -> u64 {
    match answered.and_then(|index| index.parse::<u64>().ok()) {
        Some(index) if index >= before => index,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_goes_up_or_begins_anew() {
        for (before, answered, want) in [
            (0, Some("7"), 7),
            (7, Some("7"), 7),
            (7, Some("8"), 8),
            (7, Some("3"), 0),
            (7, Some("0"), 0),
            (7, None, 0),
            (7, Some("x"), 0),
            (7, Some("-1"), 0),
        ] {
            assert_eq!(next(before, answered), want, "{before} {answered:?}");
        }
    }
}
