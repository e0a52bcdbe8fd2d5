//! Pure. Label selectors, as lists and watches take them: `app=web,tier!=db,zone in (a,b),canary,!old`.

use std::str::FromStr;

use model::object::Labels;

/// The longest selector, in bytes: it stands in a URL.
pub const SELECTOR_BYTES_MAX: usize = 4_096;

/// Requirements on labels; all of them must hold. An empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    /// `k=v`, `k in (a,b)`.
    In(String, Vec<String>),
    /// `k!=v`, `k notin (a,b)`: also where the label is absent.
    NotIn(String, Vec<String>),
    /// `k`.
    Present(String),
    /// `!k`.
    Absent(String),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Longer than [`SELECTOR_BYTES_MAX`].
    #[error("must have at most {SELECTOR_BYTES_MAX} bytes, has {0}")]
    Length(usize),
    /// A requirement that cannot be read.
    #[error("'{0}' must be one of k=v, k!=v, k in (a,b), k notin (a,b), k, !k")]
    Requirement(String),
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        let value = |key: &str| {
            labels.iter().find(|(label, _)| label.as_str() == key).map(|(_, value)| value.as_str())
        };
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => value(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            Requirement::Present(key) => value(key).is_some(),
            Requirement::Absent(key) => value(key).is_none(),
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::Length(text.len()));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let requirements = split(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }
}

/// Splits at the commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let text = text.trim();
    read(text).ok_or_else(|| SelectorError::Requirement(text.chars().take(80).collect()))
}

fn read(text: &str) -> Option<Requirement> {
    if let Some(key) = text.strip_prefix('!') {
        return Some(Requirement::Absent(label(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Requirement::NotIn(label(key)?, vec![word(value)?]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Requirement::In(label(key)?, vec![word(value)?]));
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return Some(Requirement::Present(label(text)?));
    };
    let (operator, list) = rest.trim().split_once('(')?;
    let values = list.trim_end().strip_suffix(')')?.split(',').map(word).collect::<Option<Vec<_>>>()?;
    match operator.trim() {
        "in" => Some(Requirement::In(label(key)?, values)),
        "notin" => Some(Requirement::NotIn(label(key)?, values)),
        _ => None,
    }
}

fn label(text: &str) -> Option<String> {
    text.trim().parse::<model::object::LabelKey>().ok().map(|key| key.to_string())
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"()=!,".contains(&byte);
    text.bytes().all(plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use model::shape::Text;

    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: &str, want: bool) {
        let selector: Selector = selector.parse().unwrap_or_else(|error| panic!("{selector}: {error}"));
        let labels: Labels = labels
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.parse().expect("a key"), Text::new(value).expect("a value")))
            .collect();
        assert_eq!(selector.selects(&labels), want, "{selector:?} on {labels:?}");
    }

    #[test]
    fn each_requirement_selects_what_it_says() {
        check("", "", true);
        check("app=web", "app=web tier=x", true);
        check("app==web", "app=api", false);
        check("app=web", "", false);
        check("app!=web", "", true);
        check("app!=web", "app=web", false);
        check("zone in (a, b)", "zone=b", true);
        check("zone in (a,b)", "zone=c", false);
        check("zone notin (a,b)", "", true);
        check("zone notin (a,b)", "zone=a", false);
        check("canary", "canary=no", true);
        check("canary", "", false);
        check("!canary", "", true);
        check("!canary", "canary=no", false);
        check("app=web,zone in (a,b),!old", "app=web zone=a", true);
        check("app=web,zone in (a,b),!old", "app=web zone=a old=1", false);
        check("mesh/managed-by=registration", "mesh/managed-by=registration", true);
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in [
            "=v",
            "k=v,",
            "k in a,b",
            "k in (a",
            "k within (a)",
            "k=v w",
            "k=(a)",
            "!",
            "ä=1",
            &"a".repeat(5_000),
        ] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong:?} was taken");
        }
    }
}
