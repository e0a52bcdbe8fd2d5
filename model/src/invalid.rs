//! Pure. What was wrong with an input: every wrong field, by its path, with what would be right.

use std::fmt;

use serde::{Deserialize, Serialize};

/// As many errors as one answer lists; a manifest with more is cut here, so that a hostile one cannot make a huge answer.
pub const FIELD_ERRORS_MAX: usize = 100;

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where: `spec.rules[0].backendRefs[1].weight`.
    pub path: String,
    /// What would be right.
    pub message: String,
}

/// All that was wrong with an input; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// The wrong fields, in the order of the input; at most [`FIELD_ERRORS_MAX`].
    pub errors: Vec<FieldError>,
}

impl Invalid {
    /// A single wrong field.
    pub fn one(path: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self { errors: vec![FieldError { path: path.to_string(), message: message.to_string() }] }
    }

    /// The same errors, with every path below `prefix` (`items[3]`).
    pub fn below(mut self, prefix: impl fmt::Display) -> Self {
        for error in &mut self.errors {
            error.path =
                if error.path.is_empty() { prefix.to_string() } else { format!("{prefix}.{}", error.path) };
        }
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {}", error.path, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
