//! Pure. What users are told, at the place in their configuration that it is about.

use model::{client::ClientError, invalid::FieldError};

use crate::{
    place::Place,
    schema::Field,
    value::Value,
    wire::{AttributePath, Diagnostic, Severity},
};

/// Nothing was done.
pub(crate) fn error(summary: impl Into<String>, detail: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error as i32,
        summary: summary.into(),
        detail: detail.into(),
        attribute: None,
    }
}

/// It was done; somebody should look.
pub(crate) fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Warning as i32, ..error(summary, detail) }
}

/// One is as good as a list of one.
impl From<Diagnostic> for Vec<Diagnostic> {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic]
    }
}

impl Diagnostic {
    /// The same, where an error would stop what may go on, or undo what was done.
    pub(crate) fn mildly(self) -> Self {
        Self { severity: Severity::Warning as i32, ..self }
    }

    /// The same, at a place.
    pub(crate) fn at(self, attribute: AttributePath) -> Self {
        Self { attribute: Some(attribute), ..self }
    }
}

/// One wrong field, in the API's own words.
pub(crate) fn field(summary: &str, error: &FieldError, at: AttributePath) -> Diagnostic {
    let detail = if error.path.is_empty() {
        error.message.clone()
    } else {
        format!("{}: {}", error.path, error.message)
    };
    self::error(summary, detail).at(at)
}

/// Why the API did not do what was asked, each wrong field at its place in `value`.
pub(crate) fn failure(
    summary: &str,
    failed: &ClientError,
    fields: &[Field],
    value: &Value,
) -> Vec<Diagnostic> {
    match failed {
        ClientError::Refused(problem) if !problem.errors.is_empty() => {
            let wrong = problem.errors.iter();
            wrong.map(|error| field(summary, error, Place::of(fields, value, &error.path).path)).collect()
        }
        ClientError::Refused(problem) => {
            let detail = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            vec![error(summary, format!("{detail} ({})", problem.status))]
        }
        other => vec![error(summary, other.to_string())],
    }
}
