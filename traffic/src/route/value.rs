//! Pure. A value to compare with: itself, or a regular expression over the whole of it, of bounded size. Expressions are
//! over bytes and know only ASCII, as RE2's in other proxies do: `\w{1,64}` then is small, and no value is unreadable.

use model::resource::ValueMatchType;
use regex::bytes::{Regex, RegexBuilder};

/// As large as one compiled regular expression may get, in bytes. Each runs in time linear in its input, with a factor
/// of this size; a thousand rules with one each stay below 256 MiB.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// As deep as the parts of a regular expression may be nested: its parser recurses.
const REGEX_DEPTH_MAX: u32 = 64;

/// What makes an expression one over the whole of a text.
const WHOLE: (&str, &str) = (r"\A(?:", r")\z");

/// How a value is compared.
#[derive(Debug)]
pub(crate) enum Value {
    Exact(String),
    Whole(Regex),
}

impl Value {
    /// # Errors
    /// What is wrong with a regular expression, for a person.
    pub(super) fn new(kind: ValueMatchType, text: &str) -> Result<Self, String> {
        match kind {
            ValueMatchType::Exact => Ok(Self::Exact(text.to_owned())),
            ValueMatchType::RegularExpression => whole(text).map(Self::Whole),
        }
    }

    /// How much it says, for precedence: an expression says less than any text.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Exact(own) => own.len(),
            Self::Whole(_) => 0,
        }
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(own) => own.as_bytes() == value,
            Self::Whole(regex) => regex.is_match(value),
        }
    }
}

/// What an expression over the whole of a text was made from.
pub(super) fn written(regex: &Regex) -> &str {
    let inner = regex.as_str().strip_prefix(WHOLE.0).and_then(|rest| rest.strip_suffix(WHOLE.1));
    inner.unwrap_or(regex.as_str())
}

/// The expression over the whole of a text.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn whole(text: &str) -> Result<Regex, String> {
    // First by itself: `a)(b` must not become two groups by what is put around it.
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder
            .unicode(false)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .nest_limit(REGEX_DEPTH_MAX)
            .build()
    };
    build(text).and_then(|_| build(&format!("{}{text}{}", WHOLE.0, WHOLE.1))).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!(
                "must be a smaller regular expression: compiled, it has more than {REGEX_BYTES_MAX} bytes"
            )
        }
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("must be a regular expression (RE2 syntax): {reason}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `want` is `yes`, `no`, or the start of what is wrong.
    #[track_caller]
    fn check(expression: &str, text: &str, want: &str) {
        let got = match Value::new(ValueMatchType::RegularExpression, expression) {
            Ok(value) if value.matches(text.as_bytes()) => "yes".to_owned(),
            Ok(_) => "no".to_owned(),
            Err(reason) => reason,
        };
        assert!(got.starts_with(want), "{expression:?} over {text:?}: {got}");
    }

    #[test]
    fn an_expression_is_for_the_whole_text() {
        check("a|b", "a", "yes");
        check("a|b", "ab", "no");
        check("(?i)true", "TRUE", "yes");
        check("^/v[0-9]+/.*$", "/v12/x", "yes");
        check("a", "a\n", "no");
        check("", "", "yes");
        check("é.*", "été", "yes");
        check(r"\w+", "é", "no");
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_reason() {
        check("a)(b", "", "must be a regular expression (RE2 syntax): unopened group");
        check("(", "", "must be a regular expression (RE2 syntax): unclosed group");
        check(r"(a)\1", "", "must be a regular expression (RE2 syntax): backreferences are not supported");
        check(r"(?=a)", "", "must be a regular expression (RE2 syntax): look-around");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        check(r"/users/[\w-]{1,64}/\w{1,64}", "/users/a-b/c", "yes");
        check(r"(\w{100}){100}", "", "must be a smaller regular expression");
        check(&"(".repeat(100), "", "must be a regular expression");
        check(&format!("{}a{}", "(".repeat(100), ")".repeat(100)), "", "must be a regular expression");
    }
}
